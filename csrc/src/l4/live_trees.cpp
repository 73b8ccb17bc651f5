#include "l4/live_trees.h"

#include <algorithm>
#include <cstring>

namespace meshsieve::live {

using forest::BlockTail;
using forest::Boxes;
using forest::kLanes;
using forest::kNoRule;
using forest::Node;
using forest::Range;
using forest::Table;
using forest::View;

namespace {

constexpr uint32_t kEmptyLeaf = 0;
constexpr size_t kSpareNodes = forest::kMaxTrees;
constexpr size_t kSpareBlocks = 256;

BlockTail& tail_of(const View& view, uint8_t* block) {
  return *reinterpret_cast<BlockTail*>(block + view.tail_offset);
}

int lanes_used(const BlockTail& tail) { return __builtin_popcount(tail.valid); }

// Opens lane i: it and the later ones move up; the last is lost.
uint8_t opened(uint8_t bits, int i) {
  const unsigned below = bits & ((1u << i) - 1), above = bits >> i;
  return static_cast<uint8_t>(below | above << (i + 1));
}
// Closes lane i: the later ones move down.
uint8_t closed(uint8_t bits, int i) {
  const unsigned below = bits & ((1u << i) - 1), above = bits >> (i + 1);
  return static_cast<uint8_t>(below | above << i);
}

// Calls use(array, size of an element) for each array of eight lanes in a block, the rules' numbers included.
template <class Use>
void each_array(const View& view, uint8_t* block, Use use) {
  uint8_t* at = block;
  for (int d = 0; d < 2 * view.n32; ++d, at += 4 * kLanes) use(at, size_t{4});
  for (int d = 0; d < 2 * view.n16; ++d, at += 2 * kLanes) use(at, size_t{2});
  for (int d = 0; d < 2 * view.n8; ++d, at += kLanes) use(at, size_t{1});
  use(reinterpret_cast<uint8_t*>(tail_of(view, block).rule), size_t{4});
}

template <class Shift>
void shift_masks(BlockTail& tail, int i, Shift shift) {
  for (uint8_t& bits : tail.constrains) bits = shift(bits, i);
  tail.valid = shift(tail.valid, i);
  tail.verify = shift(tail.verify, i);
}

void open_lane(const View& view, uint8_t* block, int i) {
  each_array(view, block, [i](uint8_t* array, size_t size) {
    std::memmove(array + (i + 1) * size, array + i * size, (kLanes - 1 - i) * size);
  });
  shift_masks(tail_of(view, block), i, opened);
}

void close_lane(const View& view, uint8_t* block, int i) {
  each_array(view, block, [i](uint8_t* array, size_t size) {
    std::memmove(array + i * size, array + (i + 1) * size, (kLanes - 1 - i) * size);
  });
  BlockTail& tail = tail_of(view, block);
  shift_masks(tail, i, closed);
  tail.rule[lanes_used(tail)] = kNoRule;
}

// Calls use(place) for every leaf that a value of the entry leads to; with several ranges or shared nodes, maybe twice.
template <class Use>
void each_leaf(const Table& table, uint32_t place, const Boxes& boxes, size_t e, const Use& use) {
  const Node node = table.nodes[place];
  if (node.mask == 0) return use(place);
  const auto ranges = boxes.ranges(e, node.dim);
  if (ranges.size() == 1) {
    const uint32_t low = ranges[0].lo >> node.shift;
    const uint32_t more = std::min<uint32_t>((ranges[0].hi >> node.shift) - low, node.mask);
    for (uint32_t k = 0; k <= more; ++k) each_leaf(table, node.first + ((low + k) & node.mask), boxes, e, use);
    return;
  }
  std::vector<bool> reached(size_t{node.mask} + 1);
  for (const Range& range : ranges) {
    const uint32_t low = range.lo >> node.shift;
    const uint32_t more = std::min<uint32_t>((range.hi >> node.shift) - low, node.mask);
    for (uint32_t k = 0; k <= more; ++k) reached[(low + k) & node.mask] = true;
  }
  for (uint32_t c = 0; c <= node.mask; ++c)
    if (reached[c]) each_leaf(table, node.first + c, boxes, e, use);
}

}  // namespace

// One entry as a leaf stores it.
struct TreeEditor::Lane {
  int32_t label;
  uint8_t groups;
  bool exact;
  std::array<Range, forest::kMaxDims> box;  // low end and width

  Lane(const Boxes& boxes, size_t e, int32_t label_) : label(label_), groups(boxes.entries[e].groups) {
    exact = boxes.entries[e].exact;
    for (size_t d = 0; d < boxes.dims(); ++d) {
      const Range hull = boxes.hull[e * boxes.dims() + d];
      box[d] = {hull.lo, hull.hi - hull.lo};
      exact = exact && boxes.list[e * boxes.dims() + d] < 0;
    }
  }

  // Lane i of the block is this one.
  bool is(const View& view, const uint8_t* block, int i) const {
    const auto& tail = *reinterpret_cast<const BlockTail*>(block + view.tail_offset);
    if (tail.rule[i] != label || (tail.verify >> i & 1) == static_cast<int>(exact)) return false;
    for (int g = 0; g < 4; ++g)
      if ((tail.constrains[g] >> i & 1) != (groups >> g & 1)) return false;
    const Range* own = box.data();
    for (int d = 0; d < view.n32; ++d, ++own, block += 8 * kLanes)
      if (std::memcmp(block + 4 * i, &own->lo, 4) != 0 || std::memcmp(block + 4 * kLanes + 4 * i, &own->hi, 4) != 0)
        return false;
    for (int d = 0; d < view.n16; ++d, ++own, block += 4 * kLanes)
      if (std::memcmp(block + 2 * i, &own->lo, 2) != 0 || std::memcmp(block + 2 * kLanes + 2 * i, &own->hi, 2) != 0)
        return false;
    for (int d = 0; d < view.n8; ++d, ++own, block += 2 * kLanes)
      if (block[i] != (own->lo & 0xff) || block[kLanes + i] != (own->hi & 0xff)) return false;
    return true;
  }

  void write(const View& view, uint8_t* block, int i) const {
    BlockTail& tail = tail_of(view, block);
    const auto set = [i](uint8_t& bits, bool to) {
      bits = static_cast<uint8_t>((bits & ~(1u << i)) | static_cast<unsigned>(to) << i);
    };
    tail.rule[i] = label;
    for (int g = 0; g < 4; ++g) set(tail.constrains[g], (groups >> g & 1) != 0);
    set(tail.valid, true);
    set(tail.verify, !exact);
    const Range* own = box.data();
    for (int d = 0; d < view.n32; ++d, ++own, block += 8 * kLanes) {
      std::memcpy(block + 4 * i, &own->lo, 4);
      std::memcpy(block + 4 * kLanes + 4 * i, &own->hi, 4);
    }
    for (int d = 0; d < view.n16; ++d, ++own, block += 4 * kLanes) {  // little-endian: the low half comes first
      std::memcpy(block + 2 * i, &own->lo, 2);
      std::memcpy(block + 2 * kLanes + 2 * i, &own->hi, 2);
    }
    for (int d = 0; d < view.n8; ++d, ++own, block += 2 * kLanes) {
      block[i] = static_cast<uint8_t>(own->lo);
      block[kLanes + i] = static_cast<uint8_t>(own->hi);
    }
  }
};

TreeEditor::TreeEditor(Table& table, std::array<int8_t, forest::kMaxTrees> tree_of)
    : tree_of_(tree_of),
      used_nodes_(static_cast<uint32_t>(table.nodes.size())),
      used_blocks_(static_cast<uint32_t>(table.blocks.size() / table.view.block_bytes)) {
  refs_.assign(used_blocks_, 0);
  for (uint32_t n = 0; n < used_nodes_; ++n)
    if (table.nodes[n].mask == 0) ++refs_[table.nodes[n].first];
  TableArray<Node> nodes(used_nodes_ + kSpareNodes);
  if (used_nodes_ != 0) std::memcpy(nodes.data(), table.nodes.data(), table.nodes.bytes());
  TableArray<uint8_t> blocks(table.blocks.size() + (used_blocks_ / 8 + kSpareBlocks) * table.view.block_bytes);
  std::memcpy(blocks.data(), table.blocks.data(), table.blocks.bytes());
  table.nodes = std::move(nodes);
  table.blocks = std::move(blocks);
  table.point_view();
}

uint8_t TreeEditor::insert(Table& table, const Boxes& boxes, size_t e, int32_t label, Touched& touched) {
  const size_t tree = tree_for(table, boxes, e, label, touched);
  const Lane lane(boxes, e, label);
  unsure_lanes_ += !lane.exact;
  copied_.clear();
  each_leaf(table, table.view.root[tree], boxes, e,
            [&](uint32_t place) { insert_at(table, place, lane, touched); });
  ++table.worst_case_steps;
  return static_cast<uint8_t>(1 << tree);
}

void TreeEditor::remove(Table& table, const Boxes& boxes, int32_t label, uint8_t trees, Touched& touched) {
  for (size_t t = 0; t < table.view.n_trees; ++t)
    if (trees >> t & 1)
      each_leaf(table, table.view.root[t], boxes, 0,
                [&](uint32_t place) { remove_at(table, place, label, touched); });
}

void TreeEditor::relabel(Table& table, const Boxes& boxes, int32_t from, int32_t to, uint8_t trees,
                         Touched& touched) {
  for (size_t t = 0; t < table.view.n_trees; ++t) {
    if ((trees >> t & 1) == 0) continue;
    table.view.first_rule[t] = std::min(table.view.first_rule[t], to);
    each_leaf(table, table.view.root[t], boxes, 0, [&](uint32_t place) {
      for (uint32_t b = table.nodes[place].first;; ++b) {
        BlockTail& tail = tail_of(table.view, block(table, b));
        for (int i = 0; i < kLanes; ++i) {
          if (tail.rule[i] != from) continue;
          tail.rule[i] = to;
          touched.blocks.push_back(b);
        }
        if (tail.last) break;
      }
    });
  }
}

// The tree of entries like e; made where there is none yet.
size_t TreeEditor::tree_for(Table& table, const Boxes& boxes, size_t e, int32_t label, Touched& touched) {
  int8_t& tree = tree_of_[smallness(boxes, e)];
  if (tree == forest::kNoTree) {
    tree = static_cast<int8_t>(table.view.n_trees++);
    table.view.root[tree] = used_nodes_;
    table.view.first_rule[tree] = label;
    table.nodes[used_nodes_] = Node{kEmptyLeaf, 0, 0, 0};
    ++refs_[kEmptyLeaf];
    touched.nodes.push_back(used_nodes_++);
  }
  table.view.first_rule[tree] = std::min(table.view.first_rule[tree], label);
  return static_cast<size_t>(tree);
}

uint32_t TreeEditor::blocks_of(const Table& table, uint32_t first) const {
  uint32_t n = 1;
  while (!reinterpret_cast<const BlockTail*>(table.blocks.data() + size_t{first + n - 1} * table.view.block_bytes +
                                             table.view.tail_offset)
              ->last)
    ++n;
  return n;
}

void TreeEditor::insert_at(Table& table, uint32_t place, const Lane& lane, Touched& touched) {
  const View& view = table.view;
  uint32_t first = table.nodes[place].first;
  if (const auto copy = copied_.find(first); copy != copied_.end()) return point(table, place, copy->second, touched);
  uint32_t n = blocks_of(table, first);
  // Where it goes: before the first lane with a greater label.
  uint32_t b = 0;
  int i = 0;
  for (;; ++b, i = 0) {
    const BlockTail& tail = tail_of(view, block(table, first + b));
    const int used = lanes_used(tail);
    for (; i < used && tail.rule[i] <= lane.label; ++i)
      if (lane.is(view, block(table, first + b), i)) return;
    if (i < used || b + 1 == n) break;
  }
  const bool full = lanes_used(tail_of(view, block(table, first + n - 1))) == kLanes;
  if (first == kEmptyLeaf || full) {
    const uint32_t longer = first == kEmptyLeaf ? 1 : n + 1;
    const uint32_t moved = take_blocks(table, longer);
    std::memcpy(block(table, moved), block(table, first), size_t{n} * view.block_bytes);
    if (longer > n) {
      std::memcpy(block(table, moved + n), block(table, kEmptyLeaf), view.block_bytes);
      tail_of(view, block(table, moved + n - 1)).last = 0;
    }
    if (first == kEmptyLeaf || refs_[first] > 1) copied_.emplace(first, moved);
    point(table, place, moved, touched);
    first = moved;
    n = longer;
    for (uint32_t k = 0; k < n; ++k) touched.blocks.push_back(first + k);
  }
  if (i == kLanes) ++b, i = 0;
  for (uint32_t k = n - 1;; --k) {  // the last lane of each block moves into the next
    uint8_t* to = block(table, first + k);
    open_lane(view, to, k == b ? i : 0);
    if (k == b) break;
    uint8_t* from = block(table, first + k - 1);
    each_array(view, from, [&](uint8_t* source, size_t size) {
      std::memcpy(to + (source - from), source + (kLanes - 1) * size, size);
    });
    BlockTail &into = tail_of(view, to), &out_of = tail_of(view, from);
    for (int g = 0; g < 4; ++g) into.constrains[g] |= out_of.constrains[g] >> (kLanes - 1);
    into.valid |= out_of.valid >> (kLanes - 1);
    into.verify |= out_of.verify >> (kLanes - 1);
    touched.blocks.push_back(first + k);
  }
  lane.write(view, block(table, first + b), i);
  touched.blocks.push_back(first + b);
}

void TreeEditor::remove_at(Table& table, uint32_t place, int32_t label, Touched& touched) {
  const View& view = table.view;
  const uint32_t first = table.nodes[place].first;
  if (first == kEmptyLeaf) return;
  uint32_t n = blocks_of(table, first);
  for (uint32_t b = 0; b < n; ++b) {
    for (int i = 0; i < lanes_used(tail_of(view, block(table, first + b)));) {
      if (tail_of(view, block(table, first + b)).rule[i] != label) {
        ++i;
        continue;
      }
      close_lane(view, block(table, first + b), i);
      touched.blocks.push_back(first + b);
      for (uint32_t k = b; k + 1 < n; ++k) {  // the first lane of each block moves into the one before
        uint8_t *to = block(table, first + k), *from = block(table, first + k + 1);
        each_array(view, from, [&](uint8_t* source, size_t size) {
          std::memcpy(to + (source - from) + (kLanes - 1) * size, source, size);
        });
        BlockTail &into = tail_of(view, to), &out_of = tail_of(view, from);
        for (int g = 0; g < 4; ++g)
          into.constrains[g] |= static_cast<uint8_t>((out_of.constrains[g] & 1) << (kLanes - 1));
        into.valid |= static_cast<uint8_t>((out_of.valid & 1) << (kLanes - 1));
        into.verify |= static_cast<uint8_t>((out_of.verify & 1) << (kLanes - 1));
        close_lane(view, from, 0);
        touched.blocks.push_back(first + k + 1);
      }
      if (n > 1 && lanes_used(tail_of(view, block(table, first + n - 1))) == 0) {
        --n;
        tail_of(view, block(table, first + n - 1)).last = 1;
        touched.blocks.push_back(first + n - 1);
        give_back(first + n, 1);
      }
    }
  }
  if (lanes_used(tail_of(view, block(table, first))) == 0) point(table, place, kEmptyLeaf, touched);
}

// Makes a leaf's place name another leaf. The one that nobody names any more is free.
void TreeEditor::point(Table& table, uint32_t place, uint32_t first, Touched& touched) {
  const uint32_t before = table.nodes[place].first;
  if (before == first) return;
  table.nodes[place].first = first;
  touched.nodes.push_back(place);
  ++refs_[first];
  if (--refs_[before] == 0 && before != kEmptyLeaf) give_back(before, blocks_of(table, before));
}

uint32_t TreeEditor::take_blocks(Table& table, uint32_t n) {
  if (const auto found = free_.find(n); found != free_.end() && !found->second.empty()) {
    const uint32_t first = found->second.back();
    found->second.pop_back();
    free_blocks_ -= n;
    return first;
  }
  const uint32_t first = used_blocks_;
  used_blocks_ += n;
  const size_t wanted = size_t{used_blocks_} * table.view.block_bytes;
  if (wanted > table.blocks.size()) {
    TableArray<uint8_t> larger(wanted + (used_blocks_ / 4 + kSpareBlocks) * table.view.block_bytes);
    std::memcpy(larger.data(), table.blocks.data(), table.blocks.bytes());
    table.blocks = std::move(larger);
    table.point_view();
  }
  refs_.resize(used_blocks_, 0);
  return first;
}

void TreeEditor::give_back(uint32_t first, uint32_t n) {
  free_[n].push_back(first);
  free_blocks_ += n;
}

void TreeEditor::follow(const Table& table, Table& copy, const std::vector<const Touched*>& touched) {
  if (copy.blocks.size() != table.blocks.size()) return TreeEditor::copy(table, copy);
  const size_t size = table.view.block_bytes;
  for (const Touched* change : touched) {
    for (const uint32_t n : change->nodes) copy.nodes[n] = table.nodes[n];
    for (const uint32_t b : change->blocks) std::memcpy(&copy.blocks[b * size], &table.blocks[b * size], size);
  }
  copy.view = table.view;
  copy.point_view();
  copy.boxes.blind = table.boxes.blind;
  copy.worst_case_steps = table.worst_case_steps;
}

void TreeEditor::copy(const Table& table, Table& copy) {
  if (copy.blocks.size() != table.blocks.size()) {
    copy.boxes = table.boxes;
    copy.nodes = TableArray<Node>(table.nodes.size());
    copy.blocks = TableArray<uint8_t>(table.blocks.size());
  }
  std::memcpy(copy.nodes.data(), table.nodes.data(), table.nodes.bytes());
  std::memcpy(copy.blocks.data(), table.blocks.data(), table.blocks.bytes());
  copy.view = table.view;
  copy.point_view();
  copy.boxes.blind = table.boxes.blind;
  copy.worst_case_steps = table.worst_case_steps;
}

}  // namespace meshsieve::live
