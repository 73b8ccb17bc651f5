#include "authz/bitmaps.h"

#include <algorithm>
#include <map>
#include <utility>

namespace meshsieve::authz {
namespace {

// The tests of a condition if it is a list of plain tests of one key.
struct Condition {
  bool usable = false, excludes = false;
  uint32_t key = 0;
  std::vector<uint32_t> tests;
};

Condition condition_of(const Expressions& expressions, uint32_t at, const std::vector<uint32_t>& key_of,
                       const TestFacts& facts) {
  Condition out;
  const ExpressionNode* node = &expressions.at(at);
  if (node->kind == NodeKind::negation) {
    out.excludes = true;
    at = expressions.children(*node)[0];
    node = &expressions.at(at);
  }
  if (node->kind == NodeKind::test) {
    out.tests.push_back(node->value);
  } else if (node->kind == NodeKind::any) {
    for (const uint32_t child : expressions.children(*node)) {
      if (expressions.at(child).kind != NodeKind::test) return out;
      out.tests.push_back(expressions.at(child).value);
    }
  }
  if (out.tests.empty()) return out;
  out.key = key_of[out.tests[0]];
  out.usable = std::all_of(out.tests.begin(), out.tests.end(), [&](uint32_t test) {
    return !facts.lazy[test] && key_of[test] == out.key;
  });
  return out;
}

void conditions(const Expressions& expressions, uint32_t at, const std::vector<uint32_t>& key_of,
                const TestFacts& facts, std::vector<Condition>& out) {
  const ExpressionNode& node = expressions.at(at);
  if (node.kind == NodeKind::all) {
    for (const uint32_t child : expressions.children(node)) conditions(expressions, child, key_of, facts, out);
    return;
  }
  Condition found = condition_of(expressions, at, key_of, facts);
  if (found.usable) out.push_back(std::move(found));
}

}  // namespace

bool Bitmaps::takes(const Expressions& expressions, uint32_t node, const std::vector<uint32_t>& key_of,
                    const TestFacts& facts) {
  std::vector<Condition> found;
  conditions(expressions, node, key_of, facts, found);
  return !found.empty();
}

Bitmaps::Bitmaps(const Expressions& expressions, const std::vector<uint32_t>& nodes,
                 const std::vector<uint32_t>& key_of, const TestFacts& facts)
    : words_((nodes.size() + 63) / 64) {
  std::map<std::pair<uint32_t, bool>, uint32_t> row_of;  // key and whether it excludes
  std::map<std::pair<uint32_t, uint32_t>, std::vector<uint32_t>> rules_of;  // test and row -> rules
  std::vector<bool> excludes;
  for (uint32_t rule = 0; rule < nodes.size(); ++rule) {
    std::vector<Condition> found;
    conditions(expressions, nodes[rule], key_of, facts, found);
    std::vector<uint32_t> rows;
    for (const Condition& condition : found) {
      const auto next = static_cast<uint32_t>(free_.size());
      const auto [at, fresh] = row_of.try_emplace({condition.key, condition.excludes}, next);
      if (fresh) {
        free_.emplace_back(words_, ~uint64_t{0});
        excludes.push_back(condition.excludes);
      }
      // A second condition on the key is left to the rule's code: a row can hold one.
      if (std::find(rows.begin(), rows.end(), at->second) != rows.end() && !condition.excludes) continue;
      rows.push_back(at->second);
      if (!condition.excludes) free_[at->second][rule / 64] &= ~(uint64_t{1} << rule % 64);
      for (const uint32_t test : condition.tests) {
        std::vector<uint32_t>& rules = rules_of[{test, at->second}];
        if (rules.empty() || rules.back() != rule) rules.push_back(rule);
      }
    }
  }
  for (auto& [where, rules] : rules_of) {
    Use use{where.second, excludes[where.second], {}, {}};
    if (rules.size() * 32 >= nodes.size()) {
      use.bitmap.resize(words_);
      for (const uint32_t rule : rules) use.bitmap[rule / 64] |= uint64_t{1} << rule % 64;
    } else {
      use.rules = std::move(rules);
      use.rules.shrink_to_fit();
    }
    uses_[facts.number[where.first]].push_back(std::move(use));
  }
  if (nodes.size() % 64 != 0 && !free_.empty()) {
    for (auto& row : free_) row.back() &= (uint64_t{1} << nodes.size() % 64) - 1;
  }
}

void Bitmaps::candidates(const NumberSet& passed, std::vector<uint64_t>& bits) const {
  const size_t rows = free_.size();
  bits.resize(std::max(bits.size(), (rows + 1) * words_));
  const auto row = [&](size_t r) { return bits.data() + (r + 1) * words_; };
  for (size_t r = 0; r < rows; ++r) std::copy(free_[r].begin(), free_[r].end(), row(r));
  for (const uint32_t test : passed.all()) {
    const auto found = uses_.find(test);
    if (found == uses_.end()) continue;
    for (const Use& use : found->second) {
      uint64_t* out = row(use.row);
      if (!use.bitmap.empty()) {
        if (use.excludes) {
          for (size_t w = 0; w < words_; ++w) out[w] &= ~use.bitmap[w];
        } else {
          for (size_t w = 0; w < words_; ++w) out[w] |= use.bitmap[w];
        }
      } else {
        for (const uint32_t rule : use.rules) {
          const uint64_t bit = uint64_t{1} << rule % 64;
          out[rule / 64] = use.excludes ? out[rule / 64] & ~bit : out[rule / 64] | bit;
        }
      }
    }
  }
  uint64_t* all = bits.data();
  std::copy(row(0), row(0) + words_, all);
  for (size_t r = 1; r < rows; ++r) {
    const uint64_t* other = row(r);
    for (size_t w = 0; w < words_; ++w) all[w] &= other[w];
  }
}

size_t Bitmaps::bytes() const {
  size_t bytes = free_.size() * words_ * 8;
  for (const auto& [test, uses] : uses_) {
    bytes += 32 + uses.size() * sizeof(Use);
    for (const Use& use : uses) bytes += use.bitmap.size() * 8 + use.rules.size() * 4;
  }
  return bytes;
}

}  // namespace meshsieve::authz
