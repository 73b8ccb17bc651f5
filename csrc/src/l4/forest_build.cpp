// The tree builder: splits the longest leaf first, until all are short or the memory budget is used up.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>
#include <queue>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "l4/forest_table.h"

namespace meshsieve::forest {
namespace {

constexpr size_t kShortLeaf = kLanes;     // lists that need no split
constexpr double kReplicationWeight = 0.9;  // halvings of the expected leaf that a doubling of memory must bring
constexpr double kFloorLength = 2;        // shorter lists save nothing: they are one block with lanes to spare
constexpr int kMaxWindowBits = 16;
constexpr size_t kMinSample = 128;
constexpr double kWideShare = 1.0 / 256;  // a range is wide if it holds more of its dimension: a prefix below /8
constexpr double kMinTreeShare = 0.02;    // smaller groups join the trees of wider ones
// Entries narrow on both sides are copied nowhere in a tree of others that are narrow on one; what a tree of their own
// costs every look-up is more, up to this share.
constexpr double kNarrowTreeShare = 0.2;

// What is known of a packet's value in one dimension where it reaches a node. Values lie within [lo, hi]; entries that
// do not hold all of that lie within the aligned block of 2^bits values at `focus`. The two differ once a window has
// skipped leading bits that all such entries share.
struct Region {
  uint32_t lo, hi;
  uint32_t focus;
  int bits;
};

uint32_t last_of(uint32_t first, int bits) { return bits == 32 ? ~uint32_t{0} : first + ((uint32_t{1} << bits) - 1); }

struct BuildNode {
  std::vector<uint32_t> entries;
  std::vector<Region> region;
  std::vector<uint32_t> children;  // empty: a leaf
  uint8_t dim = 0, shift = 0;
  uint32_t first_entry = 0;  // kept when a split gives the entries away
};

struct Window {
  size_t dim = 0;
  uint32_t focus = 0;
  int top = 0;    // the window starts below this bit
  int bits = 0;   // 0: no window is worth its memory
  double score = 0;
};

class Builder {
 public:
  Builder(const Boxes& boxes, size_t budget, Hidden hidden)
      : boxes_(boxes), block_bytes_(boxes.block_bytes()), budget_(budget), hidden_(hidden) {}

  Trees build() {
    add_node({}, whole_space());  // node 0: the leaf without entries
    for (std::vector<uint32_t>& group : split_by_smallness()) {
      std::vector<Region> region = whole_space();
      drop_covered(group, region);
      roots_.push_back(add_node(std::move(group), std::move(region)));
    }
    while (!longest_.empty()) {
      const uint32_t node = longest_.top().second;
      longest_.pop();
      split(node);
    }
    return emit();
  }

 private:
  // --- groups of entries, a tree each ---

  std::vector<Region> whole_space() const {
    std::vector<Region> region;
    for (const int bits : boxes_.bits) region.push_back({0, last_of(0, bits), 0, bits});
    return region;
  }

  // The ranges say exactly what the entry matches.
  bool is_box(uint32_t entry) const {
    const auto lists = boxes_.list.begin() + static_cast<ptrdiff_t>(entry * boxes_.dims());
    return boxes_.entries[entry].exact &&
           std::all_of(lists, lists + static_cast<ptrdiff_t>(boxes_.dims()), [](int32_t list) { return list < 0; });
  }

  std::string_view box_bytes(uint32_t entry) const {
    const size_t size = boxes_.dims() * sizeof(Range);
    return {reinterpret_cast<const char*>(boxes_.hull.data()) + entry * size, size};
  }

  std::vector<std::vector<uint32_t>> split_by_smallness() {
    std::vector<std::vector<uint32_t>> groups(kMaxTrees);
    // By groups of fields named: the boxes seen. An entry with the box of an earlier one never decides.
    std::array<std::unordered_set<std::string_view>, 16> seen;
    for (uint32_t e = 0; e < boxes_.entries.size(); ++e) {
      if (hidden_ == Hidden::drop && is_box(e) && !seen[boxes_.entries[e].groups].insert(box_bytes(e)).second) continue;
      groups[smallness(boxes_, e)].push_back(e);
    }
    std::iota(tree_of_.begin(), tree_of_.end(), int8_t{0});
    // Group 3 is wide in both, group 0 in neither. A small group goes where it is copied least.
    const auto share = [&](double of) { return static_cast<size_t>(of * static_cast<double>(boxes_.entries.size())); };
    const size_t few = share(kMinTreeShare) + 2 * kLanes;
    const int larger = groups[1].size() > groups[2].size() ? 1 : 2;
    for (const auto& [from, to] : {std::pair{0, larger}, std::pair{0, 3 - larger}, std::pair{1, 3}, std::pair{2, 3}}) {
      const size_t most = from == 0 ? std::max(few, share(kNarrowTreeShare)) : few;
      if (groups[from].empty() || groups[from].size() > most || groups[to].empty()) continue;
      std::vector<uint32_t> merged;
      std::merge(groups[from].begin(), groups[from].end(), groups[to].begin(), groups[to].end(),
                 std::back_inserter(merged));
      groups[from].clear();
      groups[to] = std::move(merged);
      std::replace(tree_of_.begin(), tree_of_.end(), static_cast<int8_t>(from), static_cast<int8_t>(to));
    }
    std::vector<int8_t> order;  // of the groups that have entries, by their first
    for (int8_t g = 0; g < kMaxTrees; ++g)
      if (!groups[g].empty()) order.push_back(g);
    std::sort(order.begin(), order.end(), [&](int8_t a, int8_t b) { return groups[a].front() < groups[b].front(); });
    std::vector<std::vector<uint32_t>> sorted;
    for (const int8_t g : order) sorted.push_back(std::move(groups[g]));
    for (int8_t& tree : tree_of_) {
      const auto found = std::find(order.begin(), order.end(), tree);
      tree = found == order.end() ? kNoTree : static_cast<int8_t>(found - order.begin());
    }
    return sorted;
  }

  // --- nodes ---

  size_t leaf_bytes(size_t entries) const { return (entries + kLanes - 1) / kLanes * block_bytes_; }

  uint32_t add_node(std::vector<uint32_t> entries, std::vector<Region> region) {
    const auto id = static_cast<uint32_t>(nodes_.size());
    bytes_ += leaf_bytes(entries.size());
    if (entries.size() > kShortLeaf) longest_.push({entries.size(), id});
    const uint32_t first = entries.empty() ? 0 : entries.front();
    nodes_.push_back({std::move(entries), std::move(region), {}, 0, 0, first});
    return id;
  }

  // Drops entries that no packet of the region can reach: an earlier entry holds the whole region. A packet that lacks
  // ports fails an entry that names ports, so such an entry hides only entries that name ports too.
  void drop_covered(std::vector<uint32_t>& entries, const std::vector<Region>& region) const {
    if (hidden_ == Hidden::keep) return;
    uint32_t covered = 0;  // bit m: an entry naming exactly the groups m covers
    size_t kept = 0;
    for (const uint32_t e : entries) {
      const uint8_t groups = boxes_.entries[e].groups;
      bool hidden = false;
      for (uint32_t masks = covered; masks != 0 && !hidden; masks &= masks - 1)
        hidden = (std::countr_zero(masks) & ~groups) == 0;
      if (hidden) continue;
      entries[kept++] = e;
      if (boxes_.entries[e].exact && covers(e, region)) covered |= uint32_t{1} << groups;
      if (covered & 1) break;
    }
    entries.resize(kept);
  }

  bool covers(uint32_t entry, const std::vector<Region>& region) const {
    for (size_t d = 0; d < boxes_.dims(); ++d)
      if (!covers_dim(entry, d, region[d].lo, region[d].hi)) return false;
    return true;
  }

  bool covers_dim(uint32_t entry, size_t dim, uint32_t lo, uint32_t hi) const {
    const Range hull = boxes_.hull[entry * boxes_.dims() + dim];
    if (lo < hull.lo || hull.hi < hi) return false;
    if (boxes_.list[entry * boxes_.dims() + dim] < 0) return true;
    const std::span<const Range> ranges = boxes_.ranges(entry, dim);
    const auto after = std::upper_bound(ranges.begin(), ranges.end(), lo,
                                        [](uint32_t v, const Range& r) { return v < r.lo; });
    return after != ranges.begin() && hi <= std::prev(after)->hi;
  }

  // Calls use(first, last) for the children of a window that an entry reaches, ascending, without overlap.
  template <class Use>
  void reached_children(uint32_t entry, const Window& w, Use use) const {
    const uint32_t block_lo = w.focus, block_hi = last_of(w.focus, w.top);
    const int shift = w.top - w.bits;
    const auto one = [&](const Range& r, int64_t after) {
      const uint32_t lo = std::max(r.lo, block_lo), hi = std::min(r.hi, block_hi);
      if (lo > hi) return after;
      const int64_t first = std::max<int64_t>((lo - block_lo) >> shift, after + 1);
      const int64_t last = (hi - block_lo) >> shift;
      if (first <= last) use(static_cast<uint32_t>(first), static_cast<uint32_t>(last));
      return last;
    };
    if (boxes_.list[entry * boxes_.dims() + w.dim] < 0) {
      one(boxes_.hull[entry * boxes_.dims() + w.dim], -1);
      return;
    }
    const std::span<const Range> ranges = boxes_.ranges(entry, w.dim);
    auto range = std::lower_bound(ranges.begin(), ranges.end(), block_lo,
                                  [](const Range& r, uint32_t v) { return r.hi < v; });
    int64_t after = -1;
    for (; range != ranges.end() && range->lo <= block_hi; ++range) after = one(*range, after);
  }

  // --- the choice of a window ---

  Window best_window(const BuildNode& node) {
    Window best;
    const size_t n = node.entries.size();
    const size_t sample = std::min(n, std::max(kMinSample, n / 16));
    for (size_t d = 0; d < boxes_.dims(); ++d) {
      Window window;
      window.dim = d;
      if (!focus_on(node, d, window)) continue;
      const int most = std::min({window.top, kMaxWindowBits, static_cast<int>(std::bit_width(n)) + 1});
      for (int bits = 1; bits <= most; ++bits) {
        window.bits = bits;
        window.score = score(node, window, sample);
        if (window.score > best.score) best = window;
      }
    }
    return best;
  }

  // The smallest aligned block that holds all entries that do not hold the node's whole block.
  bool focus_on(const BuildNode& node, size_t dim, Window& window) const {
    const Region& region = node.region[dim];
    const uint32_t block_hi = last_of(region.focus, region.bits);
    uint32_t lo = ~uint32_t{0}, hi = 0;
    for (const uint32_t e : node.entries) {
      if (covers_dim(e, dim, region.lo, region.hi)) continue;
      const Range hull = boxes_.hull[e * boxes_.dims() + dim];
      lo = std::min(lo, std::max(hull.lo, region.focus));
      hi = std::max(hi, std::min(hull.hi, block_hi));
    }
    if (lo > hi) return false;
    const int differing = static_cast<int>(std::bit_width(lo ^ hi));
    window.top = std::min(region.bits, differing);
    window.focus = window.top == 32 ? 0 : lo >> window.top << window.top;
    return window.top > 0;
  }

  double score(const BuildNode& node, const Window& w, size_t sample) {
    const size_t n = node.entries.size();
    const size_t n_children = size_t{1} << w.bits;
    delta_.assign(n_children + 1, 0);
    for (size_t s = 0; s < sample; ++s)
      reached_children(node.entries[s * n / sample], w, [&](uint32_t first, uint32_t last) {
        ++delta_[first];
        --delta_[last + 1];
      });
    const double scale = static_cast<double>(n) / static_cast<double>(sample);
    double copies = 0, pairs = 0, lanes = 0;
    int64_t count = 0;
    for (size_t c = 0; c < n_children; ++c) {
      count += delta_[c];
      const auto length = static_cast<double>(count);
      copies += length;
      pairs += length * (length - 1);
      if (count != 0 && delta_[c] != 0) lanes += std::max(length * scale, kFloorLength);
      else lanes += count != 0 ? 0.25 * std::max(length * scale, kFloorLength) : 0;  // equal leaves will be shared
    }
    if (copies == 0) return 0;
    const double entry_bytes = static_cast<double>(block_bytes_) / kLanes;
    const double expected = std::max(kFloorLength, 1 + scale * pairs / copies);
    const double memory = (lanes * entry_bytes + static_cast<double>(n_children * sizeof(Node))) /
                          (static_cast<double>(n) * entry_bytes);
    return std::log2(static_cast<double>(n) / expected) - kReplicationWeight * std::log2(std::max(1.0, memory));
  }

  // --- splitting ---

  void split(uint32_t id) {
    Window window = best_window(nodes_[id]);
    for (; window.bits > 0; window.bits /= 2)
      if (try_split(id, window)) return;
  }

  bool try_split(uint32_t id, const Window& w) {
    const std::vector<uint32_t> entries = nodes_[id].entries;
    const std::vector<Region> region = nodes_[id].region;
    const size_t n_children = size_t{1} << w.bits;
    std::vector<std::vector<uint32_t>> lists(n_children);
    size_t copies = 0;
    const size_t most_copies = (budget_ - std::min(budget_, bytes_)) / (block_bytes_ / kLanes) * 2 + entries.size();
    for (const uint32_t e : entries) {
      reached_children(e, w, [&](uint32_t first, uint32_t last) {
        copies += last - first + 1;
        if (copies > most_copies) return;
        for (uint32_t c = first; c <= last; ++c) lists[c].push_back(e);
      });
      if (copies > most_copies) return false;
    }
    const Children children = share_equal(std::move(lists), region, w);
    size_t after = bytes_ - leaf_bytes(entries.size()) + n_children * sizeof(Node);
    size_t longest = 0;
    for (const auto& list : children.lists) {
      after += leaf_bytes(list.size());
      longest = std::max(longest, list.size());
    }
    if (after > budget_ || (longest == entries.size() && children.lists.size() == 1)) return false;
    bytes_ += n_children * sizeof(Node);
    bytes_ -= leaf_bytes(entries.size());
    std::vector<uint32_t> ids;
    for (size_t k = 0; k < children.lists.size(); ++k)
      ids.push_back(children.lists[k].empty()
                        ? 0
                        : add_node(children.lists[k], region_of(region, w, children.first[k], children.shared[k])));
    BuildNode& node = nodes_[id];
    node.dim = static_cast<uint8_t>(w.dim);
    node.shift = static_cast<uint8_t>(w.top - w.bits);
    node.children.resize(n_children);
    for (size_t c = 0; c < n_children; ++c) node.children[c] = ids[children.of_value[c]];
    node.entries = {};
    node.region = {};
    return true;
  }

  struct Children {
    std::vector<std::vector<uint32_t>> lists;
    std::vector<uint32_t> first;     // a window value that leads here
    std::vector<bool> shared;        // more than one does
    std::vector<uint32_t> of_value;  // window value -> list
  };

  Children share_equal(std::vector<std::vector<uint32_t>> lists, const std::vector<Region>& region, const Window& w) {
    Children out;
    std::unordered_map<std::string_view, uint32_t> known;
    out.of_value.resize(lists.size());
    for (uint32_t c = 0; c < lists.size(); ++c) {
      drop_covered(lists[c], region_of(region, w, c, false));
      const std::string_view bytes(reinterpret_cast<const char*>(lists[c].data()), lists[c].size() * sizeof(uint32_t));
      const auto [found, is_new] = known.try_emplace(bytes, static_cast<uint32_t>(out.first.size()));
      out.of_value[c] = found->second;
      if (is_new) {
        out.first.push_back(c);
        out.shared.push_back(false);
      } else {
        out.shared[found->second] = true;
      }
    }
    for (const uint32_t c : out.first) out.lists.push_back(std::move(lists[c]));
    return out;
  }

  static std::vector<Region> region_of(std::vector<Region> region, const Window& w, uint32_t child, bool shared) {
    Region& r = region[w.dim];
    const int shift = w.top - w.bits;
    if (shared) {
      r.bits = 0;  // what several values share is not split by them again
      return region;
    }
    const bool skipped = w.top != r.bits || r.lo != r.focus || r.hi != last_of(r.focus, r.bits);
    r.focus = w.focus + (child << shift);
    r.bits = shift;
    if (!skipped) {
      r.lo = r.focus;
      r.hi = last_of(r.focus, r.bits);
    }
    return region;
  }

  // --- run-time form ---

  // Labels of a list that changes may come to be anything.
  uint8_t bound_shift() const {
    if (hidden_ == Hidden::keep) return kMostBoundShift;
    const uint32_t last = boxes_.entries.empty() ? 0 : static_cast<uint32_t>(boxes_.entries.back().rule);
    uint8_t shift = 0;
    while (last >> shift >= kNoBound) ++shift;  // so that a bound is exact to 1/128 of the list
    return shift;
  }

  Trees emit() {
    Trees out;
    out.nodes.resize(roots_.size());
    out.bound_shift = bound_shift();
    emit_leaf(out, {}, {});  // block 0 is empty
    std::vector<std::pair<uint32_t, uint32_t>> pending;  // build node, place
    for (size_t t = 0; t < roots_.size(); ++t) {
      out.root[t] = static_cast<uint32_t>(t);
      out.first_rule[t] = boxes_.entries[nodes_[roots_[t]].first_entry].rule;
      pending.push_back({roots_[t], static_cast<uint32_t>(t)});
    }
    out.n_trees = static_cast<uint8_t>(roots_.size());
    out.tree_of = tree_of_;
    placed_.assign(nodes_.size(), Node{0, 0, 0, 255});
    for (size_t i = 0; i < pending.size(); ++i) {
      const auto [id, place] = pending[i];
      const BuildNode& node = nodes_[id];
      if (placed_[id].dim == 255) {
        if (node.children.empty()) {
          const int32_t first_rule = node.entries.empty() ? kNoRule : boxes_.entries[node.entries.front()].rule;
          placed_[id] = {emit_leaf(out, node.entries, node.region), 0, bound_of(first_rule, out.bound_shift), node.entries.size() > kLanes};
        } else {
          const auto first = static_cast<uint32_t>(out.nodes.size());
          out.nodes.resize(first + node.children.size());
          for (size_t c = 0; c < node.children.size(); ++c)
            pending.push_back({node.children[c], static_cast<uint32_t>(first + c)});
          placed_[id] = {first, static_cast<uint16_t>(node.children.size() - 1), node.shift, node.dim};
        }
      }
      out.nodes[place] = placed_[id];
    }
    steps_.assign(nodes_.size(), 0);
    for (const uint32_t root : roots_) out.worst_case_steps += worst_steps(root);
    return out;
  }

  uint64_t worst_steps(uint32_t id) {
    if (steps_[id] != 0) return steps_[id];
    uint64_t most = nodes_[id].entries.size();
    uint32_t previous = ~uint32_t{0};
    for (const uint32_t child : nodes_[id].children) {
      if (child != previous) most = std::max(most, worst_steps(child));
      previous = child;
    }
    return steps_[id] = most + 1;
  }

  uint32_t emit_leaf(Trees& out, const std::vector<uint32_t>& entries, const std::vector<Region>& region) {
    std::vector<uint8_t> bytes(std::max<size_t>(1, (entries.size() + kLanes - 1) / kLanes) * block_bytes_, 0);
    for (size_t b = 0; b * block_bytes_ < bytes.size(); ++b) {
      BlockTail tail{};
      std::fill(std::begin(tail.rule), std::end(tail.rule), kNoRule);
      for (size_t lane = 0; lane < kLanes && b * kLanes + lane < entries.size(); ++lane)
        write_lane(&bytes[b * block_bytes_], tail, lane, entries[b * kLanes + lane], region);
      tail.last = (b + 1) * block_bytes_ == bytes.size();
      std::memcpy(&bytes[b * block_bytes_ + boxes_.tail_offset()], &tail, sizeof tail);
    }
    const std::string text(bytes.begin(), bytes.end());
    const auto [found, is_new] =
        leaves_.try_emplace(text, static_cast<uint32_t>(out.blocks.size() / block_bytes_));
    if (is_new) out.blocks.insert(out.blocks.end(), bytes.begin(), bytes.end());
    return found->second;
  }

  void write_lane(uint8_t* block, BlockTail& tail, size_t lane, uint32_t entry, const std::vector<Region>& region) {
    const Entry& e = boxes_.entries[entry];
    bool exact = e.exact;
    for (size_t d = 0; d < boxes_.dims(); ++d) {
      const Range box = clipped(entry, d, region[d], exact);
      const uint32_t width = box.hi - box.lo;
      if (d < boxes_.n32) {
        std::memcpy(block + 4 * lane, &box.lo, 4);
        std::memcpy(block + 4 * (kLanes + lane), &width, 4);
        block += 8 * kLanes;
      } else if (d < size_t{boxes_.n32} + boxes_.n16) {
        std::memcpy(block + 2 * lane, &box.lo, 2);
        std::memcpy(block + 2 * (kLanes + lane), &width, 2);
        block += 4 * kLanes;
      } else {
        block[lane] = static_cast<uint8_t>(box.lo);
        block[kLanes + lane] = static_cast<uint8_t>(width);
        block += 2 * kLanes;
      }
    }
    tail.rule[lane] = e.rule;
    for (int g = 0; g < 4; ++g) tail.constrains[g] |= static_cast<uint8_t>((e.groups >> g & 1) << lane);
    tail.valid |= static_cast<uint8_t>(1 << lane);
    tail.verify |= static_cast<uint8_t>(!exact << lane);
  }

  // The intervals of an entry that packets of this region can meet: their hull, exact if there is one.
  Range clipped(uint32_t entry, size_t dim, const Region& region, bool& exact) const {
    const size_t at = entry * boxes_.dims() + dim;
    if (boxes_.list[at] < 0) return boxes_.hull[at];
    Range box{~uint32_t{0}, 0};
    int met = 0;
    for (const Range& r : boxes_.ranges(entry, dim)) {
      if (r.hi < region.lo || region.hi < r.lo) continue;
      box.lo = std::min(box.lo, r.lo);
      box.hi = std::max(box.hi, r.hi);
      ++met;
    }
    exact = exact && met == 1;
    return met == 0 ? boxes_.hull[at] : box;
  }

  const Boxes& boxes_;
  const size_t block_bytes_;
  const size_t budget_;
  const Hidden hidden_;
  std::array<int8_t, kMaxTrees> tree_of_{};
  size_t bytes_ = 0;
  std::vector<BuildNode> nodes_;
  std::vector<uint32_t> roots_;
  std::priority_queue<std::pair<size_t, uint32_t>> longest_;
  std::vector<int64_t> delta_;
  std::vector<Node> placed_;
  std::vector<uint64_t> steps_;
  std::unordered_map<std::string, uint32_t> leaves_;
};

}  // namespace

size_t smallness(const Boxes& boxes, size_t entry) {
  const auto is_wide = [&](Field field) {
    const auto found = std::find(boxes.field.begin(), boxes.field.end(), field);
    if (found == boxes.field.end()) return true;
    const auto dim = static_cast<size_t>(found - boxes.field.begin());
    double values = 0;
    for (const Range& r : boxes.ranges(entry, dim)) values += static_cast<double>(r.hi - r.lo) + 1;
    return values > kWideShare * std::ldexp(1.0, boxes.bits[dim]);
  };
  return size_t{is_wide(Field::src_ip)} * 2 + size_t{is_wide(Field::dst_ip)};
}

Trees build_trees(Boxes boxes, size_t budget_bytes, Hidden hidden) {
  Trees trees = Builder(boxes, budget_bytes, hidden).build();
  boxes.entries = {};
  boxes.hull = {};
  boxes.list = {};
  boxes.lists = {};
  trees.boxes = std::move(boxes);
  return trees;
}

}  // namespace meshsieve::forest
