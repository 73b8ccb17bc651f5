// Look-ups: choose the host, walk the path trees, search the lists that the walk passed. A batch does each step for
// kLanes requests before the next step, so that what one waits for is fetched while others work.
#include <algorithm>

#include "route/table.h"

namespace meshsieve::route {
namespace {

constexpr size_t kLanes = 16;

bool has_upper(std::string_view text) {
  bool found = false;
  for (const char c : text) found |= c >= 'A' && c <= 'Z';
  return found;
}

void fold_into(std::string& out, std::string_view text) {
  out.assign(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c | 0x20);
}

// `/a;x/b;y` -> `/a/b`
void cut_parameters(std::string& out, std::string_view path) {
  out.clear();
  for (size_t at = 0; at < path.size();) {
    const size_t cut = std::min(path.find(';', at), path.size());
    out.append(path.substr(at, cut - at));
    at = std::min(path.find('/', cut), path.size());
  }
}

}  // namespace

struct Table::Lane {
  RequestView view;
  RequestScratch scratch;
  const int64_t* facts = nullptr;
  std::string folded_host, folded_path, cut_path;
  std::string_view name;        // what chooses the host
  bool nameless = false;        // the request lacks it
  uint64_t hash = 0;
  std::string_view match_path;  // without parameters if they are ignored
  const Group* group = nullptr;
  size_t tree = 0;              // of the group, the walk is in
  PathWalk walk;
  Passed passed;
  RouteAnswer out;
};

void Table::begin(Lane& lane) const {
  lane.out = {kNoVirtualHost, -1};
  lane.group = nullptr;
  lane.passed.clear();
  lane.walk.bound = kNone;
  lane.name = lane.view.has_authority ? lane.view.authority : std::string_view();
  if (domains.takes_all()) return;
  lane.nameless = lane.name.empty();
  if (vhost_source) {  // empty, it is a name that only * takes (measured)
    lane.nameless = true;
    lane.name = {};
    predicates.each_text(*vhost_source, lane.view, [&](std::string_view text) {
      lane.name = text;
      lane.nameless = false;
      return true;
    });
  }
  if (settings.ignore_port) {
    const size_t colon = lane.name.rfind(':');
    if (colon != std::string_view::npos && lane.name.find(']', colon) == std::string_view::npos)
      lane.name = lane.name.substr(0, colon);
  }
  if (has_upper(lane.name)) {
    fold_into(lane.folded_host, lane.name);
    lane.name = lane.folded_host;
  }
  lane.hash = domains.hash_of(lane.name);
  domains.prefetch(lane.hash);
}

bool Table::choose_host(Lane& lane) const {
  uint32_t host = 0;
  if (!domains.takes_all()) {
    host = lane.nameless ? kNone : domains.find(lane.name, lane.hash);
    if (host == kNone) return false;
  }
  lane.out = {kNoRoute, static_cast<int32_t>(host)};
  const RequireTls required = hosts[host].require_tls;
  if (required == RequireTls::none || lane.view.scheme == "https") return true;
  if (lane.view.scheme.empty()) return false;
  if (required == RequireTls::external_only)
    for (const HeaderLine& line : lane.view.headers)
      if (line.slot == internal_header && line.value == "true") return true;
  lane.out.route = kHttpsRedirect;
  return false;
}

void Table::choose_group(Lane& lane) const {
  const Host& host = hosts[static_cast<size_t>(lane.out.host)];
  if (host.tree == kNone) {
    lane.group = &host.group;
  } else if (const uint32_t group = match_trees.walk(host.tree, predicates, lane.view); group != kNone) {
    lane.group = &groups[group];
  }
}

void Table::start_walk(Lane& lane) const {
  const std::string_view path = lane.view.path();
  lane.match_path = path;
  lane.walk.node = kNone;
  lane.tree = 0;
  if (lane.group == nullptr) return;
  if (lane.view.method == "CONNECT") {
    if (lane.group->connect != kNone) lane.passed.push(lane.group->connect);
    if (!path.starts_with('/')) return;
  }
  if (path.empty()) return;
  if (settings.ignore_path_parameters && path.find(';') != std::string_view::npos) {
    cut_parameters(lane.cut_path, path);
    lane.match_path = lane.cut_path;
  }
  lane.walk.text = lane.match_path;
  lane.walk.at = 0;
  lane.walk.node = lane.group->root[0];
  if (lane.walk.node == kNone) next_walk(lane);
  else trees.prefetch(lane.walk.node);
}

bool Table::next_walk(Lane& lane) const {
  while (++lane.tree < std::size(lane.group->root)) {
    if (lane.group->root[lane.tree] == kNone) continue;
    if (lane.tree == 1) fold_into(lane.folded_path, lane.match_path);
    lane.walk.text = lane.tree == 1 ? std::string_view(lane.folded_path) : lane.view.path();
    lane.walk.at = 0;
    lane.walk.node = lane.group->root[lane.tree];
    trees.prefetch(lane.walk.node);
    return true;
  }
  lane.walk.node = kNone;
  return false;
}

void Table::settle(Lane& lane) const {
  if (lane.group == nullptr) return;
  const Candidate candidate{lane.view, lane.facts, lane.match_path};
  uint32_t best = kNone;
  lane.passed.each([&](uint32_t list) { lists.search(list, candidate, best); });
  lane.out.route = best == kNone ? kNoRoute : static_cast<int32_t>(best);
}

RouteAnswer Table::answer(Lane& lane) const {
  begin(lane);
  if (choose_host(lane)) {
    choose_group(lane);
    start_walk(lane);
    while (lane.walk.node != kNone)
      if (!trees.step(lane.walk, lane.passed) && !next_walk(lane)) break;
    settle(lane);
  }
  return lane.out;
}

RouteAnswer Table::lookup(const RequestView& view, const int64_t* facts) const {
  Lane lane;
  lane.view = view;
  lane.facts = facts;
  return answer(lane);
}

int32_t Table::find(std::string_view authority, std::string_view target, std::string_view method,
                    std::span<const HeaderLine> lines) const {
  Lane lane;
  for (const HeaderLine& line : lines) lane.scratch.add_line(predicates.names(), line.slot, line.value);
  lane.view.headers = lane.scratch.lines;
  lane.view.method = method;
  lane.view.scheme = "http";
  lane.view.authority = authority;
  lane.view.has_authority = !authority.empty();
  lane.view.target = target;
  lane.facts = settings.default_facts.data();
  if (read_request(settings.options, lane.view, lane.scratch) != Refused::no) return kRefusedRequest;
  return answer(lane).route;
}

void Table::lookup_batch(const RequestBatch& batch, const int64_t* facts, size_t contexts, const int64_t* rows,
                         size_t first, size_t last, int32_t* routes, int32_t* host_numbers) const {
  const BatchReader reader(batch, settings.options, predicates.names());
  std::vector<Lane> lanes(kLanes);
  const auto row_at = [rows](size_t i) { return rows == nullptr ? i : static_cast<size_t>(rows[i]); };
  for (size_t start = first; start < last; start += kLanes) {
    const size_t n = std::min(kLanes, last - start);
    uint32_t open[kLanes];
    size_t n_open = 0;
    for (size_t i = 0; i < n; ++i) {
      Lane& lane = lanes[i];
      if (reader.read(row_at(start + i), lane.view, lane.scratch) != Refused::no) {
        lane.out = {kRefusedRequest, -1};
        continue;
      }
      const size_t context = static_cast<size_t>(lane.view.context);
      lane.facts = facts + (context < contexts ? context : 0) * fact_count();
      begin(lane);
      open[n_open++] = static_cast<uint32_t>(i);
    }
    size_t kept = 0;
    for (size_t k = 0; k < n_open; ++k) {
      if (!choose_host(lanes[open[k]])) continue;
      open[kept++] = open[k];
    }
    n_open = kept;
    uint32_t walking[kLanes];
    size_t n_walking = 0;
    for (size_t k = 0; k < n_open; ++k) {
      Lane& lane = lanes[open[k]];
      choose_group(lane);
      start_walk(lane);
      if (lane.walk.node != kNone) walking[n_walking++] = open[k];
    }
    while (n_walking > 0) {
      kept = 0;
      for (size_t k = 0; k < n_walking; ++k) {
        Lane& lane = lanes[walking[k]];
        if (trees.step(lane.walk, lane.passed)) trees.prefetch(lane.walk.node);
        else if (!next_walk(lane)) continue;
        walking[kept++] = walking[k];
      }
      n_walking = kept;
    }
    for (size_t k = 0; k < n_open; ++k) lanes[open[k]].passed.each([&](uint32_t list) { lists.prefetch(list); });
    for (size_t k = 0; k < n_open; ++k) settle(lanes[open[k]]);
    for (size_t i = 0; i < n; ++i) {
      const size_t row = row_at(start + i);
      routes[row] = lanes[i].out.route;
      if (host_numbers != nullptr) host_numbers[row] = lanes[i].out.host;
    }
  }
}

RouteTableStats Table::stats() const {
  RouteTableStats out;
  out.hosts = hosts.size();
  out.routes = n_routes;
  out.nodes = trees.nodes();
  out.predicates = predicates.size();
  out.regexes = lists.regexes();
  out.regex_sets = lists.sets();
  out.fans = lists.fans();
  out.longest_list = lists.longest();
  out.bytes = trees.bytes() + lists.bytes() + predicates.bytes() + domains.bytes() + hosts.size() * sizeof(Host) +
              groups.size() * sizeof(Group);
  return out;
}

}  // namespace meshsieve::route
