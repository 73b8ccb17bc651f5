#include "l4/cross_worth.h"

#include <algorithm>
#include <unordered_set>
#include <vector>

#include "l4/signature.h"
#include "meshsieve/fields.h"

namespace meshsieve::cross {
namespace {

// Below, bitmaps are as fast unless all rules go into one table; up to here, several tables win or decline soon; beyond,
// the rules must name few services.
constexpr int32_t kFewRules = 1500, kManyRules = 20'000;
constexpr uint64_t kStepsOfOneTable = 1 << 16;  // the build steps that every list may take (cross_build.cpp)
constexpr size_t kFewServices = 64;             // at 100,000 rules, lists of 39 fitted, lists of 298 did not

// Where the sets that some rules name on one axis begin: about as many as there are classes.
class Starts {
 public:
  Starts(const RuleSet& rules, int32_t begin, int32_t end, Field field) : rules_(rules), field_(index_of(field)) {
    std::vector<SetId> ids;
    for (int32_t r = begin; r < end; ++r) ids.push_back(rules.common[r][field_]);
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    for (const SetId id : ids) {
      if (id == kAnySet) continue;
      for (const Interval& span : rules.sets[id].v4) v4_.push_back(span.lo);
      for (const Interval& span : rules.sets[id].v6) v6_.push_back(span.lo);
    }
    for (std::vector<U128>* starts : {&v4_, &v6_}) {
      std::sort(starts->begin(), starts->end());
      starts->erase(std::unique(starts->begin(), starts->end()), starts->end());
    }
  }
  // How many of them a rule holds.
  uint64_t reach(int32_t rule) const {
    const SetId id = rules_.common[rule][field_];
    if (id == kAnySet) return v4_.size() + v6_.size() + 1;
    return within(v4_, rules_.sets[id].v4) + within(v6_, rules_.sets[id].v6);
  }

 private:
  static uint64_t within(const std::vector<U128>& starts, const std::vector<Interval>& spans) {
    uint64_t n = 0;
    for (const Interval& span : spans)
      n += static_cast<uint64_t>(std::upper_bound(starts.begin(), starts.end(), span.hi) -
                                 std::lower_bound(starts.begin(), starts.end(), span.lo));
    return n;
  }

  const RuleSet& rules_;
  const int field_;
  std::vector<U128> v4_, v6_;
};

bool fits_one_table(const RuleSet& rules, int32_t begin, int32_t end) {
  const Starts source(rules, begin, end, Field::src_ip), destination(rules, begin, end, Field::dst_ip);
  uint64_t steps = 0;
  for (int32_t r = begin; r < end && steps <= kStepsOfOneTable; ++r) steps += source.reach(r) * destination.reach(r);
  return steps <= kStepsOfOneTable;
}

// What the sets hold, as they may be equal under several ids; each looked at once.
class Contents {
 public:
  explicit Contents(const RuleSet& rules) : sets_(rules.sets), known_(rules.sets.size()) {}
  uint64_t of(SetId id) {
    if (id == kAnySet) return 0;
    uint64_t& content = known_[static_cast<size_t>(id)];
    if (content != 0) return content;
    SequenceSignature spans;
    for (const Interval& span : sets_[static_cast<size_t>(id)].v4) {
      spans.add(span.lo.lo);
      spans.add(span.hi.lo);
    }
    return content = spans.finish().a | 1;
  }

 private:
  const std::vector<ValueSet>& sets_;
  std::vector<uint64_t> known_;
};

// A service: what a rule says besides addresses, its alternatives included.
bool names_few_services(const RuleSet& rules, int32_t begin, int32_t end) {
  Contents contents(rules);
  std::unordered_set<uint64_t> services;
  for (int32_t r = begin; r < end; ++r) {
    SequenceSignature service;
    const auto add = [&](const Match& match) {
      for (int f = 0; f < kFieldCount; ++f)
        if (kFields[f].kind != FieldKind::address) service.add(contents.of(match[f]));
    };
    add(rules.common[r]);
    for (uint32_t a = rules.alternative_begin[r]; a < rules.alternative_begin[r + 1]; ++a) add(rules.alternatives[a]);
    services.insert(service.finish().a);
    if (services.size() > kFewServices) return false;
  }
  return true;
}

}  // namespace

bool is_worth_building(const RuleSet& rules, int32_t begin, int32_t end) {
  const int32_t n_rules = end - begin;
  if (n_rules < kFewRules) return fits_one_table(rules, begin, end);
  return n_rules <= kManyRules || names_few_services(rules, begin, end);
}

}  // namespace meshsieve::cross
