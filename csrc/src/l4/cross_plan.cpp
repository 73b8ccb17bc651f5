// Which rules go into which cross-product table.
//
// A rule costs one step for each (source class, destination class) that it reaches, and a table costs its classes'
// product (or, hashed, its steps). Both explode where wide and narrow rules meet on an axis: rules of wide sources
// make every row long, rules of narrow sources make many rows. So rules are first split by wide or narrow source times
// wide or narrow destination, wide meaning a share of the axis' classes; then tables are merged again, cheapest first,
// as long as the limits hold, because every table costs look-up time. Several shares are tried.
#include <algorithm>
#include <string>
#include <tuple>
#include <unordered_map>

#include "l4/cross_table.h"
#include "l4/signature.h"
#include "meshsieve/errors.h"

namespace meshsieve::cross {
namespace {

// A row is wide where it holds more than 1 / share of the axis' classes; 1: only "any" is.
constexpr uint32_t kShares[] = {1, 8, 64, 512};

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

// Reduced classes that hold each row, and how many reduced classes there are.
std::vector<uint64_t> reach(const Axis& axis, const std::vector<uint32_t>& rules, uint64_t& n_reduced) {
  const Reduced reduced = reduce(axis, rules);
  n_reduced = reduced.rows.size();
  std::vector<uint64_t> count;
  for (const uint32_t row : reduced.rows.items) {
    if (count.size() <= row) count.resize(row + 1);
    ++count[row];
  }
  return count;
}

void measure(const Problem& problem, Plan::Table& table) {
  const auto source = reach(problem.source, table.rules, table.n_source);
  const auto destination = reach(problem.destination, table.rules, table.n_destination);
  const auto reached = [](const Axis& axis, const std::vector<uint64_t>& count, uint32_t r) {
    return axis.row_of_rule.empty() ? 1 : count[axis.row_of_rule[r]];
  };
  table.steps = 0;
  for (const uint32_t r : table.rules)
    table.steps += reached(problem.source, source, r) * reached(problem.destination, destination, r);
}

Plan::Table merged(const Problem& problem, const Plan::Table& x, const Plan::Table& y) {
  Plan::Table table;
  std::merge(x.rules.begin(), x.rules.end(), y.rules.begin(), y.rules.end(), std::back_inserter(table.rules));
  measure(problem, table);
  return table;
}

// Merges the pair that costs least, again and again, while both limits hold.
void merge_tables(const Problem& problem, Plan& plan, uint64_t most_steps, uint64_t most_bytes) {
  while (plan.tables.size() > 1) {
    size_t best_x = 0, best_y = 0;
    double least = 1.0;
    Plan::Table best;
    for (size_t x = 0; x < plan.tables.size(); ++x)
      for (size_t y = x + 1; y < plan.tables.size(); ++y) {
        Plan::Table table = merged(problem, plan.tables[x], plan.tables[y]);
        const auto total = [&](uint64_t all, uint64_t a, uint64_t b, uint64_t now) { return all - a - b + now; };
        const double steps = static_cast<double>(
            total(plan.steps(), plan.tables[x].steps, plan.tables[y].steps, table.steps));
        const double bytes = static_cast<double>(
            total(plan.bytes(), cell_bytes(plan.tables[x]), cell_bytes(plan.tables[y]), cell_bytes(table)));
        const double cost =
            std::max(steps / static_cast<double>(most_steps), bytes / static_cast<double>(most_bytes));
        if (cost > least) continue;
        least = cost;
        best = std::move(table);
        best_x = x;
        best_y = y;
      }
    if (best.rules.empty()) return;
    plan.tables.erase(plan.tables.begin() + static_cast<ptrdiff_t>(best_y));
    plan.tables[best_x] = std::move(best);
  }
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
  std::vector<bool> used;
  for (const uint32_t r : rules) {
    const uint32_t row = axis.row_of_rule[r];
    if (used.size() <= row) used.resize(row + 1);
    used[row] = true;
  }
  std::unordered_map<Signature, uint32_t, SignatureHash> known;
  reduced.of_class.resize(axis.n_classes);
  for (uint32_t c = 0; c < axis.n_classes; ++c) {
    Signature signature;
    for (const uint32_t* row = axis.rows.from(c); row != axis.rows.to(c); ++row)
      if (*row < used.size() && used[*row]) signature.toggle(signature_of(*row));
    const auto [found, is_new] = known.try_emplace(signature, reduced.rows.size());
    reduced.of_class[c] = found->second;
    if (!is_new) continue;
    for (const uint32_t* row = axis.rows.from(c); row != axis.rows.to(c); ++row)
      if (*row < used.size() && used[*row]) reduced.rows.items.push_back(*row);
    reduced.rows.close();
  }
  return reduced;
}

// Cells are at most as many as steps, and fill a little under half of the slots.
static uint64_t hashed_bytes(const Plan::Table& table) { return 9 * table.steps / 4 * sizeof(Slot); }
static uint64_t dense_bytes(const Plan::Table& table) { return table.n_source * table.n_destination * 2; }

// A dense table is a load less and no hashing, so it may be a little larger.
bool is_dense(const Plan::Table& table) {
  constexpr uint64_t kSmall = 128 << 10;
  return dense_bytes(table) <= std::max(hashed_bytes(table), kSmall);
}

uint64_t cell_bytes(const Plan::Table& table) { return is_dense(table) ? dense_bytes(table) : hashed_bytes(table); }

uint64_t Plan::steps() const {
  uint64_t steps = 0;
  for (const Table& table : tables) steps += table.steps;
  return steps;
}

uint64_t Plan::bytes() const {
  uint64_t bytes = 0;
  for (const Table& table : tables) bytes += cell_bytes(table);
  return bytes;
}

std::vector<Plan> make_plans(const Problem& problem, uint64_t most_steps, uint64_t usual_bytes, uint64_t most_bytes) {
  std::vector<Plan> plans;
  if (problem.n_rules == 0) return {Plan{}};
  uint64_t fewest_steps = ~uint64_t{0}, fewest_bytes = ~uint64_t{0};
  for (const uint32_t share : kShares) {
    const std::vector<bool> source = wide_rules(problem.source, problem.n_rules, share);
    const std::vector<bool> destination = wide_rules(problem.destination, problem.n_rules, share);
    Plan plan;
    plan.tables.resize(4);
    for (uint32_t r = 0; r < problem.n_rules; ++r) plan.tables[source[r] * 2 + destination[r]].rules.push_back(r);
    std::erase_if(plan.tables, [](const Plan::Table& table) { return table.rules.empty(); });
    for (Plan::Table& table : plan.tables) measure(problem, table);
    fewest_steps = std::min(fewest_steps, plan.steps());
    fewest_bytes = std::min(fewest_bytes, plan.bytes());
    if (plan.steps() > most_steps || plan.bytes() > most_bytes) continue;
    plans.push_back(plan);
    merge_tables(problem, plan, most_steps, plan.bytes() <= usual_bytes ? usual_bytes : most_bytes);
    if (plan.tables.size() < plans.back().tables.size()) plans.push_back(std::move(plan));
    if (plans.back().tables.size() == 1 && plans.back().bytes() <= usual_bytes) break;
  }
  if (plans.empty())
    throw CompileError("cross-product tables would take at least " + std::to_string(fewest_steps) +
                       " build steps (limit " + std::to_string(most_steps) + ") or " + std::to_string(fewest_bytes) +
                       " bytes (limit " + std::to_string(most_bytes) + ")");
  const auto rank = [&](const Plan& plan) {
    return std::tuple(plan.bytes() > usual_bytes, plan.tables.size(), plan.bytes());
  };
  std::stable_sort(plans.begin(), plans.end(), [&](const Plan& x, const Plan& y) { return rank(x) < rank(y); });
  return plans;
}

}  // namespace meshsieve::cross
