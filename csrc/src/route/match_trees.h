// Match trees (VirtualHost.matcher): predicates over headers that lead to groups of routes, walked as written.
//
// Order   Of a list the first entry that holds and leads to a group; of a prefix map the longest key first, then
//         shorter ones; of an exact map the one key; then on_no_match. A nested tree without a result lets the search
//         go on, and so does an entry that is to be kept (keep_matching).
// Inputs  A header; several lines are joined with a comma, other than in header matchers.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "meshsieve/route_table.h"
#include "route/predicates.h"
#include "route/string_table.h"

namespace meshsieve::route {

class MatchTrees {
 public:
  using OnMatch = RouteTableBuilder::OnMatch;

  uint32_t add_text(Source source, uint32_t matcher);
  uint32_t add_join(JoinKind kind, std::vector<uint32_t> members);
  uint32_t add_list(std::vector<std::pair<uint32_t, OnMatch>> entries, std::optional<OnMatch> no_match);
  uint32_t add_map(TreeKind kind, Source source, const std::vector<std::pair<std::string, OnMatch>>& entries,
                   std::optional<OnMatch> no_match);
  void freeze() { keys_.freeze(); }

  // The group of routes that the tree leads to, kNone for none.
  uint32_t walk(uint32_t tree, const Predicates& predicates, const RequestView& view) const;

 private:
  struct Predicate {
    bool is_text;
    Source source;
    uint32_t matcher;
    JoinKind kind;
    std::vector<uint32_t> members;
  };
  struct Tree {
    TreeKind kind;
    Source source;
    std::vector<std::pair<uint32_t, OnMatch>> entries;  // of a list: predicate; of a map: unused
    std::vector<size_t> lengths;                        // of a prefix map's keys, the longest first
    std::optional<OnMatch> no_match;
  };

  bool holds(uint32_t predicate, const Predicates& predicates, const RequestView& view) const;
  uint32_t follow(const OnMatch& on_match, const Predicates& predicates, const RequestView& view) const;

  std::vector<Predicate> predicates_;
  std::vector<Tree> trees_;
  StringTable keys_;  // tag: the tree; value: position in its entries
};

}  // namespace meshsieve::route
