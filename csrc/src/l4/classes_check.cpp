// The class front end as it was loaded: every index in range, every tree as deep as it says, no cycle.
#include <algorithm>
#include <iterator>
#include <limits>

#include "l4/classes_table.h"
#include "saved/archive.h"

namespace meshsieve::classes {
namespace {

using saved::require;

constexpr uint32_t kMostLevels = 32;  // 2^30 nodes of eight children need ten
constexpr uint32_t kNever = ~uint32_t{0};

// Keys in order, and the last one such that no value is above it: it has no child.
template <class Node>
void check_keys(const TableArray<Node>& nodes) {
  using Key = std::remove_cvref_t<decltype(Node::key[0])>;
  require(nodes.size() <= kLowWord, "too many search nodes");
  for (size_t i = 0; i < nodes.size(); ++i) {
    const auto& keys = nodes[i].key;
    require(*std::prev(std::end(keys)) == std::numeric_limits<Key>::max(), "a search node with too many keys");
    require(std::is_sorted(std::begin(keys), std::end(keys)), "keys of a search node out of order");
  }
}

// Level by level: numbers of nodes, and below the last level ids.
template <class Id>
void check_trees(const TableArray<Id>& slots, const TableArray<Node32<Id>>& nodes, uint32_t levels, LargestIds& ids) {
  check_keys(nodes);
  std::vector<uint8_t> at(nodes.size(), 0);  // the last level at which a node is met
  const auto meet = [&](uint32_t id, uint32_t level) {
    if (level > levels) return ids.meet(id);
    require(id < nodes.size(), "a search node that is not there");
    at[id] = static_cast<uint8_t>(level);
  };
  for (size_t s = 0; s < slots.size(); ++s) meet(slots[s], 1);
  for (uint32_t level = 1; level <= levels; ++level) {
    std::vector<uint32_t> here;
    for (uint32_t n = 0; n < at.size(); ++n)
      if (at[n] == level) here.push_back(n);
    for (const uint32_t n : here)
      for (const Id child : nodes[n].child) meet(child, level + 1);
  }
}

}  // namespace

void Map32::check(LargestIds& ids) const {
  require(levels_ <= kMostLevels, "too many levels");
  const size_t n_slots = std::max(narrow_slots_.size(), wide_slots_.size());
  require((narrow_slots_.size() != 0) + (wide_slots_.size() != 0) == 1, "slots of two widths");
  require(blocks_.size() == size_t{1} << kBlockBits, "blocks of slots of another number");
  for (size_t b = 0; b < blocks_.size(); ++b) {
    const uint32_t unused = blocks_[b] & 31;  // of the 32 bits
    require(unused >= kBlockBits && (blocks_[b] >> 5) + (uint64_t{1} << (32 - unused)) <= n_slots,
            "a slot that is not there");
  }
  if (narrow_slots_.size() != 0) check_trees(narrow_slots_, narrow_nodes_, levels_, ids);
  else check_trees(wide_slots_, wide_nodes_, levels_, ids);
}

// A tree over the low word is entered from one over the high word; nodes may serve in both where they only lead to classes.
void Map128::check(LargestIds& ids) const {
  check_keys(nodes_);
  require(nodes_.size() != 0, "no search node");
  for (const uint32_t child : nodes_[0].child) require(child == 0, "the node where finished values idle leads somewhere");
  // Heights as a tree over the low word (kNever: it cannot be one), over the high word, and of the low trees under that.
  struct Heights {
    uint32_t low = 0, high = 0, under = 0;
  };
  std::vector<Heights> heights(nodes_.size());
  const auto of = [&](uint32_t entry, size_t below) -> Heights {
    if (entry & kTerminal) {
      ids.meet(entry & ~kTerminal);
      return {};
    }
    const uint32_t node = entry & ~kLowWord;
    require(node != 0 && node < below, "a search node that does not lead to an earlier one");
    if ((entry & kLowWord) == 0) return heights[node];
    require(heights[node].low != kNever, "a tree over the low word that leads to another");
    return {kNever, 0, heights[node].low};
  };
  for (size_t i = 1; i < nodes_.size(); ++i) {
    Heights own;
    for (const uint32_t child : nodes_[i].child) {
      const Heights h = of(child, i);
      own.low = std::max(own.low, h.low);
      own.high = std::max(own.high, h.high);
      own.under = std::max(own.under, h.under);
    }
    require(own.high < kMostLevels, "a search tree that is too deep");
    heights[i] = {own.low == kNever ? kNever : own.low + 1, own.high + 1, own.under};
  }
  require(high_levels_ <= kMostLevels && low_levels_ <= kMostLevels, "too many levels");
  require(slots_.size() >= 2 && shift_ < 64, "no slots of search trees");
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    const Heights root = of(slots_[slot], nodes_.size());
    require(root.high <= high_levels_ && root.under <= low_levels_, "a search tree deeper than its levels");
  }
}

void PagedMap::check(LargestIds& ids) const {
  for (const uint32_t page : page_) require(page + uint64_t{256} <= pages_.size(), "a page that is not there");
  for (size_t i = 0; i < pages_.size(); ++i) ids.meet(pages_[i]);
}

void FieldMap::check(LargestIds& ids) const {
  require(field >= 0 && field < kFieldCount, "a field that is none");
  ids.meet(unknown);
  if (is_small()) return small.check(ids);
  v4.check(ids);
  if (is_address()) v6.check(ids);
}

void ClassFront::check() const {
  require(maps_.size() <= kFieldCount && dimensions_.size() <= kFieldCount, "more fields than there are");
  std::vector<uint64_t> most;  // id of each map
  uint32_t fields = 0;
  for (const FieldMap& map : maps_) {
    LargestIds ids;
    map.check(ids);
    fields |= uint32_t{1} << map.field;
    most.push_back(ids.whole);
  }
  require(fields == fields_used_, "maps of other fields than those that are used");
  const auto is_map = [&](int m) { return m >= 0 && static_cast<size_t>(m) < maps_.size(); };
  for (const Dimension& dimension : dimensions_) {
    require(dimension.narrow_bits <= 30, "narrow parts that are too wide");
    LargestIds ids{(uint32_t{1} << dimension.narrow_bits) - 1};
    if (dimension.joins.empty()) {
      require(is_map(dimension.map), "a dimension without a field");
      maps_[static_cast<size_t>(dimension.map)].check(ids);
    }
    uint64_t joined = 0;
    for (size_t j = 0; j < dimension.joins.size(); ++j) {
      const Join& join = dimension.joins[j];
      require(j > 0 || join.previous_stride == 0, "a join with a result that is not there");
      uint64_t largest = joined * join.previous_stride;
      for (const int m : join.maps) {
        require(is_map(m), "a join of a field that is not there");
        largest += most[static_cast<size_t>(m)];
      }
      require(largest < join.table.size() && largest <= 0xffffffff, "a join beyond its table");
      joined = 0;
      for (size_t i = 0; i < join.table.size(); ++i) joined = std::max<uint64_t>(joined, join.table[i]);
      if (j + 1 == dimension.joins.size())
        for (size_t i = 0; i < join.table.size(); ++i) ids.meet(join.table[i]);
    }
    require(ids.whole >> dimension.narrow_bits < dimension.n_classes && ids.narrow < dimension.n_narrow,
            "a class that is not there");
  }
}

}  // namespace meshsieve::classes
