// Saving and loading a classifier: its rules, then the tables of its segments (saved/image.h draws the file).
#include <algorithm>
#include <bit>
#include <chrono>
#include <functional>

#include "l4/live_rules.h"
#include "meshsieve/classifier.h"
#include "saved/archive.h"
#include "simd/backends.h"

namespace meshsieve {
namespace {

using saved::require;

// Rules as they lie in a file: columns of the fields that any rule names, IPv4 addresses and numbers in 32 bits.
struct PackedRules {
  std::vector<uint32_t> v4_begin, v6_begin;  // sets + 1 offsets into the intervals
  std::vector<uint32_t> v4;                  // low and high end of each interval
  std::vector<Interval> v6;
  uint32_t fields = 0;  // one at least: a row takes bytes in the file before it takes memory
  std::vector<SetId> common, alternatives;  // one a rule, or alternative, and field
  std::vector<uint32_t> alternative_begin;
  std::vector<uint8_t> action, certain;
  std::vector<int32_t> skip_to;

  template <class Archive>
  void visit(Archive& a) {
    a("v4_begin", v4_begin)("v6_begin", v6_begin)("v4", v4)("v6", v6)("fields", fields)("common", common);
    a("alternatives", alternatives)("alternative_begin", alternative_begin);
    a("action", action)("certain", certain)("skip_to", skip_to);
  }

  explicit PackedRules() = default;
  explicit PackedRules(const RuleSet& rules)
      : fields(rules.fields_used() != 0 ? rules.fields_used() : 1),
        alternative_begin(rules.alternative_begin),
        certain(rules.certain),
        skip_to(rules.skip_to) {
    v4_begin.push_back(0);
    v6_begin.push_back(0);
    for (const ValueSet& set : rules.sets) {
      for (const Interval& interval : set.v4) {
        v4.push_back(static_cast<uint32_t>(interval.lo.lo));
        v4.push_back(static_cast<uint32_t>(interval.hi.lo));
      }
      v6.insert(v6.end(), set.v6.begin(), set.v6.end());
      v4_begin.push_back(static_cast<uint32_t>(v4.size() / 2));
      v6_begin.push_back(static_cast<uint32_t>(v6.size()));
    }
    pack(rules.common, common);
    pack(rules.alternatives, alternatives);
    for (const Action one : rules.action) action.push_back(static_cast<uint8_t>(one));
  }

  // Throws TableError, also for rules that cannot be.
  std::shared_ptr<const RuleSet> rules() const {
    auto out = std::make_shared<RuleSet>();
    require(!v4_begin.empty() && v4_begin.size() == v6_begin.size(), "sets of another number");
    require(v4.size() % 2 == 0, "half an interval");
    require(fields != 0 && (uint64_t{fields} >> kFieldCount) == 0, "no field, or one that is none");
    out->sets.resize(v4_begin.size() - 1);
    for (size_t s = 0; s < out->sets.size(); ++s) {
      require(v4_begin[s] <= v4_begin[s + 1] && v4_begin[s + 1] <= v4.size() / 2, "an interval that is not there");
      require(v6_begin[s] <= v6_begin[s + 1] && v6_begin[s + 1] <= v6.size(), "an interval that is not there");
      std::vector<Interval>& numbers = out->sets[s].v4;
      numbers.reserve(v4_begin[s + 1] - v4_begin[s]);
      for (size_t i = v4_begin[s]; i < v4_begin[s + 1]; ++i) numbers.push_back({{0, v4[2 * i]}, {0, v4[2 * i + 1]}});
      out->sets[s].v6.assign(v6.begin() + v6_begin[s], v6.begin() + v6_begin[s + 1]);
    }
    unpack(common, action.size(), out->common);
    unpack(alternatives, alternative_begin.empty() ? 0 : alternative_begin.back(), out->alternatives);
    out->alternative_begin = alternative_begin;
    for (const uint8_t one : action) out->action.push_back(static_cast<Action>(one));
    out->certain = certain;
    out->skip_to = skip_to;
    try {
      out->validate();
    } catch (const ModelError& error) {
      throw TableError(std::string("holds rules that cannot be: ") + error.what());
    }
    return out;
  }

 private:
  void pack(const std::vector<Match>& matches, std::vector<SetId>& out) const {
    out.reserve(matches.size() * static_cast<size_t>(std::popcount(fields)));
    for (const Match& match : matches)
      for (uint32_t left = fields; left != 0; left &= left - 1)
        out.push_back(match[static_cast<size_t>(std::countr_zero(left))]);
  }
  void unpack(const std::vector<SetId>& packed, size_t n, std::vector<Match>& out) const {
    require(packed.size() == n * static_cast<size_t>(std::popcount(fields)), "rules of another number");
    out.resize(n);
    const SetId* from = packed.data();
    for (Match& match : out) {
      match.fill(kAnySet);
      for (uint32_t left = fields; left != 0; left &= left - 1) match[static_cast<size_t>(std::countr_zero(left))] = *from++;
    }
  }
};

bool is_printable(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

const EngineInfo& engine_that_wrote(const std::string& name) {
  for (const EngineInfo& engine : engines())
    if (name == engine.name) return engine;
  throw TableError("holds a table of an engine that this meshsieve does not have; compile it again");
}

}  // namespace

void Classifier::save(saved::Writer& writer) const {
  writer("rules", writer.keep(PackedRules(*rules_)))("given", given_)("stats", stats_);
  for (const Segment& segment : segments_) {
    writer("engine", writer.keep(std::string(segment.table->engine())));
    segment.table->save(writer);
  }
}

std::shared_ptr<const Classifier> Classifier::load(saved::Reader& reader, const std::string& backend) {
  const auto started = std::chrono::steady_clock::now();
  const simd::Backend& kernels = simd::backend_named(backend);
  auto classifier = std::make_shared<Classifier>();
  classifier->image_ = reader.image();
  {
    PackedRules packed;
    reader("rules", packed);
    classifier->rules_ = packed.rules();
  }
  std::vector<int32_t>& given = classifier->given_;
  reader("given", given);
  require(given.empty() || (given.front() == kNoMatch && given.back() < classifier->rules_->size()),
          "a rule that is not there");
  require(std::adjacent_find(given.begin(), given.end(), std::greater_equal<>()) == given.end(), "rules out of order");
  classifier->live_ = classifier->rules_;
  if (!given.empty())
    classifier->live_ = std::make_shared<const RuleSet>(only(*classifier->rules_, {given.begin() + 1, given.end()}));
  const RuleSet& rules = *classifier->live_;
  classifier->skips_ = std::find(rules.action.begin(), rules.action.end(), Action::Skip) != rules.action.end();

  CompileStats& stats = classifier->stats_;
  reader("stats", stats);
  require(is_printable(stats.engine), "an engine without name");
  for (const Candidate& candidate : stats.candidates)
    require(is_printable(candidate.engine) && is_printable(candidate.declined), "a candidate without name");
  const std::vector<int32_t> cuts = segment_cuts(rules);
  for (size_t i = 0; i + 1 < cuts.size(); ++i) {
    std::string name;
    reader("engine", name);
    classifier->segments_.push_back(
        {cuts[i], cuts[i + 1], engine_that_wrote(name).load(reader, classifier->live_, cuts[i], cuts[i + 1], kernels)});
  }
  stats.backend = kernels.name;
  stats.rules = classifier->rules_->common.size();
  stats.hidden = stats.rules - rules.common.size();
  stats.segments = classifier->segments_.size();
  stats.bytes = 0;
  for (const Segment& segment : classifier->segments_) stats.bytes += segment.table->stats().bytes;
  stats.build_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return classifier;
}

}  // namespace meshsieve
