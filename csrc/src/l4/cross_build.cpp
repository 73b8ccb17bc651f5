// Building cross-product tables: the rules of every cell, whose nodes all cells share (cross_nodes.h).
#include <algorithm>
#include <array>
#include <string>

#include "l4/budget.h"
#include "l4/cross_nodes.h"
#include "l4/cross_table.h"
#include "l4/flat_map.h"
#include "l4/signature.h"
#include "meshsieve/errors.h"

namespace meshsieve::cross {
namespace {

// Limits of what is planned. A step costs a few ns, as most are taken a block of columns at a time.
constexpr uint64_t kStepsARule = 150;
constexpr uint64_t kFewestSteps = 1 << 16;    // small sets may be denser
constexpr uint64_t kCellBytesARule = 1'100;   // what cells may take in all, if that is below 11/16 of the budget
// Work for nodes and maps, unknown until they are built, in units of about a nanosecond. A plan whose work runs out
// has cost it, so the second and last attempt is the plan with the fewest steps, and may take half as much.
constexpr uint64_t kWorkARule = 5'000;
constexpr uint64_t kLeastWork = 2'000'000;
constexpr uint64_t kWorkAStep = 8;
// The cells of one table, row by row. A rule that reaches all columns of a block of them is noted once for the block, so
// that rules of wide destinations cost a sixteenth of their steps; a cell's rules are those of its column and its block.
class CellBuilder {
 public:
  CellBuilder(const Problem& problem, const Plan::Table& table, NodePool& pool)
      : problem_(problem), pool_(pool), source_(*table.source), destination_(*table.destination) {
    const uint32_t width = destination_.rows.size();
    std::vector<std::vector<uint32_t>> columns(n_rows(problem.destination));
    for (uint32_t d = 0; d < width; ++d)
      for (const uint32_t* row = destination_.rows.from(d); row != destination_.rows.to(d); ++row)
        columns[*row].push_back(d);
    blocks_of_row_.resize(columns.size());
    columns_of_row_.resize(columns.size());
    for (size_t row = 0; row < columns.size(); ++row)
      for (size_t i = 0, next; i < columns[row].size(); i = next) {
        const uint32_t block = columns[row][i] / kCellBlock;
        for (next = i + 1; next < columns[row].size() && columns[row][next] / kCellBlock == block;) ++next;
        if (next - i == std::min(kCellBlock, width - block * kCellBlock)) blocks_of_row_[row].push_back(block);
        else columns_of_row_[row].insert(columns_of_row_[row].end(), &columns[row][i], &columns[row][0] + next);
      }
    rules_of_row_.resize(n_rows(problem.source));
    for (const uint32_t r : table.rules) rules_of_row_[row_of(problem.source, r)].push_back(r);
    blocks_.resize((width + kCellBlock - 1) / kCellBlock);
    columns_.resize(blocks_.size() * kCellBlock);
  }

  const Reduced& source() const { return source_; }
  const Reduced& destination() const { return destination_; }

  // Goes to row `s`; returns the blocks that any rule reaches. Valid until the next call, as what follows is.
  const std::vector<uint32_t>& go_to(uint32_t s) {
    leave();
    row_rules_.clear();
    for (const uint32_t* row = source_.rows.from(s); row != source_.rows.to(s); ++row)
      row_rules_.insert(row_rules_.end(), rules_of_row_[*row].begin(), rules_of_row_[*row].end());
    std::sort(row_rules_.begin(), row_rules_.end());
    for (const uint32_t r : row_rules_) {
      const Signature one = signature_of(r);
      const bool last = pool_.leaves_nothing(r);
      const uint32_t row = row_of(problem_.destination, r);
      for (const uint32_t b : blocks_of_row_[row]) {
        touch(b);
        if (!blocks_[b].closed) note(r, one, last, blocks_[b]);
      }
      for (const uint32_t d : columns_of_row_[row]) {
        Block& block = blocks_[d / kCellBlock];
        touch(d / kCellBlock);
        block.differs = true;
        if (!columns_[d].closed && !block.closed) note(r, one, last, columns_[d]);
      }
    }
    return touched_;
  }

  // Of the rules of the cells of a block, in order: equal blocks have equal ones.
  Signature rules_of_block(uint32_t b) const {
    const Signature& all = blocks_[b].rules;
    if (!blocks_[b].differs) return all;
    Signature sum{mixed(all.a), mixed(all.b)};
    for (uint32_t i = 0; i < kCellBlock; ++i) {
      const Signature& own = columns_[b * kCellBlock + i].rules;
      sum.a = (sum.a + own.a) * 0x9e3779b97f4a7c15;
      sum.b = (sum.b + own.b) * 0xd6e8feb86659fd93;
    }
    return sum;
  }

  // The nodes of the cells of a block.
  const std::array<uint32_t, kCellBlock>& nodes_of_block(uint32_t b) {
    for (uint32_t i = 0; i < kCellBlock; ++i) {
      const List& own = columns_[b * kCellBlock + i];
      if (i > 0 && !blocks_[b].differs) {
        nodes_[i] = nodes_[0];
        continue;
      }
      Signature rules = own.rules;
      rules.toggle(blocks_[b].rules);
      const auto [node, is_new] = known_.try_emplace(rules, 0);
      if (is_new) node = pool_.node_of(rules_of(own.last, blocks_[b].last));
      nodes_[i] = node;
    }
    return nodes_;
  }

 private:
  // The rules of a row that reach a column, or all columns of a block, as a list from the last back to the first.
  static constexpr uint32_t kNoLink = ~uint32_t{0};
  struct Link {
    uint32_t rule, before;
  };
  struct List {
    Signature rules;
    uint32_t last = kNoLink;
    bool closed = false;  // by a rule that leaves nothing to later ones
  };
  struct Block : List {
    bool touched = false;
    bool differs = false;  // some column has rules of its own
  };

  static uint32_t row_of(const Axis& axis, uint32_t r) { return axis.row_of_rule.empty() ? 0 : axis.row_of_rule[r]; }
  static size_t n_rows(const Axis& axis) {
    uint32_t n = 1;
    for (const uint32_t row : axis.row_of_rule) n = std::max(n, row + 1);
    return n;
  }

  void leave() {
    for (const uint32_t b : touched_) {
      if (blocks_[b].differs) std::fill_n(&columns_[b * kCellBlock], kCellBlock, List{});
      blocks_[b] = {};
    }
    touched_.clear();
    links_.clear();
  }

  void touch(uint32_t b) {
    if (blocks_[b].touched) return;
    blocks_[b].touched = true;
    touched_.push_back(b);
  }

  void note(uint32_t rule, const Signature& one, bool last, List& list) {
    list.rules.toggle(one);
    list.closed = last;
    links_.push_back({rule, list.last});
    list.last = static_cast<uint32_t>(links_.size() - 1);
  }

  // Both lists together, in order.
  const std::vector<uint32_t>& rules_of(uint32_t x, uint32_t y) {
    cell_rules_.clear();
    while (x != kNoLink || y != kNoLink) {
      const bool from_x = y == kNoLink || (x != kNoLink && links_[x].rule > links_[y].rule);
      uint32_t& link = from_x ? x : y;
      cell_rules_.push_back(links_[link].rule);
      link = links_[link].before;
    }
    std::reverse(cell_rules_.begin(), cell_rules_.end());
    return cell_rules_;
  }

  const Problem& problem_;
  NodePool& pool_;
  const Reduced &source_, &destination_;
  std::vector<std::vector<uint32_t>> blocks_of_row_, columns_of_row_, rules_of_row_;  // columns: of no whole block
  std::vector<Block> blocks_;
  std::vector<List> columns_;
  std::vector<Link> links_;
  std::vector<uint32_t> row_rules_, touched_, cell_rules_;
  std::array<uint32_t, kCellBlock> nodes_;
  FlatMap known_;  // rules of a cell -> node
};

template <class Narrow, class Wide>
TableArray<Narrow> narrowed(const std::vector<Wide>& numbers) {
  TableArray<Narrow> narrow(numbers.size());
  std::transform(numbers.begin(), numbers.end(), narrow.data(), [](Wide n) { return static_cast<Narrow>(n); });
  return narrow;
}

// The positions of the rows and columns of table t.
void set_positions(const Plan::Table& table, size_t t, size_t stride, TableArray<uint32_t>& rows,
                   TableArray<uint32_t>& columns) {
  const std::vector<uint32_t>&row_of = table.source->of_class, &column_of = table.destination->of_class;
  uint64_t width = table.destination->rows.size();
  if (table.in_blocks) width = (width + kCellBlock - 1) / kCellBlock * kCellBlock;
  if (width * table.source->rows.size() > ~uint32_t{0})
    throw CompileError("a cross-product table of more than 2^32 cells");
  for (size_t c = 0; c < row_of.size(); ++c) rows[c * stride + t] = row_of[c] * static_cast<uint32_t>(width);
  for (size_t c = 0; c < column_of.size(); ++c) columns[c * stride + t] = column_of[c];
}

Cells build_whole(CellBuilder& builder) {
  const uint32_t width = builder.destination().rows.size(), height = builder.source().rows.size();
  Cells cells;
  std::vector<uint32_t> nodes(size_t{width} * height, 0);
  for (uint32_t s = 0; s < height; ++s)
    for (const uint32_t b : builder.go_to(s)) {
      const uint32_t first = b * kCellBlock;
      std::copy_n(builder.nodes_of_block(b).begin(), std::min(kCellBlock, width - first),
                  &nodes[size_t{s} * width + first]);
    }
  if (*std::max_element(nodes.begin(), nodes.end()) <= 0xffff) cells.narrow = narrowed<uint16_t>(nodes);
  else cells.wide = TableArray<uint32_t>::copy_of(nodes);
  return cells;
}

Cells build_in_blocks(CellBuilder& builder) {
  const uint32_t height = builder.source().rows.size();
  const uint32_t width = (builder.destination().rows.size() + kCellBlock - 1) / kCellBlock;  // in blocks
  Cells cells;
  std::vector<uint32_t> blocks(size_t{width} * height, 0), nodes(kCellBlock, 0);
  FlatMap by_rules, by_nodes;
  uint32_t most = 0;
  for (uint32_t s = 0; s < height; ++s)
    for (const uint32_t b : builder.go_to(s)) {
      const auto [block, is_new] = by_rules.try_emplace(builder.rules_of_block(b), 0);
      if (is_new) {  // other rules, yet perhaps the same nodes
        const std::array<uint32_t, kCellBlock>& found = builder.nodes_of_block(b);
        SequenceSignature content;
        for (uint32_t i = 0; i < kCellBlock; i += 2) content.add(uint64_t{found[i]} << 32 | found[i + 1]);
        const auto next = static_cast<uint32_t>(nodes.size() / kCellBlock);
        const auto [same, is_new_content] = by_nodes.try_emplace(content.finish(), next);
        if (is_new_content) {
          nodes.insert(nodes.end(), found.begin(), found.end());
          most = std::max(most, *std::max_element(found.begin(), found.end()));
        }
        block = same;
      }
      blocks[size_t{s} * width + b] = block;
    }
  if (std::max<size_t>(most, nodes.size() / kCellBlock - 1) <= 0xffff) {
    cells.narrow_blocks = narrowed<uint16_t>(blocks);
    cells.narrow = narrowed<uint16_t>(nodes);
  } else {
    if (nodes.size() > ~uint32_t{0}) throw CompileError("a cross-product table of more than 2^32 different cells");
    cells.wide_blocks = TableArray<uint32_t>::copy_of(blocks);
    cells.wide = TableArray<uint32_t>::copy_of(nodes);
  }
  return cells;
}

}  // namespace

CrossTable::CrossTable(std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end, const CompileOptions& options)
    : front_(*rules, begin, end, simd::backend_named(options.backend), classes::kAllClasses, classes::Joint::in_two),
      verdicts_(rules, begin, end),
      axes_(choose_axes(front_.dimensions())) {
  const auto n_rules = static_cast<uint32_t>(end - begin);
  const Problem problem = problem_of(front_.dimensions(), axes_, *rules, begin, end);
  const size_t most = most_bytes(options, *rules, n_rules);
  const uint64_t cells = std::min<uint64_t>(most / 16 * 11, std::max<uint64_t>(usual_bytes(n_rules) / 2, n_rules * kCellBytesARule));
  const Limits limits{std::max(kFewestSteps, n_rules * kStepsARule), cells};
  const std::vector<Plan> plans = make_plans(problem, limits);
  const uint64_t work = n_rules * kWorkARule + kLeastWork;
  const auto attempt = [&](const Plan& plan, uint64_t units) {
    Work left(units);
    left.spend(plan.steps() * kWorkAStep);
    fill(problem, plan, most, left);
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

// Builds the tables of a plan. Throws CompileError where nodes, maps and winners, unknown until then, exceed the limits.
void CrossTable::fill(const Problem& problem, const Plan& plan, size_t most, Work& work) {
  NodePool pool(problem, most, work);
  const size_t n_tables = plan.tables.size();
  rows_ = TableArray<uint32_t>(stride(n_tables) * problem.source.n_classes);
  columns_ = TableArray<uint32_t>(stride(n_tables) * problem.destination.n_classes);
  cells_.clear();
  for (const Plan::Table& table : plan.tables) {
    set_positions(table, cells_.size(), stride(n_tables), rows_, columns_);
    CellBuilder builder(problem, table, pool);
    cells_.push_back(table.in_blocks ? build_in_blocks(builder) : build_whole(builder));
  }
  nodes_ = TableArray<Node>::copy_of(pool.nodes());
  p_entries_ = TableArray<uint32_t>::copy_of(pool.p_maps().entries());
  p_patterns_ = narrowed<uint8_t>(pool.p_maps().patterns());
  q_maps_ = TableArray<uint16_t>::copy_of(pool.q_maps().patterns());
  winners_ = {};
  wide_winners_ = {};
  if (pool.wide_winners()) wide_winners_ = TableArray<uint32_t>::copy_of(pool.winners());
  else winners_ = narrowed<uint16_t>(pool.winners());
  if (stats().bytes > most)
    throw CompileError("cross-product tables take " + std::to_string(stats().bytes) + " bytes, the budget is " +
                       std::to_string(most));
}

std::unique_ptr<EngineTable> build_cross(std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end,
                                         const CompileOptions& options) {
  return std::make_unique<CrossTable>(std::move(rules), begin, end, options);
}

}  // namespace meshsieve::cross
