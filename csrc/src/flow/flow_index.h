// The hash index of the flow table: from 32 hash bits to a slot.
//
// | hash bits : 32 | slot : 32 |   slot 0xffffffff = empty
//
// Linear probing from the position that the top hash bits name. Removal shifts the following entries back, so there are
// no tombstones and an entry alone is enough to grow and shrink. At most half full.
#pragma once

#include <cstdint>
#include <vector>

namespace meshsieve {

class FlowIndex {
 public:
  static constexpr uint32_t kNone = 0xffffffff;
  static constexpr uint32_t kMaxProbes = 256;

  FlowIndex() : bits_(10), entries_(size_t{1} << bits_, kEmpty) {}

  static uint32_t tag(uint64_t hash) { return static_cast<uint32_t>(hash >> 32); }
  void prefetch(uint32_t tag) const { __builtin_prefetch(&entries_[home(tag)]); }

  // The first slot of this tag within a few entries: what is probably wanted. For prefetching.
  uint32_t guess(uint32_t tag) const {
    size_t at = home(tag);
    for (int i = 0; i < 4; ++i, at = next(at)) {
      if (entries_[at] == kEmpty) return kNone;
      if (static_cast<uint32_t>(entries_[at] >> 32) == tag) return static_cast<uint32_t>(entries_[at]);
    }
    return kNone;
  }

  // The slot of this tag for which same(slot) holds, or kNone.
  template <class Same>
  uint32_t find(uint32_t tag, Same same) const {
    size_t at = home(tag);
    for (uint32_t i = 0; i < kMaxProbes; ++i, at = next(at)) {
      const uint64_t entry = entries_[at];
      if (entry == kEmpty) return kNone;
      if (static_cast<uint32_t>(entry >> 32) == tag && same(static_cast<uint32_t>(entry))) {
        return static_cast<uint32_t>(entry);
      }
    }
    return kNone;
  }

  // Adds an entry. If every entry within kMaxProbes is taken, adds nothing and returns the slot at home: the caller
  // removes that one and tries again.
  uint32_t insert(uint32_t tag, uint32_t slot) {
    if (2 * (size_ + 1) > entries_.size()) grow();
    size_t at = home(tag);
    for (uint32_t i = 0; i < kMaxProbes; ++i, at = next(at)) {
      if (entries_[at] != kEmpty) continue;
      entries_[at] = uint64_t{tag} << 32 | slot;
      ++size_;
      return kNone;
    }
    return static_cast<uint32_t>(entries_[home(tag)]);
  }

  void erase(uint32_t tag, uint32_t slot) {
    size_t at = home(tag);
    while (entries_[at] != (uint64_t{tag} << 32 | slot)) at = next(at);  // it is there
    size_t hole = at;
    for (size_t i = next(at); entries_[i] != kEmpty; i = next(i)) {
      const size_t wanted = home(static_cast<uint32_t>(entries_[i] >> 32));
      // Move it into the hole unless it would then stand before its home.
      if (((i - wanted) & (entries_.size() - 1)) >= ((i - hole) & (entries_.size() - 1))) {
        entries_[hole] = entries_[i];
        hole = i;
      }
    }
    entries_[hole] = kEmpty;
    --size_;
  }

  size_t bytes() const { return entries_.size() * sizeof(uint64_t); }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};

  size_t home(uint32_t tag) const { return tag >> (32 - bits_); }
  size_t next(size_t at) const { return (at + 1) & (entries_.size() - 1); }

  void grow() {
    std::vector<uint64_t> old = std::move(entries_);
    ++bits_;
    entries_.assign(size_t{1} << bits_, kEmpty);
    for (const uint64_t entry : old) {
      if (entry == kEmpty) continue;
      size_t at = home(static_cast<uint32_t>(entry >> 32));
      while (entries_[at] != kEmpty) at = next(at);
      entries_[at] = entry;
    }
  }

  int bits_;
  std::vector<uint64_t> entries_;
  size_t size_ = 0;
};

}  // namespace meshsieve
