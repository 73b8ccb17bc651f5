#include "l4/live_rules.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "l4/flat_map.h"
#include "l4/signature.h"

namespace meshsieve {
namespace {

constexpr size_t kCoverers = 64;
constexpr size_t kCoverersInVain = 8;  // as long as less than one rule in 16 was covered
constexpr int32_t kFirstRules = 1024;  // compared with all
constexpr size_t kLeastHidden = 8;     // one rule in so many must go, else the list stays as it is

struct Constraint {
  int field;
  SetId set;
};
using Conjunction = std::vector<Constraint>;

void add_constraints(const Match& match, Conjunction& out) {
  for (int f = 0; f < kFieldCount; ++f)
    if (match[f] != kAnySet) out.push_back({f, match[f]});
}

bool span_inside(const std::vector<Interval>& inner, const std::vector<Interval>& outer) {
  return inner.empty() ||
         (outer.size() == 1 && outer.front().lo <= inner.front().lo && inner.back().hi <= outer.front().hi);
}

class Coverage {
 public:
  explicit Coverage(const RuleSet& rules) : rules_(rules) {}

  // Live rules of [begin, end), a segment, are appended to `live`.
  void segment(int32_t begin, int32_t end, std::vector<int32_t>& live) {
    coverers_.clear();
    seen_ = {};
    for (int32_t rule = begin; rule < end; ++rule, ++walked_) {
      read_conjunction(rule);
      if (is_repeated(rule) || is_covered()) {
        ++hidden_;
        continue;
      }
      live.push_back(rule);
      if (alternatives(rule) <= 1) remember();
    }
  }

 private:
  struct Coverer {
    double width;  // log2 of the share of all packets, about; 0 is all
    Conjunction conjunction;
  };

  uint32_t alternatives(int32_t rule) const {
    return rules_.alternative_begin[rule + 1] - rules_.alternative_begin[rule];
  }

  // Common part and, where there is one alternative, that.
  void read_conjunction(int32_t rule) {
    conjunction_.clear();
    add_constraints(rules_.common[rule], conjunction_);
    if (alternatives(rule) == 1) add_constraints(rules_.alternatives[rules_.alternative_begin[rule]], conjunction_);
  }

  bool is_repeated(int32_t rule) {
    SequenceSignature signature;  // of the sets; the number of alternatives is known from its length
    for (const SetId id : rules_.common[rule]) signature.add(static_cast<uint64_t>(id));
    for (uint32_t a = rules_.alternative_begin[rule]; a < rules_.alternative_begin[rule + 1]; ++a)
      for (const SetId id : rules_.alternatives[a]) signature.add(static_cast<uint64_t>(id));
    return !seen_.try_emplace(signature.finish(), 0).second;
  }

  bool is_covered() const {
    const bool in_vain = walked_ >= kFirstRules && hidden_ * 16 < walked_;
    const size_t tried = std::min(coverers_.size(), in_vain ? kCoverersInVain : kCoverers);
    for (size_t c = 0; c < tried; ++c)
      if (covers(coverers_[c].conjunction, conjunction_)) return true;
    return false;
  }

  bool covers(const Conjunction& outer, const Conjunction& inner) const {
    return std::all_of(outer.begin(), outer.end(), [&](const Constraint& wide) {
      return std::any_of(inner.begin(), inner.end(), [&](const Constraint& narrow) {
        return narrow.field == wide.field && (narrow.set == wide.set || is_inside(narrow.set, wide.set));
      });
    });
  }

  bool is_inside(SetId inner, SetId outer) const {
    return span_inside(rules_.sets[inner].v4, rules_.sets[outer].v4) &&
           span_inside(rules_.sets[inner].v6, rules_.sets[outer].v6);
  }

  // Keeps the widest rules, widest first.
  void remember() {
    double width = 0;
    for (const Constraint& constraint : conjunction_) width += width_of(constraint);
    if (coverers_.size() == kCoverers && width <= coverers_.back().width) return;
    if (coverers_.size() == kCoverers) coverers_.pop_back();
    const auto place = std::upper_bound(coverers_.begin(), coverers_.end(), width,
                                        [](double w, const Coverer& other) { return w > other.width; });
    coverers_.insert(place, {width, conjunction_});
  }

  double width_of(const Constraint& constraint) const {
    const ValueSet& set = rules_.sets[constraint.set];
    const bool address = kFields[constraint.field].kind == FieldKind::address;
    if (set.v4.size() + set.v6.size() != 1) return -1000;  // covers but what names the same set
    const bool v6 = set.v4.empty();
    const Interval& only = v6 ? set.v6.front() : set.v4.front();
    const int bits = !address ? kFields[constraint.field].bits : v6 ? 128 : 32;
    const auto high = static_cast<double>(only.hi.hi - only.lo.hi);
    const auto low = static_cast<double>(only.hi.lo - only.lo.lo);
    return (high > 0 ? 64 + std::log2(high) : std::log2(low + 1)) - bits;
  }

  const RuleSet& rules_;
  std::vector<Coverer> coverers_;
  FlatMap seen_;  // signatures of the segment's rules
  Conjunction conjunction_;  // of the rule at hand
  size_t walked_ = 0, hidden_ = 0;
};

}  // namespace

RuleSet only(const RuleSet& rules, const std::vector<int32_t>& kept) {
  RuleSet out;
  std::unordered_map<SetId, SetId> ids = {{kAnySet, kAnySet}};
  out.sets.resize(1);
  const auto copy = [&](Match match) {
    for (SetId& id : match) {
      const auto [found, is_new] = ids.try_emplace(id, static_cast<SetId>(out.sets.size()));
      if (is_new) out.sets.push_back(rules.sets[id]);
      id = found->second;
    }
    return match;
  };
  for (const int32_t rule : kept) {
    out.common.push_back(copy(rules.common[rule]));
    out.alternative_begin.push_back(static_cast<uint32_t>(out.alternatives.size()));
    for (uint32_t a = rules.alternative_begin[rule]; a < rules.alternative_begin[rule + 1]; ++a)
      out.alternatives.push_back(copy(rules.alternatives[a]));
    out.action.push_back(rules.action[rule]);
    const auto target = std::lower_bound(kept.begin(), kept.end(), rules.skip_to[rule]);
    out.skip_to.push_back(rules.action[rule] == Action::Skip ? static_cast<int32_t>(target - kept.begin()) : -1);
    out.certain.push_back(rules.certain[rule]);
  }
  out.alternative_begin.push_back(static_cast<uint32_t>(out.alternatives.size()));
  return out;
}

std::vector<int32_t> segment_cuts(const RuleSet& rules) {
  std::vector<int32_t> cuts = {0, rules.size()};
  for (int32_t r = 0; r < rules.size(); ++r)
    if (rules.action[r] == Action::Skip) cuts.push_back(rules.skip_to[r]);
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  return cuts;
}

LiveRules live_rules(std::shared_ptr<const RuleSet> rules) {
  const std::vector<int32_t> cuts = segment_cuts(*rules);
  Coverage coverage(*rules);
  std::vector<int32_t> live;
  for (size_t i = 0; i + 1 < cuts.size(); ++i) coverage.segment(cuts[i], cuts[i + 1], live);
  const size_t n = rules->common.size();
  if ((n - live.size()) * kLeastHidden < std::max<size_t>(n, 1)) return {std::move(rules), {}};
  return {std::make_shared<RuleSet>(only(*rules, live)), std::move(live)};
}

}  // namespace meshsieve
