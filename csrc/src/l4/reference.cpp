// The linear reference: three-valued evaluation of docs/semantics.md, rule by rule, with no cleverness at all.
#include "l4/reference.h"

#include <algorithm>

#include "meshsieve/classifier.h"

namespace meshsieve {
namespace {

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

void note_fields(const RuleSet& rules, const PacketKey& key, const Match& match, RuleTest& test) {
  for (int f = 0; f < kFieldCount; ++f) {
    const Truth truth = field_matches(rules, key, f, match[f]);
    if (truth == Truth::No) test.failed |= uint32_t{1} << f;
    if (truth == Truth::Maybe) test.unknown |= uint32_t{1} << f;
  }
}

}  // namespace

Truth reference_truth(const RuleSet& rules, const PacketKey& key, int32_t rule) {
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

RuleResult reference_first_match(const RuleSet& rules, const PacketKey& key, int32_t start, int32_t end) {
  for (int32_t rule = start; rule < end; ++rule) {
    const Truth truth = reference_truth(rules, key, rule);
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

std::vector<RuleTest> reference_trace(const RuleSet& rules, const PacketKey& key) {
  std::vector<RuleTest> tests;
  for (int32_t rule = 0; rule < rules.size();) {
    RuleTest test{rule, reference_truth(rules, key, rule), 0, 0};
    note_fields(rules, key, rules.common[rule], test);
    if (test.failed == 0 && test.truth != Truth::Yes)
      for (uint32_t a = rules.alternative_begin[rule]; a < rules.alternative_begin[rule + 1]; ++a)
        note_fields(rules, key, rules.alternatives[a], test);
    tests.push_back(test);
    const bool skips = test.truth == Truth::Yes && rules.action[rule] == Action::Skip;
    if (test.truth != Truth::No && !skips) break;
    rule = skips ? rules.skip_to[rule] : rule + 1;
  }
  return tests;
}

}  // namespace meshsieve
