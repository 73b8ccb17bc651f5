#include "meshsieve/balance/rotation.h"

#include <algorithm>
#include <limits>
#include <string>

#include "meshsieve/balance/host_table.h"
#include "meshsieve/errors.h"

namespace meshsieve::balance {
namespace {

void check(const std::vector<uint64_t>& weights) {
  for (size_t i = 0; i < weights.size(); ++i)
    if (weights[i] == 0 || weights[i] > std::numeric_limits<uint32_t>::max())
      throw BalanceError("host " + std::to_string(i) + " has weight " + std::to_string(weights[i]) +
                         "; a weight is 1 to 4294967295");
}

}  // namespace

EdfRotation::EdfRotation(const std::vector<uint64_t>& weights) {
  check(weights);
  for (size_t i = 0; i < weights.size(); ++i) {
    queue_.push_back({1, weights[i], insertions_++, static_cast<int32_t>(i)});
    std::push_heap(queue_.begin(), queue_.end(), later);
  }
}

bool EdfRotation::later(const Due& a, const Due& b) noexcept {
  using Wide = unsigned __int128;
  const Wide left = Wide{a.turns} * b.weight, right = Wide{b.turns} * a.weight;
  return left != right ? left > right : a.inserted > b.inserted;
}

int32_t EdfRotation::next() noexcept {
  if (queue_.empty()) return kNoHost;
  std::pop_heap(queue_.begin(), queue_.end(), later);
  Due& due = queue_.back();
  const int32_t host = due.host;
  ++due.turns;
  due.inserted = insertions_++;
  std::push_heap(queue_.begin(), queue_.end(), later);
  return host;
}

SmoothRotation::SmoothRotation(const std::vector<uint64_t>& weights)
    : weight_(weights.begin(), weights.end()), current_(weights.size(), 0) {
  check(weights);
  for (const int64_t weight : weight_) total_ += weight;
}

int32_t SmoothRotation::next() noexcept {
  if (weight_.empty()) return kNoHost;
  size_t best = 0;
  for (size_t i = 0; i < weight_.size(); ++i) {
    current_[i] += weight_[i];
    if (current_[i] > current_[best]) best = i;
  }
  current_[best] -= total_;
  return static_cast<int32_t>(best);
}

}  // namespace meshsieve::balance
