// The decision forest: the engine that takes every rule set and always fits its memory budget.
//
// What    Rules become *entries*: boxes over the fields that any rule names. Entries are split by how small their
//         source and destination are into at most four trees. An inner node looks at a window of bits of one field and
//         has one child a value of the window; a leaf is a row of blocks of eight entries that are compared at once.
// Why     Wide rules in the same tree as narrow ones would be copied into most of its leaves. Windows of several bits
//         make trees of depth 2 to 4, and leaves of whole cache lines make use of what a memory access brings.
// Groups  A field's set of many intervals is not multiplied out: its entry goes where any interval reaches. In a leaf,
//         where often one interval is left, the box is exact again; else the lane is marked and its rule checked
//         exactly.
// Version IPv4 and IPv6 packets have a table each, and frames without IP a third. An IPv6 address is first replaced by
//         the number of the elementary interval it lies in, which keeps order; then everything is 32 bits wide.
// Absent  A field that a packet cannot have (ports of ICMP) fails every rule that names it: each block says which lanes
//         name a field of the four groups. A field that it has but we cannot see (ports of a later fragment) is
//         unknown: such packets walk *all* children of the nodes that look at it and check each candidate exactly.
// Cost    time: a walk a tree, then as many blocks as the leaf has, or as stand before the rule found.
//         memory: at most the budget. The longest leaf is split first, until all are short or the budget is used up;
//         with no budget at all every table is one leaf, which is a SIMD scan.
// Limits  fields of at most 32 bits other than addresses; IPv6 rules with at most 2^31 distinct bounds a field.
// Example {10/8 -> any :80} and {10.1/16 -> any :443}: a window of 8 bits at bit 24 of the source makes 256 children,
//         of which 255 share the empty leaf and one holds both entries.
// Source  Multi-bit cuts: Gupta and McKeown, HiCuts, 1999. Separating wide from narrow rules: Vamanan, Voskuilen,
//         Vijaykumar, EffiCuts, SIGCOMM 2010; Li et al., CutSplit, INFOCOM 2018.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "l4/forest_views.h"
#include "l4/table_memory.h"
#include "meshsieve/classifier.h"

namespace meshsieve::forest {

inline constexpr int8_t kNoTree = -1;

struct Range {
  uint32_t lo, hi;  // inclusive
  friend constexpr bool operator==(const Range&, const Range&) = default;
};

// Fields that are absent together (fields.def, `requires`), a byte of BlockTail::constrains each.
enum Group : uint8_t { kPorts, kTcp, kIcmp, kVlan, kAlways };
Group group_of(Field field);

enum Family : uint8_t { kV4, kV6, kNoIp, kFamilies };

// Number of the elementary interval that a value lies in; keeps order. starts[0] = 0.
struct RankMap {
  std::vector<U128> starts;
  uint32_t rank(U128 value) const;
  bool starts_at(uint32_t rank, U128 value) const;  // the interval's first value is this
  bool ends_at(uint32_t rank, U128 value) const;

  template <class Archive>
  void visit(Archive& a) {
    a("starts", starts);
  }
};

// One box a rule or a rule's alternative.
struct Entry {
  int32_t rule;
  uint8_t groups;  // bit g: names a field of group g
  bool exact;      // false: the ranges only bound what matches
};

// The rules of one family as boxes, ready for the tree builder. Dimensions: 32-bit fields first, then 16, then 8.
struct Boxes {
  std::vector<Field> field;  // one a dimension
  std::vector<int> bits;     // width of the dimension's values
  uint8_t n32 = 0, n16 = 0, n8 = 0;
  std::vector<Entry> entries;                // in rule order
  std::vector<Range> hull;                   // entry * dims + dim
  std::vector<int32_t> list;                 // entry * dims + dim: its intervals in lists; -1: the hull is the interval
  std::vector<std::vector<Range>> lists;
  std::array<RankMap, 2> ranks;              // IPv6 source and destination
  uint32_t blind = 0;  // fields on which some rule can match nothing here, and so is no entry: if unknown, scan

  size_t dims() const { return field.size(); }
  std::span<const Range> ranges(size_t entry, size_t dim) const {
    const size_t at = entry * dims() + dim;
    return list[at] < 0 ? std::span<const Range>(&hull[at], 1) : std::span<const Range>(lists[list[at]]);
  }
  size_t tail_offset() const;  // of a block
  size_t block_bytes() const;

  template <class Archive>
  void visit(Archive& a) {  // without the entries, which only building needs
    a("field", field)("n32", n32)("n16", n16)("n8", n8)("source_ranks", ranks[0])("destination_ranks", ranks[1]);
    a("blind", blind);
  }
};
Boxes make_boxes(const RuleSet& rules, int32_t begin, int32_t end, Family family, size_t max_entries);
// The same in the dimensions and ranks of other boxes. A bound between two of their ranks is rounded outward and the
// entry is not exact. The rules name no field that `shape` lacks.
Boxes make_boxes_like(const Boxes& shape, const RuleSet& rules, int32_t begin, int32_t end, Family family,
                      size_t max_entries);

// Four kinds of entries: bit 1 set where the source is wide, bit 0 where the destination is.
size_t smallness(const Boxes& boxes, size_t entry);

struct Trees {
  Boxes boxes;  // without entries once built
  std::vector<Node> nodes;
  std::vector<uint8_t> blocks;
  uint8_t n_trees = 0;
  uint8_t bound_shift = 0;
  std::array<uint32_t, kMaxTrees> root{};
  std::array<int32_t, kMaxTrees> first_rule{};
  std::array<int8_t, kMaxTrees> tree_of{};  // smallness -> the tree of such entries, kNoTree where there are none
  uint64_t worst_case_steps = 0;
};
// Entries behind one that holds a leaf's whole region are never reached. A list that changes keeps them: removing the
// one in front brings them forward.
enum class Hidden { drop, keep };
Trees build_trees(Boxes boxes, size_t budget_bytes, Hidden hidden = Hidden::drop);

// Of a loaded table over rules [begin, end): every walk stays inside and ends. Throws TableError (forest_check.cpp).
void check_boxes(const Boxes& boxes);
void check_trees(const View& view, std::span<const Node> nodes, size_t block_array_bytes, int32_t begin, int32_t end);

}  // namespace meshsieve::forest
