// A list that changes while it is looked up in.
//
// What    The rules are in a decision forest (forest_table.h) that is changed, never where somebody reads. Its leaves, which
//         are most of it, are written anew where they change (live_trees.h); of its nodes and of the order there are a few
//         *replicas*. An update takes one that nobody holds, makes it like the published one by copying what the updates
//         since touched, changes it, and publishes it. Look-ups hold the replica that was published when they began.
// Why     Building a table takes 0.1 to 0.5 s at 100,000 rules; a change touches a few cache lines. An overlay of
//         changes beside a fixed table was the other candidate: it needs a second look-up a packet, the next match
//         behind a removed rule, and at half a million changes a second it is as large as the list before a rebuild ends.
// Order   Trees compare labels, which ascend along the list, in the place of indices (live_order.h); answers are
//         positions at publication time, as everywhere.
// Removed A rule behind a wider one is kept in its leaf, so that removing the wider one brings it forward.
// Cost    An update: about 1 us a rule that is simple and narrow; 12 bytes a rule of the list to copy the order, whatever
//         the number of changes: group them. A look-up: that of the forest, and 2 to 4 ns to find the position.
//         Memory: the forest, and two replicas of nodes and order, a third while a reader holds an old one (plus one, and
//         at most one forest, for each old version that somebody keeps), and 70 bytes a slot: of every rule put in until
//         `renumber`, which costs some milliseconds and no building.
// Limits  No skips, and no policies of large groups (Unsuitable): those are compiled anew for each publication.
//         Trees are not split again, so a list that becomes another one gets longer leaves: `worn` says so, and a new
//         table is built. The same goes for a rule that names a field no rule named before (Unsuitable).
// Failure An update that throws has published nothing; the object is then of no use (broken), its versions are.
// Threads One writer at a time (a mutex); any number of readers, which wait for nobody. A writer waits at most
//         kPatience for readers of old versions before it makes a replica more.
// Example insert at 0: label 2^29 - 10,000; one lane written in one leaf; the order copied with one more entry; published.
// Source  Two copies, readers on one while the other is changed: Ramalhete and Correia, Left-Right, 2015.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "l4/forest_lookup.h"
#include "l4/live_order.h"
#include "l4/live_store.h"
#include "l4/live_trees.h"
#include "meshsieve/classifier.h"
#include "meshsieve/errors.h"

namespace meshsieve::live {

// A list or a change that needs a compiled table.
struct Unsuitable : CompileError { using CompileError::CompileError; };

// One state of the table.
struct Replica {
  forest::Forest forest;
  std::array<std::shared_ptr<const void>, forest::kFamilies> arenas;  // that its blocks are in
  uint64_t update = 0;                                                // that made it
  Order order;
  bool all_certain = true;
  std::shared_ptr<const RuleStore> rules;
  std::atomic<uint32_t> readers = 0;
  size_t bytes() const;
};

// A published state. Holds its replica while it lives.
class Version final : public EngineTable, forest::RuleBook {
 public:
  explicit Version(std::shared_ptr<Replica> replica);
  ~Version() override;
  Version(const Version&) = delete;
  Version& operator=(const Version&) = delete;

  RuleResult first_match(const PacketKey& key) const override { return replica_->forest.first_match(key, *this); }
  void first_match_batch(const KeyColumns& keys, RuleResult* out) const override {
    replica_->forest.first_match_batch(keys, *this, out);
  }
  EngineStats stats() const override;
  const char* engine() const override { return "forest"; }
  void save(saved::Writer&) const override {
    throw CompileError("a list that is being changed is compiled before it is saved");
  }
  const std::vector<uint32_t>& slots() const { return replica_->order.slots(); }
  std::shared_ptr<const RuleSet> rule_set() const;

 private:
  Truth truth(const PacketKey& key, int32_t label) const override;
  void answer(int32_t* labels, size_t n) const override;
  RuleResult undecided(int32_t label) const override;
  RuleResult scan(const PacketKey& key) const override;

  const std::shared_ptr<Replica> replica_;
};

// All indices count in the list before the update.
struct Update {
  std::vector<int32_t> remove;           // any order, repeats allowed
  std::vector<int32_t> at;               // ascending: rule i of `rules` comes before the rule at at[i]
  std::shared_ptr<const RuleSet> rules;  // valid; null: none
};

// A published state as callers see it.
struct Published {
  std::shared_ptr<const Version> version;
  std::shared_ptr<const Classifier> classifier;  // its only table is the version
};

class LiveTable {
 public:
  // Publishes the rules. `compiled`: what stats say of the list's compilation. Throws Unsuitable.
  LiveTable(std::shared_ptr<const RuleSet> rules, const CompileOptions& options, CompileStats compiled);

  Published published() const;
  // Publishes the list with the update made. `pause` is called every few thousand changes and may throw. Throws
  // ModelError for a position out of range and Unsuitable, having changed nothing; whatever else breaks the table.
  Published apply(const Update& update, const std::function<void()>& pause);

  // Publishes the same list with slots numbered anew, in list order, and forgets rules that were taken out.
  Published renumber();

  bool broken() const { return broken_; }
  bool crowded() const { return crowded_; }  // most slots are of rules that were taken out: renumber
  bool worn() const { return worn_; }  // a table built anew would be better or smaller

 private:
  // What was written since a replica was last published; `all`: too much to list.
  struct Copy {
    std::shared_ptr<Replica> replica;
    std::vector<std::shared_ptr<const std::array<Touched, forest::kFamilies>>> behind;
    size_t behind_size = 0;
    bool all = false;
  };

  void check(const Update& update) const;
  Copy& begin_update();
  void end_update(Copy& copy, std::shared_ptr<const std::array<Touched, forest::kFamilies>> touched);
  Copy& free_copy();
  void follow(Copy& copy) const;
  const forest::Boxes& boxes_of(uint32_t slot, size_t family, size_t max_entries, size_t k);
  const forest::Boxes& bound_of(uint32_t slot, size_t family, size_t k);
  void keep_hull(size_t family, uint32_t slot, const forest::Boxes& boxes, size_t e);
  size_t hulls_bytes() const;
  size_t bytes() const;
  uint64_t oldest_held(size_t family) const;
  void prefetch_rule(uint32_t slot) const;
  enum class Change { put_in, take_out, relabel };
  void change_rules(Replica& replica, Change change, std::span<const Move> rules, const std::function<void()>& pause,
                    std::array<Touched, forest::kFamilies>& touched);
  void edit(Replica& replica, const Update& update, const std::function<void()>& pause,
            std::array<Touched, forest::kFamilies>& touched);
  void publish(const std::shared_ptr<Replica>& replica);
  size_t used_blocks() const;

  std::mutex writing_;
  mutable std::mutex publishing_;  // held for the copy of two pointers
  Published published_;            // guarded by publishing_
  CompileStats stats_;
  std::shared_ptr<RuleStore> store_;
  std::array<std::unique_ptr<TreeEditor>, forest::kFamilies> editor_;
  static constexpr uint8_t kHullKept = 0x80;                   // of trees_
  std::vector<std::array<uint8_t, forest::kFamilies>> trees_;  // slot -> trees of each family that hold it, a bit each
  std::array<std::vector<forest::Range>, forest::kFamilies> hulls_;  // slot * dimensions, where kHullKept says so
  uint64_t updates_ = 0;
  std::vector<Copy> copies_;                                   // the published one is the last
  static constexpr size_t kTogether = 16;  // rules that are changed together, so that memory is fetched for all of them
  std::array<std::array<forest::Boxes, kTogether>, forest::kFamilies> simple_;  // of boxes_of, by k
  std::array<forest::Boxes, kTogether> general_;                                // likewise
  std::vector<TreeEditor::Reached> reached_;                                    // of change_rules, kept for its memory
  size_t built_rules_, built_blocks_;
  std::vector<uint32_t> intervals_;  // by slot
  size_t all_intervals_;
  std::atomic<bool> broken_ = false, worn_ = false, crowded_ = false;
};

}  // namespace meshsieve::live
