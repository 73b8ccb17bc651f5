// AVX-512 F, BW, DQ, VL: Skylake-SP (2017) and Zen 4 (2022) onwards.
#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
// The intrinsics' own "undefined" registers (_mm_undefined_si128, GCC bug 105593): nothing of ours is read uninitialized.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "simd/backends.h"

namespace meshsieve::simd {

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,bmi,bmi2,lzcnt,popcnt")
namespace avx512 {
#define MESHSIEVE_LANES 512
#include "l4/bitmap_kernel-inl.h"
#include "l4/classes_kernel-inl.h"
#include "l4/forest_kernel-inl.h"
#include "l4/sparse_kernel-inl.h"
#undef MESHSIEVE_LANES
}  // namespace avx512
#pragma GCC pop_options

namespace {
bool supported() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("bmi2");
}
}  // namespace

extern const Backend kAvx512;
const Backend kAvx512 = {
    "avx512", supported, avx512::search32, avx512::search128, avx512::first_common_bit, avx512::first_sparse_bit,
    avx512::forest_first_match,
};

}  // namespace meshsieve::simd
#endif
