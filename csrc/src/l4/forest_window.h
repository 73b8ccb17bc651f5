// Which window of bits a node of the forest splits its entries by.
//
// What    For each dimension the smallest aligned block that holds all entries which do not span the node's region, then
//         each number of leading bits of that block: the window with the best score.
// Score   log2 of how much shorter the leaf gets that an entry is expected to lie in, less kReplicationWeight * log2 of
//         how many times the memory grows.
// Cost    One pass over the entries, one over a sample of them a dimension, and 2^(bits + 1) steps to score all windows
//         of up to `bits` bits: the entries that start and end in each value are counted once, in the longest window;
//         a window that is one bit shorter has the sums of two neighbours. Only entries with lists of intervals, which
//         count once where two of their intervals meet in a value, are counted anew for each length.
// Limits  Windows of at most 16 bits. What is scored is a sample of at least 128 entries, or one in sixteen.
// Source  Choosing cuts by the copies they make: Gupta and McKeown, HiCuts, 1999.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "l4/forest_table.h"

namespace meshsieve::forest {

// What is known of a packet's value in one dimension where it reaches a node. Values lie within [lo, hi]; entries that
// do not hold all of that lie within the aligned block of 2^bits values at `focus`. The two differ once a window has
// skipped leading bits that all such entries share.
struct Region {
  uint32_t lo, hi;
  uint32_t focus;
  int bits;
};

struct Window {
  size_t dim = 0;
  uint32_t focus = 0;
  int top = 0;   // the window starts below this bit
  int bits = 0;  // 0: no window is worth its memory
  double score = 0;

  int shift() const { return top - bits; }
  size_t values() const { return size_t{1} << bits; }
};

inline uint32_t last_of(uint32_t first, int bits) {
  return bits == 32 ? ~uint32_t{0} : first + ((uint32_t{1} << bits) - 1);
}

// The entry matches every value from lo to hi.
inline bool covers(const Boxes& boxes, uint32_t entry, size_t dim, uint32_t lo, uint32_t hi) {
  const size_t at = entry * boxes.dims() + dim;
  if (lo < boxes.hull[at].lo || boxes.hull[at].hi < hi) return false;
  if (boxes.list[at] < 0) return true;
  const std::span<const Range> ranges = boxes.ranges(entry, dim);
  const auto after =
      std::upper_bound(ranges.begin(), ranges.end(), lo, [](uint32_t v, const Range& r) { return v < r.lo; });
  return after != ranges.begin() && hi <= std::prev(after)->hi;
}

// Calls use(first, last) for the values of a window that an entry reaches, ascending, without overlap.
template <class Use>
void reached_values(const Boxes& boxes, uint32_t entry, const Window& w, Use use) {
  const uint32_t block_lo = w.focus, block_hi = last_of(w.focus, w.top);
  const int shift = w.shift();
  const size_t at = entry * boxes.dims() + w.dim;
  if (boxes.list[at] < 0) {
    const Range& hull = boxes.hull[at];
    const uint32_t lo = std::max(hull.lo, block_lo), hi = std::min(hull.hi, block_hi);
    if (lo <= hi) use((lo - block_lo) >> shift, (hi - block_lo) >> shift);
    return;
  }
  const std::span<const Range> ranges = boxes.ranges(entry, w.dim);
  auto range =
      std::lower_bound(ranges.begin(), ranges.end(), block_lo, [](const Range& r, uint32_t v) { return r.hi < v; });
  int64_t after = -1;
  for (; range != ranges.end() && range->lo <= block_hi; ++range) {
    const uint32_t lo = std::max(range->lo, block_lo), hi = std::min(range->hi, block_hi);
    const int64_t first = std::max<int64_t>((lo - block_lo) >> shift, after + 1);
    const int64_t last = (hi - block_lo) >> shift;
    if (first <= last) use(static_cast<uint32_t>(first), static_cast<uint32_t>(last));
    after = last;
  }
}

class WindowChooser {
 public:
  explicit WindowChooser(const Boxes& boxes)
      : boxes_(boxes), entry_bytes_(static_cast<double>(boxes.block_bytes()) / kLanes), hulls_(boxes.dims()) {}

  // Of a node with these entries, one region a dimension.
  Window best(std::span<const uint32_t> entries, std::span<const Region> region);

 private:
  void draw_sample(std::span<const uint32_t> entries);
  void find_hulls(std::span<const uint32_t> entries, std::span<const Region> region);
  bool focus_on(const Region& region, Window& window) const;
  void count(const Window& window);
  void halve(size_t values);
  double score(size_t values, double entries) const;

  const Boxes& boxes_;
  const double entry_bytes_;
  std::vector<uint32_t> sample_;
  std::vector<Range> hulls_;               // a dimension: of the entries that do not span the node's region
  std::vector<uint32_t> starts_, ends_;    // of the sample, a value of the window
};

}  // namespace meshsieve::forest
