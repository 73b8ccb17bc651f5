// Narrow parts of a sweep that can be others: fewer rows for the same classes.
//
// What    A class is the union of the sets of its wide and of its narrow part (classes_sweep.cpp), so its narrow part may
//         as well name sets that the wide part names already. A narrow part N seen with a wide part W becomes N', if N'
//         is one that is there anyway and N <= N' <= N + W. Parts that no class uses any more are dropped.
// Why     A set that a rule uses is often a union of groups, stored without what its parts have twice. A host of group A
//         inside a network of group B then begins no interval in the sets of A + B: N is "sets of A, without those of A
//         + B", another one for each combination of networks around. All of them become "sets of A". Of 13,000
//         narrow parts of a side 3,400 are left with 10,000 rules over 500 groups, as with 2,000 rules.
// Cost    For each different pair (W, N): the narrow parts that share the rarest set of N are looked at, most of them only
//         through a filter of 256 bits, at most kMostLooks of them.
// Example sets {A}, {A + B}; hosts of A are in {A}, {A + B} outside B's network, and inside it in {A} by their own
//         interval: N = {A}, W = {A + B}. N' = {A, A + B} is taken.
#include <algorithm>
#include <array>
#include <unordered_map>

#include "l4/classes_table.h"
#include "l4/signature.h"

namespace meshsieve::classes {
namespace {

constexpr size_t kMostLooks = 256;

// 256 bits, one an element: what is not within the filter of a list is not within the list.
struct Filter {
  std::array<uint64_t, 4> bits{};

  Filter(const uint32_t* from, const uint32_t* to) {
    for (; from != to; ++from) {
      const uint64_t hash = mixed(*from);
      bits[hash >> 6 & 3] |= uint64_t{1} << (hash & 63);
    }
  }
  bool within(const Filter& other) const {
    uint64_t outside = 0;
    for (size_t i = 0; i < bits.size(); ++i) outside |= bits[i] & ~other.bits[i];
    return outside == 0;
  }
  Filter with(const Filter& other) const {
    Filter both = *this;
    for (size_t i = 0; i < bits.size(); ++i) both.bits[i] |= other.bits[i];
    return both;
  }
};

class Absorber {
 public:
  Absorber(const Lists& wide, const Lists& narrow, const std::vector<PartPair>& parts)
      : wide_(wide), narrow_(narrow), seen_(narrow.size()) {
    for (uint32_t w = 0; w < wide.size(); ++w) wide_filter_.emplace_back(wide.from(w), wide.to(w));
    for (uint32_t n = 0; n < narrow.size(); ++n) narrow_filter_.emplace_back(narrow.from(n), narrow.to(n));
    for (const PartPair& pair : parts) ++seen_[pair.narrow];
    for (uint32_t n = 0; n < narrow.size(); ++n)
      for (const uint32_t* s = narrow.from(n); s != narrow.to(n); ++s) {
        if (*s >= with_set_.size()) with_set_.resize(size_t{*s} + 1);
        with_set_[*s].push_back(n);
      }
    // Those that are seen most come first: one of them is the whole of what others lack something of.
    for (std::vector<uint32_t>& parts_of_set : with_set_)
      std::sort(parts_of_set.begin(), parts_of_set.end(), [this](uint32_t x, uint32_t y) { return before(x, y); });
  }

  // What the narrow part of the pair becomes.
  uint32_t of(const PartPair& pair) {
    const auto [known, is_new] = chosen_.try_emplace(uint64_t{pair.wide} << 32 | pair.narrow, pair.narrow);
    if (is_new && narrow_.from(pair.narrow) != narrow_.to(pair.narrow)) known->second = found(pair);
    return known->second;
  }

 private:
  bool before(uint32_t x, uint32_t y) const { return std::pair(seen_[y], x) < std::pair(seen_[x], y); }

  uint32_t found(const PartPair& pair) const {
    const uint32_t n = pair.narrow, w = pair.wide;
    const auto rarer = [this](uint32_t x, uint32_t y) { return with_set_[x].size() < with_set_[y].size(); };
    const uint32_t rarest = *std::min_element(narrow_.from(n), narrow_.to(n), rarer);
    const Filter both = narrow_filter_[n].with(wide_filter_[w]);
    size_t looks = 0;
    for (const uint32_t other : with_set_[rarest]) {
      if (other == n || ++looks > kMostLooks) break;  // from n on they are seen more rarely than n
      if (narrow_filter_[n].within(narrow_filter_[other]) && narrow_filter_[other].within(both) && may_be(other, n, w))
        return other;
    }
    return n;
  }

  // N <= N' <= N + W.
  bool may_be(uint32_t other, uint32_t n, uint32_t w) const {
    if (!std::includes(narrow_.from(other), narrow_.to(other), narrow_.from(n), narrow_.to(n))) return false;
    const uint32_t *in_n = narrow_.from(n), *in_w = wide_.from(w);
    for (const uint32_t* s = narrow_.from(other); s != narrow_.to(other); ++s) {
      while (in_n != narrow_.to(n) && *in_n < *s) ++in_n;
      while (in_w != wide_.to(w) && *in_w < *s) ++in_w;
      if ((in_n == narrow_.to(n) || *in_n != *s) && (in_w == wide_.to(w) || *in_w != *s)) return false;
    }
    return true;
  }

  const Lists &wide_, &narrow_;
  std::vector<uint32_t> seen_;                   // narrow part -> in how many of the pairs
  std::vector<Filter> wide_filter_, narrow_filter_;
  std::vector<std::vector<uint32_t>> with_set_;  // set -> narrow parts that contain it
  std::unordered_map<uint64_t, uint32_t> chosen_;
};

}  // namespace

void absorb_narrow_parts(const Lists& wide, Lists& narrow, std::vector<PartPair>& parts) {
  if (narrow.size() == 1) return;
  Absorber absorber(wide, narrow, parts);
  for (PartPair& pair : parts) pair.narrow = absorber.of(pair);
  // Number those that are left; the empty one stays the first.
  constexpr uint32_t kUnused = ~uint32_t{0};
  std::vector<uint32_t> number(narrow.size(), kUnused);
  for (const PartPair& pair : parts) number[pair.narrow] = 0;
  number[0] = 0;
  Lists left;
  for (uint32_t n = 0; n < narrow.size(); ++n) {
    if (number[n] == kUnused) continue;
    number[n] = left.size();
    left.items.insert(left.items.end(), narrow.from(n), narrow.to(n));
    left.close();
  }
  for (PartPair& pair : parts) pair.narrow = number[pair.narrow];
  narrow = std::move(left);
}

}  // namespace meshsieve::classes
