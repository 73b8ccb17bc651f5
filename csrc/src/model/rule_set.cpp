#include "meshsieve/rule_set.h"

#include <algorithm>
#include <string>

#include "meshsieve/errors.h"

namespace meshsieve {
namespace {

bool span_contains(const std::vector<Interval>& intervals, U128 value) {
  const auto after = std::upper_bound(intervals.begin(), intervals.end(), value,
                                      [](const U128& v, const Interval& i) { return v < i.lo; });
  return after != intervals.begin() && value <= std::prev(after)->hi;
}

void validate_span(const std::vector<Interval>& span, U128 max, const std::string& where) {
  for (size_t i = 0; i < span.size(); ++i) {
    if (span[i].hi < span[i].lo) throw ModelError(where + ": an interval ends before it starts");
    if (max < span[i].hi) throw ModelError(where + ": a value is beyond the field's largest");
    if (i > 0 && !(span[i - 1].hi < span[i].lo && span[i - 1].hi.next() < span[i].lo))
      throw ModelError(where + ": intervals must be sorted and must not touch");
  }
}

void validate_match(const RuleSet& rules, const Match& match, std::vector<uint32_t>& checked, int32_t rule) {
  for (int f = 0; f < kFieldCount; ++f) {
    const SetId id = match[f];
    if (id == kAnySet) continue;
    const std::string where = "rule " + std::to_string(rule) + ", field " + kFields[f].name;
    if (id < 0 || static_cast<size_t>(id) >= rules.sets.size())
      throw ModelError(where + ": set " + std::to_string(id) + " does not exist");
    const uint32_t bit = uint32_t{1} << f;
    if (checked[id] & bit) continue;  // a set is checked once a field, however many rules share it
    checked[id] |= bit;
    const ValueSet& set = rules.sets[id];
    if (kFields[f].kind == FieldKind::address) {
      validate_span(set.v4, {0, 0xffffffffu}, where);
      validate_span(set.v6, U128::max(), where);
    } else {
      if (!set.v6.empty()) throw ModelError(where + ": an address set in a field of numbers");
      validate_span(set.v4, {0, kFields[f].max_value()}, where);
    }
  }
}

}  // namespace

bool ValueSet::contains(U128 value, bool is_v6) const { return span_contains(is_v6 ? v6 : v4, value); }

void RuleSet::validate() const {
  const size_t n = common.size();
  if (n > 0x7ffffffeu) throw ModelError("more than 2^31 - 2 rules: rule results are 32-bit");
  if (sets.empty()) throw ModelError("sets[0], which stands for any value, is missing");
  if (alternative_begin.size() != n + 1 || action.size() != n || skip_to.size() != n || certain.size() != n)
    throw ModelError("the columns of the rule set differ in length");
  if (alternative_begin.front() != 0 || alternative_begin.back() != alternatives.size())
    throw ModelError("alternative_begin does not span the alternatives");
  std::vector<uint32_t> checked(sets.size(), 0);
  for (size_t r = 0; r < n; ++r) {
    const auto rule = static_cast<int32_t>(r);
    if (alternative_begin[r] > alternative_begin[r + 1] || alternative_begin[r + 1] > alternatives.size())
      throw ModelError("rule " + std::to_string(rule) + ": alternative offsets go backwards");
    validate_match(*this, common[r], checked, rule);
    for (uint32_t a = alternative_begin[r]; a < alternative_begin[r + 1]; ++a)
      validate_match(*this, alternatives[a], checked, rule);
    if (action[r] > Action::Undecided) throw ModelError("rule " + std::to_string(rule) + ": unknown action");
    const bool skips = action[r] == Action::Skip;
    if (skips && (skip_to[r] <= rule || static_cast<size_t>(skip_to[r]) > n))
      throw ModelError("rule " + std::to_string(rule) + ": a skip must go forward, at most to the end of the list");
  }
}

uint32_t RuleSet::fields_used() const {
  uint32_t used = 0;
  const auto collect = [&used](const std::vector<Match>& matches) {
    for (const Match& match : matches)
      for (int f = 0; f < kFieldCount; ++f)
        if (match[f] != kAnySet) used |= uint32_t{1} << f;
  };
  collect(common);
  collect(alternatives);
  return used;
}

}  // namespace meshsieve
