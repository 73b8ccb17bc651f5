// Building cross-product tables: the rules of every cell, then nodes, patterns and winners shared between cells.
#include <algorithm>
#include <cstring>
#include <string>
#include <unordered_map>

#include "l4/budget.h"
#include "l4/cross_table.h"
#include "l4/signature.h"
#include "meshsieve/errors.h"

namespace meshsieve::cross {
namespace {

constexpr uint64_t kStepsARule = 400;         // 10 to 20 ns each, nodes and patterns included: 8 ms a thousand rules
constexpr size_t kMostPlansTried = 1;         // a plan whose nodes and patterns outgrew the limits has cost its build
constexpr uint64_t kFewestSteps = 1 << 18;    // small sets may be denser
// Work for nodes and patterns, over all plans tried, in units of about a nanosecond: 10 ms a thousand rules.
constexpr uint64_t kWorkARule = 10'000;
constexpr uint64_t kLeastWork = 5'000'000;
constexpr uint64_t kWorkAStep = 4;
constexpr uint32_t kMostPositions = 254;      // positions of a pattern are bytes, 0 is none

void spend(uint64_t work, uint64_t& left) {
  if (work > left) throw CompileError("building cross-product tables takes too long: too many different cells");
  left -= work;
}

struct VectorHash {
  template <class T>
  size_t operator()(const std::vector<T>& values) const {
    uint64_t hash = values.size();
    for (const T value : values) hash = mixed(hash ^ value);
    return hash;
  }
};

// Which services are contained in which: a rule whose service is contained in that of a rule before it cannot win.
class Containment {
 public:
  explicit Containment(const std::vector<std::vector<uint32_t>>& services)
      : words_((services.size() + 63) / 64), inside_(services.size() * words_) {
    std::vector<std::vector<uint32_t>> with_class;  // class -> services, to test only candidates
    for (uint32_t s = 0; s < services.size(); ++s)
      for (const uint32_t c : services[s]) {
        if (with_class.size() <= c) with_class.resize(c + 1);
        with_class[c].push_back(s);
      }
    std::vector<uint32_t> common(services.size());
    for (uint32_t s = 0; s < services.size(); ++s) {
      std::fill(common.begin(), common.end(), 0);
      for (const uint32_t c : services[s])
        for (const uint32_t other : with_class[c]) ++common[other];
      for (uint32_t other = 0; other < services.size(); ++other)
        if (common[other] == services[other].size()) inside_[s * words_ + other / 64] |= uint64_t{1} << other % 64;
    }
  }
  size_t words() const { return words_; }
  const uint64_t* inside(uint32_t service) const { return inside_.data() + service * words_; }

 private:
  size_t words_;
  std::vector<uint64_t> inside_;
};

// Nodes, patterns and winners of all tables.
class NodePool {
 public:
  NodePool(const Problem& problem, size_t most_bytes, uint64_t& work_left)
      : problem_(problem), most_bytes_(most_bytes), work_left_(work_left), containment_(problem.service), covered_(containment_.words()),
        class_words_((problem.n_services + 63) / 64), service_bits_(problem.service.size() * class_words_),
        positions_(class_words_ * 64) {
    for (size_t s = 0; s < problem.service.size(); ++s)
      for (const uint32_t c : problem.service[s]) service_bits_[s * class_words_ + c / 64] |= uint64_t{1} << c % 64;
    shape_of({});  // pattern 0: no rule anywhere
    winners_.push_back(kNoRule);
    nodes_.push_back({0, 0});
  }

  // Node of a cell that leaves these rules (sorted).
  uint32_t node_of(const std::vector<uint32_t>& rules) {
    spend(8 * rules.size() + 500, work_left_);
    services_.clear();
    kept_.clear();
    std::fill(covered_.begin(), covered_.end(), 0);
    for (const uint32_t r : rules) {
      const uint32_t service = problem_.service_of_rule[r];
      if (covered_[service / 64] >> service % 64 & 1) continue;
      const uint64_t* inside = containment_.inside(service);
      for (size_t w = 0; w < covered_.size(); ++w) covered_[w] |= inside[w];
      services_.push_back(service);
      kept_.push_back(r);
    }
    const Shape& shape = shape_of(services_);
    list_.clear();
    list_.push_back(kNoRule);
    for (const uint32_t k : shape.kept) list_.push_back(kept_[k]);
    const auto [base, new_list] = bases_.try_emplace(list_, static_cast<uint32_t>(winners_.size()));
    if (new_list) winners_.insert(winners_.end(), list_.begin(), list_.end());
    const auto [node, new_node] = node_ids_.try_emplace(uint64_t{shape.pattern} << 32 | base->second,
                                                        static_cast<uint32_t>(nodes_.size()));
    if (new_node) nodes_.push_back({shape.pattern, base->second});
    if (bytes() > most_bytes_)
      throw CompileError("the nodes and patterns of cross-product tables take more than " +
                         std::to_string(most_bytes_) + " bytes");
    return node->second;
  }

  const std::vector<Node>& nodes() const { return nodes_; }
  const std::vector<uint32_t>& patterns() const { return patterns_; }
  const std::vector<uint8_t>& blocks() const { return blocks_; }
  const std::vector<uint32_t>& winners() const { return winners_; }

 private:
  using Block = std::array<uint64_t, kPatternBlock / 8>;
  struct BlockHash {
    size_t operator()(const Block& block) const {
      uint64_t hash = 0;
      for (const uint64_t word : block) hash = mixed(hash ^ word);
      return hash;
    }
  };

  // What a sequence of services makes of the P classes, whichever the rules are.
  struct Shape {
    uint32_t pattern;
    std::vector<uint32_t> kept;  // positions in the sequence that win somewhere
  };

  const Shape& shape_of(const std::vector<uint32_t>& services) {
    const auto [found, is_new] = shapes_.try_emplace(services);
    if (!is_new) return found->second;
    Shape& shape = found->second;
    spend(services.size() * class_words_ + problem_.n_services + 500, work_left_);
    std::fill(positions_.begin(), positions_.end(), 0);
    left_.assign(class_words_, ~uint64_t{0});
    for (uint32_t k = 0; k < services.size(); ++k) {
      bool wins = false;
      const auto position = static_cast<uint8_t>(shape.kept.size() + 1);
      const uint64_t* of_service = service_bits_.data() + services[k] * class_words_;
      for (size_t w = 0; w < class_words_; ++w) {
        uint64_t won = left_[w] & of_service[w];
        left_[w] &= ~won;
        wins |= won != 0;
        for (; won != 0; won &= won - 1) positions_[w * 64 + static_cast<size_t>(__builtin_ctzll(won))] = position;
      }
      if (!wins) continue;
      if (shape.kept.size() == kMostPositions)
        throw CompileError("one cell of a cross-product table has more than 254 rules that can win");
      shape.kept.push_back(k);
    }
    cut_into_blocks();
    const auto [pattern, new_pattern] = pattern_ids_.try_emplace(pattern_, static_cast<uint32_t>(patterns_.size()));
    if (new_pattern) patterns_.insert(patterns_.end(), pattern_.begin(), pattern_.end());
    shape.pattern = pattern->second;
    return shape;
  }

  // Cuts `positions_` into blocks, equal ones stored once: P classes of one protocol and destination port are neighbours
  // and mostly alike, so a pattern of thousands of classes has few blocks of its own.
  void cut_into_blocks() {
    pattern_.clear();
    for (size_t c = 0; c < problem_.n_services; c += kPatternBlock) {
      Block block;
      std::memcpy(block.data(), positions_.data() + c, kPatternBlock);
      const auto [found, is_new] = block_ids_.try_emplace(block, static_cast<uint32_t>(blocks_.size()));
      if (is_new) blocks_.insert(blocks_.end(), positions_.begin() + static_cast<ptrdiff_t>(c),
                                 positions_.begin() + static_cast<ptrdiff_t>(c + kPatternBlock));
      pattern_.push_back(found->second);
    }
  }

  size_t bytes() const { return (patterns_.size() + winners_.size()) * 4 + blocks_.size() + nodes_.size() * sizeof(Node); }

  const Problem& problem_;
  size_t most_bytes_;
  uint64_t& work_left_;
  Containment containment_;
  std::vector<uint64_t> covered_;
  std::vector<uint32_t> services_, kept_, list_;
  size_t class_words_;
  std::vector<uint64_t> service_bits_, left_;  // P classes of each service; those that no rule of the list has won
  std::vector<uint8_t> positions_;             // the pattern being made, byte by byte, padded to whole blocks
  std::vector<uint32_t> pattern_;              // and in blocks
  std::unordered_map<std::vector<uint32_t>, Shape, VectorHash> shapes_;
  std::unordered_map<std::vector<uint32_t>, uint32_t, VectorHash> pattern_ids_;
  std::unordered_map<Block, uint32_t, BlockHash> block_ids_;
  std::unordered_map<std::vector<uint32_t>, uint32_t, VectorHash> bases_;
  std::unordered_map<uint64_t, uint32_t> node_ids_;
  std::vector<Node> nodes_;
  std::vector<uint32_t> patterns_, winners_;
  std::vector<uint8_t> blocks_;
};

struct Cell {
  uint32_t key, node;  // key: the column while a row is built, then row * width + column
};

// The cells of one table, row by row, without those that no rule reaches.
class CellBuilder {
 public:
  CellBuilder(const Problem& problem, const Plan::Table& table, NodePool& pool)
      : problem_(problem), table_(table), pool_(pool), source_(reduce(problem.source, table.rules)),
        destination_(reduce(problem.destination, table.rules)) {
    columns_of_row_.resize(n_rows(problem.destination));
    for (uint32_t d = 0; d < destination_.rows.size(); ++d)
      for (const uint32_t* row = destination_.rows.from(d); row != destination_.rows.to(d); ++row)
        columns_of_row_[*row].push_back(d);
    rules_of_row_.resize(n_rows(problem.source));
    for (const uint32_t r : table.rules) rules_of_row_[row_of(problem.source, r)].push_back(r);
    sums_.resize(destination_.rows.size());
    closed_.resize(destination_.rows.size());
    reached_.resize(columns_of_row_.size());
  }

  const Reduced& source() const { return source_; }
  const Reduced& destination() const { return destination_; }

  std::vector<Cell> row(uint32_t s) {
    std::vector<uint32_t> rules;
    for (const uint32_t* row = source_.rows.from(s); row != source_.rows.to(s); ++row)
      rules.insert(rules.end(), rules_of_row_[*row].begin(), rules_of_row_[*row].end());
    std::sort(rules.begin(), rules.end());
    touched_.clear();
    for (const uint32_t r : rules) {
      const Signature one = signature_of(r);
      const bool last = closes(r);
      for (const uint32_t d : columns_of_row_[row_of(problem_.destination, r)]) {
        if (closed_[d]) continue;
        if (sums_[d] == Signature{}) touched_.push_back(d);
        sums_[d].toggle(one);
        closed_[d] = last;
      }
    }
    std::vector<Cell> cells;
    for (const uint32_t d : touched_) {
      const auto [found, is_new] = known_.try_emplace(sums_[d], 0);
      if (is_new) found->second = pool_.node_of(rules_in(rules, d));
      cells.push_back({d, found->second});
      sums_[d] = {};
      closed_[d] = 0;
    }
    return cells;
  }

 private:
  static uint32_t row_of(const Axis& axis, uint32_t r) { return axis.row_of_rule.empty() ? 0 : axis.row_of_rule[r]; }
  static size_t n_rows(const Axis& axis) {
    uint32_t n = 1;
    for (const uint32_t row : axis.row_of_rule) n = std::max(n, row + 1);
    return n;
  }

  // Those of a row's rules that reach column d, up to the first that leaves nothing to later ones.
  const std::vector<uint32_t>& rules_in(const std::vector<uint32_t>& rules, uint32_t d) {
    ++round_;
    for (const uint32_t* row = destination_.rows.from(d); row != destination_.rows.to(d); ++row) reached_[*row] = round_;
    cell_rules_.clear();
    for (const uint32_t r : rules) {
      if (reached_[row_of(problem_.destination, r)] != round_) continue;
      cell_rules_.push_back(r);
      if (closes(r)) break;
    }
    return cell_rules_;
  }

  bool closes(uint32_t r) const {
    return problem_.service[problem_.service_of_rule[r]].size() == problem_.n_services;
  }

  const Problem& problem_;
  const Plan::Table& table_;
  NodePool& pool_;
  Reduced source_, destination_;
  std::vector<std::vector<uint32_t>> columns_of_row_, rules_of_row_;
  std::vector<Signature> sums_;   // of the rules seen so far in each column
  std::vector<uint8_t> closed_;   // a rule that leaves nothing to later ones was seen
  std::vector<uint32_t> touched_;
  std::vector<uint32_t> reached_;  // by destination row: the round in which rules_in last saw it
  uint32_t round_ = 0;
  std::vector<uint32_t> cell_rules_;
  std::unordered_map<Signature, uint32_t, SignatureHash> known_;  // rules of a cell -> node
};

// Cuckoo hashing: each cell lies in one of two slots, moved aside until all fit. The keys are class numbers, which no
// packet chooses, and a look-up reads both slots whatever they hold.
class CuckooBuilder {
 public:
  explicit CuckooBuilder(const std::vector<Cell>& cells) : cells_(cells) {
    // Two slots a key can fill a little under half of the slots; then grow.
    for (uint32_t n_half = static_cast<uint32_t>(cells.size() + cells.size() / 8 + 8);; n_half += n_half / 8) {
      for (uint64_t seed = 1; seed <= 4; ++seed) {
        hash_ = {mixed(2 * seed) | 1, mixed(2 * seed + 1) | 1, n_half};
        if (fill()) return;
      }
    }
  }
  const CellHash& hash() const { return hash_; }
  const std::vector<Slot>& slots() const { return slots_; }

 private:
  static constexpr int kMostMoves = 500;

  bool fill() {
    slots_.assign(size_t{2} * hash_.n_half, {Slot::kEmpty, 0});
    for (Cell cell : cells_) {
      size_t at = hash_.first(cell.key);
      for (int moves = 0;; ++moves) {
        std::swap(slots_[at].key, cell.key);
        std::swap(slots_[at].node, cell.node);
        if (cell.key == Slot::kEmpty) break;
        if (moves == kMostMoves) return false;
        const size_t first = hash_.first(cell.key);
        at = at == first ? hash_.second(cell.key) : first;
      }
    }
    return true;
  }

  const std::vector<Cell>& cells_;
  CellHash hash_{};
  std::vector<Slot> slots_;
};

struct Built {
  Cells cells;
  std::vector<uint32_t> row, column;  // per class of the axis
};

Built build_dense(CellBuilder& builder) {
  const size_t width = builder.destination().rows.size(), height = builder.source().rows.size();
  std::vector<uint32_t> nodes(width * height, 0);
  uint32_t most = 0;
  for (uint32_t s = 0; s < height; ++s)
    for (const Cell& cell : builder.row(s)) {
      nodes[s * width + cell.key] = cell.node;
      most = std::max(most, cell.node);
    }
  Built built;
  if (most <= 0xffff) {
    built.cells.narrow = TableArray<uint16_t>::copy_of(std::vector<uint16_t>(nodes.begin(), nodes.end()));
  } else {
    built.cells.wide = TableArray<uint32_t>::copy_of(nodes);
  }
  for (const uint32_t s : builder.source().of_class) built.row.push_back(static_cast<uint32_t>(s * width));
  built.column = builder.destination().of_class;
  return built;
}

Built build_hashed(CellBuilder& builder) {
  const size_t width = builder.destination().rows.size(), height = builder.source().rows.size();
  if (width * height >= Slot::kEmpty) throw CompileError("a cross-product table of more than 2^32 cells");
  std::vector<Cell> cells;
  for (uint32_t s = 0; s < height; ++s)
    for (const auto& [column, node] : builder.row(s)) cells.push_back({static_cast<uint32_t>(s * width + column), node});
  const CuckooBuilder cuckoo(cells);
  Built built;
  built.cells.hash = cuckoo.hash();
  built.cells.slots = TableArray<Slot>::copy_of(cuckoo.slots());
  for (const uint32_t s : builder.source().of_class) built.row.push_back(static_cast<uint32_t>(s * width));
  built.column = builder.destination().of_class;
  return built;
}

}  // namespace

CrossTable::CrossTable(std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end, const CompileOptions& options)
    : front_(*rules, begin, end, simd::backend_named(options.backend)),
      verdicts_(rules, begin, end),
      axes_(choose_axes(front_.dimensions())) {
  const auto n_rules = static_cast<uint32_t>(end - begin);
  const Problem problem = problem_of(front_.dimensions(), axes_, n_rules);
  const size_t most = most_bytes(options, *rules, n_rules);
  const uint64_t steps = std::max(kFewestSteps, uint64_t{n_rules} * kStepsARule);
  std::vector<Plan> plans = make_plans(problem, steps, usual_bytes(n_rules) / 2, most / 2);
  uint64_t work_left = n_rules * kWorkARule + kLeastWork;
  for (size_t p = 0; p < plans.size(); ++p) {
    try {
      spend(plans[p].steps() * kWorkAStep, work_left);
      fill(problem, plans[p], most, work_left);
      break;
    } catch (const CompileError&) {
      if (p + 1 == std::min(plans.size(), kMostPlansTried)) throw;
    }
  }
  front_.forget_lists();
}

// Builds the tables of a plan. Throws CompileError where nodes and patterns, unknown until then, exceed the limits.
void CrossTable::fill(const Problem& problem, const Plan& plan, size_t most, uint64_t& work_left) {
  NodePool pool(problem, most, work_left);
  const size_t n_tables = plan.tables.size();
  row_ = TableArray<uint32_t>(size_t{problem.source.n_classes} * n_tables);
  column_ = TableArray<uint32_t>(size_t{problem.destination.n_classes} * n_tables);
  cells_.clear();
  for (size_t t = 0; t < n_tables; ++t) {
    CellBuilder builder(problem, plan.tables[t], pool);
    Built built = is_dense(plan.tables[t]) ? build_dense(builder) : build_hashed(builder);
    for (size_t c = 0; c < built.row.size(); ++c) row_[c * n_tables + t] = built.row[c];
    for (size_t c = 0; c < built.column.size(); ++c) column_[c * n_tables + t] = built.column[c];
    cells_.push_back(std::move(built.cells));
  }
  nodes_ = TableArray<Node>::copy_of(pool.nodes());
  patterns_ = TableArray<uint32_t>::copy_of(pool.patterns());
  blocks_ = TableArray<uint8_t>::copy_of(pool.blocks());
  winners_ = TableArray<uint32_t>::copy_of(pool.winners());
  if (stats().bytes > most)
    throw CompileError("cross-product tables take " + std::to_string(stats().bytes) + " bytes, the budget is " +
                       std::to_string(most));
}

std::unique_ptr<EngineTable> build_cross(std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end,
                                         const CompileOptions& options) {
  return std::make_unique<CrossTable>(std::move(rules), begin, end, options);
}

}  // namespace meshsieve::cross
