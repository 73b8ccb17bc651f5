// The rules of a list that changes, by slot: what a rule matches never changes, only where it stands.
//
// Threads  One writer adds while readers read: a slot is written before the version that names it is published, entries
//          never move, and readers only ask for slots of their version.
#pragma once

#include <array>
#include <bit>
#include <memory>
#include <vector>

#include "meshsieve/rule_set.h"

namespace meshsieve::live {

class RuleStore {
 public:
  struct Place {
    const RuleSet* set;
    int32_t index;
  };

  // Slots of the added rules are consecutive; the first is returned.
  uint32_t add(std::shared_ptr<const RuleSet> rules) {
    const uint32_t first = size_;
    for (int32_t i = 0; i < rules->size(); ++i) {
      const uint32_t number = size_ + kFirstBlock;
      const int block = std::bit_width(number) - 1;
      if (blocks_[block] == nullptr) blocks_[block] = std::make_unique<Place[]>(size_t{1} << block);
      blocks_[block][number - (uint32_t{1} << block)] = {rules.get(), i};
      ++size_;
    }
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

  std::array<std::unique_ptr<Place[]>, 32> blocks_;  // block b: slots from 2^b - kFirstBlock
  std::vector<std::shared_ptr<const RuleSet>> sets_;
  uint32_t size_ = 0;
};

// The rules in `slots`, in that order, as a list of its own, without skips.
std::shared_ptr<const RuleSet> rule_set_of(const RuleStore& store, const std::vector<uint32_t>& slots);

}  // namespace meshsieve::live
