// The front end's dimensions as the three axes of the cross-product engine.
#include <algorithm>
#include <map>
#include <string>

#include "l4/cross_table.h"
#include "meshsieve/errors.h"

namespace meshsieve::cross {
namespace {

using classes::Dimension;
using classes::Lists;

std::vector<uint32_t> row_of_rule(const Dimension& dimension, uint32_t n_rules) {
  std::vector<uint32_t> out(n_rules, 0);
  const Lists& rules = dimension.rules_by_common;
  for (uint32_t row = 0; row < rules.size(); ++row)
    for (const uint32_t* r = rules.from(row); r != rules.to(row); ++r) out[*r] = row;
  return out;
}

std::vector<std::vector<uint32_t>> classes_of_rows(const Dimension& dimension) {
  std::vector<std::vector<uint32_t>> out(dimension.rules_by_common.size());
  for (uint32_t c = 0; c < dimension.n_classes; ++c)
    for (const uint32_t* row = dimension.rows.from(c); row != dimension.rows.to(c); ++row) out[*row].push_back(c);
  return out;
}

// The classes in which a rule's common part and one of its alternatives (if any) do not fail.
std::vector<uint32_t> classes_left(const std::vector<std::vector<uint32_t>>& of_row, uint32_t common,
                                   const std::vector<uint32_t>& alternatives) {
  if (alternatives.empty()) return of_row[common];
  std::vector<uint32_t> any;
  for (const uint32_t row : alternatives) any.insert(any.end(), of_row[row].begin(), of_row[row].end());
  std::sort(any.begin(), any.end());
  any.erase(std::unique(any.begin(), any.end()), any.end());
  std::vector<uint32_t> left;
  std::set_intersection(any.begin(), any.end(), of_row[common].begin(), of_row[common].end(),
                        std::back_inserter(left));
  return left;
}

void fill_services(const Dimension& dimension, Problem& problem) {
  const std::vector<std::vector<uint32_t>> of_row = classes_of_rows(dimension);
  const std::vector<uint32_t> common = row_of_rule(dimension, problem.n_rules);
  std::vector<std::vector<uint32_t>> alternatives(problem.n_rules);
  const Lists& by_alternative = dimension.rules_by_alternative;
  for (uint32_t row = 0; row < by_alternative.size(); ++row)
    for (const uint32_t* r = by_alternative.from(row); r != by_alternative.to(row); ++r)
      alternatives[*r].push_back(row);

  std::map<std::vector<uint32_t>, uint32_t> by_rows, by_classes;
  problem.n_services = dimension.n_classes;
  for (uint32_t r = 0; r < problem.n_rules; ++r) {
    std::vector<uint32_t> key = alternatives[r];
    key.push_back(common[r]);
    auto found = by_rows.find(key);
    if (found == by_rows.end()) {
      std::vector<uint32_t> left = classes_left(of_row, common[r], alternatives[r]);
      const auto [same, is_new] = by_classes.try_emplace(left, static_cast<uint32_t>(problem.service.size()));
      if (is_new) problem.service.push_back(std::move(left));
      found = by_rows.emplace(std::move(key), same->second).first;
    }
    problem.service_of_rule[r] = found->second;
  }
}

}  // namespace

Problem problem_of(const std::vector<Dimension>& dimensions, const AxisChoice& choice, uint32_t n_rules) {
  Problem problem;
  problem.n_rules = n_rules;
  problem.service_of_rule.assign(n_rules, 0);
  problem.service = {{0}};
  const auto axis = [&](int d, Axis& out) {
    if (d < 0) return;
    out = {dimensions[d].n_classes, row_of_rule(dimensions[d], n_rules), dimensions[d].rows};
  };
  axis(choice.source, problem.source);
  axis(choice.destination, problem.destination);
  if (choice.service >= 0) {
    problem.service.clear();
    fill_services(dimensions[choice.service], problem);
  }
  return problem;
}

AxisChoice choose_axes(const std::vector<Dimension>& dimensions) {
  AxisChoice choice;
  for (int d = 0; d < static_cast<int>(dimensions.size()); ++d) {
    if (!dimensions[d].joins.empty()) {
      choice.service = d;
    } else if (choice.source < 0) {
      choice.source = d;
    } else if (choice.destination < 0) {
      choice.destination = d;
    } else {
      throw CompileError("cross-product tables take two fields besides those that can be joined; this rule set has " +
                         std::to_string(dimensions.size()) + " dimensions");
    }
  }
  return choice;
}

}  // namespace meshsieve::cross
