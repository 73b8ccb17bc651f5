// The tree builder: splits the longest leaf first, until all are short or the memory budget is used up.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>
#include <queue>

#include "l4/flat_map.h"
#include "l4/forest_table.h"
#include "l4/forest_window.h"
#include "l4/signature.h"

namespace meshsieve::forest {
namespace {

constexpr size_t kShortLeaf = kLanes;     // lists that need no split
constexpr double kWideShare = 1.0 / 256;  // a range is wide if it holds more of its dimension: a prefix below /8
constexpr double kMinTreeShare = 0.02;    // smaller groups join the trees of wider ones
// Entries narrow on both sides are copied nowhere in a tree of others that are narrow on one; what a tree of their own
// costs every look-up is more, up to this share.
constexpr double kNarrowTreeShare = 0.2;

// A node's entries and regions lie in arrays of the builder: a rule set of half a million rules has millions of nodes.
struct BuildNode {
  size_t entries_at;
  uint32_t n_entries;  // 0 once it is split
  int32_t first_rule;  // also when it is split; kNoRule without entries
  size_t children_at = 0;
  uint32_t n_children = 0;  // 0: a leaf
  uint8_t dim = 0, shift = 0;
};

class Builder {
 public:
  Builder(const Boxes& boxes, size_t budget, Hidden hidden)
      : boxes_(boxes), block_bytes_(boxes.block_bytes()), budget_(budget), hidden_(hidden), chooser_(boxes), spans_others_(boxes.entries.size()) {}

  Trees build() {
    const std::vector<Region> whole = whole_space();
    add_node({}, whole);  // node 0: the leaf without entries
    for (std::vector<uint32_t>& group : split_by_smallness()) {
      const size_t kept = drop_covered(group, [&](uint32_t entry) { return spans(entry, whole); });
      roots_.push_back(add_node({group.data(), kept}, whole));
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

  Signature signature_of_box(uint32_t entry) const {
    SequenceSignature signature;
    signature.add(boxes_.entries[entry].groups);
    for (size_t d = 0; d < boxes_.dims(); ++d) {
      const Range& range = boxes_.hull[entry * boxes_.dims() + d];
      signature.add(uint64_t{range.hi} << 32 | range.lo);
    }
    return signature.finish();
  }

  std::vector<std::vector<uint32_t>> split_by_smallness() {
    std::vector<std::vector<uint32_t>> groups(kMaxTrees);
    FlatMap seen;  // boxes and the groups of fields they name; an entry like an earlier one never decides
    for (uint32_t e = 0; e < boxes_.entries.size(); ++e) {
      if (hidden_ == Hidden::drop && is_box(e) && !seen.try_emplace(signature_of_box(e), e).second) continue;
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

  std::span<const uint32_t> entries_of(uint32_t node) const {
    return {entries_.data() + nodes_[node].entries_at, nodes_[node].n_entries};
  }
  std::span<const Region> region_of(uint32_t node) const {
    return {regions_.data() + size_t{node} * boxes_.dims(), boxes_.dims()};
  }

  uint32_t add_node(std::span<const uint32_t> entries, std::span<const Region> region) {
    const auto id = static_cast<uint32_t>(nodes_.size());
    bytes_ += leaf_bytes(entries.size());
    if (entries.size() > kShortLeaf) longest_.push({entries.size(), id});
    nodes_.push_back({.entries_at = entries_.size(),
                      .n_entries = static_cast<uint32_t>(entries.size()),
                      .first_rule = entries.empty() ? kNoRule : boxes_.entries[entries.front()].rule});
    entries_.insert(entries_.end(), entries.begin(), entries.end());
    regions_.insert(regions_.end(), region.begin(), region.end());
    return id;
  }

  // The entry holds the region, in all dimensions or in all but one.
  bool spans(uint32_t entry, std::span<const Region> region, size_t but = ~size_t{0}) const {
    if (!boxes_.entries[entry].exact) return false;
    for (size_t d = 0; d < boxes_.dims(); ++d)
      if (d != but && !covers(boxes_, entry, d, region[d].lo, region[d].hi)) return false;
    return true;
  }

  // Drops entries that no packet of a region can reach: an earlier entry holds the whole region, as spans_region(entry)
  // tells. Returns how many are left. A packet that lacks ports fails an entry that names ports, so such an entry hides
  // only entries that name ports too.
  template <class SpansRegion>
  size_t drop_covered(std::span<uint32_t> entries, SpansRegion spans_region) const {
    if (hidden_ == Hidden::keep) return entries.size();
    uint32_t covered = 0;  // bit m: an entry naming exactly the groups m covers
    size_t kept = 0;
    for (const uint32_t e : entries) {
      const uint8_t groups = boxes_.entries[e].groups;
      bool hidden = false;
      for (uint32_t masks = covered; masks != 0 && !hidden; masks &= masks - 1)
        hidden = (std::countr_zero(masks) & ~groups) == 0;
      if (hidden) continue;
      entries[kept++] = e;
      if (spans_region(e)) covered |= uint32_t{1} << groups;
      if (covered & 1) break;
    }
    return kept;
  }

  // --- splitting ---

  void split(uint32_t id) {
    Window window = chooser_.best(entries_of(id), region_of(id));
    if (window.bits == 0) return;
    if (hidden_ == Hidden::drop)
      for (const uint32_t entry : entries_of(id)) spans_others_[entry] = spans(entry, region_of(id), window.dim);
    for (; window.bits > 0; window.bits /= 2)
      if (try_split(id, window)) return;
  }

  bool try_split(uint32_t id, const Window& w) {
    if (!sort_by_value(id, w)) return false;
    const std::vector<Region> region(region_of(id).begin(), region_of(id).end());
    share_equal_lists(region[w.dim], w);
    const size_t n_entries = nodes_[id].n_entries;
    size_t after = bytes_ - leaf_bytes(n_entries) + w.values() * sizeof(Node);
    size_t longest = 0;
    for (const List& list : lists_) {
      after += leaf_bytes(list.size);
      longest = std::max<size_t>(longest, list.size);
    }
    if (after > budget_ || (longest == n_entries && lists_.size() == 1)) return false;
    bytes_ += w.values() * sizeof(Node);
    bytes_ -= leaf_bytes(n_entries);
    std::vector<Region> of_child = region;
    for (List& list : lists_) {
      if (list.size == 0) continue;  // node 0
      of_child[w.dim] = child_region(region[w.dim], w, list.value, list.shared);
      list.node = add_node({sorted_.data() + list.at, list.size}, of_child);
    }
    BuildNode& node = nodes_[id];
    node.n_entries = 0;
    node.dim = static_cast<uint8_t>(w.dim);
    node.shift = static_cast<uint8_t>(w.shift());
    node.children_at = children_.size();
    node.n_children = static_cast<uint32_t>(w.values());
    for (size_t v = 0; v < w.values(); ++v) children_.push_back(lists_[list_of_value_[v]].node);
    return true;
  }

  // The entries that reach each value of the window, in order, one list after another in sorted_; list v ends at
  // list_end_[v]. False where the copies can never fit the budget.
  bool sort_by_value(uint32_t id, const Window& w) {
    const size_t spare = (budget_ - std::min(budget_, bytes_)) / (block_bytes_ / kLanes);
    const size_t most_copies = spare * 2 + nodes_[id].n_entries;
    runs_.clear();
    list_end_.assign(w.values() + 1, 0);  // for now, at v + 1: how many reach v more than reach v - 1
    size_t copies = 0;
    for (const uint32_t entry : entries_of(id)) {
      reached_values(boxes_, entry, w, [&](uint32_t first, uint32_t last) {
        copies += last - first + 1;
        runs_.push_back({entry, first, last});
      });
      if (copies > most_copies) return false;
    }
    for (const Run& run : runs_)
      for (uint32_t v = run.first; v <= run.last; ++v) ++list_end_[v + 1];
    std::partial_sum(list_end_.begin(), list_end_.end(), list_end_.begin());  // where list v starts
    sorted_.resize(copies);
    for (const Run& run : runs_)
      for (uint32_t v = run.first; v <= run.last; ++v) sorted_[list_end_[v]++] = run.entry;
    return true;
  }

  // Numbers the different lists of sorted_, without what is hidden in them.
  void share_equal_lists(const Region& region, const Window& w) {
    lists_.clear();
    list_of_value_.resize(w.values());
    FlatMap known;
    size_t at = 0;
    for (uint32_t v = 0; v < w.values(); ++v) {
      const Region child = child_region(region, w, v, false);
      const size_t size = drop_covered({sorted_.data() + at, list_end_[v] - at}, [&](uint32_t entry) {
        return spans_others_[entry] && covers(boxes_, entry, w.dim, child.lo, child.hi);
      });
      const uint32_t list = v > 0 && is_list(list_of_value_[v - 1], at, size)
                                ? list_of_value_[v - 1]
                                : known.try_emplace(signature_of_list(at, size), static_cast<uint32_t>(lists_.size())).first;
      if (list == lists_.size()) lists_.push_back({.at = at, .size = static_cast<uint32_t>(size), .value = v});
      else lists_[list].shared = true;
      list_of_value_[v] = list;
      at = list_end_[v];
    }
  }

  bool is_list(uint32_t list, size_t at, size_t size) const {
    return lists_[list].size == size &&
           std::equal(sorted_.begin() + static_cast<ptrdiff_t>(at), sorted_.begin() + static_cast<ptrdiff_t>(at + size),
                      sorted_.begin() + static_cast<ptrdiff_t>(lists_[list].at));
  }

  Signature signature_of_list(size_t at, size_t size) const {
    SequenceSignature signature;
    for (size_t i = 0; i < size; ++i) signature.add(sorted_[at + i]);
    return signature.finish();
  }

  static Region child_region(Region r, const Window& w, uint32_t value, bool shared) {
    if (shared) {
      r.bits = 0;  // what several values share is not split by them again
      return r;
    }
    const bool skipped = w.top != r.bits || r.lo != r.focus || r.hi != last_of(r.focus, r.bits);
    r.focus = w.focus + (value << w.shift());
    r.bits = w.shift();
    if (!skipped) {
      r.lo = r.focus;
      r.hi = last_of(r.focus, r.bits);
    }
    return r;
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
    out.blocks.reserve(bytes_);
    out.bound_shift = bound_shift();
    emit_leaf(out, {}, {});  // block 0 is empty
    std::vector<std::pair<uint32_t, uint32_t>> pending;  // build node, place
    for (size_t t = 0; t < roots_.size(); ++t) {
      out.root[t] = static_cast<uint32_t>(t);
      out.first_rule[t] = nodes_[roots_[t]].first_rule;
      pending.push_back({roots_[t], static_cast<uint32_t>(t)});
    }
    out.n_trees = static_cast<uint8_t>(roots_.size());
    out.tree_of = tree_of_;
    constexpr uint8_t kNotPlaced = 255;
    std::vector<Node> placed(nodes_.size(), Node{0, 0, 0, kNotPlaced});
    for (size_t i = 0; i < pending.size(); ++i) {
      const auto [id, place] = pending[i];
      const BuildNode& node = nodes_[id];
      if (placed[id].dim == kNotPlaced) {
        if (node.n_children == 0) {
          placed[id] = {emit_leaf(out, entries_of(id), region_of(id)), 0, bound_of(node.first_rule, out.bound_shift),
                        node.n_entries > kLanes};
        } else {
          const auto first = static_cast<uint32_t>(out.nodes.size());
          out.nodes.resize(first + node.n_children);
          for (uint32_t c = 0; c < node.n_children; ++c) pending.push_back({children_[node.children_at + c], first + c});
          placed[id] = {first, static_cast<uint16_t>(node.n_children - 1), node.shift, node.dim};
        }
      }
      out.nodes[place] = placed[id];
    }
    out.worst_case_steps = worst_steps();
    return out;
  }

  uint64_t worst_steps() const {
    std::vector<uint64_t> steps(nodes_.size());
    for (size_t id = nodes_.size(); id-- > 0;) {  // children come after their parents
      const BuildNode& node = nodes_[id];
      uint64_t most = node.n_entries;
      for (uint32_t c = 0; c < node.n_children; ++c) most = std::max(most, steps[children_[node.children_at + c]]);
      steps[id] = most + 1;
    }
    uint64_t all = 0;
    for (const uint32_t root : roots_) all += steps[root];
    return all;
  }

  // The number of the leaf's first block; equal leaves are one.
  uint32_t emit_leaf(Trees& out, std::span<const uint32_t> entries, std::span<const Region> region) {
    const size_t at = out.blocks.size(), size = std::max(block_bytes_, leaf_bytes(entries.size()));
    out.blocks.resize(at + size);
    for (size_t b = 0; b * block_bytes_ < size; ++b) {
      uint8_t* const block = &out.blocks[at + b * block_bytes_];
      BlockTail tail{};
      std::fill(std::begin(tail.rule), std::end(tail.rule), kNoRule);
      for (size_t lane = 0; lane < kLanes && b * kLanes + lane < entries.size(); ++lane)
        write_lane(block, tail, lane, entries[b * kLanes + lane], region);
      tail.last = (b + 1) * block_bytes_ == size;
      std::memcpy(block + boxes_.tail_offset(), &tail, sizeof tail);
    }
    SequenceSignature signature;
    for (size_t i = at; i < at + size; i += sizeof(uint64_t)) {
      uint64_t word;
      std::memcpy(&word, &out.blocks[i], sizeof word);
      signature.add(word);
    }
    const auto [number, is_new] = leaves_.try_emplace(signature.finish(), static_cast<uint32_t>(at / block_bytes_));
    if (!is_new) out.blocks.resize(at);
    return number;
  }

  void write_lane(uint8_t* block, BlockTail& tail, size_t lane, uint32_t entry, std::span<const Region> region) {
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

  // Of the node that is being split: an entry reaches the window's values first to last.
  struct Run {
    uint32_t entry, first, last;
  };
  struct List {
    size_t at;  // in sorted_
    uint32_t size;
    uint32_t value;       // the first that leads here
    bool shared = false;  // more than one does
    uint32_t node = 0;
  };

  const Boxes& boxes_;
  const size_t block_bytes_;
  const size_t budget_;
  const Hidden hidden_;
  WindowChooser chooser_;
  std::array<int8_t, kMaxTrees> tree_of_{};
  size_t bytes_ = 0;
  std::vector<BuildNode> nodes_;
  std::vector<uint32_t> entries_;   // of all nodes
  std::vector<Region> regions_;     // of all nodes, one a dimension
  std::vector<uint32_t> children_;  // of all nodes
  std::vector<uint32_t> roots_;
  std::priority_queue<std::pair<size_t, uint32_t>> longest_;
  std::vector<uint8_t> spans_others_;  // an entry
  std::vector<Run> runs_;
  std::vector<uint32_t> sorted_;
  std::vector<size_t> list_end_;
  std::vector<List> lists_;
  std::vector<uint32_t> list_of_value_;
  FlatMap leaves_;
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
