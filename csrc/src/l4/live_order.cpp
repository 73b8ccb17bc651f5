#include "l4/live_order.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace meshsieve::live {
namespace {

constexpr int kLabelBits = 31;
constexpr int64_t kLabels = (int64_t{1} << kLabelBits) - 1;  // the last number means "no rule" in the trees
constexpr Label kUnlabelled = -1;
constexpr Label kNoLabel = static_cast<Label>(kLabels);
constexpr size_t kRulesABucket = 4;  // of the whole range, of which a fresh list takes half

}  // namespace

Order::Order(std::vector<uint32_t> slots) : labels_(slots.size() + kCounted, kNoLabel), slots_(std::move(slots)) {
  // The middle half, so that rules can be put before the first and after the last.
  const auto n = static_cast<int64_t>(size());
  for (int64_t i = 0; i < n; ++i)
    labels_[static_cast<size_t>(i)] = static_cast<Label>(kLabels / 4 + i * (kLabels / 2) / n);
  index();
}

std::vector<Move> Order::edit(const Order& before, const std::vector<int32_t>& remove, const std::vector<int32_t>& at,
                              const std::vector<uint32_t>& slots) {
  const size_t n = before.size() - remove.size() + at.size();
  labels_.resize(n + kCounted);
  std::fill(labels_.end() - kCounted, labels_.end(), kNoLabel);
  slots_.resize(n);
  std::vector<std::pair<size_t, size_t>> runs;  // of positions without a label
  size_t from = 0, to = 0, put = 0;
  const auto keep_until = [&](size_t position) {
    std::copy(before.labels_.begin() + static_cast<ptrdiff_t>(from),
              before.labels_.begin() + static_cast<ptrdiff_t>(position), labels_.begin() + static_cast<ptrdiff_t>(to));
    std::copy(before.slots_.begin() + static_cast<ptrdiff_t>(from),
              before.slots_.begin() + static_cast<ptrdiff_t>(position), slots_.begin() + static_cast<ptrdiff_t>(to));
    to += position - from;
    from = position;
  };
  const auto put_until = [&](size_t position) {
    for (; put < at.size() && static_cast<size_t>(at[put]) <= position; ++put) {
      keep_until(static_cast<size_t>(at[put]));
      if (runs.empty() || runs.back().second != to) runs.push_back({to, to});
      labels_[to] = kUnlabelled;
      slots_[to++] = slots[put];
      runs.back().second = to;
    }
  };
  for (const int32_t gone : remove) {
    put_until(static_cast<size_t>(gone));
    keep_until(static_cast<size_t>(gone));
    ++from;
  }
  put_until(before.size());
  keep_until(before.size());

  Moved moved;
  for (const auto& [begin, end] : runs)
    if (labels_[begin] == kUnlabelled) assign_label_run(begin, end, moved);
  std::vector<Move> moves;
  std::stable_sort(moved.begin(), moved.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (size_t i = 0; i < moved.size(); ++i)
    if (i == 0 || moved[i].first != moved[i - 1].first)  // the first of several moves knows the label before
      moves.push_back({slots_[moved[i].first], moved[i].second, labels_[moved[i].first]});
  std::erase_if(moves, [](const Move& move) { return move.from == move.to; });
  // Upward moves from the last, then downward moves from the first.
  const auto up = std::stable_partition(moves.begin(), moves.end(), [](const Move& m) { return m.to > m.from; });
  std::reverse(moves.begin(), up);

  if (!moves.empty() || shift_for(n) != before.shift_) {
    index();
    return moves;
  }
  std::vector<std::pair<uint32_t, int32_t>> changed;  // bucket, rules more or less; ascending
  for (const int32_t gone : remove) changed.push_back({static_cast<uint32_t>(before.label(gone)) >> before.shift_, -1});
  const auto n_removed = static_cast<ptrdiff_t>(changed.size());
  for (const auto& [begin, end] : runs)
    for (size_t p = begin; p < end; ++p) changed.push_back({static_cast<uint32_t>(labels_[p]) >> before.shift_, 1});
  std::inplace_merge(changed.begin(), changed.begin() + n_removed, changed.end());
  index_like(before, changed);
  return moves;
}

void Order::renumber(const Order& before) {
  *this = before;
  for (uint32_t p = 0; p < slots_.size(); ++p) slots_[p] = p | (slots_[p] & kUncertain);
}

// Labels for the positions [begin, end), which are all that lack one between their neighbours.
void Order::assign_label_run(size_t begin, size_t end, Moved& moved) {
  const int64_t before = begin == 0 ? -1 : labels_[begin - 1];
  const int64_t after = end == size() ? kLabels : labels_[end];
  const auto n = static_cast<int64_t>(end - begin);
  int64_t step = (after - before) / (n + 1);
  if (step == 0) return spread(begin, end, moved);
  // At the ends of the list rules keep the usual distance, so that more fit.
  const int64_t usual = kLabels / 2 / static_cast<int64_t>(size() + 1) + 1;
  if (begin == 0 || end == size()) step = std::min(step, usual);
  const int64_t start = begin == 0 && end != size() ? after - step * (n + 1) : before;
  for (int64_t k = 0; k < n; ++k) labels_[begin + static_cast<size_t>(k)] = static_cast<Label>(start + step * (k + 1));
}

void Order::spread(size_t begin, size_t end, Moved& moved) {
  const int64_t near = begin > 0 ? labels_[begin - 1] : 0;
  const double most = std::max(4.0 * static_cast<double>(size()), std::ldexp(1.0, 20));
  const double per_bit = std::log2(most) / kLabelBits;
  for (int bits = 1; bits <= kLabelBits; ++bits) {
    const int64_t low = near >> bits << bits;
    const int64_t high = std::min(low + (int64_t{1} << bits), kLabels);
    while (begin > 0 && labels_[begin - 1] >= low) --begin;
    while (end < size() && (labels_[end] == kUnlabelled || labels_[end] < high)) ++end;
    const auto n = static_cast<int64_t>(end - begin);
    if (bits < kLabelBits && static_cast<double>(n) > std::exp2(per_bit * bits)) continue;
    for (int64_t k = 0; k < n; ++k) {
      Label& label = labels_[begin + static_cast<size_t>(k)];
      if (label != kUnlabelled) moved.push_back({begin + static_cast<size_t>(k), label});
      label = static_cast<Label>(low + (2 * k + 1) * (high - low) / (2 * n));
    }
    return;
  }
}

int Order::shift_for(size_t n) { return kLabelBits - std::bit_width(std::bit_ceil(n / kRulesABucket + 1) - 1); }

void Order::index_like(const Order& before, const std::vector<std::pair<uint32_t, int32_t>>& changed) {
  shift_ = before.shift_;
  first_.resize(before.first_.size());
  uint32_t more = 0;  // modulo 2^32
  size_t b = 0;
  const auto until = [&](size_t end) {
    for (; b < end; ++b) first_[b] = before.first_[b] + more;
  };
  for (const auto& [bucket, rules] : changed) {
    until(size_t{bucket} + 1);
    more += static_cast<uint32_t>(rules);
  }
  until(first_.size());
}

void Order::index() {
  shift_ = shift_for(size());
  first_.assign((size_t{1} << (kLabelBits - shift_)) + 1, 0);
  for (size_t p = 0; p < size(); ++p) ++first_[(static_cast<uint32_t>(labels_[p]) >> shift_) + 1];
  for (size_t b = 1; b < first_.size(); ++b) first_[b] += first_[b - 1];
}

uint32_t Order::search(uint32_t begin, uint32_t end, Label label) const {
  return static_cast<uint32_t>(std::lower_bound(labels_.begin() + begin, labels_.begin() + end, label) -
                               labels_.begin());
}

}  // namespace meshsieve::live
