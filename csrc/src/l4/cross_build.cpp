// Building cross-product tables: the rules of every cell, then nodes, patterns and winners shared between cells.
#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <string>

#include "l4/budget.h"
#include "l4/cross_table.h"
#include "l4/flat_map.h"
#include "l4/signature.h"
#include "meshsieve/errors.h"

namespace meshsieve::cross {
namespace {

// Limits of what is planned. A step costs about 10 ns, nodes and patterns as much again.
constexpr uint64_t kStepsARule = 150;
constexpr uint64_t kFewestSteps = 1 << 16;    // small sets may be denser
constexpr uint64_t kCellBytesARule = 1'100;   // what cells may take in all, if that is below 11/16 of the budget
// Work for nodes and patterns, unknown until they are built, in units of about a nanosecond. A plan whose work runs out
// has cost it, so the second and last attempt is the plan with the fewest steps, and may take half as much.
constexpr uint64_t kWorkARule = 5'000;
constexpr uint64_t kLeastWork = 2'000'000;
constexpr uint64_t kWorkAStep = 8;
constexpr size_t kMostPositions = 0xffff;     // positions of a pattern have 16 bits, 0 is none

void spend(uint64_t work, uint64_t& left) {
  if (work > left) throw CompileError("building cross-product tables takes too long: too many different cells");
  left -= work;
}

// Services as bitmaps of P classes, and which are contained in which: a rule whose service is contained in that of a
// rule before it cannot win.
class Services {
 public:
  explicit Services(const Problem& problem)
      : count_(problem.service.size()),
        class_words_((problem.n_services + 63) / 64),
        words_((count_ + 63) / 64),
        bits_(count_ * class_words_),
        inside_(count_ * words_) {
    for (size_t s = 0; s < count_; ++s)
      for (const uint32_t c : problem.service[s]) bits_[c / 64 * count_ + s] |= uint64_t{1} << c % 64;
    for (size_t s = 0; s < count_; ++s)
      for (size_t other = 0; other < count_; ++other)
        if (contains(s, other)) inside_[s * words_ + other / 64] |= uint64_t{1} << other % 64;
  }
  size_t class_words() const { return class_words_; }
  size_t words() const { return words_; }
  uint64_t classes(uint32_t service, size_t word) const { return bits_[word * count_ + service]; }
  const uint64_t* inside(uint32_t service) const { return inside_.data() + service * words_; }

 private:
  bool contains(size_t outer, size_t inner) const {
    for (size_t w = 0; w < class_words_; ++w)
      if ((bits_[w * count_ + inner] & ~bits_[w * count_ + outer]) != 0) return false;
    return true;
  }

  size_t count_, class_words_, words_;
  std::vector<uint64_t> bits_;  // word by word, as patterns are made
  std::vector<uint64_t> inside_;
};

// Nodes, patterns and winners of all tables.
class NodePool {
 public:
  NodePool(const Problem& problem, size_t most_bytes, uint64_t& work_left)
      : problem_(problem),
        most_bytes_(most_bytes),
        work_left_(work_left),
        all_services_(problem),
        covered_(all_services_.words()),
        positions_(all_services_.class_words() * 64) {
    shape_of({});  // pattern 0: no rule anywhere
    winners_.push_back(kNoRule);
    nodes_.push_back({0, 0});
  }

  // Node of a cell that leaves these rules (sorted).
  uint32_t node_of(const std::vector<uint32_t>& rules) {
    spend(16 * rules.size() + 200, work_left_);
    services_.clear();
    kept_.clear();
    std::fill(covered_.begin(), covered_.end(), 0);
    for (const uint32_t r : rules) {
      const uint32_t service = problem_.service_of_rule[r];
      if (covered_[service / 64] >> service % 64 & 1) continue;
      const uint64_t* inside = all_services_.inside(service);
      for (size_t w = 0; w < covered_.size(); ++w) covered_[w] |= inside[w];
      services_.push_back(service);
      kept_.push_back(r);
    }
    const Shape& shape = shape_of(services_);
    SequenceSignature list;
    for (const uint32_t k : shape.kept) list.add(kept_[k]);
    const auto [base, new_list] = bases_.try_emplace(list.finish(), static_cast<uint32_t>(winners_.size()));
    if (new_list) {
      winners_.push_back(kNoRule);
      for (const uint32_t k : shape.kept) winners_.push_back(kept_[k]);
    }
    SequenceSignature pair;
    pair.add(uint64_t{shape.pattern} << 32 | base);
    const auto [node, new_node] = node_ids_.try_emplace(pair.finish(), static_cast<uint32_t>(nodes_.size()));
    if (new_node) nodes_.push_back({shape.pattern, base});
    if (bytes() > most_bytes_)
      throw CompileError("the nodes and patterns of cross-product tables take more than " +
                         std::to_string(most_bytes_) + " bytes");
    return node;
  }

  const std::vector<Node>& nodes() const { return nodes_; }
  const std::vector<uint32_t>& patterns() const { return patterns_; }
  const std::vector<uint16_t>& blocks() const { return blocks_; }
  const std::vector<uint32_t>& winners() const { return winners_; }
  bool wide_positions() const { return most_kept_ > 0xff; }

 private:
  // What a sequence of services makes of the P classes, whichever the rules are.
  struct Shape {
    uint32_t pattern;
    std::vector<uint32_t> kept;  // positions in the sequence that win somewhere
  };

  const Shape& shape_of(const std::vector<uint32_t>& services) {
    SequenceSignature key;
    for (const uint32_t service : services) key.add(service);
    const auto [id, is_new] = shape_ids_.try_emplace(key.finish(), static_cast<uint32_t>(shapes_.size()));
    if (!is_new) return shapes_[id];
    Shape& shape = shapes_.emplace_back();
    spend(problem_.n_services + services.size() * all_services_.class_words() / 2 + 500, work_left_);
    if (services.size() >= kMostPositions)
      throw CompileError("one cell of a cross-product table has " + std::to_string(services.size()) + " services");
    wins_.assign(services.size() + 1, 0);
    for (size_t w = 0; w < all_services_.class_words(); ++w) place_word(services, w);
    const bool all_win = std::count(wins_.begin() + 1, wins_.end(), 0) == 0;
    uint16_t last = 0;
    for (uint32_t k = 0; k < services.size(); ++k) {
      if (!wins_[k + 1]) continue;
      wins_[k + 1] = ++last;
      shape.kept.push_back(k);
    }
    most_kept_ = std::max<uint32_t>(most_kept_, last);
    if (!all_win)
      for (uint16_t& position : positions_) position = wins_[position];
    shape.pattern = intern_pattern();
    return shape;
  }

  // The first service of the sequence that has each of 64 P classes, as its place counted from 1; 0: none has.
  void place_word(const std::vector<uint32_t>& services, size_t w) {
    uint64_t left = ~uint64_t{0};
    uint16_t* positions = positions_.data() + w * 64;
    for (uint32_t k = 0; k < services.size() && left != 0; ++k) {
      uint64_t won = left & all_services_.classes(services[k], w);
      if (won == 0) continue;
      const auto place = static_cast<uint16_t>(k + 1);
      wins_[place] = 1;
      left &= ~won;
      if (won == ~uint64_t{0}) {
        std::fill(positions, positions + 64, place);
      } else {
        for (; won != 0; won &= won - 1) positions[__builtin_ctzll(won)] = place;
      }
    }
    for (; left != 0; left &= left - 1) positions[__builtin_ctzll(left)] = 0;
  }

  // Cuts `positions_` into blocks, equal ones stored once: P classes of one protocol and destination port are neighbours
  // and mostly alike, so a pattern of thousands of classes has few blocks of its own.
  uint32_t intern_pattern() {
    pattern_.clear();
    SequenceSignature whole;
    for (size_t c = 0; c < problem_.n_services; c += kPatternBlock) {
      SequenceSignature content;
      std::array<uint64_t, kPatternBlock / 4> words;
      std::memcpy(words.data(), positions_.data() + c, sizeof words);
      for (const uint64_t word : words) content.add(word);
      const auto [block, is_new] = block_ids_.try_emplace(content.finish(), static_cast<uint32_t>(blocks_.size()));
      if (is_new) blocks_.insert(blocks_.end(), &positions_[c], &positions_[c] + kPatternBlock);
      pattern_.push_back(block);
      whole.add(block);
    }
    const auto [pattern, is_new] = pattern_ids_.try_emplace(whole.finish(), static_cast<uint32_t>(patterns_.size()));
    if (is_new) patterns_.insert(patterns_.end(), pattern_.begin(), pattern_.end());
    return pattern;
  }

  size_t bytes() const {
    return (patterns_.size() + winners_.size()) * 4 + blocks_.size() * (wide_positions() ? 2 : 1) +
           nodes_.size() * sizeof(Node);
  }

  const Problem& problem_;
  size_t most_bytes_;
  uint64_t& work_left_;
  Services all_services_;
  std::vector<uint64_t> covered_;
  std::vector<uint32_t> services_, kept_;
  std::vector<uint16_t> positions_;     // the pattern being made, padded to whole blocks
  std::vector<uint32_t> pattern_;       // and in blocks
  std::vector<uint16_t> wins_;          // by place in the sequence: does it win; then, its position
  uint32_t most_kept_ = 0;
  std::deque<Shape> shapes_;  // stay where they are
  FlatMap shape_ids_, pattern_ids_, block_ids_, bases_, node_ids_;
  std::vector<Node> nodes_;
  std::vector<uint32_t> patterns_, winners_;
  std::vector<uint16_t> blocks_;
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
    columns_.resize(destination_.rows.size());
  }

  const Reduced& source() const { return source_; }
  const Reduced& destination() const { return destination_; }

  std::vector<Cell> row(uint32_t s) {
    std::vector<uint32_t> rules;
    for (const uint32_t* row = source_.rows.from(s); row != source_.rows.to(s); ++row)
      rules.insert(rules.end(), rules_of_row_[*row].begin(), rules_of_row_[*row].end());
    std::sort(rules.begin(), rules.end());
    touched_.clear();
    links_.clear();
    for (const uint32_t r : rules) {
      const Signature one = signature_of(r);
      const bool last = closes(r);
      for (const uint32_t d : columns_of_row_[row_of(problem_.destination, r)]) {
        Column& column = columns_[d];
        if (column.closed) continue;
        if (column.last == kNoLink) touched_.push_back(d);
        column.rules.toggle(one);
        column.closed = last;
        links_.push_back({r, column.last});
        column.last = static_cast<uint32_t>(links_.size() - 1);
      }
    }
    std::vector<Cell> cells;
    cells.reserve(touched_.size());
    for (const uint32_t d : touched_) {
      const auto [node, is_new] = known_.try_emplace(columns_[d].rules, 0);
      if (is_new) node = pool_.node_of(rules_before(columns_[d].last));
      cells.push_back({d, node});
      columns_[d] = {};
    }
    return cells;
  }

 private:
  // The rules of a row that reach a column, as a list from the last back to the first.
  static constexpr uint32_t kNoLink = ~uint32_t{0};
  struct Link {
    uint32_t rule, before;
  };
  struct Column {
    Signature rules;
    uint32_t last = kNoLink;
    bool closed = false;  // by a rule that leaves nothing to later ones
  };

  static uint32_t row_of(const Axis& axis, uint32_t r) { return axis.row_of_rule.empty() ? 0 : axis.row_of_rule[r]; }
  static size_t n_rows(const Axis& axis) {
    uint32_t n = 1;
    for (const uint32_t row : axis.row_of_rule) n = std::max(n, row + 1);
    return n;
  }

  const std::vector<uint32_t>& rules_before(uint32_t link) {
    cell_rules_.clear();
    for (; link != kNoLink; link = links_[link].before) cell_rules_.push_back(links_[link].rule);
    std::reverse(cell_rules_.begin(), cell_rules_.end());
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
  std::vector<Column> columns_;
  std::vector<Link> links_;
  std::vector<uint32_t> touched_;
  std::vector<uint32_t> cell_rules_;
  FlatMap known_;  // rules of a cell -> node
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

void set_axes(const CellBuilder& builder, Cells& cells) {
  const std::vector<uint32_t>& rows = builder.source().of_class;
  const auto width = static_cast<uint32_t>(builder.destination().rows.size());
  cells.row = TableArray<uint32_t>(rows.size());
  for (size_t c = 0; c < rows.size(); ++c) cells.row[c] = rows[c] * width;
  cells.column = TableArray<uint32_t>::copy_of(builder.destination().of_class);
}

Cells build_dense(CellBuilder& builder) {
  const size_t width = builder.destination().rows.size(), height = builder.source().rows.size();
  std::vector<uint32_t> nodes(width * height, 0);
  uint32_t most = 0;
  for (uint32_t s = 0; s < height; ++s)
    for (const Cell& cell : builder.row(s)) {
      nodes[s * width + cell.key] = cell.node;
      most = std::max(most, cell.node);
    }
  Cells cells;
  set_axes(builder, cells);
  if (most <= 0xffff) {
    cells.narrow = TableArray<uint16_t>(nodes.size());
    std::copy(nodes.begin(), nodes.end(), cells.narrow.data());
  } else {
    cells.wide = TableArray<uint32_t>::copy_of(nodes);
  }
  return cells;
}

Cells build_hashed(CellBuilder& builder) {
  const size_t width = builder.destination().rows.size(), height = builder.source().rows.size();
  if (width * height >= Slot::kEmpty) throw CompileError("a cross-product table of more than 2^32 cells");
  std::vector<Cell> found;
  for (uint32_t s = 0; s < height; ++s)
    for (const auto& [column, node] : builder.row(s)) found.push_back({static_cast<uint32_t>(s * width + column), node});
  const CuckooBuilder cuckoo(found);
  Cells cells;
  set_axes(builder, cells);
  cells.hash = cuckoo.hash();
  cells.slots = TableArray<Slot>::copy_of(cuckoo.slots());
  return cells;
}

}  // namespace

CrossTable::CrossTable(std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end, const CompileOptions& options)
    : front_(*rules, begin, end, simd::backend_named(options.backend)),
      verdicts_(rules, begin, end),
      axes_(choose_axes(front_.dimensions())) {
  const auto n_rules = static_cast<uint32_t>(end - begin);
  const Problem problem = problem_of(front_.dimensions(), axes_, n_rules);
  const size_t most = most_bytes(options, *rules, n_rules);
  const uint64_t cells = std::min<uint64_t>(most / 16 * 11, std::max<uint64_t>(usual_bytes(n_rules) / 2, n_rules * kCellBytesARule));
  const Limits limits{std::max(kFewestSteps, n_rules * kStepsARule), cells, cells / 16 * 15};
  const std::vector<Plan> plans = make_plans(problem, limits);
  const uint64_t work = n_rules * kWorkARule + kLeastWork;
  const auto attempt = [&](const Plan& plan, uint64_t work_left) {
    spend(plan.steps() * kWorkAStep, work_left);
    fill(problem, plan, most, work_left);
  };
  const auto least = std::min_element(plans.begin(), plans.end(),
                                      [](const Plan& x, const Plan& y) { return x.steps() < y.steps(); });
  try {
    attempt(plans.front(), work);
  } catch (const CompileError&) {
    if (least == plans.begin()) throw;
    attempt(*least, work / 2);
  }
  front_.forget_lists();
}

// Builds the tables of a plan. Throws CompileError where nodes and patterns, unknown until then, exceed the limits.
void CrossTable::fill(const Problem& problem, const Plan& plan, size_t most, uint64_t& work_left) {
  NodePool pool(problem, most, work_left);
  cells_.clear();
  for (const Plan::Table& table : plan.tables) {
    CellBuilder builder(problem, table, pool);
    cells_.push_back(table.dense ? build_dense(builder) : build_hashed(builder));
  }
  nodes_ = TableArray<Node>::copy_of(pool.nodes());
  patterns_ = TableArray<uint32_t>::copy_of(pool.patterns());
  if (pool.wide_positions()) {
    wide_blocks_ = TableArray<uint16_t>::copy_of(pool.blocks());
  } else {
    blocks_ = TableArray<uint8_t>(pool.blocks().size());
    std::copy(pool.blocks().begin(), pool.blocks().end(), blocks_.data());
  }
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
