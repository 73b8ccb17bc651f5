// The cross-product engine: class x class -> node -> rule, with neither compare nor branch on the way.
//
// What    The class front end (classes_table.h) gives a packet one class on each of four axes: S and D (source and
//         destination address), P (protocol, destination port, ICMP type, ...: what services name first) and Q (source
//         port and the rest). A *cell* (S class, D class) leaves a short list of rules, whose services tell few of the P
//         and Q classes apart. So a cell names a *node*: one map P class -> local class, one map Q class -> local class,
//         and the winner of each pair of local classes. Maps do not mention rules, so most nodes share theirs; equal
//         maps, rows of winners and nodes are stored once.
//         Rules are split into up to four tables, so that a rule with a wide source and one with a narrow source do not
//         multiply each other; the answer is the smallest rule of all tables.
// Why     A look-up is a fixed chain of loads, so 64 packets overlap perfectly: the fastest engine while tables stay in
//         the caches, up to about 10,000 rules of usual policies. P x Q is never formed, neither for all rules (services
//         with source ports would make thousands of classes) nor for a cell beyond what its own rules tell apart.
// Cost    Look-up: 7 loads a table and 4 for the positions in all of them. Build: one step for each (rule, S class, D class) of a table, known from class
//         counts before anything is built (cross_plan.cpp), and about a microsecond a different cell. Memory: cells 2 or 4
//         bytes each, or in blocks, usually a tenth to a quarter of that; a node 16 bytes and 2 (4 from 65,535 rules on) a winner; a P map an eighth of a byte a class, a Q map 2 bytes.
// Limits  At most two dimensions besides P and Q; 65,535 rules that can win in one cell; build steps and bytes within the
//         plan's limits. Else a CompileError that names the figures, and the chooser takes another engine.
// Example rules {0: 10/8 -> any tcp :80, 1: any -> any tcp}: S has 2 classes, D 1, P 3 (tcp:80, tcp, other), Q 1.
//         Cell (10/8, any) -> list [0, 1], P map {0, 1, 2}, winners {0, 1, none}; cell (else, any) -> list [1], P map
//         {0, 0, 1}, winners {1, none}.
// Source  Cross-producting: Srinivasan et al., SIGCOMM 1998; reducing in phases: Gupta and McKeown, RFC, SIGCOMM 1999.
#pragma once

#include <bit>
#include <memory>
#include <vector>

#include "l4/classes_table.h"
#include "meshsieve/classifier.h"

namespace meshsieve::cross {

// No rule in this table. Larger than every rule, so that the smallest of several tables' answers is the answer; and
// kNoMatch as it is.
inline constexpr uint32_t kNoRule = ~uint32_t{0};
static_assert(static_cast<RuleResult>(kNoRule) == kNoMatch);
// The same in 16 bits, which winners have in segments of fewer rules.
inline constexpr uint16_t kNarrowNone = 0xffff;

// The winner of a packet is winners[base + (local P class) * width + (local Q class)].
// Local P class: a byte of the node's map; or, where there are more than kMostInOneBlock P classes, an entry of the node's
// row says which pattern the block of P classes has, and what to add to it.
struct Node {
  uint32_t p_map, q_map;  // offsets into the P maps or the rows of entries, and into the Q maps
  uint32_t base;          // offset into the winners
  uint32_t width;         // local Q classes
};
inline constexpr uint32_t kMostInOneBlock = 256;  // P classes
inline constexpr uint32_t kBlock = 32;      // P classes
inline constexpr uint32_t kLocalBits = 14;  // of an entry | pattern : 18 | first local class : 14 |
inline constexpr uint32_t kMostLocal = 1 << kLocalBits;
inline constexpr uint32_t kMostPatterns = 1 << (32 - kLocalBits);

// One of the tables that rules are split into: a node for every cell, in one array where that is small. Else a row of cells
// is cut into blocks: neighbours among the classes are neighbours among the addresses, so most blocks are empty or equal.
// A cell lies at the position of its row and that of its column, added: width * row + column, the width a multiple of
// kCellBlock where there are blocks, so that both kinds are found alike.
inline constexpr uint32_t kCellBlock = 16;
struct Cells {
  TableArray<uint16_t> narrow_blocks, narrow;  // blocks of each row, none where `narrow` is all cells; and nodes
  TableArray<uint32_t> wide_blocks, wide;      // used where nodes or blocks do not fit 16 bits
  size_t bytes() const {
    return narrow_blocks.bytes() + narrow.bytes() + wide_blocks.bytes() + wide.bytes();
  }

  template <class Archive>
  void visit(Archive& a) {
    a("narrow_blocks", narrow_blocks)("narrow", narrow)("wide_blocks", wide_blocks)("wide", wide);
  }
};
inline constexpr size_t kMostTables = 4;
// How far the positions of two classes lie apart: those of all tables for one class are neighbours, in one cache line.
inline size_t stride(size_t n_tables) { return n_tables == 0 ? 0 : std::bit_ceil(n_tables); }

// The rules of one segment as their positions on the axes. Rows are those of classes::Dimension; row 0 is "any".
struct Axis {
  uint32_t n_classes = 1;
  std::vector<uint32_t> row_of_rule;  // one a rule; empty when the axis is unused
  classes::Lists rows;                // class -> rows
};

// Sets of P classes (or Q classes) that services are made of, as bitmaps. Set 0 is all classes.
struct ClassSets {
  uint32_t n_classes = 1;
  size_t words = 1;
  std::vector<uint64_t> bits = {1};  // set * words

  uint32_t size() const { return static_cast<uint32_t>(bits.size() / words); }
  const uint64_t* of(uint32_t set) const { return bits.data() + set * words; }
  bool has(uint32_t set, uint32_t c) const { return of(set)[c / 64] >> c % 64 & 1; }
};

// A service is the union of some products: the P classes of one set times the Q classes of another. None: it is empty.
struct Product {
  uint32_t p, q;
  auto operator<=>(const Product&) const = default;
};

struct Problem {
  uint32_t n_rules = 0;
  Axis source, destination;
  ClassSets p, q;
  std::vector<uint32_t> service_of_rule;       // what a rule leaves of P x Q: index into `service`
  std::vector<std::vector<Product>> service;
};

// Which dimension of the front end is which axis; -1: unused. Throws CompileError where there are more.
struct AxisChoice {
  int source = -1, destination = -1, p = -1, q = -1;

  template <class Archive>
  void visit(Archive& a) {
    a("source", source)("destination", destination)("p", p)("q", q);
  }
};
AxisChoice choose_axes(const std::vector<classes::Dimension>& dimensions);
// `rules`: those of the whole list, of which the problem is [begin, end).
Problem problem_of(const std::vector<classes::Dimension>& dimensions, const AxisChoice& choice, const RuleSet& rules,
                   int32_t begin, int32_t end);

// --- Plan (cross_plan.cpp): which rules go into which table ---

// Which classes of an axis some rules tell apart: class -> reduced class; and reduced class -> rows of theirs.
struct Reduced {
  std::vector<uint32_t> of_class;
  classes::Lists rows;
};
Reduced reduce(const Axis& axis, const std::vector<uint32_t>& rules);

struct Plan {
  struct Table {
    std::vector<uint32_t> rules;  // sorted
    std::shared_ptr<const Reduced> source, destination;
    uint64_t steps = 0;           // (rule, source class, destination class) incidences
    uint64_t bytes = 0;           // of the cells; estimated where they are in blocks
    bool in_blocks = false;
  };
  std::vector<Table> tables;
  uint64_t steps() const;
  uint64_t bytes() const;
};
struct Limits {
  uint64_t steps;
  uint64_t bytes;  // of all cells
};
// Plans in the order in which to try them: those first in which a look-up is predicted to be fastest. Never empty: throws
// CompileError naming the best figures there are where none keeps the limits.
std::vector<Plan> make_plans(const Problem& problem, const Limits& limits);

// --- Table ---

class Work;  // cross_nodes.h

class CrossTable final : public EngineTable {
 public:
  CrossTable(std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end, const CompileOptions& options);
  CrossTable(saved::Reader& reader, std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end,
             const simd::Backend& backend);
  RuleResult first_match(const PacketKey& key) const override;
  void first_match_batch(const KeyColumns& keys, RuleResult* out) const override;
  EngineStats stats() const override;
  const char* engine() const override { return "cross"; }
  void save(saved::Writer& writer) const override;

 private:
  template <class Archive>
  void visit(Archive& a) {
    a("front", front_)("axes", axes_)("rows", rows_)("columns", columns_)("cells", cells_)("nodes", nodes_);
    a("p_entries", p_entries_);
    a("p_patterns", p_patterns_)("q_maps", q_maps_)("winners", winners_)("wide_winners", wide_winners_);
  }
  void check() const;  // cross_check.cpp
  void fill(const Problem& problem, const Plan& plan, size_t most, Work& work);
  void look_up(const classes::ClassChunk& chunk, size_t n, RuleResult* out) const;
  template <size_t kStride, class Winner>
  void look_up_in(const TableArray<Winner>& winners, const classes::ClassChunk& chunk, size_t n, RuleResult* out) const;

  classes::ClassFront front_;
  classes::Verdicts verdicts_;
  AxisChoice axes_;
  TableArray<uint32_t> rows_, columns_;  // source class * stride + table: position of the row; destination, column
  std::vector<Cells> cells_;
  TableArray<Node> nodes_;
  TableArray<uint32_t> p_entries_;  // rows of one entry a block of P classes; none where the patterns are the maps
  TableArray<uint8_t> p_patterns_;  // kBlock bytes each, or all P classes
  TableArray<uint16_t> q_maps_;     // Q class -> local class
  TableArray<uint16_t> winners_;  // kNarrowNone: none; exactly one of the two is used
  TableArray<uint32_t> wide_winners_;
};

std::unique_ptr<EngineTable> build_cross(std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end,
                                         const CompileOptions& options);
std::unique_ptr<EngineTable> load_cross(saved::Reader& reader, std::shared_ptr<const RuleSet> rules, int32_t begin,
                                        int32_t end, const simd::Backend& backend);

}  // namespace meshsieve::cross
