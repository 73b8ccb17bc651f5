// Building the search tables of the class front end from swept boundaries (classes_views.h draws the node).
#include <algorithm>
#include <cmath>
#include <map>
#include <string>

#include "l4/classes_table.h"
#include "meshsieve/errors.h"

namespace meshsieve::classes {
namespace {

constexpr uint32_t kFanOut = 8;

void check_index(size_t index) {
  if (index >= kLowWord) throw CompileError("more than 2^30 search nodes or classes");
}

// Packs `n` children, child i holding values from start[i] (start[0] is implied), into trees of nodes; shares nodes
// that are equal. `Key` is the node's signed key type.
template <class Node, class Key, class Value>
class TreeBuilder {
 public:
  TreeBuilder() { nodes_.push_back(Node{}); }  // node 0: read, and its answer dropped, for finished values

  // Entry of a tree over the children; raises *levels to its depth.
  uint32_t tree(std::vector<Value> start, std::vector<uint32_t> child, uint32_t* levels) {
    uint32_t depth = 0;
    for (; child.size() > 1; ++depth) {
      std::vector<Value> upper_start;
      std::vector<uint32_t> upper;
      // Spread evenly over the fewest nodes.
      const size_t n_nodes = (child.size() + kFanOut - 1) / kFanOut;
      for (size_t i = 0; i < n_nodes; ++i) {
        const size_t first = child.size() * i / n_nodes, end = child.size() * (i + 1) / n_nodes;
        upper_start.push_back(start[first]);
        upper.push_back(end - first == 1 ? child[first] : node(&start[first], &child[first], end - first));
      }
      start.swap(upper_start);
      child.swap(upper);
    }
    *levels = std::max(*levels, depth);
    return child.front();
  }

  TableArray<Node> take() { return TableArray<Node>::copy_of(nodes_); }
  size_t size() const { return nodes_.size(); }

 private:
  uint32_t node(const Value* start, const uint32_t* child, size_t n) {
    constexpr Value kSign = Value{1} << (8 * sizeof(Value) - 1);
    std::array<uint64_t, 2 * kFanOut> image{};
    Node made{};
    for (size_t i = 0; i < kFanOut; ++i) {
      made.child[i] = child[std::min(i, n - 1)];
      made.key[i] = i + 1 < n ? static_cast<Key>((start[i + 1] - 1) ^ kSign) : static_cast<Key>(kSign - 1);
      image[i] = static_cast<uint64_t>(made.key[i]);
      image[kFanOut + i] = made.child[i];
    }
    check_index(nodes_.size());
    const auto [found, is_new] = known_.try_emplace(image, static_cast<uint32_t>(nodes_.size()));
    if (is_new) nodes_.push_back(made);
    return found->second;
  }

  std::vector<Node> nodes_;
  std::map<std::array<uint64_t, 2 * kFanOut>, uint32_t> known_;
};

uint32_t terminal(uint32_t id) {
  check_index(id);
  return kTerminal | id;
}

// Depth of the deepest root slot, and nodes in all, if 2^(32 - shift) slots were used.
std::pair<uint32_t, size_t> shape_of(const std::vector<Boundary>& boundaries, uint32_t shift) {
  uint32_t depth = 0;
  size_t nodes = 0;
  for (size_t b = 0; b < boundaries.size();) {
    const uint64_t slot = boundaries[b].start.lo >> shift;
    size_t n = boundaries[b].start.lo == slot << shift ? 0 : 1;  // what reaches in from the slot before
    for (; b < boundaries.size() && boundaries[b].start.lo >> shift == slot; ++b) ++n;
    uint32_t levels = 0;
    for (; n > 1; ++levels) nodes += n = (n + kFanOut - 1) / kFanOut;
    depth = std::max(depth, levels);
  }
  return {depth, nodes};
}

// A level costs about as much as a doubling of a table that is already beyond half of the first-level cache.
uint32_t best_shift(const std::vector<Boundary>& boundaries) {
  uint32_t best = 24;
  double least = 1e300;
  for (uint32_t bits = 8; bits <= 16; ++bits) {
    const auto [depth, nodes] = shape_of(boundaries, 32 - bits);
    const double bytes = 4.0 * (1 << bits) + 64.0 * static_cast<double>(nodes);
    const double cost = depth + std::max(0.0, std::log2(bytes / 16384)) * 0.4;
    if (cost < least) {
      least = cost;
      best = 32 - bits;
    }
  }
  return best;
}

}  // namespace

Map32::Map32(const std::vector<Boundary>& boundaries) : shift_(best_shift(boundaries)) {
  TreeBuilder<Node32, int32_t, uint32_t> builder;
  const size_t n_slots = size_t{1} << (32 - shift_);
  root_ = TableArray<uint32_t>(n_slots);
  size_t b = 0;  // the boundary that the slot's first value is in, or the last one
  std::vector<uint32_t> start, child;
  for (size_t slot = 0; slot < n_slots; ++slot) {
    const uint64_t first = slot << shift_;
    while (b + 1 < boundaries.size() && boundaries[b + 1].start.lo <= first) ++b;
    start = {static_cast<uint32_t>(first)};
    child = {terminal(boundaries[b].id)};
    for (; b + 1 < boundaries.size() && boundaries[b + 1].start.lo >> shift_ == slot; ++b) {
      start.push_back(static_cast<uint32_t>(boundaries[b + 1].start.lo));
      child.push_back(terminal(boundaries[b + 1].id));
    }
    root_[slot] = builder.tree(start, child, &levels_);
  }
  nodes_ = builder.take();
}

Map128::Map128(const std::vector<Boundary>& boundaries) {
  TreeBuilder<Node64, int64_t, uint64_t> builder;
  std::vector<uint64_t> high_start;
  std::vector<uint32_t> high_child;
  const auto add_high = [&](uint64_t start, uint32_t entry) {
    if (!high_start.empty() && high_start.back() == start) {
      high_child.back() = entry;
    } else {
      high_start.push_back(start);
      high_child.push_back(entry);
    }
  };
  for (size_t b = 0; b < boundaries.size();) {
    const uint64_t high = boundaries[b].start.hi;
    std::vector<uint64_t> start;
    std::vector<uint32_t> child;
    if (boundaries[b].start.lo != 0) {  // what reaches in from the boundary before
      start.push_back(0);
      child.push_back(terminal(boundaries[b - 1].id));
    }
    for (; b < boundaries.size() && boundaries[b].start.hi == high; ++b) {
      start.push_back(boundaries[b].start.lo);
      child.push_back(terminal(boundaries[b].id));
    }
    const uint32_t last = child.back();
    const uint32_t entry = builder.tree(std::move(start), std::move(child), &low_levels_);
    add_high(high, entry & kTerminal ? entry : entry | kLowWord);
    if (!(entry & kTerminal) && high != ~uint64_t{0}) add_high(high + 1, last);
  }
  root_ = builder.tree(std::move(high_start), std::move(high_child), &high_levels_);
  nodes_ = builder.take();
}

PagedMap::PagedMap(const std::vector<Boundary>& boundaries) {
  std::vector<uint32_t> pages;
  std::map<std::array<uint32_t, 256>, uint32_t> known;
  size_t b = 0;
  for (uint32_t page = 0; page < 256; ++page) {
    std::array<uint32_t, 256> ids;
    for (uint32_t v = 0; v < 256; ++v) {
      while (b + 1 < boundaries.size() && boundaries[b + 1].start.lo <= page * 256 + v) ++b;
      ids[v] = boundaries[b].id;
    }
    const auto [found, is_new] = known.try_emplace(ids, static_cast<uint32_t>(pages.size()));
    if (is_new) pages.insert(pages.end(), ids.begin(), ids.end());
    page_[page] = found->second;
  }
  pages_ = TableArray<uint32_t>::copy_of(pages);
}

size_t FieldMap::bytes() const { return is_small() ? small.bytes() : v4.bytes() + v6.bytes(); }

uint32_t FieldMap::levels() const {
  return is_small() ? 2 : 1 + std::max(v4.levels(), is_address() ? v6.levels() : 0);
}

}  // namespace meshsieve::classes
