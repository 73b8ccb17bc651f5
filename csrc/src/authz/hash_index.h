// Positions by the hash of what stands there: open addressing, compared by the caller.
//
// What    8 bytes a slot: the upper half of the hash, and the position. A look-up reads one cache line as a rule, and asks
//         the caller to compare only where the upper halves agree.
// Limits  2^32 - 1 entries; only policies insert, so texts of requests cannot make chains longer.
#pragma once

#include <bit>
#include <cstdint>
#include <string_view>
#include <vector>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace meshsieve::authz {

inline uint64_t hash_of(std::string_view text, uint64_t seed) {
  return XXH3_64bits_withSeed(text.data(), text.size(), seed);
}

class HashIndex {
 public:
  template <class Equal>
  uint32_t find(uint64_t hash, Equal equal) const {
    if (slots_.empty()) return kMissing;
    const auto tag = static_cast<uint32_t>(hash >> 32);
    for (size_t at = hash & mask_;; at = (at + 1) & mask_) {
      const Slot slot = slots_[at];
      if (slot.position == kMissing) return kMissing;
      if (slot.tag == tag && equal(slot.position)) return slot.position;
    }
  }
  // The caller has looked before.
  template <class HashAt>
  void insert(uint64_t hash, uint32_t position, HashAt hash_at) {
    if ((size_ + 1) * 3 > slots_.size() * 2) grow(hash_at);
    put(hash, position);
    ++size_;
  }
  size_t bytes() const { return slots_.capacity() * sizeof(Slot); }

  static constexpr uint32_t kMissing = 0xffffffffu;

 private:
  struct Slot {
    uint32_t tag = 0;
    uint32_t position = kMissing;
  };

  void put(uint64_t hash, uint32_t position) {
    size_t at = hash & mask_;
    while (slots_[at].position != kMissing) at = (at + 1) & mask_;
    slots_[at] = {static_cast<uint32_t>(hash >> 32), position};
  }
  template <class HashAt>
  void grow(HashAt hash_at) {
    std::vector<Slot> old(slots_.empty() ? 16 : slots_.size() * 2);
    old.swap(slots_);
    mask_ = slots_.size() - 1;
    for (const Slot& slot : old)
      if (slot.position != kMissing) put(hash_at(slot.position), slot.position);
  }

  std::vector<Slot> slots_;
  size_t mask_ = 0, size_ = 0;
};

}  // namespace meshsieve::authz
