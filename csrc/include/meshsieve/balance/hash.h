// The hashes that decide which host a key goes to. Every one is fixed by a running system and must not drift.
//
//   xxh64            Envoy's hash of requests, of Maglev keys and of ring entries (XXH64, Yann Collet)
//   murmur2_64a      Envoy's other ring hash: MurmurHash64A (Austin Appleby) with the seed of libstdc++'s std::hash
//   murmur3_pair     Katran's hash of two words: the first half of MurmurHash3_x64_128 over 16 bytes
//
// Source  spec of xxHash (github.com/Cyan4973/xxHash/doc), smhasher; Katran lib/MurmurHash3.h for the argument order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace meshsieve::balance {

uint64_t xxh64(std::string_view bytes, uint64_t seed = 0) noexcept;

inline constexpr uint64_t kStdHashSeed = 0xc70f6907;
uint64_t murmur2_64a(std::string_view bytes, uint64_t seed = kStdHashSeed) noexcept;

uint64_t murmur3_pair(uint64_t a, uint64_t b, uint32_t seed) noexcept;

// xxh64 of every value of a column. Arrow's layout: value i is data[offsets[i], offsets[i+1]).
void xxh64_column(const char* data, const int64_t* offsets, size_t n, uint64_t* out) noexcept;

// numpy's layout of 'S' arrays: n values of `width` bytes, zeros at the end are padding.
void xxh64_fixed(const char* data, size_t width, size_t n, uint64_t* out) noexcept;

// h mod m without a division: one multiplication by the reciprocal is short by at most one multiple of m.
class Modulus {
 public:
  explicit Modulus(uint64_t m) noexcept : m_(m), reciprocal_(~uint64_t{0} / m) {}  // m >= 1

  uint64_t value() const noexcept { return m_; }
  uint64_t of(uint64_t h) const noexcept {
    const auto quotient = static_cast<uint64_t>((static_cast<unsigned __int128>(h) * reciprocal_) >> 64);
    const uint64_t rest = h - quotient * m_;
    return rest >= m_ ? rest - m_ : rest;
  }

 private:
  uint64_t m_;
  uint64_t reciprocal_;
};

}  // namespace meshsieve::balance
