#include "bindings.h"

PYBIND11_MODULE(_core, module) {
  module.doc() = "meshsieve's C++ core: builders and rich objects. Per-packet calls are in meshsieve._fast.";
  bind_exceptions(module);
  bind_model(module);
  bind_classifier(module);
  bind_saved(module);
  bind_capture(module);
  bind_balance(module);
  bind_regex(module);
  bind_flows(module);
  bind_report(module);
  bind_prefix(module);
  bind_requests(module);
  bind_indexes(module);
  bind_http(module);
  bind_routes(module);
}
