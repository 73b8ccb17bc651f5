// RouteTableBuilder: takes the configuration piece by piece and compiles each group of routes when the next begins.
#include <algorithm>

#include "meshsieve/errors.h"
#include "route/table.h"

namespace meshsieve {
namespace {

using route::Place;
using route::Predicate;
using route::StringMatcher;

std::string folded(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c | 0x20);
  return text;
}

// The trees of a group, in the order of Group::root.
enum TreeOf : size_t { kPlain, kFolded, kRaw, kTrees };

// So many expressions that need RE2 are better looked for by one automaton than each at its own place: RE2 objects that
// are used one after another are cold, some 2 us each where the automaton takes half of one for all.
constexpr size_t kGatherRegexesFrom = 512;

void gather_regexes(std::vector<route::PathItem>& items) {
  const auto needs_re2 = [](const route::PathItem& item) {
    return item.entry.regex != nullptr && !(item.entry.check & route::kSimpleBit);
  };
  if (static_cast<size_t>(std::count_if(items.begin(), items.end(), needs_re2)) < kGatherRegexesFrom) return;
  for (route::PathItem& item : items)
    if (needs_re2(item)) item.text.clear();
}

}  // namespace

struct RouteTableBuilder::State {
  explicit State(Settings settings) : table(std::make_shared<route::Table>(std::move(settings))) {}

  std::shared_ptr<route::Table> table;
  // Of the group that is being filled.
  std::vector<route::PathItem> items[kTrees];
  std::vector<route::BuildEntry> connect;

  bool of_host = false;  // or else of a match tree

  void finish_group() {
    if (table->hosts.empty()) return;
    route::Group& group = of_host ? table->hosts.back().group : table->groups.back();
    gather_regexes(items[kPlain]);
    for (size_t i = 0; i < kTrees; ++i) {
      if (!items[i].empty()) group.root[i] = table->trees.build(std::move(items[i]), table->lists);
      items[i].clear();
    }
    group.connect = table->lists.make(std::move(connect)).list;
    connect.clear();
  }
};

RouteTableBuilder::RouteTableBuilder(Settings settings) : state_(std::make_unique<State>(std::move(settings))) {
  route::Table& table = *state_->table;
  if (table.settings.vhost_header) table.vhost_source = table.predicates.header(*table.settings.vhost_header);
}

RouteTableBuilder::~RouteTableBuilder() = default;

uint32_t RouteTableBuilder::text(TextMatch kind, std::string value, bool ignore_case,
                                 std::shared_ptr<const Regex> regex) {
  return state_->table->predicates.matcher(
      {static_cast<StringMatcher::Kind>(kind), ignore_case, std::move(value), std::move(regex)});
}

uint32_t RouteTableBuilder::header_text(const std::string& name, uint32_t text, bool invert, bool missing_as_empty) {
  Predicate p{Predicate::Kind::text};
  p.source = state_->table->predicates.header(name);
  p.matcher = text, p.invert = invert, p.missing_as_empty = missing_as_empty;
  return state_->table->predicates.add(p);
}

uint32_t RouteTableBuilder::header_present(const std::string& name, bool present, bool invert, bool missing_as_empty) {
  Predicate p{Predicate::Kind::present};
  p.source = state_->table->predicates.header(name);
  p.present = present, p.invert = invert, p.missing_as_empty = missing_as_empty;
  return state_->table->predicates.add(p);
}

uint32_t RouteTableBuilder::header_range(const std::string& name, int64_t low, int64_t high, bool invert,
                                         bool missing_as_empty) {
  Predicate p{Predicate::Kind::range};
  p.source = state_->table->predicates.header(name);
  p.low = low, p.high = high, p.invert = invert, p.missing_as_empty = missing_as_empty;
  return state_->table->predicates.add(p);
}

uint32_t RouteTableBuilder::query_text(const std::string& name, uint32_t text) {
  Predicate p{Predicate::Kind::text};
  p.source = state_->table->predicates.query(name);
  p.matcher = text;
  return state_->table->predicates.add(p);
}

uint32_t RouteTableBuilder::query_present(const std::string& name, bool present) {
  Predicate p{Predicate::Kind::present};
  p.source = state_->table->predicates.query(name);
  p.present = present;
  return state_->table->predicates.add(p);
}

uint32_t RouteTableBuilder::cookie_text(const std::string& name, uint32_t text, bool invert) {
  Predicate p{Predicate::Kind::text};
  p.source = state_->table->predicates.cookie(name);
  p.matcher = text, p.invert = invert;
  return state_->table->predicates.add(p);
}

uint32_t RouteTableBuilder::grpc() { return state_->table->predicates.add(Predicate{Predicate::Kind::grpc}); }

uint32_t RouteTableBuilder::tls(bool validated, bool wanted) {
  Predicate p{Predicate::Kind::tls};
  p.low = validated ? kTlsValidated : kTlsPresented;
  p.present = wanted;
  return state_->table->predicates.add(p);
}

uint32_t RouteTableBuilder::runtime(std::optional<uint32_t> fact, int64_t numerator, int64_t denominator) {
  if (denominator <= 0 || numerator < 0) throw ModelError("a runtime fraction needs a positive denominator");
  Predicate p{Predicate::Kind::runtime};
  if (fact) p.fact = *fact;
  p.low = numerator, p.high = denominator;
  return state_->table->predicates.add(p);
}

uint32_t RouteTableBuilder::fact(uint32_t fact) {
  Predicate p{Predicate::Kind::fact};
  p.fact = fact;
  return state_->table->predicates.add(p);
}

uint32_t RouteTableBuilder::begin_host(const std::vector<std::string>& domains, RequireTls require_tls) {
  route::Table& table = *state_->table;
  const uint32_t host = static_cast<uint32_t>(table.hosts.size());
  if (host >= 0x7FFFFFFF) throw CompileError("a route table holds at most 2^31 - 2 virtual hosts");
  for (const std::string& domain : domains) table.domains.add(folded(domain), host);
  if (require_tls == RequireTls::external_only)
    table.internal_header = table.predicates.names().slot("x-envoy-internal");
  state_->finish_group();
  state_->of_host = true;
  table.hosts.push_back({{}, route::kNone, require_tls});
  return host;
}

uint32_t RouteTableBuilder::begin_group() {
  if (state_->table->hosts.empty()) throw ModelError("a group of routes needs a virtual host");
  state_->finish_group();
  state_->of_host = false;
  state_->table->groups.emplace_back();
  return static_cast<uint32_t>(state_->table->groups.size() - 1);
}

uint32_t RouteTableBuilder::add_route(PathKind kind, std::string value, bool case_sensitive,
                                      std::shared_ptr<const Regex> regex, std::vector<uint32_t> conditions) {
  route::Table& table = *state_->table;
  if (table.hosts.empty()) throw ModelError("a route needs a virtual host");
  if (table.n_routes >= 0x7FFFFFFE) throw CompileError("a route table holds at most 2^31 - 2 routes");
  if ((kind == PathKind::regex || kind == PathKind::uri_template) && regex == nullptr)
    throw ModelError("a route by regular expression needs one");
  const uint32_t number = static_cast<uint32_t>(table.n_routes++);
  route::BuildEntry entry{number, route::kNone, std::move(conditions), nullptr};
  switch (kind) {
    case PathKind::connect: state_->connect.push_back(std::move(entry)); break;
    case PathKind::exact:
    case PathKind::prefix:
    case PathKind::separated_prefix: {
      const Place place = kind == PathKind::exact    ? Place::exact
                          : kind == PathKind::prefix ? Place::prefix
                                                     : Place::separated;
      state_->items[case_sensitive ? kPlain : kFolded].push_back(
          {case_sensitive ? std::move(value) : folded(std::move(value)), place, std::move(entry)});
      break;
    }
    case PathKind::regex:
    case PathKind::uri_template: {
      // Path parameters count for templates, whatever the configuration says.
      const bool raw = kind == PathKind::uri_template && table.settings.ignore_path_parameters;
      std::string prefix;
      entry.check = table.lists.add_regex(regex, raw, prefix);
      if (!raw) entry.regex = std::move(regex);
      state_->items[raw ? kRaw : kPlain].push_back({std::move(prefix), Place::prefix, std::move(entry)});
      break;
    }
  }
  return number;
}

uint32_t RouteTableBuilder::tree_text(const std::string& header, uint32_t text) {
  return state_->table->match_trees.add_text(state_->table->predicates.header(header), text);
}

uint32_t RouteTableBuilder::tree_join(JoinKind kind, std::vector<uint32_t> members) {
  if (kind == JoinKind::negation && members.size() != 1) throw ModelError("a negation has one member");
  return state_->table->match_trees.add_join(kind, std::move(members));
}

uint32_t RouteTableBuilder::tree_list(std::vector<std::pair<uint32_t, OnMatch>> entries,
                                      std::optional<OnMatch> no_match) {
  return state_->table->match_trees.add_list(std::move(entries), no_match);
}

uint32_t RouteTableBuilder::tree_map(TreeKind kind, const std::string& header,
                                     std::vector<std::pair<std::string, OnMatch>> entries,
                                     std::optional<OnMatch> no_match) {
  return state_->table->match_trees.add_map(kind, state_->table->predicates.header(header), entries, no_match);
}

void RouteTableBuilder::set_host_tree(uint32_t tree) {
  if (state_->table->hosts.empty()) throw ModelError("a match tree needs a virtual host");
  state_->table->hosts.back().tree = tree;
}

std::shared_ptr<const RouteTable> RouteTableBuilder::build() {
  state_->finish_group();
  route::Table& table = *state_->table;
  table.trees.freeze();
  table.lists.freeze();
  table.match_trees.freeze();
  table.domains.freeze();
  return std::move(state_->table);
}

namespace route {

Table::Table(RouteTableBuilder::Settings given)
    : settings(std::move(given)), lists(predicates) {}

}  // namespace route
}  // namespace meshsieve
