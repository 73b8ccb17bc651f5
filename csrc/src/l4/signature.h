// Signatures of sets of small numbers: equal sets have equal signatures, and one element is toggled in constant time.
//
// The XOR of 128 random bits an element. The random key is drawn once a process, so that nobody can choose sets whose
// signatures collide; for 10^6 sets the chance of any collision is below 10^-26. Nothing that is answered or stored may
// depend on the key: number things by order of first appearance.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <random>

namespace meshsieve {

struct Signature {
  uint64_t a = 0, b = 0;
  bool operator==(const Signature&) const = default;
  void toggle(const Signature& other) {
    a ^= other.a;
    b ^= other.b;
  }
};

struct SignatureHash {
  size_t operator()(const Signature& s) const { return s.a; }
};

constexpr uint64_t mixed(uint64_t x) {  // SplitMix64 (Steele, Lea, Flood, 2014)
  x += 0x9e3779b97f4a7c15;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}

inline Signature signature_of(uint32_t element) {
  static const std::array<uint64_t, 2> kKey = [] {
    std::random_device random;
    const auto word = [&random] { return uint64_t{random()} << 32 | random(); };
    return std::array<uint64_t, 2>{word(), word()};
  }();
  return {mixed(kKey[0] + element), mixed(kKey[1] ^ mixed(element))};
}

}  // namespace meshsieve
