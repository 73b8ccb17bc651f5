#include <algorithm>
#include <map>
#include <unordered_map>

#include "authz/table_state.h"
#include "meshsieve/errors.h"

namespace meshsieve::authz {
namespace {

// A cover that more requests pass than this costs more than a column of a bitmap.
constexpr float kRare = 0.02f;
// Fewer common rules than this are not worth bitmaps.
constexpr size_t kBitmapsFrom = 128;
constexpr size_t kMaxRules = 0x7fffffff;

}  // namespace

struct AuthzBuilder::State {
  std::unique_ptr<AuthzTable::State> table = std::make_unique<AuthzTable::State>();
  Expressions expressions;
  std::vector<uint32_t> test_node;  // by test: its node
  std::vector<Node> rules;
  uint32_t n_not_allowing = 0;
  std::vector<uint32_t> group_of;  // by rule
  std::map<std::vector<uint32_t>, uint32_t> lane_of;
  std::vector<const std::vector<uint32_t>*> lane_rules;

  uint32_t lane(std::vector<uint32_t> rules);
  void group_rules();
  void hang_rules();
  void add_statistics();
};

AuthzBuilder::AuthzBuilder() : state_(std::make_unique<State>()) {}
AuthzBuilder::~AuthzBuilder() = default;

uint32_t AuthzBuilder::key(Field field, bool fold, const std::string& name) {
  return state_->table->tests.key(field, fold, name);
}

void AuthzBuilder::look_at_header(const std::string& name) { state_->table->tests.header_names().slot(name); }

uint32_t AuthzBuilder::slot(uint32_t key) const { return state_->table->tests.slot(key); }

bool AuthzBuilder::takes(Op op, std::string_view text) {
  switch (op) {
    case Op::path_template: return PathTemplates::takes(text);
    case Op::name_space: return PeerIndex::takes(PeerIndex::Kind::name_space, text);
    case Op::service_account: return PeerIndex::takes(PeerIndex::Kind::service_account, text);
    case Op::trust_domain: return PeerIndex::takes(PeerIndex::Kind::trust_domain, text);
    case Op::peer_suffix: return text.find('\n') == std::string_view::npos;
    default: return true;
  }
}

AuthzBuilder::Node AuthzBuilder::test(uint32_t key, Op op, std::string_view text) {
  const uint32_t test = state_->table->tests.intern(key, op, text);
  if (test == state_->test_node.size()) state_->test_node.push_back(state_->expressions.add(NodeKind::test, test));
  return state_->test_node[test];
}

AuthzBuilder::Node AuthzBuilder::opaque(uint32_t number) { return state_->expressions.add(NodeKind::opaque, number); }

AuthzBuilder::Node AuthzBuilder::any(std::span<const Node> nodes) { return state_->expressions.add(NodeKind::any, nodes); }

AuthzBuilder::Node AuthzBuilder::all(std::span<const Node> nodes) { return state_->expressions.add(NodeKind::all, nodes); }

AuthzBuilder::Node AuthzBuilder::negate(Node node) {
  return state_->expressions.add(NodeKind::negation, std::span<const Node>(&node, 1));
}

uint32_t AuthzBuilder::rule(Node node, bool allows) {
  State& s = *state_;
  if (s.rules.size() >= kMaxRules) throw CompileError("more than 2^31 - 1 rules");
  if (!allows && s.n_not_allowing != s.rules.size()) throw CompileError("rules that allow come last");
  s.rules.push_back(node);
  if (!allows) ++s.n_not_allowing;
  return static_cast<uint32_t>(s.rules.size() - 1);
}

uint32_t AuthzBuilder::chain(const std::vector<Step>& steps, bool tcp) {
  AuthzTable::State& table = *state_->table;
  AuthzTable::State::Chain out{tcp, {}, {}};
  const auto use = [&](std::vector<uint32_t> rules) {
    const uint32_t lane = state_->lane(std::move(rules));
    const auto found = std::find(out.lanes.begin(), out.lanes.end(), lane);
    if (found == out.lanes.end()) out.lanes.push_back(lane);
    return static_cast<uint32_t>(std::find(out.lanes.begin(), out.lanes.end(), lane) - out.lanes.begin());
  };
  // A DENY and the ALLOW behind it become one lane: the first rule that holds tells both answers.
  constexpr size_t kNowhere = ~size_t{0};
  size_t deny = kNowhere;
  for (size_t i = 0; i < steps.size(); ++i) {
    const Step& step = steps[i];
    if (step.kind == StepKind::allow && deny != kNowhere) {
      std::vector<uint32_t> both = steps[deny].rules;
      both.insert(both.end(), step.rules.begin(), step.rules.end());
      out.steps[deny].lane = use(std::move(both));
      out.steps.push_back({step.kind, out.steps[deny].lane});
      deny = kNowhere;
      continue;
    }
    out.steps.push_back({step.kind, kNone});
    if (step.kind == StepKind::deny) {
      if (deny != kNowhere) out.steps[deny].lane = use(steps[deny].rules);
      deny = i;
    } else {
      out.steps.back().lane = use(step.rules);
    }
  }
  if (deny != kNowhere) out.steps[deny].lane = use(steps[deny].rules);
  table.chains.push_back(std::move(out));
  return static_cast<uint32_t>(table.chains.size() - 1);
}

uint32_t AuthzBuilder::State::lane(std::vector<uint32_t> rules) {
  const auto [found, fresh] = lane_of.try_emplace(std::move(rules), static_cast<uint32_t>(lane_rules.size()));
  if (fresh) lane_rules.push_back(&found->first);
  return found->second;
}

std::shared_ptr<const AuthzTable> AuthzBuilder::build() {
  State& s = *state_;
  AuthzTable::State& table = *s.table;
  table.first_allow = s.n_not_allowing;
  s.group_rules();
  s.hang_rules();
  const auto slot = [&](const char* name) { return table.tests.header_names().find(name); };
  table.method_slot = slot(":method"), table.scheme_slot = slot(":scheme"), table.path_slot = slot(":path");
  table.authority_slot = slot(":authority"), table.host_slot = slot("host");
  s.add_statistics();
  auto out = std::make_shared<const AuthzTable>(std::move(s.table));
  state_ = std::make_unique<State>();
  return out;
}

// Rules that stand in the same lanes get one number: each lane splits the groups that it holds in part.
void AuthzBuilder::State::group_rules() {
  group_of.assign(rules.size(), 0);
  uint32_t n_groups = 1;
  for (const std::vector<uint32_t>* lane : lane_rules) {
    std::unordered_map<uint32_t, uint32_t> split;
    for (const uint32_t rule : *lane) {
      const auto [found, fresh] = split.try_emplace(group_of[rule], n_groups);
      if (fresh) ++n_groups;
      group_of[rule] = found->second;
    }
  }
  // Numbers that no rule has any more are left out.
  std::vector<uint32_t> number(n_groups, kNone);
  uint32_t used = 0;
  for (uint32_t& group : group_of) {
    if (number[group] == kNone) number[group] = used++;
    group = number[group];
  }
  table->groups.resize(used);
  for (const std::vector<uint32_t>* lane : lane_rules) {
    AuthzTable::State::Lane out;
    for (const uint32_t rule : *lane) out.groups.push_back(group_of[rule]);
    std::sort(out.groups.begin(), out.groups.end());
    out.groups.erase(std::unique(out.groups.begin(), out.groups.end()), out.groups.end());
    out.groups.shrink_to_fit();
    table->lanes.push_back(std::move(out));
  }
}

// Writes every rule's code and decides how requests come to it.
void AuthzBuilder::State::hang_rules() {
  Tests& tests = table->tests;
  std::vector<uint32_t> mentions(tests.size()), key_of(tests.size());
  TestFacts facts;
  facts.lazy.resize(tests.size());
  for (uint32_t t = 0; t < tests.size(); ++t) facts.lazy[t] = tests.is_lazy(t), key_of[t] = tests.key_of(t);
  const auto count = [&](const auto& self, Node at) -> void {
    const ExpressionNode& node = expressions.at(at);
    if (node.kind == NodeKind::test) ++mentions[node.value];
    if (node.kind == NodeKind::any || node.kind == NodeKind::all)
      for (const Node child : expressions.children(node)) self(self, child);
  };
  for (const Node rule : rules) count(count, rule);
  facts.chance = tests.chances(mentions);
  facts.number = tests.place();

  std::vector<Lists::Hung> hung;
  std::vector<bool> covers(tests.size());
  struct Common {
    Entry entry;
    Node node;
    std::vector<uint32_t> cover;
  };
  std::vector<std::vector<Common>> common(table->groups.size());
  CodeWriter writer(expressions, facts, table->code);
  AuthzTable::Statistics& stats = table->statistics;
  const auto hang = [&](uint32_t group, const Entry& entry, const std::vector<uint32_t>& cover) {
    for (const uint32_t test : cover) {
      hung.push_back({group, facts.number[test], entry});
      covers[test] = true;
    }
    table->groups[group].has_lists = true;
    ++stats.covered;
  };
  for (uint32_t rule = 0; rule < rules.size(); ++rule) {
    const CodeWriter::Written code = writer.write(rules[rule]);
    if (code.constant == Constant::fails) continue;
    stats.longest_code = std::max<uint64_t>(stats.longest_code, code.count);
    Cover found = cover(expressions, rules[rule], facts);
    Entry entry{rule, code.constant == Constant::holds ? kNone : code.first, kNone};
    float rarest = kNoCover;
    const auto find_need = [&](const auto& self, Node at) -> void {
      const ExpressionNode& node = expressions.at(at);
      if (node.kind == NodeKind::all)
        for (const Node child : expressions.children(node)) self(self, child);
      if (node.kind != NodeKind::test || facts.lazy[node.value] || facts.chance[node.value] >= rarest) return;
      if (found.tests.size() == 1 && found.tests[0] == node.value) return;
      rarest = facts.chance[node.value];
      entry.need = facts.number[node.value];
    };
    find_need(find_need, rules[rule]);
    if (found.chance <= kRare) {
      hang(group_of[rule], entry, found.tests);
    } else {
      if (found.chance >= kNoCover) found.tests.clear();
      common[group_of[rule]].push_back({entry, rules[rule], std::move(found.tests)});
    }
  }
  for (uint32_t g = 0; g < common.size(); ++g) {
    AuthzTable::State::Group& group = table->groups[g];
    std::vector<Node> nodes;
    for (Common& rule : common[g]) {
      const bool usable = common[g].size() >= kBitmapsFrom && Bitmaps::takes(expressions, rule.node, key_of, facts);
      if (usable) {
        nodes.push_back(rule.node);
        group.in_bitmaps.push_back(rule.entry);
      } else if (!rule.cover.empty()) {
        hang(g, rule.entry, rule.cover);
      } else {
        group.always.push_back(rule.entry);
        ++stats.always;
      }
    }
    if (!nodes.empty()) group.bitmaps = std::make_unique<Bitmaps>(expressions, nodes, key_of, facts);
    stats.in_bitmaps += nodes.size();
    group.always.shrink_to_fit();
  }
  table->lists.build(hung);
  table->code.steps.shrink_to_fit();
  stats.tests = tests.size();
  tests.seal(covers);
}

void AuthzBuilder::State::add_statistics() {
  AuthzTable::Statistics& out = table->statistics;
  out.rules = rules.size();
  out.regexes = table->tests.n_regexes();
  out.groups = table->groups.size();
  out.lanes = table->lanes.size();
  out.chains = table->chains.size();
  out.template_shapes = table->tests.template_shapes();
  out.longest_list = table->lists.longest();
  out.text_bytes = table->tests.text_bytes();
  out.test_bytes = table->tests.bytes();
  const Code& code = table->code;
  out.code_bytes = code.steps.capacity() * sizeof(authz::Step) + code.lists.capacity() * sizeof(Code::List) +
                   code.listed.capacity() * sizeof(uint32_t);
  out.list_bytes = table->lists.bytes();
  for (const auto& group : table->groups) {
    out.list_bytes += sizeof group + (group.always.capacity() + group.in_bitmaps.capacity()) * sizeof(Entry);
    if (group.bitmaps) out.bitmap_bytes += group.bitmaps->bytes();
  }
  for (const auto& lane : table->lanes) out.list_bytes += sizeof lane + lane.groups.capacity() * sizeof(uint32_t);
  for (const auto& chain : table->chains)
    out.list_bytes += sizeof chain + chain.steps.capacity() * sizeof(AuthzTable::State::ChainStep) +
                      chain.lanes.capacity() * sizeof(uint32_t);
  out.bytes = out.text_bytes + out.test_bytes + out.code_bytes + out.list_bytes + out.bitmap_bytes;
}

}  // namespace meshsieve::authz
