// Signatures of sets and sequences of small numbers: equal sets have equal signatures, and one element is toggled in constant time.
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

// Random bits of this process.
inline const std::array<uint64_t, 4>& signature_key() {
  static const std::array<uint64_t, 4> kKey = [] {
    std::random_device random;
    const auto word = [&random] { return uint64_t{random()} << 32 | random(); };
    return std::array<uint64_t, 4>{word(), word(), word() | 1, word() | 1};
  }();
  return kKey;
}

inline Signature signature_of(uint32_t element) {
  const std::array<uint64_t, 4>& key = signature_key();
  return {mixed(key[0] + element), mixed(key[1] ^ mixed(element))};
}

// Of a sequence: the order counts, and so does each repetition. Two products of 128 bits a word, folded (as wyhash does).
class SequenceSignature {
 public:
  void add(uint64_t word) {
    state_.a = folded(state_.a ^ word, signature_key()[2]);
    state_.b = folded(state_.b ^ word, signature_key()[3]);
    ++length_;
  }
  Signature finish() const { return {mixed(state_.a ^ length_), mixed(state_.b + length_)}; }

 private:
  static uint64_t folded(uint64_t x, uint64_t y) {
    const auto product = static_cast<unsigned __int128>(x) * y;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  }
  Signature state_{signature_key()[0], signature_key()[1]};
  uint64_t length_ = 0;
};

}  // namespace meshsieve
