#include "l4/linear_table.h"

namespace meshsieve {
namespace {

class LinearTable final : public EngineTable {
 public:
  LinearTable(std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end)
      : rules_(std::move(rules)), begin_(begin), end_(end) {}
  RuleResult first_match(const PacketKey& key) const override {
    return reference_first_match(*rules_, key, begin_, end_);
  }
  void first_match_batch(const KeyColumns& keys, RuleResult* out) const override {
    for (size_t i = 0; i < keys.n; ++i) out[i] = first_match(keys.key(i));
  }
  EngineStats stats() const override { return {0, static_cast<uint64_t>(end_ - begin_)}; }
  const char* engine() const override { return "linear"; }
  void save(saved::Writer&) const override {}

 private:
  std::shared_ptr<const RuleSet> rules_;
  int32_t begin_, end_;
};

}  // namespace

std::unique_ptr<EngineTable> build_linear(std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end,
                                          const CompileOptions&) {
  return std::make_unique<LinearTable>(std::move(rules), begin, end);
}

std::unique_ptr<EngineTable> load_linear(saved::Reader&, std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end,
                                         const simd::Backend&) {
  return std::make_unique<LinearTable>(std::move(rules), begin, end);
}

}  // namespace meshsieve
