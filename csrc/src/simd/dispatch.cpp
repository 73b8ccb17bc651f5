#include <cstdlib>

#include "meshsieve/errors.h"
#include "simd/backends.h"

namespace meshsieve::simd {

extern const Backend kScalar;
#if defined(__x86_64__)
extern const Backend kAvx2;
extern const Backend kAvx512;
#endif

const std::vector<const Backend*>& backends() {
  static const std::vector<const Backend*> kBackends = {
#if defined(__x86_64__)
      &kAvx512, &kAvx2,
#endif
      &kScalar};
  return kBackends;
}

const Backend& backend_named(const std::string& name) {
  const char* variable = std::getenv("MESHSIEVE_BACKEND");
  const bool from_variable = name == "auto" && variable != nullptr && *variable != '\0';
  const std::string wanted = from_variable ? variable : name;
  std::string known;
  for (const Backend* backend : backends()) {
    if (wanted == "auto" ? backend->supported() : wanted == backend->name) {
      if (!backend->supported())
        throw BackendError("the backend '" + wanted + "' needs instructions that this CPU lacks; use 'auto' or 'scalar'");
      return *backend;
    }
    known += std::string(", ") + backend->name;
  }
  throw BackendError("no backend is called '" + wanted + "'" + (from_variable ? " (from MESHSIEVE_BACKEND)" : "") +
                     "; there are: auto" + known);
}

}  // namespace meshsieve::simd
