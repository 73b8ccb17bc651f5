#include "meshsieve/balance/hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <bit>
#include <cstring>

namespace meshsieve::balance {
namespace {

uint64_t load_le64(const char* at) noexcept {
  uint64_t word = 0;
  std::memcpy(&word, at, sizeof word);
  if constexpr (std::endian::native == std::endian::big) word = __builtin_bswap64(word);
  return word;
}

uint64_t fmix64(uint64_t k) noexcept {
  k ^= k >> 33;
  k *= 0xff51afd7ed558ccdULL;
  k ^= k >> 33;
  k *= 0xc4ceb9fe1a85ec53ULL;
  return k ^ (k >> 33);
}

}  // namespace

uint64_t xxh64(std::string_view bytes, uint64_t seed) noexcept { return XXH64(bytes.data(), bytes.size(), seed); }

uint64_t murmur2_64a(std::string_view bytes, uint64_t seed) noexcept {
  constexpr uint64_t kMultiplier = 0xc6a4a7935bd1e995ULL;
  constexpr int kShift = 47;
  uint64_t h = seed ^ (bytes.size() * kMultiplier);
  size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    uint64_t k = load_le64(bytes.data() + i) * kMultiplier;
    k = (k ^ (k >> kShift)) * kMultiplier;
    h = (h ^ k) * kMultiplier;
  }
  if (i < bytes.size()) {
    uint64_t tail = 0;
    for (size_t b = bytes.size(); b > i; --b) tail = tail << 8 | static_cast<uint8_t>(bytes[b - 1]);
    h = (h ^ tail) * kMultiplier;
  }
  h = (h ^ (h >> kShift)) * kMultiplier;
  return h ^ (h >> kShift);
}

uint64_t murmur3_pair(uint64_t a, uint64_t b, uint32_t seed) noexcept {
  constexpr uint64_t kC1 = 0x87c37b91114253d5ULL;
  constexpr uint64_t kC2 = 0x4cf5ad432745937fULL;
  constexpr uint64_t kLength = 16;
  uint64_t h1 = seed, h2 = seed;
  h1 ^= std::rotl(a * kC1, 31) * kC2;
  h1 = (std::rotl(h1, 27) + h2) * 5 + 0x52dce729;
  h2 ^= std::rotl(b * kC2, 33) * kC1;
  h2 = (std::rotl(h2, 31) + h1) * 5 + 0x38495ab5;
  h1 ^= kLength;
  h2 ^= kLength;
  h1 += h2;
  h2 += h1;
  return fmix64(h1) + fmix64(h2);
}

void xxh64_column(const char* data, const int64_t* offsets, size_t n, uint64_t* out) noexcept {
  for (size_t i = 0; i < n; ++i) out[i] = XXH64(data + offsets[i], static_cast<size_t>(offsets[i + 1] - offsets[i]), 0);
}

void xxh64_fixed(const char* data, size_t width, size_t n, uint64_t* out) noexcept {
  for (size_t i = 0; i < n; ++i, data += width) {
    size_t length = width;
    while (length > 0 && data[length - 1] == '\0') --length;
    out[i] = XXH64(data, length, 0);
  }
}

}  // namespace meshsieve::balance
