#include "meshsieve/classifier.h"

#include <algorithm>
#include <chrono>
#include <map>

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

}  // namespace

std::shared_ptr<const Classifier> Classifier::compile(std::shared_ptr<const RuleSet> rules,
                                                      const CompileOptions& options) {
  const auto started = std::chrono::steady_clock::now();
  rules->validate();
  const EngineInfo& engine = engine_named(options.engine == "auto" ? engines().front().name : options.engine);

  std::vector<int32_t> cuts = {0, rules->size()};
  for (int32_t r = 0; r < rules->size(); ++r)
    if (rules->action[r] == Action::Skip) cuts.push_back(rules->skip_to[r]);
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());

  auto classifier = std::make_shared<Classifier>();
  classifier->rules_ = rules;
  classifier->stats_.engine = engine.name;
  classifier->stats_.backend = simd::backend_named(options.backend).name;
  classifier->stats_.rules = rules->common.size();
  for (size_t i = 0; i + 1 < cuts.size(); ++i) {
    Segment segment{cuts[i], cuts[i + 1], engine.build(rules, cuts[i], cuts[i + 1], options)};
    const EngineStats stats = segment.table->stats();
    classifier->stats_.bytes += stats.bytes;
    classifier->stats_.worst_case_steps += stats.worst_case_steps;
    classifier->segments_.push_back(std::move(segment));
  }
  classifier->stats_.segments = classifier->segments_.size();
  classifier->stats_.build_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
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
