#include "route/lists.h"

#include <re2/set.h>

#include <algorithm>
#include <map>

#include "meshsieve/errors.h"
#include "route/literal_prefix.h"

namespace meshsieve::route {
namespace {

// Memory of a set's automaton: grows with the set, since a cache that is too small is rebuilt over and over.
constexpr int64_t kSetBytes = int64_t{64} << 20;
constexpr int64_t kSetBytesARegex = int64_t{64} << 10;
constexpr int64_t kMostSetBytes = int64_t{1} << 30;

uint32_t checked_index(size_t size, const char* what) {
  if (size >= 0x7FFFFFFF) throw CompileError(std::string("a route table holds at most 2^31 - 2 ") + what);
  return static_cast<uint32_t>(size);
}

}  // namespace

struct Lists::RegexSet {
  re2::RE2::Set set;
  std::vector<Entry> entries;  // in the order of the set's numbers
};

uint32_t Lists::add_regex(const std::shared_ptr<const Regex>& regex, bool raw, std::string& prefix) {
  if (const std::optional<uint32_t> program = simple_[raw].add(regex->pattern())) {
    prefix = simple_[raw].prefix(*program);
    return kSimpleBit | *program << 1 | (raw ? 1 : 0);
  }
  prefix = literal_prefix(regex->pattern());
  regexes_.push_back({regex, raw});
  return checked_index(regexes_.size() - 1, "regular expressions");
}

Lists::Made Lists::make(std::vector<BuildEntry> entries) {
  if (entries.empty()) return {};
  const auto last =
      std::find_if(entries.begin(), entries.end(), [](const BuildEntry& e) { return e.takes_everything(); });
  Made made{kNone, entries.front().route, last == entries.end() ? kNone : last->route};
  if (last != entries.end()) entries.erase(last + 1, entries.end());
  const uint32_t fan = make_fan(entries);
  const uint32_t set = make_set(entries);
  longest_ = std::max(longest_, entries.size());
  const uint32_t begin = add_entries(entries);
  if (entries.size() == 1 && fan == kNone && set == kNone) {
    made.list = begin | kSingleBit;
  } else {
    made.list = checked_index(lists_.size(), "lists");
    lists_.push_back({begin, begin + static_cast<uint32_t>(entries.size()), fan, set});
  }
  return made;
}

uint32_t Lists::add_entries(const std::vector<BuildEntry>& entries) {
  const uint32_t begin = checked_index(entries_.size(), "entries");
  for (const BuildEntry& e : entries) {
    Entry entry{e.route, e.check, 0, static_cast<uint32_t>(e.conditions.size())};
    std::vector<uint32_t> sorted = e.conditions;
    std::stable_sort(sorted.begin(), sorted.end(),
                     [&](uint32_t a, uint32_t b) { return predicates_.cost(a) < predicates_.cost(b); });
    if (sorted.size() == 1) {
      entry.conditions = sorted[0];
    } else {
      entry.conditions = checked_index(condition_lists_.size(), "conditions");
      condition_lists_.insert(condition_lists_.end(), sorted.begin(), sorted.end());
    }
    entries_.push_back(entry);
  }
  return begin;
}

// Moves entries out of the list that a text of some source decides. Each goes to the part with the most different texts
// among those it could go to.
uint32_t Lists::make_fan(std::vector<BuildEntry>& entries) {
  if (entries.size() < kFanFrom) return kNone;
  using Part = std::pair<Source, StringMatcher::Kind>;
  std::map<Part, std::map<std::string_view, size_t>> texts;
  for (const BuildEntry& e : entries)
    for (const uint32_t condition : e.conditions)
      if (const StringMatcher* m = predicates_.decisive(condition))
        ++texts[{predicates_.source_of(condition), m->kind}][m->value];
  std::map<Part, std::map<std::string_view, std::vector<BuildEntry>>> moved;
  std::vector<BuildEntry> stay;
  for (BuildEntry& e : entries) {
    size_t best = 1, chosen = e.conditions.size();
    for (size_t i = 0; i < e.conditions.size(); ++i) {
      const StringMatcher* m = predicates_.decisive(e.conditions[i]);
      if (m == nullptr) continue;
      const size_t different = texts[{predicates_.source_of(e.conditions[i]), m->kind}].size();
      if (different > best) best = different, chosen = i;
    }
    if (chosen == e.conditions.size()) {
      stay.push_back(std::move(e));
      continue;
    }
    const uint32_t condition = e.conditions[chosen];
    const StringMatcher* m = predicates_.decisive(condition);
    const Part part{predicates_.source_of(condition), m->kind};
    e.conditions.erase(e.conditions.begin() + static_cast<ptrdiff_t>(chosen));
    moved[part][m->value].push_back(std::move(e));
  }
  entries = std::move(stay);
  if (moved.empty()) return kNone;
  std::vector<FanPart> parts;
  for (auto& [part, lists] : moved) {
    FanPart made{part.first, part.second, tags_++, {}};
    for (auto& [text, members] : lists) {
      if (part.second != StringMatcher::Kind::exact) made.lengths.push_back(static_cast<uint32_t>(text.size()));
      postings_.put(made.tag, text, make(std::move(members)).list);
    }
    std::sort(made.lengths.begin(), made.lengths.end());
    made.lengths.erase(std::unique(made.lengths.begin(), made.lengths.end()), made.lengths.end());
    parts.push_back(std::move(made));
  }
  fans_.push_back(std::move(parts));
  return checked_index(fans_.size() - 1, "fans");
}

uint32_t Lists::make_set(std::vector<BuildEntry>& entries) {
  const auto fits = [](const BuildEntry& e) { return e.regex != nullptr; };
  size_t n = 0, cost = 0;
  for (const BuildEntry& e : entries) {
    if (!fits(e)) continue;
    ++n;
    cost += e.check & kSimpleBit ? 1 : kRegexCost;
  }
  if (cost < kSetFrom) return kNone;
  re2::RE2::Options options(re2::RE2::Latin1);
  options.set_log_errors(false);
  options.set_max_mem(std::min(kMostSetBytes, kSetBytes + static_cast<int64_t>(n) * kSetBytesARegex));
  re2::RE2::Set set(options, re2::RE2::ANCHOR_BOTH);
  std::vector<BuildEntry> members, stay;
  for (const BuildEntry& e : entries) {
    if (!fits(e)) {
      stay.push_back(e);
      continue;
    }
    if (set.Add(e.regex->pattern(), nullptr) < 0) return kNone;
    members.push_back(e);
  }
  if (!set.Compile()) return kNone;
  const uint32_t begin = add_entries(members);
  std::vector<Entry> own(entries_.begin() + begin, entries_.end());
  entries_.resize(begin);
  sets_.push_back(std::make_shared<RegexSet>(RegexSet{std::move(set), std::move(own)}));
  entries = std::move(stay);
  return checked_index(sets_.size() - 1, "sets");
}

bool Lists::conditions_hold(const Entry& entry, const Candidate& candidate) const {
  if (entry.n_conditions == 0) return true;
  if (entry.n_conditions == 1) return predicates_.holds(entry.conditions, candidate.view, candidate.facts);
  for (uint32_t i = 0; i < entry.n_conditions; ++i)
    if (!predicates_.holds(condition_lists_[entry.conditions + i], candidate.view, candidate.facts)) return false;
  return true;
}

bool Lists::check_holds(const Entry& entry, const Candidate& candidate) const {
  if (entry.check == kNone) return true;
  if (entry.check & kSimpleBit) {
    const bool raw = entry.check & 1;
    return simple_[raw].matches((entry.check & ~kSimpleBit) >> 1, raw ? candidate.view.path() : candidate.match_path);
  }
  const PathRegex& check = regexes_[entry.check];
  return check.regex->full_match(check.raw ? candidate.view.path() : candidate.match_path);
}

void Lists::search(uint32_t reference, const Candidate& candidate, uint32_t& best) const {
  if (reference & kSingleBit) {
    const Entry& entry = entries_[reference & ~kSingleBit];
    if (entry.route < best && conditions_hold(entry, candidate) && check_holds(entry, candidate)) best = entry.route;
    return;
  }
  const List& list = lists_[reference];
  if (list.fan != kNone) search_fan(list.fan, candidate, best);
  for (uint32_t i = list.begin; i < list.end && entries_[i].route < best; ++i)
    if (conditions_hold(entries_[i], candidate) && check_holds(entries_[i], candidate)) best = entries_[i].route;
  if (list.set != kNone) search_set(*sets_[list.set], candidate, best);
}

void Lists::search_fan(uint32_t fan, const Candidate& candidate, uint32_t& best) const {
  for (const FanPart& part : fans_[fan]) {
    const auto probe = [&](std::string_view text) {
      if (const uint32_t list = postings_.find(part.tag, text); list != kNone) search(list, candidate, best);
    };
    predicates_.each_text(part.source, candidate.view, [&](std::string_view text) {
      if (part.kind == StringMatcher::Kind::exact) probe(text);
      for (const uint32_t length : part.lengths) {
        if (length > text.size()) break;
        probe(part.kind == StringMatcher::Kind::prefix ? text.substr(0, length) : text.substr(text.size() - length));
      }
      return false;
    });
  }
}

void Lists::search_set(const RegexSet& set, const Candidate& candidate, uint32_t& best) const {
  if (set.entries.front().route >= best) return;
  thread_local std::vector<int> found;
  re2::RE2::Set::ErrorInfo error{};
  const re2::StringPiece path(candidate.match_path.data(), candidate.match_path.size());
  const bool any = set.set.Match(path, &found, &error);
  if (!any && error.kind != re2::RE2::Set::kNoError) {  // out of memory: each by itself
    for (const Entry& entry : set.entries) {
      if (entry.route >= best) return;
      if (conditions_hold(entry, candidate) && check_holds(entry, candidate)) best = entry.route;
    }
    return;
  }
  if (!any) return;
  for (const int number : found) {
    const Entry& entry = set.entries[static_cast<size_t>(number)];
    if (entry.route < best && conditions_hold(entry, candidate)) best = entry.route;
  }
}

size_t Lists::bytes() const {
  return entries_.size() * sizeof(Entry) + condition_lists_.size() * sizeof(uint32_t) + lists_.size() * sizeof(List) +
         postings_.bytes() + simple_[0].bytes() + simple_[1].bytes();
}

}  // namespace meshsieve::route
