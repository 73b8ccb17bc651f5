// The compiled L3/L4 table and the interface that every engine implements.
//
// What    compile() turns a RuleSet into an immutable Classifier. The list is cut at every skip target into segments,
//         one engine table each; a walk enters segment 0 and goes on in the next segment on no match, or at the
//         target of a Skip rule. Most rule sets have one segment. Rules that an earlier one covers are in no table
//         (l4/live_rules.h); results are in the numbers of the given list.
// Threads A Classifier never changes after compile(); any number of threads may look up. An update is a new Classifier.
// Cost    worst_case_steps in the statistics bounds a look-up for every packet; no look-up depends on earlier ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "meshsieve/fields.h"
#include "meshsieve/rule_set.h"
#include "meshsieve/types.h"

namespace meshsieve {

namespace saved {
class Reader;
class Writer;
}  // namespace saved
namespace simd {
struct Backend;
}

// The truth: a linear scan. First rule at or after `start` that does not certainly fail, ignoring Skip (which the walk
// in Classifier follows). Plain on purpose; every engine and backend is compared with it.
RuleResult reference_first_match(const RuleSet& rules, const PacketKey& key, int32_t start, int32_t end);
// The same with Skip followed: the whole walk.
RuleResult reference_walk(const RuleSet& rules, const PacketKey& key, int32_t start = 0);

struct EngineStats {
  size_t bytes = 0;             // run-time tables
  uint64_t worst_case_steps = 0;  // table reads and rule comparisons of the most expensive packet
};

// One engine's table over rules [begin, end) of a set, Skip not followed.
class EngineTable {
 public:
  virtual ~EngineTable() = default;
  virtual RuleResult first_match(const PacketKey& key) const = 0;
  virtual void first_match_batch(const KeyColumns& keys, RuleResult* out) const = 0;  // out: n results
  virtual EngineStats stats() const = 0;
  virtual const char* engine() const = 0;  // the name in engines() whose `load` reads what `save` writes
  virtual void save(saved::Writer& writer) const = 0;
};

struct CompileOptions {
  std::string engine = "auto";    // a name of engines(), or "auto"
  std::string backend = "auto";   // a name of backends(), or "auto"
  size_t budget_bytes = 0;        // 0: 256 bytes a rule + 2 MB
};

struct EngineInfo {
  const char* name;
  const char* summary;  // when it wins, one sentence
  std::unique_ptr<EngineTable> (*build)(std::shared_ptr<const RuleSet>, int32_t begin, int32_t end,
                                        const CompileOptions&);
  // Throws TableError for a table that cannot be: nothing that was read is trusted.
  std::unique_ptr<EngineTable> (*load)(saved::Reader&, std::shared_ptr<const RuleSet>, int32_t begin, int32_t end,
                                       const simd::Backend&);
};
const std::vector<EngineInfo>& engines();

// One engine that was built for one segment, and how it did on headers sampled from the rules.
struct Candidate {
  std::string engine;
  int32_t begin = 0, end = 0;  // the segment's rules
  size_t bytes = 0;
  double build_seconds = 0;
  double lookup_ns = 0;        // a look-up in a batch; 0 where it was not measured
  bool taken = false;
  std::string declined;        // why it could not be built

  template <class Archive>
  void visit(Archive& a) {
    a("engine", engine)("begin", begin)("end", end)("bytes", bytes)("build_seconds", build_seconds);
    a("lookup_ns", lookup_ns)("taken", taken)("declined", declined);
  }
};

struct CompileStats {
  std::string engine;  // of the largest segment
  std::string backend;
  size_t rules = 0;
  size_t hidden = 0;  // rules in no table, because an earlier one covers them
  size_t segments = 0;
  size_t bytes = 0;
  double build_seconds = 0;
  uint64_t worst_case_steps = 0;
  std::vector<Candidate> candidates;

  template <class Archive>
  void visit(Archive& a) {  // the backend is chosen anew
    a("engine", engine)("rules", rules)("segments", segments)("bytes", bytes)("build_seconds", build_seconds);
    a("worst_case_steps", worst_case_steps)("candidates", candidates);
  }
};

class Classifier {
 public:
  static std::shared_ptr<const Classifier> compile(std::shared_ptr<const RuleSet> rules, const CompileOptions& options);
  // Rules and tables (classifier_saved.cpp). `backend`: "auto" or a name. load throws TableError for what cannot be.
  void save(saved::Writer& writer) const;
  static std::shared_ptr<const Classifier> load(saved::Reader& reader, const std::string& backend);

  // Around one table that serves a whole list without skips.
  static std::shared_ptr<const Classifier> of(std::shared_ptr<const EngineTable> table, CompileStats stats);

  RuleResult lookup(const PacketKey& key) const;
  void lookup_batch(const KeyColumns& keys, RuleResult* out) const;
  const CompileStats& stats() const { return stats_; }
  const RuleSet& rules() const { return *rules_; }  // of a compiled list

 private:
  struct Segment {
    int32_t begin, end;
    std::shared_ptr<const EngineTable> table;
  };
  size_t segment_at(int32_t rule) const;
  size_t next_segment(size_t segment, RuleResult result) const;
  void walk_segments(const KeyColumns& keys, RuleResult* out) const;

  RuleResult in_given(RuleResult result) const;

  std::shared_ptr<const void> image_;            // what loaded tables are views of
  std::shared_ptr<const RuleSet> rules_, live_;  // as given; those in the tables
  std::vector<int32_t> given_;  // live rule + 1 -> rule as given, 0 -> kNoMatch; empty where the numbers are the same
  std::vector<Segment> segments_;
  bool skips_ = false;
  CompileStats stats_;
};

}  // namespace meshsieve
