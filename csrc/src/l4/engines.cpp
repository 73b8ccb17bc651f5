// The registry of engines, in the order in which "auto" prefers them.
#include "l4/bitmap_table.h"
#include "meshsieve/classifier.h"

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

 private:
  std::shared_ptr<const RuleSet> rules_;
  int32_t begin_, end_;
};

}  // namespace

const std::vector<EngineInfo>& engines() {
  static const std::vector<EngineInfo> kEngines = {
      {"linear", "the reference: every rule in turn; for checks, and for a handful of rules",
       [](std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end,
          const CompileOptions&) -> std::unique_ptr<EngineTable> {
         return std::make_unique<LinearTable>(std::move(rules), begin, end);
       }},
      {"bitmap", "one bit a rule and class: small or changing sets, large groups, overlapping ranges", build_bitmap},
  };
  return kEngines;
}

}  // namespace meshsieve
