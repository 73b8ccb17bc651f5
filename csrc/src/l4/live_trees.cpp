#include "l4/live_trees.h"

#include <algorithm>
#include <bit>
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
constexpr int kPrefetchedLines = 8;  // of a leaf
constexpr size_t kPrefetchedNodes = 16;

BlockTail& tail_of(const View& view, uint8_t* block) {
  return *reinterpret_cast<BlockTail*>(block + view.tail_offset);
}

int lanes_used(const BlockTail& tail) { return std::countr_one(tail.valid); }  // used lanes come first

// Opens lane i: it and the later ones move up; the last is lost.
uint8_t opened(uint8_t bits, int i) {
  const unsigned below = bits & ((1u << i) - 1), above = bits >> i;
  return static_cast<uint8_t>((below | above << (i + 1)) & ((1u << kLanes) - 1));
}
// Closes lane i: the later ones move down.
uint8_t closed(uint8_t bits, int i) {
  const unsigned below = bits & ((1u << i) - 1), above = bits >> (i + 1);
  return static_cast<uint8_t>(below | above << i);
}

// Calls use(array, size of an element) for each array of lanes in a block, the rules' numbers included.
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
      block_bytes_(table.view.block_bytes),
      tail_offset_(table.view.tail_offset),
      arena_(std::make_shared<Arena>(std::move(table.blocks))),
      used_nodes_(static_cast<uint32_t>(table.nodes.size())),
      used_blocks_(static_cast<uint32_t>(arena_->size() / block_bytes_)),
      runs_(used_blocks_) {
  for (uint32_t n = 0; n < used_nodes_; ++n)
    if (table.nodes[n].mask == 0) ++runs_[table.nodes[n].first].refs;
  TableArray<Node> nodes(used_nodes_ + kSpareNodes);
  if (used_nodes_ != 0) std::memcpy(nodes.data(), table.nodes.data(), table.nodes.bytes());
  table.nodes = std::move(nodes);
  renew_arena(table, 0);
}

void TreeEditor::begin(uint64_t update, uint64_t oldest_held) {
  update_ = update;
  for (const uint32_t first : new_runs_) runs_[first].is_new = false;
  new_runs_.clear();
  for (; !retired_.empty() && retired_.front().update <= oldest_held; retired_.pop_front()) {
    retired_blocks_ -= retired_.front().n;
    give_back(retired_.front().first, retired_.front().n);
  }
}

void TreeEditor::prefetch(const Table& table, const Boxes& boxes, size_t e, uint8_t trees) const {
  for (uint32_t t = 0; t < table.view.n_trees; ++t) {
    if ((trees >> t & 1) == 0) continue;
    Node node = table.nodes[table.view.root[t]];
    while (node.mask != 0)
      node = table.nodes[node.first + (boxes.ranges(e, node.dim)[0].lo >> node.shift & node.mask)];
    __builtin_prefetch(&runs_[node.first]);
    for (int line = 0; line < kPrefetchedLines; ++line) __builtin_prefetch(block(node.first) + 64 * line);
  }
}

uint8_t TreeEditor::tree_bit(const Boxes& boxes, size_t e) const {
  const int8_t tree = tree_of_[smallness(boxes, e)];
  return tree == forest::kNoTree ? uint8_t{0} : static_cast<uint8_t>(1 << tree);
}

uint8_t TreeEditor::insert(Table& table, const Boxes& boxes, size_t e, int32_t label, Touched& touched) {
  const size_t tree = tree_for(table, boxes, e, label, touched);
  const Lane lane(boxes, e, label);
  unsure_lanes_ += !lane.exact;
  each_leaf(table, table.view.root[tree], boxes, e, [&](uint32_t place) {
    lower_bound(table, place, label, touched);
    insert_at(table, place, lane, touched);
  });
  end_change();
  ++table.worst_case_steps;
  return static_cast<uint8_t>(1 << tree);
}

void TreeEditor::remove(Table& table, const Boxes& boxes, int32_t label, uint8_t trees, Touched& touched) {
  for (size_t t = 0; t < table.view.n_trees; ++t)
    if (trees >> t & 1)
      each_leaf(table, table.view.root[t], boxes, 0,
                [&](uint32_t place) { remove_at(table, place, label, touched); });
  end_change();
}

void TreeEditor::relabel(Table& table, const Boxes& boxes, int32_t from, int32_t to, uint8_t trees,
                         Touched& touched) {
  for (size_t t = 0; t < table.view.n_trees; ++t) {
    if ((trees >> t & 1) == 0) continue;
    table.view.first_rule[t] = std::min(table.view.first_rule[t], to);
    each_leaf(table, table.view.root[t], boxes, 0, [&](uint32_t place) {
      if (table.nodes[place].first != kEmptyLeaf) lower_bound(table, place, to, touched);
      relabel_at(table, place, from, to, touched);
    });
  }
  end_change();
}

// The tree of entries like e; made where there is none yet.
size_t TreeEditor::tree_for(Table& table, const Boxes& boxes, size_t e, int32_t label, Touched& touched) {
  int8_t& tree = tree_of_[smallness(boxes, e)];
  if (tree == forest::kNoTree) {
    tree = static_cast<int8_t>(table.view.n_trees++);
    table.view.root[tree] = used_nodes_;
    table.view.first_rule[tree] = label;
    table.nodes[used_nodes_] = Node{kEmptyLeaf, 0, forest::kNoBound, 0};
    ++runs_[kEmptyLeaf].refs;
    touched.push_back(used_nodes_++);
  }
  table.view.first_rule[tree] = std::min(table.view.first_rule[tree], label);
  return static_cast<size_t>(tree);
}

uint32_t TreeEditor::blocks_of(uint32_t first) const {
  uint32_t n = 1;
  while (!tail(first + n - 1).last) ++n;
  return n;
}

bool TreeEditor::holds(uint32_t first, int32_t label) const {
  for (uint32_t b = first;; ++b) {
    const BlockTail& lanes = tail(b);
    if (std::find(lanes.rule, lanes.rule + kLanes, label) != lanes.rule + kLanes) return true;
    if (lanes.last) return false;
  }
}

// Where the leaf at the place has moved in this change, for another place: the place names the new one.
bool TreeEditor::follow_moved(Table& table, uint32_t place, Touched& touched) {
  const uint32_t to = runs_[table.nodes[place].first].moved_to;
  if (to == kNowhere) return false;
  point(table, place, to, touched);
  return true;
}

void TreeEditor::moved(uint32_t from, uint32_t to) {
  runs_[from].moved_to = to;
  moving_.push_back(from);
}

void TreeEditor::end_change() {
  for (const uint32_t run : moving_) runs_[run].moved_to = kNowhere;
  moving_.clear();
}

// The leaf of n blocks at a place, in blocks that may be written to, `longer` of them: the last then are empty.
uint32_t TreeEditor::writable(Table& table, uint32_t place, uint32_t n, uint32_t longer, Touched& touched) {
  const uint32_t from = table.nodes[place].first;
  if (runs_[from].is_new && longer == n) return from;
  const uint32_t to = take_blocks(table, longer);
  std::memcpy(block(to), block(from), n * block_bytes_);
  if (longer > n) {
    std::memcpy(block(to + n), block(kEmptyLeaf), block_bytes_);
    tail(to + n - 1).last = 0;
    table.nodes[place].dim = 1;
  }
  if (runs_[from].refs > 1) moved(from, to);
  point(table, place, to, touched);
  return to;
}

// Of a place whose leaf is to hold the label. Bounds rise again only when a leaf becomes empty.
void TreeEditor::lower_bound(Table& table, uint32_t place, int32_t label, Touched& touched) {
  Node& node = table.nodes[place];
  const uint8_t bound = forest::bound_of(label, table.view.bound_shift);
  if (node.shift <= bound) return;
  node.shift = bound;
  touched.push_back(place);
}

void TreeEditor::insert_at(Table& table, uint32_t place, const Lane& lane, Touched& touched) {
  if (follow_moved(table, place, touched)) return;
  const View& view = table.view;
  uint32_t first = table.nodes[place].first;
  uint32_t n = blocks_of(first);
  // Where it goes: before the first lane with a greater label.
  uint32_t b = 0;
  int i = 0;
  for (;; ++b, i = 0) {
    const int used = lanes_used(tail(first + b));
    for (; i < used && tail(first + b).rule[i] <= lane.label; ++i)
      if (lane.is(view, block(first + b), i)) return;
    if (i < used || b + 1 == n) break;
  }
  const uint32_t longer = n + static_cast<uint32_t>(lanes_used(tail(first + n - 1)) == kLanes);
  first = writable(table, place, n, longer, touched);
  n = longer;
  if (i == kLanes) ++b, i = 0;
  for (uint32_t k = n - 1;; --k) {  // the last lane of each block moves into the next
    uint8_t* to = block(first + k);
    open_lane(view, to, k == b ? i : 0);
    if (k == b) break;
    uint8_t* from = block(first + k - 1);
    each_array(view, from, [&](uint8_t* source, size_t size) {
      std::memcpy(to + (source - from), source + (kLanes - 1) * size, size);
    });
    BlockTail &into = tail_of(view, to), &out_of = tail_of(view, from);
    for (int g = 0; g < 4; ++g) into.constrains[g] |= out_of.constrains[g] >> (kLanes - 1);
    into.valid |= out_of.valid >> (kLanes - 1);
    into.verify |= out_of.verify >> (kLanes - 1);
  }
  lane.write(view, block(first + b), i);
}

void TreeEditor::remove_at(Table& table, uint32_t place, int32_t label, Touched& touched) {
  if (follow_moved(table, place, touched)) return;
  const View& view = table.view;
  const uint32_t before = table.nodes[place].first;
  if (!holds(before, label)) return;
  uint32_t n = blocks_of(before);
  const uint32_t first = writable(table, place, n, n, touched);
  for (uint32_t b = 0; b < n; ++b) {
    for (int i = 0; i < lanes_used(tail(first + b));) {
      if (tail(first + b).rule[i] != label) {
        ++i;
        continue;
      }
      close_lane(view, block(first + b), i);
      for (uint32_t k = b; k + 1 < n; ++k) {  // the first lane of each block moves into the one before
        uint8_t *to = block(first + k), *from = block(first + k + 1);
        each_array(view, from, [&](uint8_t* source, size_t size) {
          std::memcpy(to + (source - from) + (kLanes - 1) * size, source, size);
        });
        BlockTail &into = tail_of(view, to), &out_of = tail_of(view, from);
        for (int g = 0; g < 4; ++g)
          into.constrains[g] |= static_cast<uint8_t>((out_of.constrains[g] & 1) << (kLanes - 1));
        into.valid |= static_cast<uint8_t>((out_of.valid & 1) << (kLanes - 1));
        into.verify |= static_cast<uint8_t>((out_of.verify & 1) << (kLanes - 1));
        close_lane(view, from, 0);
      }
      if (n > 1 && lanes_used(tail(first + n - 1)) == 0) {
        --n;
        tail(first + n - 1).last = 1;
        give_back(first + n, 1);
      }
    }
  }
  if (lanes_used(tail(first)) != 0) return;
  if (runs_[before].moved_to != kNowhere) runs_[before].moved_to = kEmptyLeaf;
  point(table, place, kEmptyLeaf, touched);
}

void TreeEditor::relabel_at(Table& table, uint32_t place, int32_t from, int32_t to, Touched& touched) {
  if (follow_moved(table, place, touched)) return;
  uint32_t first = table.nodes[place].first;
  if (!holds(first, from)) return;
  const uint32_t n = blocks_of(first);
  first = writable(table, place, n, n, touched);
  for (uint32_t b = first; b < first + n; ++b) std::replace(tail(b).rule, tail(b).rule + kLanes, from, to);
}

// Makes a leaf's place name another leaf. The one that nobody names any more is free, or will be.
void TreeEditor::point(Table& table, uint32_t place, uint32_t first, Touched& touched) {
  const uint32_t before = table.nodes[place].first;
  if (before == first) return;
  table.nodes[place].first = first;
  if (first == kEmptyLeaf) table.nodes[place].shift = forest::kNoBound;
  touched.push_back(place);
  ++runs_[first].refs;
  if (--runs_[before].refs != 0 || before == kEmptyLeaf) return;
  const uint32_t n = blocks_of(before);
  if (runs_[before].is_new) return give_back(before, n);
  retired_.push_back({update_, before, n});
  retired_blocks_ += n;
}

uint32_t TreeEditor::take_blocks(Table& table, uint32_t n) {
  uint32_t first = take_free(n);
  if (first == kNowhere && (used_blocks_ + n) * block_bytes_ > arena_->size()) {
    renew_arena(table, n);
    first = take_free(n);
  }
  if (first == kNowhere) {
    first = used_blocks_;
    used_blocks_ += n;
    runs_.resize(used_blocks_);
  }
  runs_[first].is_new = true;
  runs_[first].moved_to = kNowhere;  // of a leaf that was here before
  new_runs_.push_back(first);
  return first;
}

// From the shortest free run that is long enough, the first of its blocks; the others stay free.
uint32_t TreeEditor::take_free(uint32_t n) {
  for (size_t length = std::min(n, kLongRun); length <= kLongRun; ++length) {
    const auto found = std::find_if(free_[length].rbegin(), free_[length].rend(),
                                    [&](uint32_t first) { return runs_[first].free >= n; });
    if (found == free_[length].rend()) continue;
    const uint32_t first = *found, whole = runs_[first].free;
    unlink_free(first);
    if (whole > n) link_free(first + n, whole - n);
    return first;
  }
  return kNowhere;
}

void TreeEditor::give_back(uint32_t first, uint32_t n) {
  if (first + n < used_blocks_ && runs_[first + n].free != 0) {
    const uint32_t behind = first + n;
    n += runs_[behind].free;
    unlink_free(behind);
  }
  if (runs_[first - 1].free != 0) {  // block 0 is the empty leaf's
    first -= runs_[first - 1].free;
    n += runs_[first].free;
    unlink_free(first);
  }
  link_free(first, n);
}

void TreeEditor::link_free(uint32_t first, uint32_t n) {
  std::vector<uint32_t>& list = free_[std::min(n, kLongRun)];
  runs_[first].free = runs_[first + n - 1].free = n;
  runs_[first].in_list = static_cast<uint32_t>(list.size());
  list.push_back(first);
  free_blocks_ += n;
}

void TreeEditor::unlink_free(uint32_t first) {
  const uint32_t n = runs_[first].free, place = runs_[first].in_list;
  std::vector<uint32_t>& list = free_[std::min(n, kLongRun)];
  list[place] = list.back();
  runs_[list[place]].in_list = place;
  list.pop_back();
  runs_[first].free = runs_[first + n - 1].free = 0;
  free_blocks_ -= n;
}

// An arena of the table's own, with room for n blocks and a quarter of what is used. What was retired is free in it.
void TreeEditor::renew_arena(Table& table, uint32_t n) {
  for (const Retired& run : retired_) give_back(run.first, run.n);
  retired_.clear();
  retired_blocks_ = 0;
  const size_t wanted = used_blocks() / 4 + kSpareBlocks;
  const size_t spare = n + wanted - std::min<size_t>(free_blocks_, wanted);
  auto larger = std::make_shared<Arena>((used_blocks_ + spare) * block_bytes_);
  std::memcpy(larger->data(), arena_->data(), used_blocks_ * block_bytes_);
  arena_ = std::move(larger);
  table.blocks = Arena::view(arena_->data(), arena_->size());
  table.point_view();
}

void TreeEditor::follow(const Table& table, Table& copy, const std::vector<const Touched*>& touched) {
  for (const Touched* change : touched) {
    const Touched& places = *change;
    for (size_t i = 0; i < places.size(); ++i) {
      if (i + kPrefetchedNodes < places.size()) {
        __builtin_prefetch(&table.nodes[places[i + kPrefetchedNodes]]);
        __builtin_prefetch(&copy.nodes[places[i + kPrefetchedNodes]], 1);
      }
      copy.nodes[places[i]] = table.nodes[places[i]];
    }
  }
  copy.blocks = Arena::view(table.blocks.data(), table.blocks.size());
  copy.view = table.view;
  copy.point_view();
  copy.boxes.blind = table.boxes.blind;
  copy.worst_case_steps = table.worst_case_steps;
}

void TreeEditor::copy(const Table& table, Table& copy) {
  if (copy.nodes.size() != table.nodes.size()) {
    copy.boxes = table.boxes;
    copy.nodes = TableArray<Node>(table.nodes.size());
  }
  std::memcpy(copy.nodes.data(), table.nodes.data(), table.nodes.bytes());
  follow(table, copy, {});
}

}  // namespace meshsieve::live
