#include "l4/forest_engine.h"

#include <algorithm>

#include "l4/budget.h"
#include "l4/forest_lookup.h"
#include "l4/linear_table.h"
#include "saved/archive.h"

namespace meshsieve::forest {
namespace {

constexpr size_t kMaxBudgetBytes = size_t{16} << 30;  // keeps node and block numbers within 32 bits
constexpr size_t kEntriesPerRule = 4;                 // alternatives and intervals become entries up to this average

class ForestTable final : public EngineTable, RuleBook {
 public:
  ForestTable(std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end, Forest forest)
      : rules_(std::move(rules)), begin_(begin), end_(end), forest_(std::move(forest)) {}

  RuleResult first_match(const PacketKey& key) const override { return forest_.first_match(key, *this); }
  void first_match_batch(const KeyColumns& keys, RuleResult* out) const override {
    forest_.first_match_batch(keys, *this, out);
  }
  EngineStats stats() const override { return forest_.stats(); }
  const char* engine() const override { return "forest"; }
  void save(saved::Writer& writer) const override {
    for (const Table& table : forest_.tables) writer("table", table);
  }

 private:
  Truth truth(const PacketKey& key, int32_t rule) const override { return reference_truth(*rules_, key, rule); }
  void answer(int32_t* rules, size_t n) const override {
    for (size_t i = 0; i < n; ++i) {
      if (rules[i] == kNoRule) rules[i] = kNoMatch;
      else if (!rules_->certain[rules[i]]) rules[i] = undecided_at(rules[i]);
    }
  }
  RuleResult undecided(int32_t rule) const override { return undecided_at(rule); }
  RuleResult scan(const PacketKey& key) const override { return reference_first_match(*rules_, key, begin_, end_); }

  std::shared_ptr<const RuleSet> rules_;
  int32_t begin_, end_;
  Forest forest_;
};

FieldUse fields_of(const RuleSet& rules, int32_t begin, int32_t end) {
  FieldUse fields;
  for (int32_t r = begin; r < end; ++r) {
    fields.add(rules.common[r]);
    for (uint32_t a = rules.alternative_begin[r]; a < rules.alternative_begin[r + 1]; ++a)
      fields.add(rules.alternatives[a]);
  }
  return fields;
}

}  // namespace

std::unique_ptr<EngineTable> build_forest(std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end,
                                         const CompileOptions& options) {
  const auto n = static_cast<size_t>(end - begin);
  const size_t budget = std::min(kMaxBudgetBytes, options.budget_bytes != 0 ? options.budget_bytes : usual_bytes(n));
  for (const size_t max_entries : {kEntriesPerRule * n + 1024, n}) {
    std::vector<Boxes> boxes;
    size_t least = 0;  // all tables as one leaf each
    size_t entries = 0;
    for (const Family family : {kV4, kV6, kNoIp}) {
      boxes.push_back(make_boxes(*rules, begin, end, family, max_entries));
      const Boxes& b = boxes.back();
      least += (b.entries.size() / kLanes + kMaxTrees + 2) * b.block_bytes() + 64;
      least += (b.ranks[0].starts.size() + b.ranks[1].starts.size()) * sizeof(U128);
      entries += b.entries.size();
    }
    if (least > budget) continue;
    Forest forest;
    forest.backend = &simd::backend_named(options.backend);
    for (size_t family = 0; family < kFamilies; ++family) {
      Boxes& b = boxes[family];
      const size_t own = (b.entries.size() / kLanes + kMaxTrees + 2) * b.block_bytes();
      const size_t share = entries == 0 ? 0 : (budget - least) / entries * b.entries.size();
      forest.tables[family] = Table(build_trees(std::move(b), own + share));
    }
    forest.fields = fields_of(*rules, begin, end);
    return std::make_unique<ForestTable>(std::move(rules), begin, end, std::move(forest));
  }
  return build_linear(std::move(rules), begin, end, options);
}

std::unique_ptr<EngineTable> load_forest(saved::Reader& reader, std::shared_ptr<const RuleSet> rules, int32_t begin,
                                         int32_t end, const simd::Backend& backend) {
  Forest forest;
  forest.backend = &backend;
  for (Table& table : forest.tables) {
    reader("table", table);
    check_boxes(table.boxes);
    table.point_view();
    check_trees(table.view, {table.nodes.data(), table.nodes.size()}, table.blocks.bytes(), begin, end);
  }
  forest.fields = fields_of(*rules, begin, end);
  return std::make_unique<ForestTable>(std::move(rules), begin, end, std::move(forest));
}

}  // namespace meshsieve::forest
