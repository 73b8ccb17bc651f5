// The cross-product engine: class x class -> node -> rule, with neither compare nor branch on the way.
//
// What    The class front end (classes_table.h) gives a packet one class on each of three axes: S and D (source and
//         destination address) and P (protocol, ports, everything else). A *cell* (S class, D class) leaves a short list
//         of rules; which of them wins depends on P alone. So a cell names a *node* {pattern, base}: a pattern is a byte
//         map P class -> position in the list (0: none), and the winner is winner[base + position]. Patterns do not
//         mention rules, so cells of different rules share them; equal lists, patterns and nodes are stored once.
//         Positions are bytes, or 16 bits where more than 255 rules of some cell can win.
//         Rules are split into up to four tables, so that a rule with a wide source and one with a narrow source do not
//         multiply each other; the answer is the smallest rule of all tables.
// Why     A look-up is a fixed chain of loads, so 64 packets overlap perfectly: the fastest engine while tables stay in
//         the caches, up to about 10,000 rules of usual policies.
// Cost    Look-up: 7 loads a table. Build: one step for each (rule, S class, D class) of a table, known from class
//         counts before anything is built (cross_plan.cpp). Memory: cells dense (2 or 4 bytes each) or, where most
//         are empty, in a cuckoo hash table (18 bytes a cell that is not empty). Patterns are cut into blocks of 32
//         P classes, and equal blocks stored once.
// Limits  At most three dimensions; 65,535 rules that can win in one cell; build steps and bytes within the plan's limits.
//         Else a CompileError that names the figures, and the chooser takes another engine.
// Example rules {0: 10/8 -> any tcp :80, 1: any -> any tcp}: S has 2 classes, D 1, P 3 (tcp:80, tcp, other).
//         Cell (10/8, any) -> list [0, 1], pattern {1, 2, 0}; cell (else, any) -> list [1], pattern {1, 1, 0}.
// Source  Cross-producting: Srinivasan et al., SIGCOMM 1998; cuckoo hashing: Pagh and Rodler, 2004.
#pragma once

#include <memory>
#include <vector>

#include "l4/classes_table.h"
#include "meshsieve/classifier.h"

namespace meshsieve::cross {

// No rule in this table. Larger than every rule, so that the smallest of several tables' answers is the answer; and
// kNoMatch as it is.
inline constexpr uint32_t kNoRule = ~uint32_t{0};
static_assert(static_cast<RuleResult>(kNoRule) == kNoMatch);

inline constexpr uint32_t kPatternBlock = 32;

struct Node {
  uint32_t pattern;  // offset into the patterns: one entry a kPatternBlock of P classes, an offset into the blocks
  uint32_t base;     // offset into the winners
};

// Where most cells are empty, those that are not lie in a hash table: each in one of two slots.
struct CellHash {
  uint64_t multiplier[2];
  uint32_t n_half;  // slots that each of the two hashes chooses from
  // The top 32 bits of the product, scaled to the number of slots.
  size_t first(uint32_t key) const { return ((key * multiplier[0] >> 32) * n_half) >> 32; }
  size_t second(uint32_t key) const { return n_half + (((key * multiplier[1] >> 32) * n_half) >> 32); }

  template <class Archive>
  void visit(Archive& a) {
    a("multiplier_0", multiplier[0])("multiplier_1", multiplier[1])("n_half", n_half);
  }
};

struct Slot {
  static constexpr uint32_t kEmpty = ~uint32_t{0};
  uint32_t key;   // row * columns + column
  uint32_t node;  // 0 in an empty slot
};

// One of the tables that rules are split into. Exactly one of the cell arrays is used.
struct Cells {
  TableArray<uint32_t> row, column;  // per class of the axis: where its row starts, which column it is
  TableArray<uint16_t> narrow;
  TableArray<uint32_t> wide;
  TableArray<Slot> slots;
  CellHash hash{};
  size_t bytes() const { return row.bytes() + column.bytes() + narrow.bytes() + wide.bytes() + slots.bytes(); }

  template <class Archive>
  void visit(Archive& a) {
    a("row", row)("column", column)("narrow", narrow)("wide", wide)("slots", slots)("hash", hash);
  }
};

// The rules of one segment as their positions on the axes. Rows are those of classes::Dimension; row 0 is "any".
struct Axis {
  uint32_t n_classes = 1;
  std::vector<uint32_t> row_of_rule;  // one a rule; empty when the axis is unused
  classes::Lists rows;                // class -> rows
};

struct Problem {
  uint32_t n_rules = 0;
  Axis source, destination;
  uint32_t n_services = 1;                          // P classes
  std::vector<uint32_t> service_of_rule;            // which P classes a rule leaves: index into `service`
  std::vector<std::vector<uint32_t>> service;       // P classes
};

// Which dimension of the front end is which axis; -1: unused. Throws CompileError where there are more than three.
struct AxisChoice {
  int source = -1, destination = -1, service = -1;

  template <class Archive>
  void visit(Archive& a) {
    a("source", source)("destination", destination)("service", service);
  }
};
AxisChoice choose_axes(const std::vector<classes::Dimension>& dimensions);
Problem problem_of(const std::vector<classes::Dimension>& dimensions, const AxisChoice& choice, uint32_t n_rules);

// --- Plan (cross_plan.cpp): which rules go into which table ---

struct Plan {
  struct Table {
    std::vector<uint32_t> rules;  // sorted
    uint64_t n_source = 0, n_destination = 0;  // classes that these rules tell apart
    uint64_t steps = 0;                        // (rule, source class, destination class) incidences
    uint64_t bytes = 0;                        // of the cells; estimated where they are hashed
    bool dense = false;                        // cells in one array, else hashed
  };
  std::vector<Table> tables;
  uint64_t steps() const;
  uint64_t bytes() const;
};
struct Limits {
  uint64_t steps;
  uint64_t bytes;        // of all cells
  uint64_t dense_bytes;  // up to which a table is dense whatever hashing would save
};
// Plans in the order in which to try them: those first in which a look-up is predicted to be fastest. Never empty: throws
// CompileError naming the best figures there are where none keeps the limits.
std::vector<Plan> make_plans(const Problem& problem, const Limits& limits);

// Which classes of the axis the given rules tell apart: class -> reduced class; and reduced class -> rows they use.
struct Reduced {
  std::vector<uint32_t> of_class;
  classes::Lists rows;
};
Reduced reduce(const Axis& axis, const std::vector<uint32_t>& rules);

// --- Table ---

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
    a("front", front_)("axes", axes_)("cells", cells_)("nodes", nodes_)("patterns", patterns_);
    a("blocks", blocks_)("wide_blocks", wide_blocks_)("winners", winners_);
  }
  void check() const;  // cross_check.cpp
  void fill(const Problem& problem, const Plan& plan, size_t most, uint64_t& work_left);
  void look_up(const classes::ClassChunk& chunk, size_t n, RuleResult* out) const;

  classes::ClassFront front_;
  classes::Verdicts verdicts_;
  AxisChoice axes_;
  std::vector<Cells> cells_;
  TableArray<Node> nodes_;
  TableArray<uint32_t> patterns_;
  TableArray<uint8_t> blocks_;        // positions; exactly one of the two is used
  TableArray<uint16_t> wide_blocks_;
  TableArray<uint32_t> winners_;
};

std::unique_ptr<EngineTable> build_cross(std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end,
                                         const CompileOptions& options);
std::unique_ptr<EngineTable> load_cross(saved::Reader& reader, std::shared_ptr<const RuleSet> rules, int32_t begin,
                                        int32_t end, const simd::Backend& backend);

}  // namespace meshsieve::cross
