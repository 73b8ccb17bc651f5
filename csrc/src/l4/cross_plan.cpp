// Which rules go into which cross-product table.
//
// A rule costs one step for each (source class, destination class) that it reaches, and a table costs its classes'
// product. Both explode where wide and narrow rules meet on an axis: rules of wide sources
// make every row long, rules of narrow sources make many rows. So rules are first split by wide or narrow source times
// wide or narrow destination, wide meaning a share of the axis' classes; then tables are merged again, cheapest first,
// as long as the limits hold, because every table costs look-up time. Several shares are tried, each merge is a plan,
// and what a look-up in each takes is predicted: nothing is built here.
#include <algorithm>
#include <bit>
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

uint32_t row_of(const Axis& axis, uint32_t rule) { return axis.row_of_rule.empty() ? 0 : axis.row_of_rule[rule]; }

// How many reduced classes hold each row; a class counts as often as `times` says.
std::vector<uint64_t> reach_of_rows(const Reduced& reduced, const std::vector<uint32_t>& times) {
  uint32_t n_rows = 1;
  for (const uint32_t row : reduced.rows.items) n_rows = std::max(n_rows, row + 1);
  std::vector<uint64_t> reach(n_rows);
  for (uint32_t c = 0; c < reduced.rows.size(); ++c)
    for (const uint32_t* row = reduced.rows.from(c); row != reduced.rows.to(c); ++row) reach[*row] += times[c];
  return reach;
}

uint64_t steps_of(const Problem& problem, const std::vector<uint32_t>& rules, const std::vector<uint64_t>& sources,
                  const std::vector<uint64_t>& destinations) {
  uint64_t steps = 0;
  for (const uint32_t r : rules) steps += sources[row_of(problem.source, r)] * destinations[row_of(problem.destination, r)];
  return steps;
}

// What two tables' rules together tell apart on one axis: the pairs of their reduced classes that occur.
struct Pairs {
  std::vector<uint32_t> of_class;
  std::vector<std::pair<uint32_t, uint32_t>> parts;
  std::vector<uint32_t> times_x, times_y;  // pairs of which each reduced class is a part

  Pairs(const Reduced& x, const Reduced& y) : times_x(x.rows.size()), times_y(y.rows.size()) {
    const size_t n_classes = x.of_class.size();
    std::vector<std::pair<uint32_t, uint32_t>> slots(std::bit_ceil(2 * n_classes), {0, 0});  // parts, id + 1
    of_class.reserve(n_classes);
    for (size_t c = 0; c < n_classes; ++c) {
      const std::pair part{x.of_class[c], y.of_class[c]};
      size_t at = mixed(uint64_t{part.first} << 32 | part.second);
      for (;; ++at) {
        std::pair<uint32_t, uint32_t>& slot = slots[at & (slots.size() - 1)];
        if (slot.second == 0) {
          slot.second = static_cast<uint32_t>(parts.size() + 1);
          parts.push_back(part);
          ++times_x[part.first];
          ++times_y[part.second];
        } else if (parts[slot.second - 1] != part) {
          continue;
        }
        of_class.push_back(slot.second - 1);
        break;
      }
    }
  }

  Reduced reduced(const Reduced& x, const Reduced& y) const {
    Reduced out{of_class, {}};
    for (const auto& [a, b] : parts) {
      std::set_union(x.rows.from(a), x.rows.to(a), y.rows.from(b), y.rows.to(b), std::back_inserter(out.rows.items));
      out.rows.close();
    }
    return out;
  }
};

// What blocks save is not known before they are built: usually three quarters to nine tenths. A table that is small
// anyhow is one load less without them.
void choose_kind(Plan::Table& table) {
  constexpr uint64_t kSmall = 64 << 10;
  table.bytes = uint64_t{table.source->rows.size()} * table.destination->rows.size() * 2;
  table.in_blocks = table.bytes > kSmall;
  if (table.in_blocks) table.bytes /= 4;
}

void measure(const Problem& problem, Plan::Table& table) {
  table.source = std::make_shared<Reduced>(reduce(problem.source, table.rules));
  table.destination = std::make_shared<Reduced>(reduce(problem.destination, table.rules));
  const auto reach = [](const Reduced& reduced) {
    return reach_of_rows(reduced, std::vector<uint32_t>(reduced.rows.size(), 1));
  };
  table.steps = steps_of(problem, table.rules, reach(*table.source), reach(*table.destination));
  choose_kind(table);
}

// Two tables as one. Without source and destination where it has more than `most_steps`.
Plan::Table merged(const Problem& problem, const Plan::Table& x, const Plan::Table& y, uint64_t most_steps) {
  const Pairs source(*x.source, *y.source), destination(*x.destination, *y.destination);
  Plan::Table table;
  table.steps = steps_of(problem, x.rules, reach_of_rows(*x.source, source.times_x),
                         reach_of_rows(*x.destination, destination.times_x)) +
                steps_of(problem, y.rules, reach_of_rows(*y.source, source.times_y),
                         reach_of_rows(*y.destination, destination.times_y));
  if (table.steps > most_steps) return table;
  std::merge(x.rules.begin(), x.rules.end(), y.rules.begin(), y.rules.end(), std::back_inserter(table.rules));
  table.source = std::make_shared<Reduced>(source.reduced(*x.source, *y.source));
  table.destination = std::make_shared<Reduced>(destination.reduced(*x.destination, *y.destination));
  choose_kind(table);
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
        const uint64_t others_steps = plan.steps() - one.steps - other.steps;
        Plan::Table table = merged(problem, one, other, limits.steps - others_steps);
        if (table.source == nullptr) continue;
        const auto steps = static_cast<double>(others_steps + table.steps);
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
  double ns = 0;
  for (const Plan::Table& table : plan.tables) ns += table.in_blocks ? 2.8 : 2.0;
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
    for (Plan::Table& table : plan.tables) measure(problem, table);
    fewest_steps = std::min(fewest_steps, plan.steps());
    fewest_bytes = std::min(fewest_bytes, plan.bytes());
    last_source = std::move(source);
    last_destination = std::move(destination);
    if (plan.steps() > limits.steps || plan.bytes() > limits.bytes) continue;
    plans.push_back(plan);
    add_merged(problem, limits, std::move(plan), plans);
    if (plans.back().tables.size() == 1) break;  // nothing is faster
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
