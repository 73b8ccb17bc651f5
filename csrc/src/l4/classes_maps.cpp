// Building the search tables of the class front end from swept boundaries (classes_views.h draws the node).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <unordered_map>

#include "l4/classes_table.h"
#include "l4/signature.h"
#include "meshsieve/errors.h"

namespace meshsieve::classes {
namespace {

void check_index(size_t index) {
  if (index >= kLowWord) throw CompileError("more than 2^30 search nodes or classes");
}

uint32_t terminal(uint32_t id) {
  check_index(id);
  return kTerminal | id;
}

// Packs `n` children, child i holding values from start[i] (start[0] is implied), into trees of nodes; shares nodes
// that are equal.
class Tree64Builder {
 public:
  Tree64Builder() : nodes_(1) { std::fill(std::begin(nodes_[0].key), std::end(nodes_[0].key), kLargest); }

  // Entry of a tree over the children; raises *levels to its depth.
  uint32_t tree(std::vector<uint64_t> start, std::vector<uint32_t> child, uint32_t* levels) {
    uint32_t depth = 0;
    for (; child.size() > 1; ++depth) {
      std::vector<uint64_t> upper_start;
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

  TableArray<Node64> take() { return TableArray<Node64>::copy_of(nodes_); }

 private:
  static constexpr uint32_t kFanOut = 8;
  static constexpr uint64_t kSign = uint64_t{1} << 63;
  static constexpr int64_t kLargest = static_cast<int64_t>(kSign - 1);

  using Image = std::array<uint64_t, 2 * kFanOut>;  // keys, children
  struct ImageHash {
    size_t operator()(const Image& image) const {
      uint64_t hash = 0;
      for (const uint64_t word : image) hash = (hash ^ word) * 0x9e3779b97f4a7c15 ^ (hash >> 32);
      return hash;
    }
  };

  uint32_t node(const uint64_t* start, const uint32_t* child, size_t n) {
    Image image{};
    Node64 made{};
    for (size_t i = 0; i < kFanOut; ++i) {
      made.child[i] = child[std::min(i, n - 1)];
      made.key[i] = i + 1 < n ? static_cast<int64_t>((start[i + 1] - 1) ^ kSign) : kLargest;
      image[i] = static_cast<uint64_t>(made.key[i]);
      image[kFanOut + i] = made.child[i];
    }
    check_index(nodes_.size());
    const auto [found, is_new] = known_.try_emplace(image, static_cast<uint32_t>(nodes_.size()));
    if (is_new) nodes_.push_back(made);
    return found->second;
  }

  std::vector<Node64> nodes_;
  std::unordered_map<Image, uint32_t, ImageHash> known_;
};

uint32_t levels_of(size_t intervals, size_t fan_out) {
  uint32_t levels = 0;
  for (; intervals > 1; ++levels) intervals = (intervals + fan_out - 1) / fan_out;
  return levels;
}

// A part of the high words whose values have slots: an aligned block of 2^(shift + bits) values.
struct Window {
  uint64_t first = 0;
  uint32_t shift = 0, bits = 0;
};

// The window for which a look-up is the cheapest, judged by some of the starts (sorted). A level costs about as much as
// slots that are eight times as many, from what the first-level cache bears on.
Window best_window(const std::vector<uint64_t>& start) {
  constexpr size_t kMostJudged = 4096;
  std::vector<uint64_t> some;
  const size_t n = std::min(start.size(), kMostJudged);
  for (size_t i = 0; i < n; ++i) some.push_back(start[start.size() * i / n]);
  const double of_each = static_cast<double>(start.size()) / static_cast<double>(n);
  Window best;
  double least = 1e9;
  for (const uint32_t bits : {4u, 8u, 12u})
    for (uint32_t shift = 0; shift + bits <= 64; ++shift) {
      const auto block_of = [&](uint64_t value) { return shift + bits == 64 ? 0 : value >> (shift + bits); };
      size_t from = 0, to = 0;  // of the block with the most starts
      for (size_t i = 0, next; i < n; i = next) {
        for (next = i + 1; next < n && block_of(some[next]) == block_of(some[i]);) ++next;
        if (next - i > to - from) from = i, to = next;
      }
      size_t most = 0;  // starts of one slot
      for (size_t i = from, next; i < to; i = next) {
        for (next = i + 1; next < to && some[next] >> shift == some[i] >> shift;) ++next;
        most = std::max(most, next - i);
      }
      const auto levels = [&](size_t starts) { return levels_of(static_cast<size_t>(of_each * static_cast<double>(starts)) + 1, 8); };
      const double cost = std::max(levels(most), levels(n - (to - from) + 1)) + (bits == 12 ? 0.5 : bits == 8 ? 0.1 : 0);
      if (cost >= least) continue;
      least = cost;
      best = {block_of(some[from]) << (shift + bits) % 64, shift, bits};
    }
  return best;
}

// --- 32 bits --------------------------------------------------------------------------------------------------------

constexpr uint32_t kFanOut32 = 32;
constexpr uint32_t kFewestSlotBits = 16 - kBlockBits;  // what is left has 16 bits, as keys have
constexpr uint32_t kMostSlotBits = 16;
constexpr uint32_t kMostLevels = 4;  // 32^4 intervals: more than 16 bits can tell apart
constexpr size_t kBlocks = size_t{1} << kBlockBits;
constexpr size_t kMostSlots = size_t{1} << 27;  // the first slot of a block has 27 bits

// How deep a block's trees are, and how many nodes they have, by the bits that index its slots.
struct BlockShape {
  struct {
    uint32_t levels = 0, nodes = 0;
  } by_bits[kMostSlotBits + 1];

  BlockShape(const Boundary* from, const Boundary* to) {
    for (uint32_t bits = kFewestSlotBits; bits <= kMostSlotBits; ++bits) {
      const uint32_t shift = 32 - kBlockBits - bits;
      for (const Boundary* b = from; b != to;) {
        const uint64_t slot = b->start.lo >> shift;
        size_t n = b->start.lo == slot << shift ? 0 : 1;  // what reaches in from the slot before
        for (; b != to && b->start.lo >> shift == slot; ++b) ++n;
        by_bits[bits].levels = std::max(by_bits[bits].levels, levels_of(n, kFanOut32));
        while (n > 1) by_bits[bits].nodes += static_cast<uint32_t>(n = (n + kFanOut32 - 1) / kFanOut32);
      }
    }
  }
};

// Slot bits of every block such that trees have at most `wanted` levels where kMostSlotBits allow.
struct SlotPlan {
  std::array<uint8_t, kBlocks> bits;
  uint32_t levels = 0;
  size_t slots = 1 << kFewestSlotBits, nodes = 0;

  SlotPlan(const std::vector<BlockShape>& shapes, const std::vector<uint32_t>& blocks, uint32_t wanted) {
    bits.fill(kFewestSlotBits);
    for (size_t i = 0; i < shapes.size(); ++i) {
      uint32_t k = kFewestSlotBits;
      while (k < kMostSlotBits && shapes[i].by_bits[k].levels > wanted) ++k;
      bits[blocks[i]] = static_cast<uint8_t>(k);
      levels = std::max(levels, shapes[i].by_bits[k].levels);
      slots += size_t{1} << k;
      nodes += shapes[i].by_bits[k].nodes;
    }
  }
  // In levels. Measured: a level costs about 1 ns; a doubling of a table beyond the first-level cache a fifth, and one
  // that would leave nothing of the second-level cache to others is not worth a level.
  double cost() const {
    const double bytes = static_cast<double>(slots * sizeof(uint16_t) + nodes * sizeof(Node32<uint16_t>));
    return levels + 0.2 * std::max(0.0, std::log2(bytes / 32768)) + bytes / (4 << 20);
  }
};

SlotPlan best_plan(const std::vector<Boundary>& boundaries) {
  std::vector<BlockShape> shapes;
  std::vector<uint32_t> blocks;
  const auto block_of = [](const Boundary& b) { return static_cast<uint32_t>(b.start.lo >> (32 - kBlockBits)); };
  for (size_t b = 0; b < boundaries.size();) {
    size_t end = b;
    while (end < boundaries.size() && block_of(boundaries[end]) == block_of(boundaries[b])) ++end;
    blocks.push_back(block_of(boundaries[b]));
    shapes.emplace_back(&boundaries[b], &boundaries[b] + (end - b));
    b = end;
  }
  SlotPlan best(shapes, blocks, kMostLevels);
  for (uint32_t wanted = 0; wanted < kMostLevels; ++wanted) {
    const SlotPlan plan(shapes, blocks, wanted);
    if (plan.slots < kMostSlots && plan.cost() < best.cost()) best = plan;
  }
  return best;
}

// Trees of one depth over the intervals of a slot; equal nodes are shared.
class Tree32Builder {
 public:
  explicit Tree32Builder(uint32_t levels) : levels_(levels) {}

  // Root of the tree whose child i holds the values from start[i], of which it sees the low 16 bits.
  uint32_t tree(std::vector<uint32_t>& start, std::vector<uint32_t>& child) {
    if (child.size() == 1) {
      const auto [found, is_new] = constant_.try_emplace(child.front(), 0);
      if (!is_new) return found->second;
    }
    const uint32_t first = child.front();
    const bool constant = child.size() == 1;
    for (uint32_t level = 0; level < levels_; ++level) {
      const size_t n_nodes = (child.size() + kFanOut32 - 1) / kFanOut32;
      for (size_t i = 0; i < n_nodes; ++i) {  // spread evenly over the fewest nodes
        const size_t from = child.size() * i / n_nodes, to = child.size() * (i + 1) / n_nodes;
        const uint32_t made = node(&start[from], &child[from], to - from);
        start_above_.push_back(start[from]);
        above_.push_back(made);
      }
      start.swap(start_above_);
      child.swap(above_);
      start_above_.clear();
      above_.clear();
    }
    if (constant) constant_[first] = child.front();
    return child.front();
  }

  const std::vector<Node32<uint32_t>>& nodes() const { return nodes_; }

 private:
  uint32_t node(const uint32_t* start, const uint32_t* child, size_t n) {
    Node32<uint32_t> made;
    uint64_t hash = n;
    for (size_t i = 0; i < kFanOut32; ++i) {
      made.child[i] = child[std::min(i, n - 1)];
      made.key[i] = i + 1 < n ? static_cast<int16_t>((start[i + 1] - 1) ^ 0x8000u) : int16_t{0x7fff};
      hash = mixed(hash ^ (uint64_t{made.child[i]} << 16 | static_cast<uint16_t>(made.key[i])));
    }
    check_index(nodes_.size());
    const auto [from, to] = by_hash_.equal_range(hash);
    for (auto same = from; same != to; ++same)
      if (std::memcmp(&nodes_[same->second], &made, sizeof made) == 0) return same->second;
    by_hash_.emplace(hash, static_cast<uint32_t>(nodes_.size()));
    nodes_.push_back(made);
    return static_cast<uint32_t>(nodes_.size() - 1);
  }

  uint32_t levels_;
  std::vector<Node32<uint32_t>> nodes_;
  std::unordered_multimap<uint64_t, uint32_t> by_hash_;
  std::unordered_map<uint32_t, uint32_t> constant_;  // class -> root of the tree that knows no other
  std::vector<uint32_t> start_above_, above_;
};

}  // namespace

Map32::Map32(const std::vector<Boundary>& boundaries) : blocks_(kBlocks) {
  const SlotPlan plan = best_plan(boundaries);
  levels_ = plan.levels;
  Tree32Builder builder(levels_);
  std::vector<uint32_t> slots;
  slots.reserve(plan.slots);
  std::unordered_map<uint32_t, uint32_t> known;  // root -> first slot of a block that knows no other
  size_t b = 0;  // the boundary that the slot's first value is in
  std::vector<uint32_t> start, child;
  for (size_t block = 0; block < kBlocks; ++block) {
    const uint32_t bits = plan.bits[block], shift = 32 - kBlockBits - bits;
    const size_t first_slot = slots.size();
    const auto fill = [&](uint64_t first, uint32_t width) {  // values [first, first + 2^width)
      while (b + 1 < boundaries.size() && boundaries[b + 1].start.lo <= first) ++b;
      start = {static_cast<uint32_t>(first)};
      child = {boundaries[b].id};
      for (; b + 1 < boundaries.size() && boundaries[b + 1].start.lo >> width == first >> width; ++b) {
        start.push_back(static_cast<uint32_t>(boundaries[b + 1].start.lo));
        child.push_back(boundaries[b + 1].id);
      }
      return builder.tree(start, child);
    };
    const uint64_t first = uint64_t{block} << (32 - kBlockBits);
    const size_t next = b + 1 < boundaries.size() && boundaries[b + 1].start.lo == first ? b + 2 : b + 1;
    if (next >= boundaries.size() || boundaries[next].start.lo >> (32 - kBlockBits) != block) {  // one class
      const uint32_t root = fill(first, shift);
      const auto [found, is_new] = known.try_emplace(root, static_cast<uint32_t>(first_slot));
      if (is_new) slots.insert(slots.end(), size_t{1} << bits, root);
      blocks_[block] = found->second << 5 | (32 - bits);
      continue;
    }
    for (uint64_t slot = 0; slot < uint64_t{1} << bits; ++slot) slots.push_back(fill(first + (slot << shift), shift));
    blocks_[block] = static_cast<uint32_t>(first_slot) << 5 | (32 - bits);
  }
  store(slots, builder.nodes());
}

void Map32::store(const std::vector<uint32_t>& slots, const std::vector<Node32<uint32_t>>& nodes) {
  if (slots.size() >= kMostSlots) throw CompileError("more than 2^27 slots of search trees");
  uint32_t largest = 0;
  for (const uint32_t slot : slots) largest = std::max(largest, slot);
  for (const auto& node : nodes) largest = std::max(largest, *std::max_element(std::begin(node.child), std::end(node.child)));
  check_index(largest);
  if (largest > 0xffff) {
    wide_slots_ = TableArray<uint32_t>::copy_of(slots);
    wide_nodes_ = TableArray<Node32<uint32_t>>::copy_of(nodes);
    return;
  }
  narrow_slots_ = TableArray<uint16_t>::copy_of(std::vector<uint16_t>(slots.begin(), slots.end()));
  narrow_nodes_ = TableArray<Node32<uint16_t>>(nodes.size());
  for (size_t i = 0; i < nodes.size(); ++i) {
    std::copy(std::begin(nodes[i].key), std::end(nodes[i].key), narrow_nodes_[i].key);
    std::copy(std::begin(nodes[i].child), std::end(nodes[i].child), narrow_nodes_[i].child);
  }
}

Map128::Map128(const std::vector<Boundary>& boundaries) {
  Tree64Builder builder;
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
  const Window window = best_window(high_start);
  first_ = window.first;
  shift_ = window.shift;
  slots_ = TableArray<uint32_t>((size_t{1} << window.bits) + 1);
  // What holds the values from `from` to `last`: the interval that reaches in, and those that start there.
  const auto cut = [&](size_t& at, uint64_t from, uint64_t last, std::vector<uint64_t>& start, std::vector<uint32_t>& child) {
    while (at + 1 < high_start.size() && high_start[at + 1] <= from) ++at;
    start.push_back(from);
    child.push_back(high_child[at]);
    for (; at + 1 < high_start.size() && high_start[at + 1] <= last; ++at) {
      start.push_back(high_start[at + 1]);
      child.push_back(high_child[at + 1]);
    }
  };
  size_t at = 0;
  std::vector<uint64_t> outside;
  std::vector<uint32_t> outside_child;
  if (first_ != 0) cut(at, 0, first_ - 1, outside, outside_child);
  for (size_t slot = 0; slot + 1 < slots_.size(); ++slot) {
    std::vector<uint64_t> start;
    std::vector<uint32_t> child;
    const uint64_t from = first_ + (uint64_t{slot} << shift_);
    cut(at, from, from + ((uint64_t{1} << shift_) - 1), start, child);
    slots_[slot] = builder.tree(std::move(start), std::move(child), &high_levels_);
  }
  const uint64_t last = first_ + ((uint64_t{slots_.size() - 2} << shift_) | ((uint64_t{1} << shift_) - 1));
  if (last != ~uint64_t{0}) cut(at, last + 1, ~uint64_t{0}, outside, outside_child);
  slots_[slots_.size() - 1] = outside.empty() ? slots_[0] : builder.tree(std::move(outside), std::move(outside_child), &high_levels_);
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
