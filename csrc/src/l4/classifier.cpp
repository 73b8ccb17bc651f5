#include "meshsieve/classifier.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "l4/choose.h"
#include "l4/live_rules.h"
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

constexpr size_t kDone = ~size_t{0};
constexpr size_t kWalkTogether = 4096;  // packets that walk a list of several segments together

KeyColumns rows_of(const KeyColumns& keys, size_t first, size_t n) {
  KeyColumns part = keys;
  part.n = n;
  for (Column& column : part.column)
    if (column.data != nullptr) column.data = column.at(first);
  if (keys.present != nullptr) part.present = keys.present + first;
  return part;
}

// Some rows of columns, copied together.
class PickedRows {
 public:
  const KeyColumns& pick(const KeyColumns& keys, const std::vector<uint32_t>& rows) {
    keys_.n = rows.size();
    for (int f = 0; f < kFieldCount; ++f) {
      const Column& from = keys.column[f];
      keys_.column[f] = from;
      if (from.data == nullptr || from.stride == 0) continue;
      bytes_[f].resize(rows.size() * from.width);
      for (size_t j = 0; j < rows.size(); ++j)
        std::memcpy(&bytes_[f][j * from.width], from.at(rows[j]), from.width);
      keys_.column[f] = {bytes_[f].data(), from.width, static_cast<ptrdiff_t>(from.width)};
    }
    keys_.present = nullptr;
    if (keys.present == nullptr) return keys_;
    present_.resize(rows.size());
    for (size_t j = 0; j < rows.size(); ++j) present_[j] = keys.present[rows[j]];
    keys_.present = present_.data();
    return keys_;
  }

 private:
  KeyColumns keys_;
  std::array<std::vector<uint8_t>, kFieldCount> bytes_;
  std::vector<uint32_t> present_;
};

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

  auto classifier = std::make_shared<Classifier>();
  classifier->rules_ = rules;
  if (options.engine != "linear") {  // the truth carries all
    LiveRules live = live_rules(rules);
    rules = std::move(live.rules);
    if (!live.given.empty()) live.given.insert(live.given.begin(), kNoMatch);
    classifier->given_ = std::move(live.given);
  }
  classifier->live_ = rules;
  const std::vector<int32_t> cuts = segment_cuts(*rules);
  classifier->skips_ = std::find(rules->action.begin(), rules->action.end(), Action::Skip) != rules->action.end();
  CompileStats& stats = classifier->stats_;
  stats.engine = named.name;
  stats.backend = simd::backend_named(options.backend).name;
  stats.rules = classifier->rules_->common.size();
  stats.hidden = stats.rules - rules->common.size();
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
  if (!classifier->given_.empty())
    for (Candidate& candidate : stats.candidates) {
      candidate.begin = classifier->given_[candidate.begin + 1];
      candidate.end = classifier->given_[candidate.end] + 1;
    }
  stats.segments = classifier->segments_.size();
  stats.build_seconds = seconds_since(started);
  return classifier;
}

std::shared_ptr<const Classifier> Classifier::of(std::shared_ptr<const EngineTable> table, CompileStats stats) {
  auto classifier = std::make_shared<Classifier>();
  classifier->segments_.push_back({0, static_cast<int32_t>(stats.rules), std::move(table)});
  classifier->stats_ = std::move(stats);
  return classifier;
}

size_t Classifier::segment_at(int32_t rule) const {
  const auto found = std::partition_point(segments_.begin(), segments_.end(),
                                          [rule](const Segment& segment) { return segment.begin < rule; });
  return static_cast<size_t>(found - segments_.begin());
}

// The segment in which the walk goes on after `result` in segment s; kDone where the result stands.
size_t Classifier::next_segment(size_t s, RuleResult result) const {
  if (result == kNoMatch) return s + 1;
  if (is_undecided(result) || live_->action[result] != Action::Skip) return kDone;
  return segment_at(live_->skip_to[result]);
}

RuleResult Classifier::in_given(RuleResult result) const {
  if (given_.empty()) return result;
  if (is_undecided(result)) return undecided_at(given_[static_cast<size_t>(rule_of(result) + 1)]);
  return given_[static_cast<size_t>(result + 1)];
}

RuleResult Classifier::lookup(const PacketKey& key) const {
  if (segments_.size() == 1 && !skips_) return in_given(segments_.front().table->first_match(key));
  for (size_t s = 0; s < segments_.size();) {
    const RuleResult result = segments_[s].table->first_match(key);
    s = next_segment(s, result);
    if (s == kDone) return in_given(result);
  }
  return kNoMatch;
}

void Classifier::lookup_batch(const KeyColumns& keys, RuleResult* out) const {
  const bool one_table = segments_.size() == 1 && !skips_;
  if (one_table && given_.empty()) return segments_.front().table->first_match_batch(keys, out);
  for (size_t first = 0; first < keys.n; first += kWalkTogether) {
    const KeyColumns part = rows_of(keys, first, std::min(kWalkTogether, keys.n - first));
    if (one_table) segments_.front().table->first_match_batch(part, out + first);
    else walk_segments(part, out + first);
    if (given_.empty()) continue;
    for (size_t i = first; i < first + part.n; ++i) out[i] = in_given(out[i]);
  }
}

// All packets that are at a segment are looked up in it together, in list order of the segments.
void Classifier::walk_segments(const KeyColumns& keys, RuleResult* out) const {
  std::vector<size_t> at(keys.n, 0);
  std::vector<uint32_t> rows;
  std::vector<RuleResult> results(keys.n);
  PickedRows picked;
  std::fill(out, out + keys.n, kNoMatch);
  for (size_t s = 0; s < segments_.size(); ++s) {
    rows.clear();
    for (uint32_t i = 0; i < keys.n; ++i)
      if (at[i] == s) rows.push_back(i);
    if (rows.empty()) continue;
    segments_[s].table->first_match_batch(rows.size() == keys.n ? keys : picked.pick(keys, rows), results.data());
    for (size_t j = 0; j < rows.size(); ++j) {
      at[rows[j]] = next_segment(s, results[j]);
      if (at[rows[j]] == kDone) out[rows[j]] = results[j];
    }
  }
}

}  // namespace meshsieve
