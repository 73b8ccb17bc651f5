// Building the search tables of the class front end from swept boundaries (classes_views.h draws the node).
#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <unordered_map>

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
  TreeBuilder() : nodes_(1) { std::fill(std::begin(nodes_[0].key), std::end(nodes_[0].key), kLargest); }

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
  static constexpr Value kSign = Value{1} << (8 * sizeof(Value) - 1);
  static constexpr Key kLargest = static_cast<Key>(kSign - 1);

  using Image = std::array<uint64_t, 2 * kFanOut>;  // keys, children
  struct ImageHash {
    size_t operator()(const Image& image) const {
      uint64_t hash = 0;
      for (const uint64_t word : image) hash = (hash ^ word) * 0x9e3779b97f4a7c15 ^ (hash >> 32);
      return hash;
    }
  };

  uint32_t node(const Value* start, const uint32_t* child, size_t n) {
    Image image{};
    Node made{};
    for (size_t i = 0; i < kFanOut; ++i) {
      made.child[i] = child[std::min(i, n - 1)];
      made.key[i] = i + 1 < n ? static_cast<Key>((start[i + 1] - 1) ^ kSign) : kLargest;
      image[i] = static_cast<uint64_t>(made.key[i]);
      image[kFanOut + i] = made.child[i];
    }
    check_index(nodes_.size());
    const auto [found, is_new] = known_.try_emplace(image, static_cast<uint32_t>(nodes_.size()));
    if (is_new) nodes_.push_back(made);
    return found->second;
  }

  std::vector<Node> nodes_;
  std::unordered_map<Image, uint32_t, ImageHash> known_;
};

uint32_t terminal(uint32_t id) {
  check_index(id);
  return kTerminal | id;
}

// What slots of 2^shift values would make of the boundaries [b, end), all in one block.
struct Shape {
  uint32_t levels = 0;  // of the deepest slot
  size_t nodes = 0;
};
Shape shape_of(const std::vector<Boundary>& boundaries, size_t b, size_t end, uint32_t shift) {
  Shape shape;
  while (b < end) {
    const uint64_t slot = boundaries[b].start.lo >> shift;
    size_t n = boundaries[b].start.lo == slot << shift ? 0 : 1;  // what reaches in from the slot before
    for (; b < end && boundaries[b].start.lo >> shift == slot; ++b) ++n;
    uint32_t levels = 0;
    for (; n > 1; ++levels) shape.nodes += n = (n + kFanOut - 1) / kFanOut;
    shape.levels = std::max(shape.levels, levels);
  }
  return shape;
}

constexpr uint32_t kMostSlotBits = 12;
constexpr size_t kBlocks = size_t{1} << kBlockBits;

// Slot bits of every block such that trees have at most `levels` levels if kMostSlotBits allow.
struct SlotPlan {
  std::array<uint8_t, kBlocks> bits{};
  uint32_t levels = 0;
  size_t bytes = 0;

  SlotPlan(const std::vector<Boundary>& boundaries, uint32_t wanted) {
    for (size_t block = 0, b = 0; block < kBlocks; ++block) {
      size_t end = b;
      while (end < boundaries.size() && boundaries[end].start.lo >> (32 - kBlockBits) == block) ++end;
      Shape shape;
      for (uint32_t k = 0;; ++k) {
        bits[block] = static_cast<uint8_t>(k);
        shape = shape_of(boundaries, b, end, 32 - kBlockBits - k);
        if (shape.levels <= wanted || k == kMostSlotBits) break;
      }
      levels = std::max(levels, shape.levels);
      bytes += (sizeof(uint32_t) << bits[block]) + shape.nodes * sizeof(Node32);
      b = end;
    }
  }
  // In levels. Measured: a level costs 1.2 to 1.4 ns; a doubling of a table beyond the first-level cache a fraction.
  double cost() const { return levels + 0.2 * std::max(0.0, std::log2(static_cast<double>(bytes) / 32768)); }
};

SlotPlan best_plan(const std::vector<Boundary>& boundaries) {
  SlotPlan best(boundaries, 1);
  for (uint32_t wanted = 2; wanted <= 4; ++wanted) {
    const SlotPlan plan(boundaries, wanted);
    if (plan.cost() < best.cost()) best = plan;
  }
  return best;
}

}  // namespace

Map32::Map32(const std::vector<Boundary>& boundaries) : blocks_(kBlocks) {
  const SlotPlan plan = best_plan(boundaries);
  TreeBuilder<Node32, int32_t, uint32_t> builder;
  std::vector<uint32_t> slots;
  std::map<std::vector<uint32_t>, uint32_t> known;  // slots of a block -> first of them; mostly blocks of one class
  size_t b = 0;                                     // the boundary that the slot's first value is in, or the last one
  std::vector<uint32_t> start, child, entries;
  for (size_t block = 0; block < kBlocks; ++block) {
    const uint32_t shift = 32 - kBlockBits - plan.bits[block];
    entries.clear();
    for (uint64_t slot = 0; slot < uint64_t{1} << plan.bits[block]; ++slot) {
      const uint64_t first = (uint64_t{block} << (32 - kBlockBits)) + (slot << shift);
      while (b + 1 < boundaries.size() && boundaries[b + 1].start.lo <= first) ++b;
      start = {static_cast<uint32_t>(first)};
      child = {terminal(boundaries[b].id)};
      for (; b + 1 < boundaries.size() && boundaries[b + 1].start.lo >> shift == first >> shift; ++b) {
        start.push_back(static_cast<uint32_t>(boundaries[b + 1].start.lo));
        child.push_back(terminal(boundaries[b + 1].id));
      }
      entries.push_back(builder.tree(start, child, &levels_));
    }
    const auto [found, is_new] = known.try_emplace(entries, static_cast<uint32_t>(slots.size()));
    if (is_new) slots.insert(slots.end(), entries.begin(), entries.end());
    blocks_[block] = found->second << 5 | plan.bits[block];
  }
  static_assert((kBlocks << kMostSlotBits) <= size_t{1} << 27, "the first slot has 27 bits");
  slots_ = TableArray<uint32_t>::copy_of(slots);
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
  return is_small() ? 2 : 2 + std::max(v4.levels(), is_address() ? v6.levels() : 0);
}

}  // namespace meshsieve::classes
