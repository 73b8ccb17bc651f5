// The linear reference: three-valued evaluation of docs/semantics.md, rule by rule, with no cleverness at all.
//
// Kleene logic over three values: AND is the minimum, OR the maximum of No < Maybe < Yes.
#include <algorithm>

#include "meshsieve/classifier.h"

namespace meshsieve {
namespace {

enum class Truth : uint8_t { No, Maybe, Yes };

Truth field_matches(const RuleSet& rules, const PacketKey& key, int f, SetId id) {
  if (id == kAnySet) return Truth::Yes;
  if ((key.present >> f & 1) == 0)
    return requirement_fails(kFields[f].requires_, key) ? Truth::No : Truth::Maybe;
  const ValueSet& set = rules.sets[id];
  if (kFields[f].kind != FieldKind::address) return set.contains({0, key.value[f]}, false) ? Truth::Yes : Truth::No;
  if (!key.has(Field::ip_ver)) return Truth::Maybe;  // the family of the address is unknown
  return set.contains(key.address[f], key[Field::ip_ver] == 6) ? Truth::Yes : Truth::No;
}

Truth all_fields_match(const RuleSet& rules, const PacketKey& key, const Match& match) {
  Truth truth = Truth::Yes;
  for (int f = 0; f < kFieldCount && truth != Truth::No; ++f)
    truth = std::min(truth, field_matches(rules, key, f, match[f]));
  return truth;
}

Truth rule_matches(const RuleSet& rules, const PacketKey& key, int32_t rule) {
  Truth truth = all_fields_match(rules, key, rules.common[rule]);
  const uint32_t begin = rules.alternative_begin[rule];
  const uint32_t end = rules.alternative_begin[rule + 1];
  if (begin != end) {
    Truth any = Truth::No;
    for (uint32_t a = begin; a < end; ++a) any = std::max(any, all_fields_match(rules, key, rules.alternatives[a]));
    truth = std::min(truth, any);
  }
  return rules.certain[rule] ? truth : std::min(truth, Truth::Maybe);
}

}  // namespace

RuleResult reference_first_match(const RuleSet& rules, const PacketKey& key, int32_t start, int32_t end) {
  for (int32_t rule = start; rule < end; ++rule) {
    const Truth truth = rule_matches(rules, key, rule);
    if (truth == Truth::Yes) return rule;
    if (truth == Truth::Maybe) return undecided_at(rule);
  }
  return kNoMatch;
}

RuleResult reference_walk(const RuleSet& rules, const PacketKey& key, int32_t start) {
  while (start < rules.size()) {
    const RuleResult result = reference_first_match(rules, key, start, rules.size());
    if (result < 0 || rules.action[result] != Action::Skip) return result;
    start = rules.skip_to[result];
  }
  return kNoMatch;
}

}  // namespace meshsieve
