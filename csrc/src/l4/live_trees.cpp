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
constexpr size_t kUpdatesAhead = 3;  // that go on while versions from before them are read
constexpr size_t kPrefetchedBlocks = 4;  // of a leaf that has several
constexpr size_t kPrefetchedNodes = 16;
constexpr size_t kPrefetchedRuns = 8;

BlockTail& tail_of(const View& view, uint8_t* block) {
  return *reinterpret_cast<BlockTail*>(block + view.tail_offset);
}

int lanes_used(const BlockTail& tail) { return std::countr_one(tail.valid); }  // used lanes come first

// An array of lanes through the blocks of a leaf. In each block it is a number, kBits a lane, lane 0 in its lowest.
template <class Row, int kBits>
struct Rows {
  static constexpr int kLast = (kLanes - 1) * kBits;
  static constexpr Row kAll = static_cast<Row>(~Row{0}) >> (8 * sizeof(Row) - kLanes * kBits);
  static constexpr Row below(int lane) { return static_cast<Row>((Row{1} << lane * kBits) - 1); }

  uint8_t* at;  // in the first of n blocks
  size_t n, block_bytes;

  Row get(size_t k) const {
    Row row;
    std::memcpy(&row, at + k * block_bytes, sizeof row);
    return row;
  }
  void set(size_t k, Row row) const { std::memcpy(at + k * block_bytes, &row, sizeof row); }

  // Opens a lane of the first block: it and all later lanes move up, the last is lost.
  void open(int lane) const {
    Row lost = 0;
    for (size_t k = 0; k < n; ++k, lane = 0) {
      const Row row = get(k), stays = row & below(lane);
      set(k, static_cast<Row>(stays | lost << lane * kBits | (row ^ stays) << kBits) & kAll);
      lost = row >> kLast;
    }
  }
  // Closes a lane of the first block: all later lanes move down, and `last` is the last.
  void close(int lane, Row last) const {
    for (size_t k = n; k-- != 0;) {
      const Row row = get(k), low = below(k == 0 ? lane : 0);
      set(k, static_cast<Row>((row & low) | (row >> kBits & ~low) | last << kLast));
      last = row & below(1);
    }
  }
};

// Calls use(rows, what a lane without a rule has) for every array of the lanes in n blocks.
template <class Use>
void each_array(const View& view, uint8_t* block, size_t n, Use use) {
  __extension__ using Row32 = unsigned __int128;
  uint8_t* at = block;
  for (int d = 0; d < 2 * view.n32; ++d, at += sizeof(Row32)) use(Rows<Row32, 32>{at, n, view.block_bytes}, 0);
  for (int d = 0; d < 2 * view.n16; ++d, at += sizeof(uint64_t)) use(Rows<uint64_t, 16>{at, n, view.block_bytes}, 0);
  for (int d = 0; d < 2 * view.n8; ++d, at += sizeof(uint32_t)) use(Rows<uint32_t, 8>{at, n, view.block_bytes}, 0);
  BlockTail& tail = tail_of(view, block);
  use(Rows<Row32, 32>{reinterpret_cast<uint8_t*>(tail.rule), n, view.block_bytes}, kNoRule);
  for (uint8_t& bits : tail.constrains) use(Rows<uint8_t, 1>{&bits, n, view.block_bytes}, 0);
  use(Rows<uint8_t, 1>{&tail.valid, n, view.block_bytes}, 0);
  use(Rows<uint8_t, 1>{&tail.verify, n, view.block_bytes}, 0);
}

void open_lane(const View& view, uint8_t* block, size_t n, int lane) {
  each_array(view, block, n, [lane](const auto& rows, int) { rows.open(lane); });
}

void close_lane(const View& view, uint8_t* block, size_t n, int lane) {
  each_array(view, block, n, [lane](const auto& rows, int unused) {
    rows.close(lane, static_cast<decltype(rows.get(0))>(unused));
  });
}

// Calls use(k) for every child of the node that a value of the entry leads to, once and in ascending runs.
template <class Use>
void each_child(const Node& node, std::span<const Range> ranges, const Use& use) {
  const auto children_of = [&node](const Range& range, const auto& each) {
    const uint32_t low = range.lo >> node.shift;
    const uint32_t more = std::min<uint32_t>((range.hi >> node.shift) - low, node.mask);
    for (uint32_t k = 0; k <= more; ++k) each((low + k) & node.mask);
  };
  if (ranges.size() == 1) return children_of(ranges[0], use);
  std::vector<bool> reached(size_t{node.mask} + 1);
  for (const Range& range : ranges) children_of(range, [&](uint32_t k) { reached[k] = true; });
  for (uint32_t k = 0; k <= node.mask; ++k)
    if (reached[k]) use(k);
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
  for (uint32_t first = 0, b = 0; b < used_blocks_; ++b) {
    ++runs_[first].length;
    if (tail(b).last) first = b + 1;
  }
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
    if (retired_.size() > kPrefetchedRuns) {
      const Retired& later = retired_[kPrefetchedRuns];
      __builtin_prefetch(&runs_[later.first - 1], 1);
      __builtin_prefetch(&runs_[std::min(later.first + later.n, used_blocks_ - 1)], 1);
    }
    retired_blocks_ -= retired_.front().n;
    give_back(retired_.front().first, retired_.front().n);
  }
}

uint8_t TreeEditor::tree_for(Table& table, const Boxes& boxes, size_t e, int32_t label, Touched& touched) {
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
  return static_cast<uint8_t>(1 << tree);
}

void TreeEditor::reach(const Table& table, std::span<Reached> entries) {
  steps_.clear();
  for (uint32_t k = 0; k < entries.size(); ++k) {
    entries[k].places.clear();
    for (uint32_t t = 0; t < table.view.n_trees; ++t)
      if (entries[k].trees >> t & 1) steps_.push_back({table.view.root[t], k});
  }
  while (!steps_.empty()) {
    next_steps_.clear();
    uint32_t last_entry = kNowhere, last_first = kNowhere;
    for (const Step& step : steps_) {
      const Node node = table.nodes[step.place];
      Reached& entry = entries[step.entry];
      if (node.mask == 0) {
        entry.places.push_back(step.place);
        prefetch_leaf(node);
        continue;
      }
      if (step.entry == last_entry && node.first == last_first) continue;  // the same children
      last_entry = step.entry;
      last_first = node.first;
      each_child(node, entry.boxes->ranges(entry.e, node.dim), [&](uint32_t k) {
        __builtin_prefetch(&table.nodes[node.first + k]);
        next_steps_.push_back({node.first + k, step.entry});
      });
    }
    steps_.swap(next_steps_);
  }
}

void TreeEditor::prefetch_leaf(const Node& leaf) const {
  __builtin_prefetch(&runs_[leaf.first]);
  const size_t bytes = (leaf.dim == 0 ? 1 : kPrefetchedBlocks) * block_bytes_;
  for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch(block(leaf.first) + at);
}

void TreeEditor::insert(Table& table, const Reached& entry, int32_t label, Touched& touched) {
  const Lane lane(*entry.boxes, entry.e, label);
  unsure_lanes_ += !lane.exact;
  for (const uint32_t place : entry.places) {
    lower_bound(table, place, label, touched);
    insert_at(table, place, lane, touched);
  }
  end_change();
  ++table.worst_case_steps;
}

void TreeEditor::remove(Table& table, const Reached& entry, int32_t label, Touched& touched) {
  for (const uint32_t place : entry.places) remove_at(table, place, label, touched);
  end_change();
}

void TreeEditor::relabel(Table& table, const Reached& entry, int32_t from, int32_t to, Touched& touched) {
  for (size_t t = 0; t < table.view.n_trees; ++t)
    if (entry.trees >> t & 1) table.view.first_rule[t] = std::min(table.view.first_rule[t], to);
  for (const uint32_t place : entry.places) {
    if (table.nodes[place].first != kEmptyLeaf) lower_bound(table, place, to, touched);
    relabel_at(table, place, from, to, touched);
  }
  end_change();
}

// The first block of a leaf with a lane that does not come before the label; the last block where all do.
uint32_t TreeEditor::block_for(uint32_t first, int32_t label) const {
  const uint32_t last = first + runs_[first].length - 1;
  while (first != last && tail(first).rule[kLanes - 1] < label) ++first;
  return first;
}

bool TreeEditor::holds(uint32_t first, int32_t label) const {
  const BlockTail& lanes = tail(block_for(first, label));
  return std::find(lanes.rule, lanes.rule + kLanes, label) != lanes.rule + kLanes;
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

// The leaf at a place, in blocks that may be written to, `longer` of them: the lanes of a new one are unused.
uint32_t TreeEditor::writable(Table& table, uint32_t place, uint32_t longer, Touched& touched) {
  const uint32_t from = table.nodes[place].first, n = runs_[from].length;
  if (runs_[from].is_new && longer == n) return from;
  const uint32_t to = take_blocks(table, longer);
  std::memcpy(block(to), block(from), n * block_bytes_);
  if (longer > n) {
    std::memcpy(block(to + n), block(kEmptyLeaf), block_bytes_);
    tail(to + n - 1).last = 0;
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
  const uint32_t before = table.nodes[place].first, n = runs_[before].length;
  // It goes before the first lane with a greater label.
  uint32_t b = block_for(before, lane.label) - before;
  int i = 0;
  for (;; ++b, i = 0) {
    const BlockTail& lanes = tail(before + b);
    for (; i < kLanes && lanes.rule[i] <= lane.label; ++i)
      if (lane.is(view, block(before + b), i)) return;
    if (i < kLanes || b + 1 == n) break;
  }
  const uint32_t longer = n + static_cast<uint32_t>(lanes_used(tail(before + n - 1)) == kLanes);
  const uint32_t first = writable(table, place, longer, touched);
  if (i == kLanes) ++b, i = 0;
  open_lane(view, block(first + b), longer - b, i);
  lane.write(view, block(first + b), i);
}

void TreeEditor::remove_at(Table& table, uint32_t place, int32_t label, Touched& touched) {
  if (follow_moved(table, place, touched)) return;
  const View& view = table.view;
  const uint32_t before = table.nodes[place].first;
  if (!holds(before, label)) return;
  const uint32_t first = writable(table, place, runs_[before].length, touched);
  uint32_t& n = runs_[first].length;
  for (uint32_t b = block_for(first, label) - first; b < n && tail(first + b).rule[0] <= label; ++b) {
    for (int i = 0; i < lanes_used(tail(first + b));) {
      if (tail(first + b).rule[i] != label) {
        ++i;
        continue;
      }
      close_lane(view, block(first + b), n - b, i);
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
  first = writable(table, place, runs_[first].length, touched);
  const uint32_t end = first + runs_[first].length;
  for (uint32_t b = block_for(first, from); b < end && tail(b).rule[0] <= from; ++b)
    std::replace(tail(b).rule, tail(b).rule + kLanes, from, to);
}

// Makes a leaf's place name another leaf. The one that nobody names any more is free, or will be.
void TreeEditor::point(Table& table, uint32_t place, uint32_t first, Touched& touched) {
  const uint32_t before = table.nodes[place].first;
  if (before == first) return;
  table.nodes[place].first = first;
  table.nodes[place].dim = runs_[first].length > 1;
  if (first == kEmptyLeaf) table.nodes[place].shift = forest::kNoBound;
  touched.push_back(place);
  ++runs_[first].refs;
  if (--runs_[before].refs != 0 || before == kEmptyLeaf) return;
  const uint32_t n = runs_[before].length;
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
  runs_[first].length = n;
  new_runs_.push_back(first);
  return first;
}

// From the shortest free run that is long enough, the first of its blocks; the others stay free.
uint32_t TreeEditor::take_free(uint32_t n) {
  for (uint64_t lists = some_free_ >> std::min(n, kLongRun) << std::min(n, kLongRun); lists != 0; lists &= lists - 1) {
    const std::vector<uint32_t>& list = free_[std::countr_zero(lists)];
    const auto found =
        std::find_if(list.rbegin(), list.rend(), [&](uint32_t first) { return runs_[first].length >= n; });
    if (found == list.rend()) continue;  // of long runs, all may be too short
    const uint32_t first = *found, whole = runs_[first].length;
    unlink_free(first);
    if (whole > n) link_free(first + n, whole - n);
    return first;
  }
  return kNowhere;
}

void TreeEditor::give_back(uint32_t first, uint32_t n) {
  if (first + n < used_blocks_ && runs_[first + n].is_free) {
    const uint32_t behind = first + n;
    n += runs_[behind].length;
    unlink_free(behind);
  }
  if (runs_[first - 1].is_free) {  // block 0 is the empty leaf's
    first -= runs_[first - 1].length;
    n += runs_[first].length;
    unlink_free(first);
  }
  link_free(first, n);
}

void TreeEditor::link_free(uint32_t first, uint32_t n) {
  const uint32_t which = std::min(n, kLongRun);
  runs_[first].length = runs_[first + n - 1].length = n;
  runs_[first].is_free = runs_[first + n - 1].is_free = true;
  runs_[first].in_list = static_cast<uint32_t>(free_[which].size());
  free_[which].push_back(first);
  some_free_ |= uint64_t{1} << which;
  free_blocks_ += n;
}

void TreeEditor::unlink_free(uint32_t first) {
  const uint32_t n = runs_[first].length, place = runs_[first].in_list, which = std::min(n, kLongRun);
  std::vector<uint32_t>& list = free_[which];
  list[place] = list.back();
  runs_[list[place]].in_list = place;
  list.pop_back();
  if (list.empty()) some_free_ &= ~(uint64_t{1} << which);
  runs_[first].is_free = runs_[first + n - 1].is_free = false;
  free_blocks_ -= n;
}

// An arena of the table's own, with room for n blocks, a quarter of what is used, and what a few updates retire. What was
// retired is free in it.
void TreeEditor::renew_arena(Table& table, uint32_t n) {
  const size_t wanted = std::min(used_blocks() / 4 + kUpdatesAhead * retired_blocks_, 2 * used_blocks()) + kSpareBlocks;
  for (const Retired& run : retired_) give_back(run.first, run.n);
  retired_.clear();
  retired_blocks_ = 0;
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
