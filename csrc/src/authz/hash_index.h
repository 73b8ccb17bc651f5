// Positions by the hash of what stands there, made for texts that are not there: most probes of a request fail.
//
// What    Buckets of eight: eight 16-bit tags, compared at once, and eight positions. A bucket that is full goes on in the
//         next. The caller compares where tags agree, once in 10,000 failing probes. `seal` gives the table its final size.
// Cost    A failing probe: one bucket, seldom two, no branch that is hard to predict. Memory: 6 bytes a slot, 3/4 full.
// Limits  2^32 - 1 entries; only policies insert, so texts of requests cannot make chains longer.
// Source  Fan, Andersen, Kaminsky, MemC3, NSDI 2013 (tags before keys); buckets of vectors as in Abseil's Swiss tables.
#pragma once

#include <cstdint>
#include <cstring>
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
    if (buckets_.empty()) return kMissing;
    const uint16_t tag = tag_of(hash);
    for (size_t at = start(hash);; at = next(at)) {
      const Bucket& bucket = buckets_[at];
      if (bucket.has(tag)) {
        for (size_t i = 0; i < kSlots; ++i)
          if (bucket.tag[i] == tag && equal(bucket.position[i])) return bucket.position[i];
      }
      if (bucket.tag[kSlots - 1] == kFree) return kMissing;
    }
  }
  void prefetch(uint64_t hash) const {
    if (!buckets_.empty()) __builtin_prefetch(&buckets_[start(hash)]);
  }
  // The caller has looked before. hash_at(position) is asked when the table grows.
  template <class HashAt>
  void insert(uint64_t hash, uint32_t position, HashAt hash_at) {
    if ((size_ + 1) * 4 > buckets_.size() * kSlots * 3) resize(buckets_.empty() ? 2 : buckets_.size() * 2, hash_at);
    put(hash, position);
    ++size_;
  }
  template <class HashAt>
  void seal(HashAt hash_at) {
    if (size_ > 0) resize(size_ * 4 / 3 / kSlots + 1, hash_at);
  }
  size_t bytes() const { return buckets_.capacity() * sizeof(Bucket); }

 private:
  static constexpr size_t kSlots = 8;
  static constexpr uint16_t kFree = 0;  // slots of a bucket are taken in order

  struct Bucket {
    uint16_t tag[kSlots] = {};
    uint32_t position[kSlots] = {};

    bool has(uint16_t wanted) const {
      typedef uint16_t Tags __attribute__((vector_size(16)));
      Tags tags;
      std::memcpy(&tags, tag, sizeof tags);
      const auto equal = tags == wanted;
      uint64_t halves[2];
      std::memcpy(halves, &equal, sizeof halves);
      return (halves[0] | halves[1]) != 0;
    }
  };
  static_assert(sizeof(Bucket) == 48);

  static uint16_t tag_of(uint64_t hash) {
    const auto tag = static_cast<uint16_t>(hash);
    return tag == kFree ? 1 : tag;
  }
  // The upper half of the hash, scaled to the table (Lemire, Fast random integer generation in an interval, 2019).
  size_t start(uint64_t hash) const { return static_cast<size_t>((hash >> 32) * buckets_.size() >> 32); }
  size_t next(size_t at) const { return at + 1 == buckets_.size() ? 0 : at + 1; }
  void put(uint64_t hash, uint32_t position) {
    size_t at = start(hash);
    while (buckets_[at].tag[kSlots - 1] != kFree) at = next(at);
    Bucket& bucket = buckets_[at];
    size_t slot = 0;
    while (bucket.tag[slot] != kFree) ++slot;
    bucket.tag[slot] = tag_of(hash);
    bucket.position[slot] = position;
  }
  template <class HashAt>
  void resize(size_t n, HashAt hash_at) {
    const std::vector<Bucket> old = std::exchange(buckets_, std::vector<Bucket>(n));
    for (const Bucket& bucket : old)
      for (size_t i = 0; i < kSlots && bucket.tag[i] != kFree; ++i) put(hash_at(bucket.position[i]), bucket.position[i]);
  }

  std::vector<Bucket> buckets_;
  size_t size_ = 0;
};

}  // namespace meshsieve::authz
