// Which engine "auto" takes: build those that may win, look sampled headers up in each, keep the fastest.
//
// Why     No formula told from the rules alone which structure is fastest: overlap decides, and building tells. A build
//         costs microseconds a rule, so trying is cheap; what is not cheap is left out by size (kEngineLimits) or stops
//         by itself (CompileError), and the forest, which always fits, is built last as the fallback.
// Sample  Headers that hit: a rule drawn uniformly, for each field that any rule names a value of its set. The generator
//         is seeded with a constant, so the headers are the same every time; the clock is not, so two engines that are
//         about equally fast may be taken in turn. Answers never depend on the choice.
// Cost    kSampleHeaders look-ups, kSamplePasses times an engine: well under a millisecond each.
#include "l4/choose.h"

#include <time.h>

#include <algorithm>
#include <random>
#include <string_view>

#include "meshsieve/errors.h"

namespace meshsieve {
namespace {

constexpr size_t kSampleHeaders = 1024;
constexpr int kSamplePasses = 3;
// Short segments, of which a rule base with chains has hundreds, go to the forest unmeasured: it is one or two leaves.
constexpr int32_t kFewRules = 32;

// Rules beyond which building an engine only to compare it takes too long.
struct Limit {
  std::string_view engine;
  int32_t most_rules;
};
constexpr Limit kEngineLimits[] = {{"linear", 0}, {"bitmap", 4096}, {"cross", 20'000}};

double thread_seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Headers that hit the rules, one column a field that they name.
class Sample {
 public:
  Sample(const RuleSet& rules, int32_t begin, int32_t end) {
    for (int f = 0; f < kFieldCount; ++f) values_[f].resize(kSampleHeaders);
    std::mt19937_64 random(7);
    std::uniform_int_distribution<int32_t> any_rule(begin, end - 1);
    uint32_t used = bit_of(Field::ip_ver);
    for (size_t i = 0; i < kSampleHeaders; ++i) draw(rules, any_rule(random), i, random, used);
    keys_.n = kSampleHeaders;
    for (int f = 0; f < kFieldCount; ++f) {
      if ((used >> f & 1) == 0) continue;
      const bool address = kFields[f].kind == FieldKind::address;
      if (address) keys_.column[f] = {values_[f].data(), sizeof(U128), sizeof(U128)};
      else keys_.column[f] = {&values_[f].data()->lo, 4, sizeof(U128)};
    }
    if (only_v4_) shrink_addresses(used);
  }

  const KeyColumns& keys() const { return keys_; }

 private:
  void draw(const RuleSet& rules, int32_t rule, size_t i, std::mt19937_64& random, uint32_t& used) {
    Match match = rules.common[rule];
    const uint32_t first = rules.alternative_begin[rule], last = rules.alternative_begin[rule + 1];
    if (first != last) {
      const Match& alternative = rules.alternatives[first + random() % (last - first)];
      for (int f = 0; f < kFieldCount; ++f)
        if (alternative[f] != kAnySet) match[f] = alternative[f];
    }
    const bool v6 = is_v6(rules, match);
    only_v4_ = only_v4_ && !v6;
    for (int f = 0; f < kFieldCount; ++f) {
      U128 value{random(), random()};
      const bool address = kFields[f].kind == FieldKind::address;
      if (!address) value = {0, value.lo & kFields[f].max_value()};
      else if (!v6) value = {0, value.lo & 0xffffffffu};
      if (match[f] != kAnySet) {
        used |= uint32_t{1} << f;
        const std::vector<Interval>& span = address && v6 ? rules.sets[match[f]].v6 : rules.sets[match[f]].v4;
        if (!span.empty()) value = within(span[random() % span.size()], value);
      }
      values_[f][i] = value;
    }
    values_[index_of(Field::ip_ver)][i] = {0, v6 ? uint64_t{6} : uint64_t{4}};
  }

  static bool is_v6(const RuleSet& rules, const Match& match) {
    for (const Field field : {Field::src_ip, Field::dst_ip}) {
      const SetId id = match[index_of(field)];
      if (id != kAnySet && rules.sets[id].v4.empty() && !rules.sets[id].v6.empty()) return true;
    }
    return false;
  }

  // A value of the interval; its ends are as likely as in traces of the literature, a quarter each.
  static U128 within(const Interval& interval, U128 value) {
    switch (value.lo >> 3 & 3) {
      case 0: return interval.lo;
      case 1: return interval.hi;
      default: break;
    }
    if (interval.lo.hi == interval.hi.hi) {
      const uint64_t span = interval.hi.lo - interval.lo.lo;
      return {interval.lo.hi, interval.lo.lo + (span == ~uint64_t{0} ? value.lo : value.lo % (span + 1))};
    }
    return {interval.lo.hi + value.hi % (interval.hi.hi - interval.lo.hi), value.lo | interval.lo.lo};
  }

  // All IPv4: columns as a caller with IPv4 headers has them.
  void shrink_addresses(uint32_t used) {
    for (const Field field : {Field::src_ip, Field::dst_ip})
      if (used & bit_of(field)) keys_[field] = {&values_[index_of(field)].data()->lo, 4, sizeof(U128)};
    keys_[Field::ip_ver] = {&values_[index_of(Field::ip_ver)].data()->lo, 4, 0};
  }

  std::array<std::vector<U128>, kFieldCount> values_;
  KeyColumns keys_;
  bool only_v4_ = true;
};

double nanoseconds_a_lookup(const EngineTable& table, const Sample& sample) {
  std::vector<RuleResult> results(sample.keys().n);
  double best = 1e9;
  for (int pass = 0; pass < kSamplePasses; ++pass) {
    const double started = thread_seconds();
    table.first_match_batch(sample.keys(), results.data());
    best = std::min(best, thread_seconds() - started);
  }
  return 1e9 * best / static_cast<double>(results.size());
}

bool worth_building(const EngineInfo& engine, int32_t n_rules) {
  for (const Limit& limit : kEngineLimits)
    if (limit.engine == engine.name) return kFewRules < n_rules && n_rules <= limit.most_rules;
  return true;
}

}  // namespace

std::unique_ptr<EngineTable> choose_engine(const std::shared_ptr<const RuleSet>& rules, int32_t begin, int32_t end,
                                           const CompileOptions& options, std::vector<Candidate>& candidates) {
  const size_t first = candidates.size();
  std::unique_ptr<EngineTable> best;
  size_t taken = first;
  const Sample sample(*rules, begin, end);
  for (const EngineInfo& engine : engines()) {
    if (!worth_building(engine, end - begin)) continue;
    Candidate candidate{engine.name, begin, end, 0, 0, 0, false, ""};
    const double started = thread_seconds();
    try {
      std::unique_ptr<EngineTable> table = engine.build(rules, begin, end, options);
      candidate.build_seconds = thread_seconds() - started;
      candidate.bytes = table->stats().bytes;
      if (end - begin > kFewRules) candidate.lookup_ns = nanoseconds_a_lookup(*table, sample);
      if (best == nullptr || candidate.lookup_ns < candidates[taken].lookup_ns) {
        best = std::move(table);
        taken = candidates.size();
      }
    } catch (const CompileError& error) {
      candidate.build_seconds = thread_seconds() - started;
      candidate.declined = error.what();
    }
    candidates.push_back(std::move(candidate));
  }
  candidates[taken].taken = true;
  return best;
}

}  // namespace meshsieve
