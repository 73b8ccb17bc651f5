#include "l4/live_table.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>

#include "l4/budget.h"
#include "l4/reference.h"

namespace meshsieve::live {

using forest::Boxes;
using forest::Family;
using forest::kFamilies;
using forest::kNoRule;

namespace {

constexpr auto kPatience = std::chrono::milliseconds(2);
constexpr size_t kKeptCopies = 3;
constexpr size_t kChangesAPause = 4096;
constexpr size_t kMaxBoxesOfRule = 17;  // of an inserted rule's alternatives and intervals, before they are one bound
constexpr size_t kManyIntervals = 16;   // a rule, on average: a policy of groups, as in choose.cpp
constexpr size_t kFewRules = 64;
constexpr size_t kMostBehind = 1024;    // changes of nodes that are copied one by one

// What each rule names besides its alternatives.
std::vector<uint32_t> intervals_of(const RuleSet& rules) {
  std::vector<uint32_t> intervals;
  intervals.reserve(rules.common.size());
  for (const Match& match : rules.common) {
    size_t n = 0;
    for (const SetId id : match)
      if (id != kAnySet) n += rules.sets[id].v4.size() + rules.sets[id].v6.size();
    intervals.push_back(static_cast<uint32_t>(n));
  }
  return intervals;
}

size_t sum_of(const std::vector<uint32_t>& values) {
  return std::accumulate(values.begin(), values.end(), size_t{0});
}

void refuse_skips(const RuleSet& rules) {
  if (std::find(rules.action.begin(), rules.action.end(), Action::Skip) != rules.action.end())
    throw Unsuitable("the list has skips");
}

void refuse_groups(size_t intervals, size_t rules) {
  if (intervals > kManyIntervals * (rules + kFewRules)) throw Unsuitable("a policy of large groups");
}

uint32_t fields_of(const Match& match) {
  uint32_t fields = 0;
  for (int f = 0; f < kFieldCount; ++f) fields |= static_cast<uint32_t>(match[f] != kAnySet) << f;
  return fields;
}

// A rule on its own, with the sets that it names and no others.
RuleSet alone(const RuleStore::Place& place) {
  RuleSet one;
  one.sets.emplace_back();
  const auto copy = [&](const Match& from) {
    Match to{};
    for (int f = 0; f < kFieldCount; ++f) {
      if (from[f] == kAnySet) continue;
      to[f] = static_cast<SetId>(one.sets.size());
      one.sets.push_back(place.set->sets[from[f]]);
    }
    return to;
  };
  one.common = {copy(place.set->common[place.index])};
  for (uint32_t a = place.set->alternative_begin[place.index]; a < place.set->alternative_begin[place.index + 1]; ++a)
    one.alternatives.push_back(copy(place.set->alternatives[a]));
  one.alternative_begin = {0, static_cast<uint32_t>(one.alternatives.size())};
  one.action = {place.set->action[place.index]};
  one.skip_to = {-1};
  one.certain = {place.set->certain[place.index]};
  return one;
}

// Boxes of one entry in the table's dimensions.
Boxes one_box(const forest::Table& table) {
  Boxes boxes;
  boxes.field = table.boxes.field;
  boxes.bits = table.boxes.bits;
  boxes.entries.resize(1);
  boxes.hull.resize(table.boxes.dims());
  boxes.list.assign(table.boxes.dims(), -1);
  return boxes;
}

// Fills `boxes`, made by one_box, for a rule without alternatives whose sets are single intervals: the usual case, without
// an allocation. No entry where nothing of the family can match. False: the general way must be taken.
bool simple_box(const forest::Table& table, Family family, const RuleStore::Place& place, Boxes& boxes) {
  const RuleSet& rules = *place.set;
  if (rules.alternative_begin[place.index] != rules.alternative_begin[place.index + 1]) return false;
  const Match& match = rules.common[place.index];
  uint32_t left = fields_of(match);
  if (left & bit_of(Field::ip_ver)) return false;
  boxes.blind = 0;
  boxes.entries.clear();
  forest::Entry entry{0, 0, true};
  for (size_t d = 0; d < table.boxes.dims(); ++d) {
    const int f = index_of(table.boxes.field[d]);
    if ((left >> f & 1) == 0) {
      boxes.hull[d] = {0, ~uint32_t{0} >> (32 - table.boxes.bits[d])};
      continue;
    }
    left &= ~(uint32_t{1} << f);
    const ValueSet& set = rules.sets[match[f]];
    const bool ranked = family == forest::kV6 && kFields[f].kind == FieldKind::address;
    const std::vector<Interval>& span = ranked ? set.v6 : set.v4;
    if (span.size() > 1) return false;
    if (span.empty()) {
      boxes.blind |= uint32_t{1} << f;
      continue;
    }
    if (ranked) {
      const forest::RankMap& ranks = table.boxes.ranks[f];
      boxes.hull[d] = {ranks.rank(span[0].lo), ranks.rank(span[0].hi)};
      entry.exact = entry.exact && ranks.starts_at(boxes.hull[d].lo, span[0].lo) &&
                    ranks.ends_at(boxes.hull[d].hi, span[0].hi);
    } else {
      boxes.hull[d] = {static_cast<uint32_t>(span[0].lo.lo), static_cast<uint32_t>(span[0].hi.lo)};
    }
    const forest::Group group = forest::group_of(static_cast<Field>(f));
    if (group != forest::kAlways) entry.groups |= static_cast<uint8_t>(1 << group);
  }
  // What is left, a frame without IP lacks.
  if (left == 0 && boxes.blind == 0) boxes.entries.push_back(entry);
  return true;
}

// One leaf a tree.
size_t least_bytes(const Boxes& boxes) {
  return (boxes.entries.size() / forest::kLanes + forest::kMaxTrees + 2) * boxes.block_bytes() +
         (boxes.ranks[0].starts.size() + boxes.ranks[1].starts.size()) * sizeof(U128);
}

std::vector<int32_t> ascending(std::vector<int32_t> values) {
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
  return values;
}

}  // namespace

std::shared_ptr<const RuleSet> rule_set_of(const RuleStore& store, const std::vector<uint32_t>& slots) {
  auto out = std::make_shared<RuleSet>();
  out->sets.emplace_back();
  std::unordered_map<const RuleSet*, std::vector<SetId>> numbers;  // of a source's sets in `out`; 0: not yet
  const auto copy = [&out](const RuleSet& source, std::vector<SetId>& number, const Match& from) {
    Match to{};
    for (int f = 0; f < kFieldCount; ++f) {
      if (from[f] == kAnySet) continue;
      SetId& id = number[from[f]];
      if (id == 0) {
        id = static_cast<SetId>(out->sets.size());
        out->sets.push_back(source.sets[from[f]]);
      }
      to[f] = id;
    }
    return to;
  };
  out->common.reserve(slots.size());
  out->alternative_begin.push_back(0);
  for (const uint32_t slot : slots) {
    const RuleStore::Place place = store[slot_number(slot)];
    const RuleSet& source = *place.set;
    std::vector<SetId>& number = numbers[place.set];
    number.resize(source.sets.size(), 0);
    out->common.push_back(copy(source, number, source.common[place.index]));
    for (uint32_t a = source.alternative_begin[place.index]; a < source.alternative_begin[place.index + 1]; ++a)
      out->alternatives.push_back(copy(source, number, source.alternatives[a]));
    out->alternative_begin.push_back(static_cast<uint32_t>(out->alternatives.size()));
    out->action.push_back(source.action[place.index]);
    out->skip_to.push_back(-1);
    out->certain.push_back(source.certain[place.index]);
  }
  return out;
}

size_t Replica::bytes() const { return forest.stats().bytes + order.bytes(); }

// --- Version

Version::Version(std::shared_ptr<Replica> replica) : replica_(std::move(replica)) {
  replica_->readers.fetch_add(1, std::memory_order_relaxed);  // the writer, who is the only one to look, does this
}

Version::~Version() { replica_->readers.fetch_sub(1, std::memory_order_release); }

EngineStats Version::stats() const {
  EngineStats stats = replica_->forest.stats();
  stats.bytes = replica_->bytes();
  return stats;
}

std::shared_ptr<const RuleSet> Version::rule_set() const { return rule_set_of(*replica_->rules, slots()); }

Truth Version::truth(const PacketKey& key, int32_t label) const {
  const Order& order = replica_->order;
  const RuleStore::Place place = (*replica_->rules)[slot_number(order.slot(order.position(label)))];
  return reference_truth(*place.set, key, place.index);
}

void Version::answer(int32_t* labels, size_t n) const {
  const Order& order = replica_->order;
  for (size_t i = 0; i < n; ++i) order.prefetch_bucket(labels[i]);
  for (size_t i = 0; i < n; ++i) order.prefetch_labels(labels[i]);
  for (size_t i = 0; i < n; ++i) {
    const int32_t position = order.position(labels[i]);
    labels[i] = labels[i] == kNoRule ? kNoMatch : position;
  }
  if (replica_->all_certain) return;
  for (size_t i = 0; i < n; ++i)
    if (labels[i] >= 0 && (order.slot(labels[i]) & kUncertain) != 0) labels[i] = undecided_at(labels[i]);
}

RuleResult Version::undecided(int32_t label) const { return undecided_at(replica_->order.position(label)); }

RuleResult Version::scan(const PacketKey& key) const {
  for (size_t p = 0; p < replica_->order.size(); ++p) {
    const RuleStore::Place place = (*replica_->rules)[slot_number(replica_->order.slot(p))];
    const Truth truth = reference_truth(*place.set, key, place.index);
    if (truth == Truth::Yes) return static_cast<RuleResult>(p);
    if (truth == Truth::Maybe) return undecided_at(static_cast<int32_t>(p));
  }
  return kNoMatch;
}

// --- LiveTable

LiveTable::LiveTable(std::shared_ptr<const RuleSet> rules, const CompileOptions& options, CompileStats compiled)
    : stats_(std::move(compiled)),
      store_(std::make_shared<RuleStore>()),
      trees_(rules->common.size()),
      built_rules_(rules->common.size()),
      intervals_(intervals_of(*rules)),
      all_intervals_(sum_of(intervals_)) {
  const size_t n = built_rules_;
  refuse_skips(*rules);
  refuse_groups(all_intervals_, n);
  if (n > Order::kMostRules) throw Unsuitable("more than 2^24 rules");
  auto replica = std::make_shared<Replica>();
  replica->rules = store_;
  replica->forest.backend = &simd::backend_named(options.backend);
  std::vector<uint32_t> slots(n);
  for (uint32_t r = 0; r < n; ++r) {
    slots[r] = r | (rules->certain[r] ? 0 : kUncertain);
    replica->all_certain = replica->all_certain && rules->certain[r];
  }
  replica->order = Order(std::move(slots));
  for (const Match& match : rules->common) replica->forest.fields.add(match);
  for (const Match& match : rules->alternatives) replica->forest.fields.add(match);

  // Where the caller bounds the memory, two replicas share it.
  const size_t budget = options.budget_bytes != 0 ? options.budget_bytes / 2 : usual_bytes(n);
  std::vector<Boxes> boxes;
  size_t least = replica->order.bytes(), entries = 0;
  for (const Family family : {forest::kV4, forest::kV6, forest::kNoIp}) {
    boxes.push_back(forest::make_boxes(*rules, 0, rules->size(), family, 4 * n + 1024));
    least += least_bytes(boxes.back());
    entries += boxes.back().entries.size();
  }
  if (least > budget) throw Unsuitable("two replicas exceed budget_bytes");
  for (size_t family = 0; family < kFamilies; ++family) {
    Boxes& own = boxes[family];
    const size_t share = entries == 0 ? 0 : (budget - least) / entries * own.entries.size();
    hulls_[family].resize(own.entries.empty() ? 0 : n * own.dims());
    const auto one_entry = [&own](size_t e) {
      return (e == 0 || own.entries[e - 1].rule != own.entries[e].rule) &&
             (e + 1 == own.entries.size() || own.entries[e + 1].rule != own.entries[e].rule);
    };
    std::vector<std::pair<uint32_t, uint8_t>> kinds;  // of each entry: its rule and smallness
    for (size_t e = 0; e < own.entries.size(); ++e)
      if (one_entry(e)) keep_hull(family, static_cast<uint32_t>(own.entries[e].rule), own, e);
    for (size_t e = 0; e < own.entries.size(); ++e) {
      forest::Entry& entry = own.entries[e];
      kinds.push_back({static_cast<uint32_t>(entry.rule), static_cast<uint8_t>(forest::smallness(own, e))});
      entry.rule = replica->order.label(static_cast<size_t>(entry.rule));
    }
    const size_t bytes = least_bytes(own) + share;
    forest::Trees trees = forest::build_trees(std::move(own), bytes, forest::Hidden::keep);
    const auto tree_of = trees.tree_of;
    for (const auto& [rule, kind] : kinds) trees_[rule][family] |= static_cast<uint8_t>(1 << tree_of[kind]);
    replica->forest.tables[family] = forest::Table(std::move(trees));
    editor_[family] = std::make_unique<TreeEditor>(replica->forest.tables[family], tree_of);
    replica->arenas[family] = editor_[family]->arena();
    simple_[family].fill(one_box(replica->forest.tables[family]));
  }
  store_->add(std::move(rules));
  built_blocks_ = used_blocks();
  publish(replica);
  copies_.push_back({std::move(replica), {}});
}

Published LiveTable::published() const {
  const std::lock_guard lock(publishing_);
  return published_;
}

void LiveTable::publish(const std::shared_ptr<Replica>& replica) {
  stats_.engine = "forest";
  stats_.rules = replica->order.size();
  stats_.segments = 1;
  stats_.bytes = copies_.empty() ? replica->bytes() : bytes();
  Published now;
  now.version = std::make_shared<Version>(replica);
  stats_.worst_case_steps = now.version->stats().worst_case_steps;
  now.classifier = Classifier::of(now.version, stats_);
  const std::lock_guard lock(publishing_);
  std::swap(published_, now);
}

size_t LiveTable::hulls_bytes() const {
  size_t n = 0;
  for (const auto& hulls : hulls_) n += hulls.capacity();
  return n * sizeof(forest::Range);
}

// Nodes and order of every copy, and the arenas, which copies share.
size_t LiveTable::bytes() const {
  size_t n = trees_.capacity() * sizeof trees_[0] + hulls_bytes() + store_->size() * sizeof(RuleStore::Place);
  std::set<const void*> counted;
  for (const Copy& copy : copies_) {
    n += copy.replica->bytes();
    for (size_t family = 0; family < kFamilies; ++family)
      if (!counted.insert(copy.replica->arenas[family].get()).second)
        n -= copy.replica->forest.tables[family].blocks.bytes();
  }
  return n;
}

size_t LiveTable::used_blocks() const {
  size_t n = 0;
  for (const auto& editor : editor_) n += editor->used_blocks();
  return n;
}

void LiveTable::check(const Update& update) const {
  const forest::Forest& forest = copies_.back().replica->forest;
  const size_t n = copies_.back().replica->order.size();
  for (const int32_t position : update.remove)
    if (position < 0 || static_cast<size_t>(position) >= n)
      throw ModelError("cannot remove rule " + std::to_string(position) + ": there are " + std::to_string(n) + " rules");
  for (const int32_t position : update.at)
    if (position < 0 || static_cast<size_t>(position) > n)
      throw ModelError("cannot insert at " + std::to_string(position) + ": positions are 0 to " + std::to_string(n));
  if (update.rules == nullptr) return;
  refuse_skips(*update.rules);
  refuse_groups(all_intervals_ + sum_of(intervals_of(*update.rules)), store_->size() + update.at.size());
  if (n + update.at.size() > Order::kMostRules) throw Unsuitable("more than 2^24 rules");
  uint32_t known = bit_of(Field::ip_ver);
  for (const Field field : forest.tables[forest::kV4].boxes.field) known |= bit_of(field);
  if ((update.rules->fields_used() & ~known) != 0) throw Unsuitable("a rule names a field that no rule named before");
}

Published LiveTable::apply(const Update& update, const std::function<void()>& pause) {
  const std::lock_guard lock(writing_);
  check(update);
  const auto touched = std::make_shared<std::array<Touched, kFamilies>>();
  Copy& copy = begin_update();
  edit(*copy.replica, update, pause, *touched);
  end_update(copy, touched);

  size_t unsure = 0;
  for (const auto& editor : editor_) unsure += editor->unsure_lanes();
  const size_t rules = copies_.back().replica->order.size();
  size_t arena = 0;
  for (const auto& editor : editor_) arena += editor->arena_blocks();
  crowded_ = store_->size() > 4 * rules + 65'536;
  worn_ = used_blocks() > 2 * built_blocks_ + 1024 || arena > 4 * built_blocks_ + 4096 ||
          unsure > 256 + rules / 16 || rules > 2 * built_rules_ + 1024;
  return published();
}

Published LiveTable::renumber() {
  const std::lock_guard lock(writing_);
  Copy& copy = begin_update();
  const Order& before = copies_.back().replica->order;
  copy.replica->order.renumber(before);
  std::vector<uint32_t> slots = before.slots();
  for (uint32_t& slot : slots) slot = slot_number(slot);
  store_ = std::make_shared<RuleStore>(*store_, slots);
  copy.replica->rules = store_;

  std::vector<std::array<uint8_t, kFamilies>> trees;
  std::vector<uint32_t> intervals;
  for (const uint32_t slot : slots) {
    trees.push_back(trees_[slot]);
    intervals.push_back(intervals_[slot]);
  }
  trees_ = std::move(trees);
  intervals_ = std::move(intervals);
  all_intervals_ = sum_of(intervals_);
  for (size_t family = 0; family < kFamilies; ++family) {
    const size_t dims = simple_[family][0].dims();
    std::vector<forest::Range> hulls(hulls_[family].empty() ? 0 : slots.size() * dims);
    for (size_t s = 0; s < slots.size(); ++s)
      if (trees_[s][family] & kHullKept)
        std::copy_n(hulls_[family].begin() + static_cast<ptrdiff_t>(slots[s] * dims), dims,
                    hulls.begin() + static_cast<ptrdiff_t>(s * dims));
    hulls_[family] = std::move(hulls);
  }
  end_update(copy, std::make_shared<std::array<Touched, kFamilies>>());
  crowded_ = false;
  return published();
}

// A copy like the published one, to be changed. Until the update ends, the table is broken.
LiveTable::Copy& LiveTable::begin_update() {
  broken_ = true;
  Copy& copy = free_copy();
  copy.replica->update = ++updates_;
  for (size_t family = 0; family < kFamilies; ++family) editor_[family]->begin(updates_, oldest_held(family));
  return copy;
}

// Publishes the copy. The others note what was touched.
void LiveTable::end_update(Copy& copy, std::shared_ptr<const std::array<Touched, kFamilies>> touched) {
  size_t size = 0;
  for (const Touched& own : *touched) size += own.size();
  for (Copy& other : copies_) {
    if (&other == &copy || other.all) continue;
    other.behind.push_back(touched);
    other.behind_size += size;
    if (other.behind_size < kMostBehind + built_blocks_) continue;
    other.behind.clear();
    other.all = true;
  }
  const auto place = copies_.begin() + (&copy - copies_.data());
  std::rotate(place, place + 1, copies_.end());
  publish(copies_.back().replica);
  broken_ = false;
}

// A copy that nobody reads, like the published one.
LiveTable::Copy& LiveTable::free_copy() {
  const auto nobody_reads = [](const Copy& copy) { return copy.replica->readers.load(std::memory_order_acquire) == 0; };
  const auto is_free = [&] { return std::find_if(copies_.begin(), copies_.end() - 1, nobody_reads); };
  auto found = is_free();
  if (copies_.size() >= kKeptCopies)
    for (const auto deadline = std::chrono::steady_clock::now() + kPatience;
         found == copies_.end() - 1 && std::chrono::steady_clock::now() < deadline; found = is_free())
      std::this_thread::sleep_for(std::chrono::microseconds(20));
  if (found == copies_.end() - 1) {
    Copy copy{std::make_shared<Replica>(), {}, 0, true};
    found = copies_.insert(copies_.end() - 1, std::move(copy));
  }
  // More copies than usual were needed while somebody held old versions.
  while (copies_.size() > kKeptCopies) {
    const auto extra = std::find_if(found + 1, copies_.end() - 1, nobody_reads);
    if (extra == copies_.end() - 1) break;
    copies_.erase(extra);
  }
  follow(*found);
  return *found;
}

// The lowest number of an update whose version somebody may read in the arena that is written to.
uint64_t LiveTable::oldest_held(size_t family) const {
  uint64_t oldest = copies_.back().replica->update;
  for (const Copy& copy : copies_)
    if (copy.replica->arenas[family] == editor_[family]->arena() &&
        copy.replica->readers.load(std::memory_order_acquire) != 0)
      oldest = std::min(oldest, copy.replica->update);
  return oldest;
}

void LiveTable::follow(Copy& copy) const {
  const Replica& published = *copies_.back().replica;
  for (size_t family = 0; family < kFamilies; ++family) {
    const forest::Table& from = published.forest.tables[family];
    forest::Table& to = copy.replica->forest.tables[family];
    std::vector<const Touched*> touched;
    for (const auto& change : copy.behind) touched.push_back(&(*change)[family]);
    copy.all ? TreeEditor::copy(from, to) : TreeEditor::follow(from, to, touched);
  }
  copy.behind.clear();
  copy.behind_size = 0;
  copy.all = false;
  copy.replica->arenas = published.arenas;
  copy.replica->forest.fields = published.forest.fields;
  copy.replica->forest.backend = published.forest.backend;
  copy.replica->all_certain = published.all_certain;
  copy.replica->rules = published.rules;
}

// Keeps the ranges of an entry, where that is all there is of a rule: taking it out then needs no look at its sets.
void LiveTable::keep_hull(size_t family, uint32_t slot, const Boxes& boxes, size_t e) {
  const size_t dims = boxes.dims();
  const auto lists = boxes.list.begin() + static_cast<ptrdiff_t>(e * dims);
  if (dims == 0 || std::any_of(lists, lists + static_cast<ptrdiff_t>(dims), [](int32_t list) { return list >= 0; })) return;
  std::vector<forest::Range>& hulls = hulls_[family];
  if (hulls.size() < (size_t{slot} + 1) * dims) hulls.resize(std::max((size_t{slot} + 1) * dims, hulls.size() * 5 / 4));
  std::copy_n(boxes.hull.begin() + static_cast<ptrdiff_t>(e * dims), dims, hulls.begin() + static_cast<ptrdiff_t>(slot * dims));
  trees_[slot][family] |= kHullKept;
}

// One entry that holds all of a rule's. Valid as below.
const Boxes& LiveTable::bound_of(uint32_t slot, size_t family, size_t k) {
  if ((trees_[slot][family] & kHullKept) == 0) return boxes_of(slot, family, 1, k);
  Boxes& box = simple_[family][k];
  const size_t dims = box.dims();
  box.entries.resize(1);
  std::copy_n(hulls_[family].begin() + static_cast<ptrdiff_t>(slot * dims), dims, box.hull.begin());
  return box;
}

// The entries of a rule in the table's terms. Valid until the next call with this k.
const Boxes& LiveTable::boxes_of(uint32_t slot, size_t family, size_t max_entries, size_t k) {
  const forest::Table& table = copies_.back().replica->forest.tables[family];
  const RuleStore::Place place = (*store_)[slot];
  if (simple_box(table, static_cast<Family>(family), place, simple_[family][k])) return simple_[family][k];
  const RuleSet rule = alone(place);
  general_[k] = forest::make_boxes_like(table.boxes, rule, 0, 1, static_cast<Family>(family), max_entries);
  return general_[k];
}

// Fetches what is kept of a rule.
void LiveTable::prefetch_rule(uint32_t slot) const {
  __builtin_prefetch(&trees_[slot]);
  for (size_t family = 0; family < kFamilies; ++family) {
    const size_t dims = simple_[family][0].dims();
    if (size_t{slot} * dims < hulls_[family].size()) __builtin_prefetch(&hulls_[family][slot * dims]);
  }
}

// Some rules at a time: what is kept of them is fetched, then what they reach, then each is changed.
void LiveTable::change_rules(Replica& replica, Change change, std::span<const Move> rules,
                             const std::function<void()>& pause, std::array<Touched, kFamilies>& touched) {
  const bool is_new = change == Change::put_in;
  for (size_t done = 0; done < rules.size();) {
    const std::span<const Move> group = rules.subspan(done, std::min(kTogether, rules.size() - done));
    if (!is_new)
      for (const Move& rule : group) prefetch_rule(slot_number(rule.slot));
    for (size_t family = 0; family < kFamilies; ++family) {
      forest::Table& table = replica.forest.tables[family];
      TreeEditor& editor = *editor_[family];
      std::array<size_t, kTogether> end;  // of each rule's entries in reached_
      size_t n = 0;
      for (size_t k = 0; k < group.size(); end[k++] = n) {
        const uint32_t slot = slot_number(group[k].slot);
        uint8_t& trees = trees_[slot][family];
        if (!is_new && trees == 0) continue;
        const Boxes& boxes = is_new ? boxes_of(slot, family, kMaxBoxesOfRule, k) : bound_of(slot, family, k);
        if (is_new) table.boxes.blind |= boxes.blind;
        if (is_new && boxes.entries.size() == 1) keep_hull(family, slot, boxes, 0);
        for (size_t e = 0; e < boxes.entries.size(); ++e) {
          if (n == reached_.size()) reached_.emplace_back();
          TreeEditor::Reached& entry = reached_[n++];
          entry.boxes = &boxes;
          entry.e = e;
          entry.trees = is_new ? editor.tree_for(table, boxes, e, group[k].to, touched[family]) : trees;
          trees |= entry.trees;
        }
      }
      editor.reach(table, {reached_.data(), n});
      for (size_t k = 0, e = 0; k < group.size(); ++k)
        for (; e < end[k]; ++e) switch (change) {
            case Change::put_in: editor.insert(table, reached_[e], group[k].to, touched[family]); break;
            case Change::take_out: editor.remove(table, reached_[e], group[k].from, touched[family]); break;
            case Change::relabel:
              editor.relabel(table, reached_[e], group[k].from, group[k].to, touched[family]);
              break;
          }
    }
    done += group.size();
    if (pause && done % kChangesAPause < kTogether) pause();
  }
}

void LiveTable::edit(Replica& replica, const Update& update, const std::function<void()>& pause,
                     std::array<Touched, kFamilies>& touched) {
  const Order& before = copies_.back().replica->order;
  const std::vector<int32_t> remove = ascending(update.remove);
  std::vector<Move> gone;
  for (const int32_t position : remove) {
    const auto p = static_cast<size_t>(position);
    gone.push_back({before.slot(p), before.label(p), kNoRule});
  }
  change_rules(replica, Change::take_out, gone, pause, touched);

  std::vector<uint32_t> slots;
  if (update.rules != nullptr) {
    uint32_t slot = store_->add(update.rules);
    trees_.resize(store_->size());
    for (const uint8_t certain : update.rules->certain) {
      slots.push_back(slot++ | (certain ? 0 : kUncertain));
      replica.all_certain = replica.all_certain && certain;
    }
    const std::vector<uint32_t> intervals = intervals_of(*update.rules);
    intervals_.insert(intervals_.end(), intervals.begin(), intervals.end());
    all_intervals_ += sum_of(intervals);
    for (const Match& match : update.rules->common) replica.forest.fields.add(match);
    for (const Match& match : update.rules->alternatives) replica.forest.fields.add(match);
  }
  change_rules(replica, Change::relabel, replica.order.edit(before, remove, update.at, slots), pause, touched);

  std::vector<Move> come;
  for (size_t i = 0, removed = 0; i < slots.size(); ++i) {
    // Where it stands now: before what was at at[i], less what was removed before, plus those put in before.
    while (removed < remove.size() && remove[removed] < update.at[i]) ++removed;
    come.push_back({slots[i], kNoRule, replica.order.label(static_cast<size_t>(update.at[i]) - removed + i)});
  }
  change_rules(replica, Change::put_in, come, pause, touched);
  for (size_t family = 0; family < kFamilies; ++family) replica.arenas[family] = editor_[family]->arena();
}

}  // namespace meshsieve::live
