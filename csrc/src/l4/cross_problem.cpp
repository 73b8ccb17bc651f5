// The front end's dimensions as the four axes of the cross-product engine.
#include <algorithm>
#include <string>

#include "l4/cross_table.h"
#include "l4/flat_map.h"
#include "l4/signature.h"
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

// The sets of one axis, equal ones numbered once.
class SetMaker {
 public:
  explicit SetMaker(ClassSets& sets) : sets_(sets), both_(sets.words) {
    both_.assign(sets.words, ~uint64_t{0});
    if (sets.n_classes % 64 != 0) both_.back() >>= 64 - sets.n_classes % 64;
    sets_.bits.clear();
    id_of(both_.data());  // all classes: set 0
  }
  uint32_t id_of(const uint64_t* bits) {
    SequenceSignature content;
    for (size_t w = 0; w < sets_.words; ++w) content.add(bits[w]);
    const auto [id, is_new] = known_.try_emplace(content.finish(), sets_.size());
    if (is_new) sets_.bits.insert(sets_.bits.end(), bits, bits + sets_.words);
    return id;
  }
  uint32_t intersection(uint32_t x, uint32_t y) {
    if (x == 0 || x == y) return y;
    if (y == 0) return x;
    for (size_t w = 0; w < sets_.words; ++w) both_[w] = sets_.of(x)[w] & sets_.of(y)[w];
    return id_of(both_.data());
  }
  bool is_empty(uint32_t set) const {
    return std::all_of(sets_.of(set), sets_.of(set) + sets_.words, [](uint64_t word) { return word == 0; });
  }

 private:
  ClassSets& sets_;
  std::vector<uint64_t> both_;
  FlatMap known_;
};

// One axis of services: which set every row of the dimension is, and which row every rule and alternative has.
struct ServiceAxis {
  std::vector<uint32_t> set_of_row = {0};
  std::vector<uint32_t> common;
  const std::vector<uint32_t>* alternative = nullptr;

  uint32_t of_common(uint32_t rule) const { return common.empty() ? 0 : set_of_row[common[rule]]; }
  uint32_t of_alternative(uint32_t a) const { return alternative == nullptr ? 0 : set_of_row[(*alternative)[a]]; }
};

ClassSets sets_for(const std::vector<Dimension>& dimensions, int d) {
  ClassSets sets;
  if (d < 0) return sets;
  sets.n_classes = dimensions[static_cast<size_t>(d)].n_classes;
  sets.words = (sets.n_classes + 63) / 64;
  return sets;
}

ServiceAxis axis_of(const std::vector<Dimension>& dimensions, int d, uint32_t n_rules, SetMaker& maker, size_t words) {
  ServiceAxis axis;
  if (d < 0) return axis;
  const Dimension& dimension = dimensions[static_cast<size_t>(d)];
  std::vector<uint64_t> bits(dimension.rules_by_common.size() * words);
  for (uint32_t c = 0; c < dimension.n_classes; ++c)
    for (const uint32_t* row = dimension.rows.from(c); row != dimension.rows.to(c); ++row)
      bits[*row * words + c / 64] |= uint64_t{1} << c % 64;
  axis.set_of_row.clear();
  for (uint32_t row = 0; row < dimension.rules_by_common.size(); ++row)
    axis.set_of_row.push_back(maker.id_of(&bits[row * words]));
  axis.common = row_of_rule(dimension, n_rules);
  axis.alternative = &dimension.row_of_alternative;
  return axis;
}

void fill_services(const std::vector<Dimension>& dimensions, const AxisChoice& choice, const RuleSet& rules,
                   int32_t begin, Problem& problem) {
  problem.p = sets_for(dimensions, choice.p);
  problem.q = sets_for(dimensions, choice.q);
  SetMaker p_sets(problem.p), q_sets(problem.q);
  const ServiceAxis p = axis_of(dimensions, choice.p, problem.n_rules, p_sets, problem.p.words);
  const ServiceAxis q = axis_of(dimensions, choice.q, problem.n_rules, q_sets, problem.q.words);
  FlatMap known;
  std::vector<Product> products;
  const auto add = [&](uint32_t p_set, uint32_t q_set) {
    if (!p_sets.is_empty(p_set) && !q_sets.is_empty(q_set)) products.push_back({p_set, q_set});
  };
  const uint32_t first_alternative = rules.alternative_begin[static_cast<size_t>(begin)];
  for (uint32_t r = 0; r < problem.n_rules; ++r) {
    products.clear();
    const uint32_t p_common = p.of_common(r), q_common = q.of_common(r);
    const size_t rule = static_cast<size_t>(begin) + r;
    const uint32_t from = rules.alternative_begin[rule], to = rules.alternative_begin[rule + 1];
    if (from == to) add(p_common, q_common);
    for (uint32_t a = from - first_alternative; a < to - first_alternative; ++a)
      add(p_sets.intersection(p_common, p.of_alternative(a)), q_sets.intersection(q_common, q.of_alternative(a)));
    std::sort(products.begin(), products.end());
    products.erase(std::unique(products.begin(), products.end()), products.end());
    SequenceSignature content;
    for (const Product& product : products) content.add(uint64_t{product.p} << 32 | product.q);
    const auto [id, is_new] = known.try_emplace(content.finish(), static_cast<uint32_t>(problem.service.size()));
    if (is_new) problem.service.push_back(products);
    problem.service_of_rule[r] = id;
  }
}

}  // namespace

Problem problem_of(const std::vector<Dimension>& dimensions, const AxisChoice& choice, const RuleSet& rules,
                   int32_t begin, int32_t end) {
  Problem problem;
  problem.n_rules = static_cast<uint32_t>(end - begin);
  problem.service_of_rule.assign(problem.n_rules, 0);
  const auto axis = [&](int d, Axis& out) {
    if (d < 0) return;
    const Dimension& dimension = dimensions[static_cast<size_t>(d)];
    out = {dimension.n_classes, row_of_rule(dimension, problem.n_rules), dimension.rows};
  };
  axis(choice.source, problem.source);
  axis(choice.destination, problem.destination);
  fill_services(dimensions, choice, rules, begin, problem);
  return problem;
}

AxisChoice choose_axes(const std::vector<Dimension>& dimensions) {
  AxisChoice choice;
  for (int d = 0; d < static_cast<int>(dimensions.size()); ++d) {
    int& axis = dimensions[static_cast<size_t>(d)].is_joint ? (choice.p < 0 ? choice.p : choice.q)
                : choice.source < 0                         ? choice.source
                                                            : choice.destination;
    if (axis >= 0)
      throw CompileError("cross-product tables take two fields besides those that can be joined; this rule set has " +
                         std::to_string(dimensions.size()) + " dimensions");
    axis = d;
  }
  return choice;
}

}  // namespace meshsieve::cross
