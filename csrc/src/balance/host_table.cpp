#include "meshsieve/balance/host_table.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "meshsieve/balance/hash.h"
#include "meshsieve/errors.h"

namespace meshsieve::balance {
namespace {

struct EmptyTable final : HostTable {
  int32_t pick(uint64_t, uint32_t) const noexcept override { return kNoHost; }
  size_t bytes() const noexcept override { return sizeof *this; }
};

class LevelTable final : public HostTable {
 public:
  LevelTable(const std::array<uint8_t, kPriorityResidues>& level_of, std::vector<HostTablePtr> levels)
      : levels_(std::move(levels)) {
    for (size_t x = 0; x < kPriorityResidues; ++x) {
      if (level_of[x] >= levels_.size()) throw BalanceError("a residue names a priority that has no table");
      table_of_[x] = levels_[level_of[x]].get();
    }
  }

  int32_t pick(uint64_t h, uint32_t attempt) const noexcept override {
    return table_of_[h % kPriorityResidues]->pick(h, attempt);
  }

  size_t bytes() const noexcept override {
    size_t sum = sizeof *this;
    for (const HostTablePtr& level : levels_) sum += level->bytes();
    return sum;
  }

 private:
  std::array<const HostTable*, kPriorityResidues> table_of_;
  std::vector<HostTablePtr> levels_;
};

class CumulativeTable final : public HostTable {
 public:
  explicit CumulativeTable(std::vector<uint64_t> bounds) : bounds_(std::move(bounds)), total_(bounds_.back()) {}

  int32_t pick(uint64_t v, uint32_t) const noexcept override {
    const uint64_t rest = total_.of(v);
    return static_cast<int32_t>(std::upper_bound(bounds_.begin(), bounds_.end(), rest) - bounds_.begin());
  }

  size_t bytes() const noexcept override { return sizeof *this + bounds_.size() * sizeof bounds_[0]; }

 private:
  std::vector<uint64_t> bounds_;  // inclusive prefix sums
  Modulus total_;
};

class UniformTable final : public HostTable {
 public:
  explicit UniformTable(int32_t n) : n_(static_cast<uint64_t>(n)) {}
  int32_t pick(uint64_t h, uint32_t) const noexcept override { return static_cast<int32_t>(n_.of(h)); }
  size_t bytes() const noexcept override { return sizeof *this; }

 private:
  Modulus n_;
};

}  // namespace

void HostTable::pick_batch(const uint64_t* h, size_t n, uint32_t attempt, int32_t* out) const noexcept {
  for (size_t i = 0; i < n; ++i) out[i] = pick(h[i], attempt);
}

HostTablePtr empty_table() {
  static const HostTablePtr table = std::make_shared<EmptyTable>();
  return table;
}

HostTablePtr level_table(const std::array<uint8_t, kPriorityResidues>& level_of, std::vector<HostTablePtr> levels) {
  for (HostTablePtr& level : levels)
    if (!level) level = empty_table();
  return std::make_shared<LevelTable>(level_of, std::move(levels));
}

HostTablePtr cumulative_table(const std::vector<uint64_t>& weights) {
  constexpr uint64_t kMax = std::numeric_limits<uint32_t>::max();
  std::vector<uint64_t> bounds;
  uint64_t sum = 0;
  for (const uint64_t weight : weights) {
    if (weight > kMax - sum) throw BalanceError("the sum of weights exceeds 4294967295");
    bounds.push_back(sum += weight);
  }
  if (sum == 0) throw BalanceError("the sum of weights must be greater than 0");
  return std::make_shared<CumulativeTable>(std::move(bounds));
}

HostTablePtr uniform_table(int32_t n_hosts) {
  if (n_hosts <= 0) return empty_table();
  return std::make_shared<UniformTable>(n_hosts);
}

int32_t pick_bounded(const HostTable& table, const std::vector<Share>& shares, const std::vector<uint64_t>& active,
                     uint32_t factor, uint64_t h, uint32_t attempt) {
  const int32_t first = table.pick(h, attempt);
  if (first == kNoHost) return kNoHost;
  uint64_t all = 0;
  for (const uint64_t count : active) all += count;
  const uint64_t slots_in_all = ((all + 1) * factor + 99) / 100;
  const auto overload = [&](const Share& share) {
    const double slots = std::max(1.0, std::ceil(static_cast<double>(slots_in_all) * share.weight));
    return static_cast<double>(active[static_cast<size_t>(share.id)]) / slots;
  };

  const auto picked = std::find_if(shares.begin(), shares.end(), [&](const Share& s) { return s.id == first; });
  if (picked == shares.end()) throw BalanceError("the table picks a host that is not among the shares");
  double least = overload(*picked);
  if (least <= 1.0) return first;

  std::vector<uint32_t> index(shares.size());
  std::iota(index.begin(), index.end(), 0u);
  std::mt19937 draw(static_cast<uint32_t>(h));
  int32_t answer = first;
  for (uint32_t i = 0, n = static_cast<uint32_t>(shares.size()); i < n; ++i) {
    const uint32_t left = n - i;
    uint32_t x = left;
    while (x >= left) x = static_cast<uint32_t>(draw() / ((uint64_t{1} << 32) / left));
    std::swap(index[i], index[i + x]);
    const Share& other = shares[index[i]];
    if (other.id == first) continue;
    const double load = overload(other);
    if (load <= 1.0) return other.id;
    if (load < least) {
      least = load;
      answer = other.id;
    }
  }
  return answer;
}

}  // namespace meshsieve::balance
