// Strings to numbers, many small maps in one table: the key is a tag (which map) and bytes.
//
// What    Open addressing with linear probing, at most half full; keys lie in one buffer and are compared in full.
// Why     Host names and header values are looked up once or twice a request; one probe is one cache line, which a
//         batch fetches ahead.
// Limits  2^32 - 2 keys. The hash is seeded at random for each table, so that nobody who chooses the keys of a table or
//         of a look-up can make probes long.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace meshsieve::route {

constexpr uint32_t kNone = 0xFFFFFFFF;

class StringTable {
 public:
  StringTable();

  // Replaces the value of a key that is there. Call freeze() afterwards.
  void put(uint32_t tag, std::string_view key, uint32_t value);
  void freeze();

  uint64_t hash(uint32_t tag, std::string_view key) const;
  void prefetch(uint64_t hash) const {
    if (!slots_.empty()) __builtin_prefetch(&slots_[hash & mask_]);
  }
  // kNone if there is no such key.
  uint32_t find(uint64_t hash, uint32_t tag, std::string_view key) const;
  uint32_t find(uint32_t tag, std::string_view key) const { return find(hash(tag, key), tag, key); }
  size_t size() const { return keys_.size(); }
  size_t bytes() const { return slots_.size() * sizeof(Slot) + text_.size() + keys_.size() * sizeof(Key); }

 private:
  struct Key {
    uint64_t begin;
    uint32_t size;
    uint32_t tag;
    uint32_t value;
  };
  struct Slot {  // two in a cache line
    uint64_t hash;
    uint64_t begin;
    uint32_t size;
    uint32_t tag;
    uint32_t value;
    uint32_t used;
  };
  static_assert(sizeof(Slot) == 32);

  uint64_t seed_;
  std::string text_;
  std::vector<Key> keys_;
  std::vector<Slot> slots_;
  uint64_t mask_ = 0;
};

}  // namespace meshsieve::route
