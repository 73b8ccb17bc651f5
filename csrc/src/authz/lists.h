// The rules that hang under a test, by group.
//
// What    One hash from (group, test) to a run of entries; an entry has what is needed to run its rule, and one more test
//         that the rule needs, so that most rules end without touching their code.
// Cost    A look-up: one cache line as a rule. Memory: 16 bytes a list at 3/4 load, 12 bytes an entry.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "authz/radix.h"

namespace meshsieve::authz {

struct Entry {
  uint32_t rule;
  uint32_t code;  // first step; kNone: holds without any
  uint32_t need;  // a test that the rule needs; kNone
};

class Lists {
 public:
  struct Hung {
    uint32_t group, test;
    Entry entry;
  };
  // `hung` in any order; entries of a list come in order of rules, each once.
  void build(std::vector<Hung>& hung) {
    std::sort(hung.begin(), hung.end(), [](const Hung& a, const Hung& b) {
      return a.group != b.group ? a.group < b.group : a.test != b.test ? a.test < b.test : a.entry.rule < b.entry.rule;
    });
    std::vector<Slot> lists;
    for (size_t i = 0; i < hung.size(); ++i) {
      if (lists.empty() || lists.back().group != hung[i].group || lists.back().test != hung[i].test)
        lists.push_back({hung[i].group, hung[i].test, static_cast<uint32_t>(entries_.size()), 0});
      if (lists.back().count > 0 && entries_.back().rule == hung[i].entry.rule) continue;
      entries_.push_back(hung[i].entry);
      longest_ = std::max(longest_, ++lists.back().count);
    }
    entries_.shrink_to_fit();
    slots_.resize(lists.empty() ? 0 : lists.size() * 4 / 3 + 2);
    for (const Slot& list : lists) {
      size_t at = start(list.group, list.test);
      while (slots_[at].count != 0) at = next(at);
      slots_[at] = list;
    }
  }
  std::span<const Entry> find(uint32_t group, uint32_t test) const {
    if (slots_.empty()) return {};
    for (size_t at = start(group, test); slots_[at].count != 0; at = next(at))
      if (slots_[at].test == test && slots_[at].group == group) return {entries_.data() + slots_[at].first, slots_[at].count};
    return {};
  }
  void prefetch(uint32_t group, uint32_t test) const {
    if (!slots_.empty()) __builtin_prefetch(&slots_[start(group, test)]);
  }
  uint32_t longest() const { return longest_; }
  size_t bytes() const { return slots_.capacity() * sizeof(Slot) + entries_.capacity() * sizeof(Entry); }

 private:
  struct Slot {
    uint32_t group = 0, test = 0, first = 0, count = 0;  // count 0: free
  };
  size_t start(uint32_t group, uint32_t test) const {
    const uint64_t mixed = (uint64_t{group} << 32 | test) * 0x9e3779b97f4a7c15u;
    return static_cast<size_t>((mixed >> 32) * slots_.size() >> 32);
  }
  size_t next(size_t at) const { return at + 1 == slots_.size() ? 0 : at + 1; }

  std::vector<Slot> slots_;
  std::vector<Entry> entries_;
  uint32_t longest_ = 0;
};

}  // namespace meshsieve::authz
