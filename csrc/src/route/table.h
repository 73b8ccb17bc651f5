// The compiled table behind RouteTable: what build() leaves and look-ups read.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "meshsieve/route_table.h"
#include "route/domains.h"
#include "route/lists.h"
#include "route/match_trees.h"
#include "route/path_tree.h"
#include "route/predicates.h"

namespace meshsieve::route {

// Routes that are looked up together: those of a virtual host, or those that an action of a match tree names.
struct Group {
  // Trees over the path as it is compared, over its folded text, and over the raw path (URI templates, where path
  // parameters are ignored for the rest).
  uint32_t root[3] = {kNone, kNone, kNone};
  uint32_t connect = kNone;  // list of connect matchers
};

struct Host {
  Group group;
  uint32_t tree = kNone;
  RequireTls require_tls = RequireTls::none;
};

class Table final : public RouteTable {
 public:
  explicit Table(RouteTableBuilder::Settings settings);

  RouteAnswer lookup(const RequestView& view, const int64_t* facts) const override;
  int32_t find(std::string_view authority, std::string_view target, std::string_view method,
               std::span<const HeaderLine> lines) const override;
  void lookup_batch(const RequestBatch& batch, const int64_t* facts, size_t contexts, const int64_t* rows,
                    size_t begin, size_t end, int32_t* routes, int32_t* hosts) const override;
  const HeaderNames& names() const override { return predicates.names(); }
  size_t fact_count() const override { return settings.default_facts.size(); }
  RouteTableStats stats() const override;

  RouteTableBuilder::Settings settings;
  Predicates predicates;
  Lists lists;
  PathTrees trees;
  MatchTrees match_trees;
  Domains domains;
  std::vector<Host> hosts;
  std::vector<Group> groups;  // of match trees
  std::optional<Source> vhost_source;  // of vhost_header
  int32_t internal_header = -1;        // x-envoy-internal
  size_t n_routes = 0;

 private:
  struct Lane;

  void begin(Lane& lane) const;         // the text that chooses the host, and its hash
  bool choose_host(Lane& lane) const;   // false: answered without looking at routes
  void choose_group(Lane& lane) const;
  void start_walk(Lane& lane) const;
  bool next_walk(Lane& lane) const;     // on to the next tree of the group
  void settle(Lane& lane) const;
  RouteAnswer answer(Lane& lane) const; // all of the above, one after another
};

}  // namespace meshsieve::route
