// AVX2 with BMI: every x86 server since Haswell (2013) and Zen (2017).
#if defined(__x86_64__)
#include <immintrin.h>

#include "simd/backends.h"

namespace meshsieve::simd {

#pragma GCC push_options
#pragma GCC target("avx2,bmi,bmi2,lzcnt,popcnt")
namespace avx2 {
#define MESHSIEVE_LANES 256
#include "l4/bitmap_kernel-inl.h"
#include "l4/classes_kernel-inl.h"
#include "l4/forest_kernel-inl.h"
#include "l4/sparse_kernel-inl.h"
#undef MESHSIEVE_LANES
}  // namespace avx2
#pragma GCC pop_options

namespace {
bool supported() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
         __builtin_cpu_supports("popcnt");
}
}  // namespace

extern const Backend kAvx2;
const Backend kAvx2 = {
    "avx2", supported, avx2::search32, avx2::search128, avx2::first_common_bit, avx2::first_sparse_bit,
    avx2::forest_first_match,
};

}  // namespace meshsieve::simd
#endif
