// Positions by the hash of what stands there: open addressing, compared by the caller.
//
// What    8 bytes a slot: half of the hash, and the position. A look-up reads one cache line as a rule, and asks the
//         caller to compare only where the halves agree. `seal` shrinks the table to its final size.
// Limits  2^32 - 1 entries; only policies insert, so texts of requests cannot make chains longer.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace meshsieve::authz {

inline uint64_t hash_of(std::string_view text, uint64_t seed) {
  return XXH3_64bits_withSeed(text.data(), text.size(), seed);
}

class HashIndex {
 public:
  static constexpr uint32_t kMissing = 0xffffffffu;

  template <class Equal>
  uint32_t find(uint64_t hash, Equal equal) const {
    if (slots_.empty()) return kMissing;
    const auto tag = static_cast<uint32_t>(hash);
    for (size_t at = start(hash);; at = at + 1 == slots_.size() ? 0 : at + 1) {
      const Slot slot = slots_[at];
      if (slot.position == kMissing) return kMissing;
      if (slot.tag == tag && equal(slot.position)) return slot.position;
    }
  }
  void prefetch(uint64_t hash) const {
    if (!slots_.empty()) __builtin_prefetch(&slots_[start(hash)]);
  }
  // The caller has looked before. hash_at(position) is asked when the table grows.
  template <class HashAt>
  void insert(uint64_t hash, uint32_t position, HashAt hash_at) {
    if ((size_ + 1) * 4 > slots_.size() * 3) resize(slots_.empty() ? 12 : slots_.size() * 2, hash_at);
    put(hash, position);
    ++size_;
  }
  template <class HashAt>
  void seal(HashAt hash_at) {
    if (size_ > 0) resize(size_ * 4 / 3 + 2, hash_at);
  }
  size_t bytes() const { return slots_.capacity() * sizeof(Slot); }

 private:
  struct Slot {
    uint32_t tag = 0;
    uint32_t position = kMissing;
  };

  // The upper half of the hash, scaled to the table (Lemire, Fast random integer generation in an interval, 2019).
  size_t start(uint64_t hash) const { return static_cast<size_t>((hash >> 32) * slots_.size() >> 32); }
  void put(uint64_t hash, uint32_t position) {
    size_t at = start(hash);
    while (slots_[at].position != kMissing) at = at + 1 == slots_.size() ? 0 : at + 1;
    slots_[at] = {static_cast<uint32_t>(hash), position};
  }
  template <class HashAt>
  void resize(size_t n, HashAt hash_at) {
    const std::vector<Slot> old = std::exchange(slots_, std::vector<Slot>(n));
    for (const Slot& slot : old)
      if (slot.position != kMissing) put(hash_at(slot.position), slot.position);
  }

  std::vector<Slot> slots_;
  size_t size_ = 0;
};

}  // namespace meshsieve::authz
