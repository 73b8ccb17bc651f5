// A prefix table that changes while it is looked up in.
//
// What    Two sides, each with a trie a family (prefix_trie.h) and the values. Look-ups read the one that is active; an
//         update waits until nobody reads the other, makes the changes there that it has missed, then its own, and
//         makes it active.
// Why     A table that never changes is flattened into intervals and searched faster (prefix_table.h), but one change
//         would flatten it all again; here it costs a few hundred nanoseconds.
// Threads Any number may look up, without waiting; one changes at a time (the caller sees to that), and waits for batches
//         that began before the update before. A look-up counts itself in and out: two atomic additions a call.
// Memory  Two times the tries: 2 MB for the roots, then about 100 bytes a prefix.
// Source  Ramalhete and Correia, Left-Right, 2015.
#pragma once

#include <array>
#include <atomic>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "meshsieve/prefix_table.h"
#include "prefix/prefix_trie.h"

namespace meshsieve::prefix {

class ChangingPrefixes {
 public:
  using Prefix = PrefixTable::Prefix;
  using Change = PrefixTable::Change;
  using Items = std::vector<std::pair<Prefix, int64_t>>;

  explicit ChangingPrefixes(const Items& items);

  // As PrefixTable::apply.
  bool apply(std::span<const Change> changes);
  // For the thread that may change.
  std::optional<int64_t> exact(const Prefix& prefix) const;
  Items items() const;  // in the order of Prefix
  size_t size() const { return size_; }
  size_t bytes() const;

  template <class Address>
  int64_t lookup(Address address, int64_t missing) const;
  // As PrefixTable::lookup_batch.
  void lookup_batch(const void* addresses, uint32_t width, const uint8_t* is_v6, size_t n, int64_t missing,
                    int64_t* out) const;

 private:
  struct Tables {
    Trie<uint32_t> v4;
    Trie<U128> v6;
    std::vector<int64_t> value = {0};  // by id
  };
  struct Side {
    Tables tables;
    mutable std::atomic<uint32_t> readers = 0;
  };
  struct Step {  // of an update, as the other side repeats it
    Prefix prefix;
    uint32_t id;
    int64_t value;
    enum { kInsert, kSet, kErase } what;
  };
  class Reading;

  static uint32_t find(const Tables& tables, const Prefix& prefix);
  static void make(Tables& tables, const Step& step);
  Step step_of(const Tables& tables, const Change& change);
  const Tables& active() const { return sides_[active_].tables; }

  std::array<Side, 2> sides_;
  std::atomic<uint32_t> active_ = 0;
  std::vector<Step> missed_;  // by the side that is not active
  bool torn_ = false;         // that side was left half changed
  std::vector<uint32_t> free_ids_;
  uint32_t next_id_ = 1;
  size_t size_ = 0;
};

}  // namespace meshsieve::prefix
