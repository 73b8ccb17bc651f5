// Which engine "auto" takes: build those that may win, look sampled headers up in each, keep the fastest.
//
// Why     No formula told from the rules alone which structure is fastest: overlap decides, and building tells. A build
//         costs microseconds a rule, so trying is cheap; what is not cheap is left out by size (kEngineLimits), stops by
//         itself (CompileError), or is not begun because what stands already is faster than the next engine ever is
//         (forest_floor_ns). The forest, which always fits, comes last: to compare, or as the fallback.
// Sample  Headers that hit: a rule drawn uniformly, for each field that rules name a value of its set. The generator
//         is seeded with a constant, so the headers are the same every time; the clock is not, so two engines that are
//         about equally fast may be taken in turn. Answers never depend on the choice.
//         There are many of them, in another order each pass: a branch predictor learns thousands of repeated headers by
//         heart, and an engine with branches then looks up to twice as fast as it is. Where several tables stand they are looked up in turn, so that
//         none finds the caches as it left them, and a slow phase of the machine meets all.
// Cost    Three look-ups of the sample an engine, and kRounds where there is something to compare: half a
//         millisecond for fast ones.
#include "l4/choose.h"

#include <time.h>

#include <algorithm>
#include <optional>
#include <random>
#include <string_view>

#include "l4/cross_worth.h"
#include "meshsieve/errors.h"

namespace meshsieve {
namespace {

// Up to 2,048 rules bitmaps have no branch to learn, nor have cross-product tables, and half as many tell them apart.
size_t sample_headers(int32_t n_rules) { return n_rules <= 2048 ? 4096 : 8192; }
constexpr int kRounds = 3;  // of the comparison at the end, in which the candidates take turns; the fastest pass counts
// Short segments, of which a rule base with chains has hundreds, go to the forest unmeasured: it is one or two leaves.
// A whole list that is as short is worth the measuring.
constexpr int32_t kFewRules = 32;

// How many rules make an engine worth building to compare it: below, another was as fast in every family measured;
// above, it takes too long or too much memory. cross_worth.h looks closer.
struct Limit {
  std::string_view engine;
  int32_t fewest_rules, most_rules;
};
constexpr Limit kEngineLimits[] = {{"linear", 0, 0}, {"bitmap", 0, 4096}, {"sparse", 0, 0}, {"cross", 100, 200'000}};
// No forest of any rule set measured looked sampled headers up faster than this, so what does is taken without one. In
// lists of more than 4,096 rules of all families they took 37 to 92 ns. Of more than 20,000 only lists of few services
// have another candidate (cross_worth.h); in those they took 45 and 63 ns.
double forest_floor_ns(int32_t n_rules) { return n_rules <= 4096 ? 28 : n_rules <= 20'000 ? 36 : 48; }
// Where a rule's sets have this many intervals on average, it is a policy of groups: trees only bound what matches and
// check rules one by one, products explode, and bitmaps win. Their rows belong to classes of groups, of which there are
// many for few rules, so they may take kGroupBytes where the caller set no budget.
constexpr size_t kManyIntervals = 16;
constexpr size_t kGroupBytes = size_t{128} << 20;
constexpr double kSlowNs = 10'000;

double thread_seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Headers that hit the rules, one column a field that they name, as callers have them: 4 bytes an IPv4 address.
class Sample {
 public:
  Sample(const RuleSet& rules, int32_t begin, int32_t end)
      : n_(sample_headers(end - begin)), used_(rules.fields_used() | bit_of(Field::ip_ver)) {
    for (int f = 0; f < kFieldCount; ++f)
      if (used_ >> f & 1) number_[f].resize(n_);
    for (std::vector<U128>& column : address_) column.resize(n_);
    std::uniform_int_distribution<int32_t> any_rule(begin, end - 1);
    for (size_t i = 0; i < n_; ++i) draw(rules, any_rule(random_), i, random_);
  }

  void shuffle() {
    for (size_t i = n_ - 1; i > 0; --i) {
      const size_t other = random_() % (i + 1);
      for (std::vector<uint32_t>& column : number_)
        if (!column.empty()) std::swap(column[i], column[other]);
      if (only_v4_) continue;
      for (std::vector<U128>& column : address_) std::swap(column[i], column[other]);
    }
  }

  // All of them, or the first 1 / share.
  KeyColumns columns(size_t share = 1) const {
    KeyColumns keys;
    keys.n = n_ / share;
    for (int f = 0; f < kFieldCount; ++f) {
      if ((used_ >> f & 1) == 0) continue;
      const bool wide = kFields[f].kind == FieldKind::address && !only_v4_;
      if (wide) keys.column[f] = {address_[f].data(), sizeof(U128), sizeof(U128)};
      else keys.column[f] = {number_[f].data(), 4, 4};
    }
    if (only_v4_) keys[Field::ip_ver].stride = 0;
    return keys;
  }

 private:
  void draw(const RuleSet& rules, int32_t rule, size_t i, std::mt19937_64& random) {
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
      if ((used_ >> f & 1) == 0) continue;
      U128 value{random(), random()};
      const bool address = kFields[f].kind == FieldKind::address;
      if (!address) value = {0, value.lo & kFields[f].max_value()};
      else if (!v6) value = {0, value.lo & 0xffffffffu};
      if (match[f] != kAnySet) {
        const std::vector<Interval>& span = address && v6 ? rules.sets[match[f]].v6 : rules.sets[match[f]].v4;
        if (!span.empty()) value = within(span[random() % span.size()], value);
      }
      number_[f][i] = static_cast<uint32_t>(value.lo);
      if (address) address_[f][i] = value;
    }
    number_[index_of(Field::ip_ver)][i] = v6 ? 6 : 4;
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

  const size_t n_;
  const uint32_t used_;
  std::array<std::vector<uint32_t>, kFieldCount> number_;
  std::array<std::vector<U128>, 2> address_;
  bool only_v4_ = true;
  std::mt19937_64 random_{7};
};

double nanoseconds_a_lookup(const EngineTable& table, const KeyColumns& keys) {
  std::vector<RuleResult> results(keys.n);
  const double started = thread_seconds();
  table.first_match_batch(keys, results.data());
  return 1e9 * (thread_seconds() - started) / static_cast<double>(keys.n);
}

bool has_large_groups(const RuleSet& rules, int32_t begin, int32_t end) {
  size_t intervals = 0;
  for (int32_t rule = begin; rule < end; ++rule)
    for (const SetId id : rules.common[rule])
      if (id != kAnySet) intervals += rules.sets[id].v4.size() + rules.sets[id].v6.size();
  return intervals > kManyIntervals * static_cast<size_t>(end - begin);
}

class Chooser {
 public:
  Chooser(const std::shared_ptr<const RuleSet>& rules, int32_t begin, int32_t end, const CompileOptions& options,
          std::vector<Candidate>& candidates)
      : rules_(rules), begin_(begin), end_(end), options_(options), candidates_(candidates) {
    if (!is_short()) sample_.emplace(*rules, begin, end);
  }

  std::unique_ptr<EngineTable> choose() {
    if (!is_short() && has_large_groups(*rules_, begin_, end_)) try_bitmaps_of_groups();
    for (const EngineInfo& engine : engines())
      if (worth_building(engine)) try_engine(engine, options_);
    compare();
    candidates_[fastest().candidate].taken = true;
    return std::move(fastest().table);
  }

 private:
  bool is_short() const { return end_ - begin_ <= kFewRules && (end_ - begin_ < rules_->size() || end_ == begin_); }

  bool worth_building(const EngineInfo& engine) const {
    if (of_groups_ && (!built_.empty() || std::string_view(engine.name) == "bitmap")) return false;
    if (std::string_view(engine.name) == "forest")
      for (const Built& built : built_)
        if (candidates_[built.candidate].lookup_ns < forest_floor_ns(end_ - begin_)) return false;
    for (const Limit& limit : kEngineLimits)
      if (limit.engine == engine.name &&
          (is_short() || end_ - begin_ < limit.fewest_rules || limit.most_rules < end_ - begin_))
        return false;
    return std::string_view(engine.name) != "cross" || cross::is_worth_building(*rules_, begin_, end_);
  }

  void try_engine(const EngineInfo& engine, const CompileOptions& options) {
    Candidate candidate{engine.name, begin_, end_, 0, 0, 0, false, ""};
    const double started = thread_seconds();
    try {
      std::unique_ptr<EngineTable> table = engine.build(rules_, begin_, end_, options);
      candidate.build_seconds = thread_seconds() - started;
      candidate.bytes = table->stats().bytes;
      if (sample_) candidate.lookup_ns = first_look(*table);
      built_.push_back({std::move(table), candidates_.size()});
    } catch (const CompileError& error) {
      candidate.build_seconds = thread_seconds() - started;
      candidate.declined = error.what();
    }
    candidates_.push_back(std::move(candidate));
  }

  // The first pass warms the caches; what is slow whatever they hold is not asked twice.
  double first_look(const EngineTable& table) {
    const double few_ns = nanoseconds_a_lookup(table, sample_->columns(128));
    if (few_ns > kSlowNs) return few_ns;
    nanoseconds_a_lookup(table, sample_->columns());
    double best_ns = few_ns;
    for (int pass = 0; pass < 2; ++pass) {
      sample_->shuffle();
      best_ns = std::min(best_ns, nanoseconds_a_lookup(table, sample_->columns()));
    }
    return best_ns;
  }

  void compare() {
    if (!sample_ || built_.size() == 1) return;
    for (int round = 0; round < kRounds; ++round) {
      sample_->shuffle();
      for (const Built& built : built_) {
        double& best_ns = candidates_[built.candidate].lookup_ns;
        if (best_ns <= kSlowNs) best_ns = std::min(best_ns, nanoseconds_a_lookup(*built.table, sample_->columns()));
      }
    }
  }

  // Sparse ones where whole ones do not fit: slower, yet far from what trees take.
  void try_bitmaps_of_groups() {
    of_groups_ = true;
    CompileOptions options = options_;
    if (options.budget_bytes == 0) options.budget_bytes = kGroupBytes;
    for (const std::string_view name : {"bitmap", "sparse"}) {
      if (!built_.empty()) continue;
      for (const EngineInfo& engine : engines())
        if (engine.name == name) try_engine(engine, options);
    }
  }

  struct Built {
    std::unique_ptr<EngineTable> table;
    size_t candidate;
  };
  Built& fastest() {
    return *std::min_element(built_.begin(), built_.end(), [this](const Built& x, const Built& y) {
      return candidates_[x.candidate].lookup_ns < candidates_[y.candidate].lookup_ns;
    });
  }

  const std::shared_ptr<const RuleSet>& rules_;
  const int32_t begin_, end_;
  const CompileOptions& options_;
  std::vector<Candidate>& candidates_;
  std::optional<Sample> sample_;
  std::vector<Built> built_;
  bool of_groups_ = false;
};

}  // namespace

std::unique_ptr<EngineTable> choose_engine(const std::shared_ptr<const RuleSet>& rules, int32_t begin, int32_t end,
                                           const CompileOptions& options, std::vector<Candidate>& candidates) {
  return Chooser(rules, begin, end, options, candidates).choose();
}

}  // namespace meshsieve
