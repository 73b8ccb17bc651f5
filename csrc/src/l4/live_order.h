// The order of a list that changes: labels that say which rule comes first, and the position of each.
//
// What    Every rule has a label, a number below 2^31 - 1; labels ascend along the list. A tree compares labels where
//         that of a compiled list compares indices, so putting a rule in or taking one out renumbers nothing. What a
//         look-up answers is the position of the label, found in two reads.
// Labels  Neighbours start far apart. A rule put between two takes the middle; where no number is left between them,
//         the smallest aligned range of numbers around them that is not too full has its rules spread evenly. A range of
//         2^k numbers is too full beyond f^k rules, f so chosen that the whole range is not: ranges get sparser as
//         they grow, which is what keeps moves rare.
// Cost    A change of the list copies it: 12 bytes a rule, about 60 us at 100,000. Moves: O(log n) a rule amortised,
//         wherever rules are put. Position: one read of `first_`, then 16 labels are compared at once, of which the bucket's
//         are eight on average; a binary search where many crowd there.
// Example labels 100, 200, 300; a rule put at position 1 becomes 150, one more at 1 becomes 125: 100, 125, 150, 200, 300.
// Source  Bender, Cole, Demaine, Farach-Colton, Zito, Two simplified algorithms for maintaining order in a list, 2002.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace meshsieve::live {

using Label = int32_t;

// Slots of rules that are not certain are marked, so that an answer needs no look at the rule.
inline constexpr uint32_t kUncertain = uint32_t{1} << 31;
constexpr uint32_t slot_number(uint32_t slot) { return slot & ~kUncertain; }

struct Move {
  uint32_t slot;
  Label from, to;
};

class Order {
 public:
  static constexpr size_t kMostRules = size_t{1} << 24;

  // A fresh list of these slots.
  explicit Order(std::vector<uint32_t> slots = {});

  // Becomes the list `before` with positions taken out and slots put in: slots[i] before the rule there at at[i]. Both
  // ascend. Returns the rules that stay and have another label, in an order in which no rule is given a label that
  // another still has. What this order was does not matter, but its memory is used.
  std::vector<Move> edit(const Order& before, const std::vector<int32_t>& remove, const std::vector<int32_t>& at,
                         const std::vector<uint32_t>& slots);

  // Becomes `before` with slots numbered as the rules stand.
  void renumber(const Order& before);

  size_t size() const { return slots_.size(); }
  Label label(size_t position) const { return labels_[position]; }
  uint32_t slot(size_t position) const { return slots_[position]; }
  const std::vector<uint32_t>& slots() const { return slots_; }
  void prefetch_bucket(Label label) const { __builtin_prefetch(&first_[static_cast<uint32_t>(label) >> shift_]); }
  void prefetch_labels(Label label) const {
    const Label* labels = &labels_[first_[static_cast<uint32_t>(label) >> shift_]];
    __builtin_prefetch(labels);
    __builtin_prefetch(labels + kCounted - 1);
  }
  int32_t position(Label label) const {
    const uint32_t bucket = static_cast<uint32_t>(label) >> shift_;
    const uint32_t p = first_[bucket], end = first_[bucket + 1];
    if (end - p > uint32_t{kCounted}) return static_cast<int32_t>(search(p, end, label));
    Labels four, before{};  // what is behind the bucket is greater, and so does not count
    for (int k = 0; k < kCounted; k += 4) {
      std::memcpy(&four, labels_.data() + p + k, sizeof four);
      before -= four < label;  // -1 where it holds
    }
    return static_cast<int32_t>(p) + before[0] + before[1] + before[2] + before[3];
  }
  size_t bytes() const { return (labels_.size() + slots_.size() + first_.size()) * 4; }

 private:
  static constexpr int kCounted = 16;  // labels compared without a branch; so many stand behind the last one

  using Labels [[gnu::vector_size(16)]] = Label;
  using Moved = std::vector<std::pair<size_t, Label>>;  // position and label before

  uint32_t search(uint32_t begin, uint32_t end, Label label) const;
  void assign_label_run(size_t begin, size_t end, Moved& moved);
  void spread(size_t begin, size_t end, Moved& moved);
  static int shift_for(size_t n);
  void index();
  void index_like(const Order& before, const std::vector<std::pair<uint32_t, int32_t>>& changed);

  std::vector<Label> labels_;   // then kCounted that are greater than any
  std::vector<uint32_t> slots_;
  std::vector<uint32_t> first_;  // bucket -> how many labels are in the buckets before
  int shift_ = 0;
};

}  // namespace meshsieve::live
