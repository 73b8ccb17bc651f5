#include "meshsieve/classifier.h"

#include <algorithm>
#include <chrono>

#include "l4/choose.h"
#include "meshsieve/errors.h"
#include "simd/backends.h"

namespace meshsieve {
namespace {

const EngineInfo& engine_named(const std::string& name) {
  for (const EngineInfo& engine : engines())
    if (name == engine.name) return engine;
  std::string known;
  for (const EngineInfo& engine : engines()) known += std::string(known.empty() ? "" : ", ") + engine.name;
  throw BackendError("no engine is called '" + name + "'; there are: auto, " + known);
}

double seconds_since(std::chrono::steady_clock::time_point started) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
}

}  // namespace

std::shared_ptr<const Classifier> Classifier::compile(std::shared_ptr<const RuleSet> rules,
                                                      const CompileOptions& options) {
  const auto started = std::chrono::steady_clock::now();
  rules->validate();
  const bool choose = options.engine == "auto";
  const EngineInfo& named = choose ? engines().front() : engine_named(options.engine);

  std::vector<int32_t> cuts = {0, rules->size()};
  for (int32_t r = 0; r < rules->size(); ++r)
    if (rules->action[r] == Action::Skip) cuts.push_back(rules->skip_to[r]);
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());

  auto classifier = std::make_shared<Classifier>();
  classifier->rules_ = rules;
  CompileStats& stats = classifier->stats_;
  stats.engine = named.name;
  stats.backend = simd::backend_named(options.backend).name;
  stats.rules = rules->common.size();
  int32_t largest = 0;
  for (size_t i = 0; i + 1 < cuts.size(); ++i) {
    const int32_t begin = cuts[i], end = cuts[i + 1];
    CompileOptions own = options;  // a segment's share of the budget is that of its rules
    own.budget_bytes = static_cast<size_t>(static_cast<double>(options.budget_bytes) * (end - begin) / rules->size());
    Segment segment{begin, end, nullptr};
    if (choose) {
      segment.table = choose_engine(rules, begin, end, own, stats.candidates);
    } else {
      const auto before = std::chrono::steady_clock::now();
      segment.table = named.build(rules, begin, end, own);
      stats.candidates.push_back({named.name, begin, end, segment.table->stats().bytes, seconds_since(before), 0, true});
    }
    if (end - begin > largest) {
      largest = end - begin;
      for (const Candidate& candidate : stats.candidates)
        if (candidate.taken && candidate.begin == begin) stats.engine = candidate.engine;
    }
    const EngineStats table = segment.table->stats();
    stats.bytes += table.bytes;
    stats.worst_case_steps += table.worst_case_steps;
    classifier->segments_.push_back(std::move(segment));
  }
  stats.segments = classifier->segments_.size();
  stats.build_seconds = seconds_since(started);
  return classifier;
}

RuleResult Classifier::lookup(const PacketKey& key) const {
  for (size_t s = 0; s < segments_.size();) {
    const RuleResult result = segments_[s].table->first_match(key);
    if (result == kNoMatch) {
      ++s;
    } else if (is_undecided(result) || rules_->action[result] != Action::Skip) {
      return result;
    } else {
      const int32_t target = rules_->skip_to[result];
      while (s < segments_.size() && segments_[s].begin < target) ++s;
    }
  }
  return kNoMatch;
}

void Classifier::lookup_batch(const KeyColumns& keys, RuleResult* out) const {
  if (segments_.empty()) {
    std::fill(out, out + keys.n, kNoMatch);
  } else if (segments_.size() == 1) {
    segments_.front().table->first_match_batch(keys, out);
  } else {
    for (size_t i = 0; i < keys.n; ++i) out[i] = lookup(keys.key(i));
  }
}

}  // namespace meshsieve
