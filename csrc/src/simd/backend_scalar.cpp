// Plain C++: the truth that the other backends are compared with, and what runs on every machine.
#include "simd/backends.h"

namespace meshsieve::simd {
namespace scalar {
#define MESHSIEVE_LANES 0
#include "l4/bitmap_kernel-inl.h"
#include "l4/classes_kernel-inl.h"
#include "l4/forest_kernel-inl.h"
#include "l4/sparse_kernel-inl.h"
#undef MESHSIEVE_LANES
}  // namespace scalar

extern const Backend kScalar;
const Backend kScalar = {
    "scalar", [] { return true; }, scalar::search32, scalar::search128, scalar::first_common_bit, scalar::first_sparse_bit,
    scalar::forest_first_match,
};

}  // namespace meshsieve::simd
