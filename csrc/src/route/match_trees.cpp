#include "route/match_trees.h"

#include <algorithm>
#include <functional>

namespace meshsieve::route {
namespace {

// Whether the request has the input; `out` is one line itself or points into `joined`.
bool input(Source source, const Predicates& predicates, const RequestView& view, std::string& joined,
           std::string_view& out) {
  size_t lines = 0;
  predicates.each_text(source, view, [&](std::string_view text) {
    if (lines++ == 0) {
      out = text;
    } else {
      if (lines == 2) joined = out;
      joined.push_back(',');
      joined.append(text);
    }
    return false;
  });
  if (lines > 1) out = joined;
  return lines > 0;
}

}  // namespace

uint32_t MatchTrees::add_text(Source source, uint32_t matcher) {
  predicates_.push_back({true, source, matcher, JoinKind::all, {}});
  return static_cast<uint32_t>(predicates_.size() - 1);
}

uint32_t MatchTrees::add_join(JoinKind kind, std::vector<uint32_t> members) {
  predicates_.push_back({false, {}, 0, kind, std::move(members)});
  return static_cast<uint32_t>(predicates_.size() - 1);
}

uint32_t MatchTrees::add_list(std::vector<std::pair<uint32_t, OnMatch>> entries, std::optional<OnMatch> no_match) {
  trees_.push_back({TreeKind::list, {}, std::move(entries), {}, no_match});
  return static_cast<uint32_t>(trees_.size() - 1);
}

uint32_t MatchTrees::add_map(TreeKind kind, Source source, const std::vector<std::pair<std::string, OnMatch>>& entries,
                             std::optional<OnMatch> no_match) {
  Tree tree{kind, source, {}, {}, no_match};
  const uint32_t number = static_cast<uint32_t>(trees_.size());
  for (const auto& [key, on_match] : entries) {
    keys_.put(number, key, static_cast<uint32_t>(tree.entries.size()));
    tree.entries.push_back({0, on_match});
    tree.lengths.push_back(key.size());
  }
  std::sort(tree.lengths.begin(), tree.lengths.end(), std::greater<>());
  tree.lengths.erase(std::unique(tree.lengths.begin(), tree.lengths.end()), tree.lengths.end());
  trees_.push_back(std::move(tree));
  return number;
}

bool MatchTrees::holds(uint32_t predicate, const Predicates& predicates, const RequestView& view) const {
  const Predicate& p = predicates_[predicate];
  if (p.is_text) {
    std::string joined;
    std::string_view text;
    return input(p.source, predicates, view, joined, text) && predicates.matcher_holds(p.matcher, text);
  }
  const auto member = [&](uint32_t m) { return holds(m, predicates, view); };
  switch (p.kind) {
    case JoinKind::all: return std::all_of(p.members.begin(), p.members.end(), member);
    case JoinKind::any: return std::any_of(p.members.begin(), p.members.end(), member);
    case JoinKind::negation: break;
  }
  return !member(p.members[0]);
}

uint32_t MatchTrees::follow(const OnMatch& on_match, const Predicates& predicates, const RequestView& view) const {
  return on_match.is_tree ? walk(on_match.number, predicates, view) : on_match.number;
}

uint32_t MatchTrees::walk(uint32_t number, const Predicates& predicates, const RequestView& view) const {
  const Tree& tree = trees_[number];
  uint32_t group = kNone;
  const auto leads = [&](const OnMatch& on_match) {
    group = follow(on_match, predicates, view);
    if (on_match.keep) group = kNone;
    return group != kNone;
  };
  if (tree.kind == TreeKind::list) {
    for (const auto& [predicate, on_match] : tree.entries)
      if (holds(predicate, predicates, view) && leads(on_match)) return group;
  } else {
    std::string joined;
    std::string_view text;
    if (input(tree.source, predicates, view, joined, text)) {
      for (const size_t length : tree.lengths) {
        if (tree.kind == TreeKind::exact ? length != text.size() : length > text.size()) continue;
        const uint32_t entry = keys_.find(number, text.substr(0, length));
        if (entry != kNone && leads(tree.entries[entry].second)) return group;
      }
    }
  }
  return tree.no_match ? follow(*tree.no_match, predicates, view) : kNone;
}

}  // namespace meshsieve::route
