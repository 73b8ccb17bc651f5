// Which rules go into which cross-product table.
//
// A rule costs one step for each (source class, destination class) that it reaches, and a table costs its classes'
// product (or, hashed, its cells). Both explode where wide and narrow rules meet on an axis: rules of wide sources
// make every row long, rules of narrow sources make many rows. So rules are first split by wide or narrow source times
// wide or narrow destination, wide meaning a share of the axis' classes; then tables are merged again, cheapest first,
// as long as the limits hold, because every table costs look-up time. Several shares are tried, each merge is a plan,
// and what a look-up in each takes is predicted: nothing is built here.
#include <algorithm>
#include <cmath>
#include <string>

#include "l4/cross_table.h"
#include "l4/flat_map.h"
#include "l4/signature.h"
#include "meshsieve/errors.h"

namespace meshsieve::cross {
namespace {

// A row is wide where it holds more than 1 / share of the axis' classes; 1: only "any" is.
constexpr uint32_t kShares[] = {1, 8, 64, 512};

constexpr uint64_t kStepsWorthSampling = uint64_t{1} << 26;  // beyond, nothing is built anyhow

std::vector<uint32_t> classes_of_rows(const Axis& axis) {
  uint32_t n_rows = 1;
  for (const uint32_t row : axis.row_of_rule) n_rows = std::max(n_rows, row + 1);
  std::vector<uint32_t> count(n_rows);
  for (const uint32_t row : axis.rows.items)
    if (row < n_rows) ++count[row];
  return count;
}

// For every rule: is its row on this axis wide?
std::vector<bool> wide_rules(const Axis& axis, uint32_t n_rules, uint32_t share) {
  std::vector<bool> wide(n_rules, true);
  if (axis.row_of_rule.empty()) return wide;
  const std::vector<uint32_t> count = classes_of_rows(axis);
  for (uint32_t r = 0; r < n_rules; ++r) {
    const uint32_t row = axis.row_of_rule[r];
    wide[r] = row == 0 || (share > 1 && uint64_t{count[row]} * share > axis.n_classes);
  }
  return wide;
}

// Reduced classes of an axis for some rules, and the columns (or rows) that hold each of the axis' rows.
struct Reach {
  uint64_t n_reduced;
  classes::Lists of_row;

  Reach(const Axis& axis, const std::vector<uint32_t>& rules) {
    const Reduced reduced = reduce(axis, rules);
    n_reduced = reduced.rows.size();
    uint32_t n_rows = 1;
    for (const uint32_t row : reduced.rows.items) n_rows = std::max(n_rows, row + 1);
    of_row.begin.assign(n_rows + 1, 0);
    for (const uint32_t row : reduced.rows.items) ++of_row.begin[row + 1];
    for (uint32_t row = 0; row < n_rows; ++row) of_row.begin[row + 1] += of_row.begin[row];
    of_row.items.resize(reduced.rows.items.size());
    std::vector<uint32_t> next(of_row.begin.begin(), of_row.begin.end() - 1);
    for (uint32_t c = 0; c < reduced.rows.size(); ++c)
      for (const uint32_t* row = reduced.rows.from(c); row != reduced.rows.to(c); ++row) of_row.items[next[*row]++] = c;
  }
  uint64_t count(uint32_t row) const { return static_cast<uint64_t>(of_row.to(row) - of_row.from(row)); }
};

uint32_t row_of(const Axis& axis, uint32_t rule) { return axis.row_of_rule.empty() ? 0 : axis.row_of_rule[rule]; }

// Cells that any rule reaches, told from kSampledRows rows of the table.
uint64_t estimated_cells(const Problem& problem, const Plan::Table& table, const Reach& source,
                         const Reach& destination) {
  constexpr uint64_t kSampledRows = 128;
  const uint64_t step = std::max<uint64_t>(1, source.n_reduced / kSampledRows);
  std::vector<std::vector<uint32_t>> rules(source.n_reduced / step + 1);  // of the sampled rows
  for (const uint32_t r : table.rules) {
    const uint32_t row = row_of(problem.source, r);
    for (const uint32_t* s = source.of_row.from(row); s != source.of_row.to(row); ++s)
      if (*s % step == 0) rules[*s / step].push_back(r);
  }
  std::vector<uint32_t> seen(destination.n_reduced, 0);
  uint64_t cells = 0;
  for (uint32_t i = 0; i < rules.size(); ++i)
    for (const uint32_t r : rules[i]) {
      const uint32_t row = row_of(problem.destination, r);
      for (const uint32_t* d = destination.of_row.from(row); d != destination.of_row.to(row); ++d) {
        cells += seen[*d] != i + 1;
        seen[*d] = i + 1;
      }
    }
  return cells * step;
}

uint64_t dense_bytes(const Plan::Table& table) { return table.n_source * table.n_destination * 2; }
// The slots are a little under half full.
uint64_t hashed_bytes(uint64_t cells) { return 9 * cells / 4 * sizeof(Slot); }

// A dense table is one load without hashing, so it may be larger; `dense_limit`: what is always worth it.
void measure(const Problem& problem, Plan::Table& table, uint64_t dense_limit) {
  const Reach source(problem.source, table.rules), destination(problem.destination, table.rules);
  table.n_source = source.n_reduced;
  table.n_destination = destination.n_reduced;
  table.steps = 0;
  for (const uint32_t r : table.rules)
    table.steps += source.count(row_of(problem.source, r)) * destination.count(row_of(problem.destination, r));
  table.bytes = dense_bytes(table);
  table.dense = table.bytes <= dense_limit;
  if (table.dense || table.steps > kStepsWorthSampling) return;
  const uint64_t hashed = hashed_bytes(estimated_cells(problem, table, source, destination));
  table.dense = table.bytes <= hashed;
  table.bytes = std::min(table.bytes, hashed);
}

Plan::Table merged(const Problem& problem, const Plan::Table& x, const Plan::Table& y,
                   uint64_t dense_limit) {
  Plan::Table table;
  std::merge(x.rules.begin(), x.rules.end(), y.rules.begin(), y.rules.end(), std::back_inserter(table.rules));
  measure(problem, table, dense_limit);
  return table;
}

// Merges the pair that costs least, again and again, while both limits hold; every merge makes a plan.
void add_merged(const Problem& problem, const Limits& limits, Plan plan, std::vector<Plan>& plans) {
  while (plan.tables.size() > 1) {
    size_t best_x = 0, best_y = 0;
    double least = 1.0;
    Plan::Table best;
    for (size_t x = 0; x < plan.tables.size(); ++x)
      for (size_t y = x + 1; y < plan.tables.size(); ++y) {
        const Plan::Table &one = plan.tables[x], &other = plan.tables[y];
        Plan::Table table = merged(problem, one, other, limits.dense_bytes);
        const auto steps = static_cast<double>(plan.steps() - one.steps - other.steps + table.steps);
        const auto bytes = static_cast<double>(plan.bytes() - one.bytes - other.bytes + table.bytes);
        const double cost =
            std::max(steps / static_cast<double>(limits.steps), bytes / static_cast<double>(limits.bytes));
        if (cost > least) continue;
        least = cost;
        best = std::move(table);
        best_x = x;
        best_y = y;
      }
    if (best.rules.empty()) return;
    plan.tables.erase(plan.tables.begin() + static_cast<ptrdiff_t>(best_y));
    plan.tables[best_x] = std::move(best);
    plans.push_back(plan);
  }
}

// What a look-up takes beyond the classes, in nanoseconds of the machine that docs/engines/cross.md was measured on: a
// table costs instructions, cells and nodes beyond the second-level cache cost misses. How many nodes there are is
// unknown; steps bound them.
double predicted_ns(const Plan& plan) {
  constexpr uint64_t kTiny = 32 << 10;
  double ns = 0;
  for (const Plan::Table& table : plan.tables) ns += !table.dense ? 3.7 : table.bytes <= kTiny ? 1.8 : 2.2;
  const double bytes = static_cast<double>(plan.bytes() + 4 * plan.steps());
  return ns + 0.5 * std::max(0.0, std::log2(bytes / (512 << 10))) + 2e-6 * static_cast<double>(plan.steps());
}

}  // namespace

Reduced reduce(const Axis& axis, const std::vector<uint32_t>& rules) {
  Reduced reduced;
  if (axis.row_of_rule.empty()) {  // unused: one class, one row
    reduced.of_class = {0};
    reduced.rows.items = {0};
    reduced.rows.close();
    return reduced;
  }
  std::vector<Signature> used;  // of the rows that these rules name; the others have none
  for (const uint32_t r : rules) {
    const uint32_t row = axis.row_of_rule[r];
    if (used.size() <= row) used.resize(row + 1);
    used[row] = signature_of(row);
  }
  FlatMap known;
  reduced.of_class.resize(axis.n_classes);
  for (uint32_t c = 0; c < axis.n_classes; ++c) {
    Signature signature;
    for (const uint32_t* row = axis.rows.from(c); row != axis.rows.to(c); ++row)
      if (*row < used.size()) signature.toggle(used[*row]);
    const auto [id, is_new] = known.try_emplace(signature, reduced.rows.size());
    reduced.of_class[c] = id;
    if (!is_new) continue;
    for (const uint32_t* row = axis.rows.from(c); row != axis.rows.to(c); ++row)
      if (*row < used.size() && !(used[*row] == Signature{})) reduced.rows.items.push_back(*row);
    reduced.rows.close();
  }
  return reduced;
}

uint64_t Plan::steps() const {
  uint64_t steps = 0;
  for (const Table& table : tables) steps += table.steps;
  return steps;
}

uint64_t Plan::bytes() const {
  uint64_t bytes = 0;
  for (const Table& table : tables) bytes += table.bytes;
  return bytes;
}

std::vector<Plan> make_plans(const Problem& problem, const Limits& limits) {
  if (problem.n_rules == 0) return {Plan{}};
  std::vector<Plan> plans;
  uint64_t fewest_steps = ~uint64_t{0}, fewest_bytes = ~uint64_t{0};
  std::vector<bool> last_source, last_destination;
  for (const uint32_t share : kShares) {
    std::vector<bool> source = wide_rules(problem.source, problem.n_rules, share);
    std::vector<bool> destination = wide_rules(problem.destination, problem.n_rules, share);
    if (source == last_source && destination == last_destination) continue;
    Plan plan;
    plan.tables.resize(4);
    for (uint32_t r = 0; r < problem.n_rules; ++r) plan.tables[source[r] * 2 + destination[r]].rules.push_back(r);
    std::erase_if(plan.tables, [](const Plan::Table& table) { return table.rules.empty(); });
    for (Plan::Table& table : plan.tables) measure(problem, table, limits.dense_bytes);
    fewest_steps = std::min(fewest_steps, plan.steps());
    fewest_bytes = std::min(fewest_bytes, plan.bytes());
    last_source = std::move(source);
    last_destination = std::move(destination);
    if (plan.steps() > limits.steps || plan.bytes() > limits.bytes) continue;
    plans.push_back(plan);
    add_merged(problem, limits, std::move(plan), plans);
    if (plans.back().tables.size() == 1 && plans.back().tables.front().dense) break;  // nothing is faster
  }
  if (plans.empty())
    throw CompileError("cross-product tables would take at least " + std::to_string(fewest_steps) +
                       " build steps (limit " + std::to_string(limits.steps) + ") or " + std::to_string(fewest_bytes) +
                       " bytes (limit " + std::to_string(limits.bytes) + ")");
  std::stable_sort(plans.begin(), plans.end(),
                   [](const Plan& x, const Plan& y) { return predicted_ns(x) < predicted_ns(y); });
  return plans;
}

}  // namespace meshsieve::cross
