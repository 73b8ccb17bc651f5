// The rules of a list that changes, by slot: what a rule matches never changes, only where it stands.
//
// Threads  One writer adds while readers read: a slot is written before the version that names it is published, entries
//          never move, and readers only ask for slots of their version.
#pragma once

#include <array>
#include <bit>
#include <memory>
#include <set>
#include <vector>

#include "meshsieve/rule_set.h"

namespace meshsieve::live {

class RuleStore {
 public:
  struct Place {
    const RuleSet* set;
    int32_t index;
  };

  RuleStore() = default;
  // The rules that `slots` of another store name, in that order. Lists of which no rule is left are let go.
  RuleStore(const RuleStore& from, const std::vector<uint32_t>& slots) {
    std::set<const RuleSet*> left;
    for (const uint32_t slot : slots) {
      const Place& place = from[slot];
      if (left.empty() || place.set != back().set) left.insert(place.set);
      put(place);
    }
    for (const auto& set : from.sets_)
      if (left.contains(set.get())) sets_.push_back(set);
  }

  // Slots of the added rules are consecutive; the first is returned.
  uint32_t add(std::shared_ptr<const RuleSet> rules) {
    const uint32_t first = size_;
    for (int32_t i = 0; i < rules->size(); ++i) put({rules.get(), i});
    sets_.push_back(std::move(rules));
    return first;
  }
  const Place& operator[](uint32_t slot) const {
    const uint32_t number = slot + kFirstBlock;
    const int block = std::bit_width(number) - 1;
    return blocks_[block][number - (uint32_t{1} << block)];
  }
  uint32_t size() const { return size_; }  // the writer's
  const std::vector<std::shared_ptr<const RuleSet>>& sets() const { return sets_; }

 private:
  static constexpr uint32_t kFirstBlock = 1024;

  void put(const Place& place) {
    const uint32_t number = size_++ + kFirstBlock;
    const int block = std::bit_width(number) - 1;
    if (blocks_[block] == nullptr) blocks_[block] = std::make_unique<Place[]>(size_t{1} << block);
    blocks_[block][number - (uint32_t{1} << block)] = place;
  }
  const Place& back() const { return (*this)[size_ - 1]; }

  std::array<std::unique_ptr<Place[]>, 32> blocks_;  // block b: slots from 2^b - kFirstBlock
  std::vector<std::shared_ptr<const RuleSet>> sets_;
  uint32_t size_ = 0;
};

// The rules in `slots`, in that order, as a list of its own, without skips.
std::shared_ptr<const RuleSet> rule_set_of(const RuleStore& store, const std::vector<uint32_t>& slots);

}  // namespace meshsieve::live
