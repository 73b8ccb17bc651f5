#include "authz/tests.h"

#include <algorithm>
#include <cstring>

#include "meshsieve/errors.h"

namespace meshsieve::authz {
namespace {

constexpr size_t kMaxTests = size_t{1} << 30;
constexpr size_t kMaxText = 0xffffffffu;

bool keyed(Field field) { return field >= Field::header; }
bool in_context(Field field) { return field > Field::header; }

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }

std::string_view folded(std::string_view text, std::string& into) {
  into.resize(text.size());
  std::transform(text.begin(), text.end(), into.begin(), lower);
  return into;
}

uint32_t word_at(std::string_view text, size_t i) {
  uint32_t word = 0;
  for (size_t k = 0; k < 4; ++k) word = word << 8 | static_cast<uint8_t>(text[i + k]);
  return word;
}

PrefixTable::Prefix prefix_of(std::string_view text) {
  const auto half = [&](size_t i) { return uint64_t{word_at(text, i)} << 32 | word_at(text, i + 4); };
  return {text[16] == 6, {half(0), half(8)}, static_cast<uint8_t>(text[17])};
}

U128 last_of(const PrefixTable::Prefix& prefix) {
  const int host = (prefix.is_v6 ? 128 : 32) - prefix.bits;
  const auto ones = [](int n) { return n <= 0 ? 0 : n >= 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1; };
  return {prefix.address.hi | ones(host - 64), prefix.address.lo | ones(host)};
}

std::string port_text(uint32_t low, uint32_t high) {
  std::string text;
  for (const uint32_t port : {low, high})
    for (int shift = 24; shift >= 0; shift -= 8) text.push_back(static_cast<char>(port >> shift));
  return text;
}

size_t address_index(Field field) { return static_cast<size_t>(field) - static_cast<size_t>(Field::source_ip); }

PeerIndex::Kind peer_kind(Op op) {
  return op == Op::name_space        ? PeerIndex::Kind::name_space
         : op == Op::service_account ? PeerIndex::Kind::service_account
                                     : PeerIndex::Kind::trust_domain;
}

}  // namespace

uint32_t Tests::key(Field field, bool fold, const std::string& name) {
  const auto [found, fresh] = key_of_.try_emplace({field, fold, name}, static_cast<uint32_t>(keys_.size()));
  if (!fresh) return found->second;
  if (keys_.empty())
    for (auto& pair : plain_) pair[0] = pair[1] = kNone;
  Key key{field, fold, 0};
  if (!keyed(field)) {
    plain_[static_cast<size_t>(field)][fold] = found->second;
  } else {
    auto& by_slot = in_context(field) ? context_keys_ : header_keys_;
    if (in_context(field)) {
      key.slot = context_slots_.try_emplace({field, name}, static_cast<uint32_t>(context_slots_.size())).first->second;
    } else {
      key.slot = static_cast<uint32_t>(header_names_.slot(name));
    }
    if (by_slot.size() <= key.slot) by_slot.resize(key.slot + 1, {kNone, kNone});
    by_slot[key.slot][fold] = found->second;
  }
  keys_.push_back(key);
  return found->second;
}

uint32_t Tests::intern(uint32_t key, Op op, std::string_view text) {
  std::string small;
  if (keys_[key].fold) text = folded(text, small);
  if (const uint32_t found = find(key, op, text); found != kNone) return found;
  if (tests_.size() >= kMaxTests || arena_.size() + text.size() > kMaxText)
    throw CompileError("too many or too long texts in policies: at most 2^30 tests and 4 GiB");
  const auto test = static_cast<uint32_t>(tests_.size());
  tests_.push_back({static_cast<uint32_t>(arena_.size()), static_cast<uint32_t>(text.size()), key, op});
  arena_.insert(arena_.end(), text.begin(), text.end());
  index_.insert(hash_of(text, seed(key, op)), test, [&](uint32_t t) {
    return hash_of(this->text(tests_[t]), seed(tests_[t].key, tests_[t].op));
  });
  if (op == Op::regex) {
    // Folded keys take no regular expressions: folding would change the expression.
    regexes_.try_emplace(test, std::string(text));
  }
  if (op == Op::present) keys_[key].present = test;
  if (op == Op::any) keys_[key].any = test;
  return test;
}

uint32_t Tests::find(uint32_t key, Op op, std::string_view text) const {
  return index_.find(hash_of(text, seed(key, op)), [&](uint32_t t) {
    return tests_[t].key == key && tests_[t].op == op && this->text(tests_[t]) == text;
  });
}

std::vector<float> Tests::chances(const std::vector<uint32_t>& mentions) const {
  // How much of what policies name lies under each text: of a key's sorted texts, those a prefix begins are neighbours.
  std::vector<float> chance(tests_.size(), 1.0f);
  const auto weigh = [&](std::vector<std::pair<std::string_view, uint32_t>>& items, Op wide, bool reversed) {
    std::sort(items.begin(), items.end());
    std::vector<uint64_t> sum(items.size() + 1);
    for (size_t i = 0; i < items.size(); ++i) sum[i + 1] = sum[i] + mentions[items[i].second];
    // Requests may hold what no policy names, so few mentions say less than their share.
    const auto all = static_cast<float>(sum.back()) + 8.0f;
    for (size_t i = 0; i < items.size(); ++i) {
      const Test& test = tests_[items[i].second];
      if (reversed && test.op != wide) continue;
      size_t end = i + 1;
      if (test.op == wide || test.op == Op::path_template) {
        const std::string_view text = items[i].first;
        end = static_cast<size_t>(std::partition_point(items.begin() + static_cast<ptrdiff_t>(i), items.end(),
                                                       [&](const auto& item) { return item.first.starts_with(text); }) -
                                  items.begin());
      }
      chance[items[i].second] = (static_cast<float>(sum[end] - sum[i]) + 0.5f) / all;
    }
  };
  std::vector<std::vector<std::pair<std::string_view, uint32_t>>> forward(keys_.size()), backward(keys_.size());
  std::vector<std::string> reversed(tests_.size());
  std::vector<uint64_t> sums(keys_.size() * kOps);
  for (uint32_t t = 0; t < tests_.size(); ++t) {
    const Test& test = tests_[t];
    const std::string_view text = this->text(test);
    sums[test.key * kOps + static_cast<size_t>(test.op)] += mentions[t];
    if (test.op == Op::exact || test.op == Op::prefix) forward[test.key].emplace_back(text, t);
    if (test.op == Op::path_template) forward[test.key].emplace_back(text.substr(0, text.find('{')), t);
  }
  std::vector<bool> has_suffix(keys_.size());
  for (const Test& test : tests_) has_suffix[test.key] = has_suffix[test.key] || test.op == Op::suffix;
  for (uint32_t t = 0; t < tests_.size(); ++t) {
    const Test& test = tests_[t];
    if (!has_suffix[test.key] || (test.op != Op::exact && test.op != Op::suffix)) continue;
    const std::string_view text = this->text(test);
    reversed[t].assign(text.rbegin(), text.rend());
    backward[test.key].emplace_back(reversed[t], t);
  }
  for (auto& items : forward) weigh(items, Op::prefix, false);
  for (auto& items : backward) weigh(items, Op::suffix, true);
  // Networks likewise: what lies inside follows in order of addresses.
  std::vector<std::pair<PrefixTable::Prefix, uint32_t>> networks;
  for (uint32_t t = 0; t < tests_.size(); ++t)
    if (tests_[t].op == Op::network) networks.emplace_back(prefix_of(text(tests_[t])), t);
  std::sort(networks.begin(), networks.end());
  std::vector<uint64_t> sum(networks.size() + 1);
  for (size_t i = 0; i < networks.size(); ++i) sum[i + 1] = sum[i] + mentions[networks[i].second];
  for (size_t i = 0; i < networks.size(); ++i) {
    const auto inside = [last = last_of(networks[i].first), v6 = networks[i].first.is_v6](const auto& item) {
      return item.first.is_v6 == v6 && item.first.address <= last;
    };
    const auto end = std::partition_point(networks.begin() + static_cast<ptrdiff_t>(i), networks.end(), inside);
    const auto covered = static_cast<float>(sum[static_cast<size_t>(end - networks.begin())] - sum[i]);
    chance[networks[i].second] = (covered + 0.5f) / (static_cast<float>(sum.back()) + 8.0f);
  }
  for (uint32_t t = 0; t < tests_.size(); ++t) {
    const Op op = tests_[t].op;
    if (op < Op::name_space || op == Op::network) continue;
    const uint64_t all = sums[tests_[t].key * kOps + static_cast<size_t>(op)];
    chance[t] = (static_cast<float>(mentions[t]) + 0.5f) / (static_cast<float>(all) + 8.0f);
  }
  return chance;
}

void Tests::finish() {
  if (keys_.empty()) key(Field::path, false, "");
  arena_.shrink_to_fit();
  tests_.shrink_to_fit();
  const char* arena = arena_.data();
  std::vector<std::vector<Radix<End::front>::Item>> prefixes(keys_.size());
  std::vector<std::vector<Radix<End::back>::Item>> suffixes(keys_.size());
  std::vector<Radix<End::back>::Item> peer_suffixes;
  for (uint32_t t = 0; t < tests_.size(); ++t) {
    const Test& test = tests_[t];
    const std::string_view text = this->text(test);
    switch (test.op) {
      case Op::prefix: prefixes[test.key].push_back({text, t}); break;
      case Op::suffix: suffixes[test.key].push_back({text, t}); break;
      case Op::peer_suffix: peer_suffixes.push_back({text, t}); break;
      case Op::path_template: templates_.add(arena, text, t); break;
      case Op::name_space:
      case Op::service_account:
      case Op::trust_domain: peers_.add(arena, peer_kind(test.op), text, t); break;
      case Op::ports:
        if (const uint32_t low = word_at(text, 0), high = word_at(text, 4); low != high)
          port_ranges_.push_back({low, high, t});
        break;
      default: break;
    }
  }
  for (size_t k = 0; k < keys_.size(); ++k) {
    keys_[k].prefixes = prefixes_.add(arena, prefixes[k]);
    keys_[k].suffixes = suffixes_.add(arena, suffixes[k]);
  }
  peer_suffixes_ = suffixes_.add(arena, peer_suffixes);
  templates_.plant(arena, suffixes_);
  peers_.finish(arena);
  prefixes_.shrink();
  suffixes_.shrink();
  finish_networks();
}

void Tests::finish_networks() {
  std::map<PrefixTable::Prefix, uint32_t> position;
  for (uint32_t t = 0; t < tests_.size(); ++t) {
    if (tests_[t].op != Op::network) continue;
    const PrefixTable::Prefix prefix = prefix_of(text(tests_[t]));
    const auto at = position.try_emplace(prefix, static_cast<uint32_t>(network_.size())).first->second;
    if (at == network_.size()) network_.emplace_back();
    network_[at].test[address_index(keys_[tests_[t].key].field)] = t;
  }
  std::vector<std::pair<U128, uint32_t>> open;  // last address and position, from wide to narrow
  std::vector<PrefixTable::Change> changes;
  bool v6 = false;
  for (const auto& [prefix, at] : position) {
    if (prefix.is_v6 != v6) open.clear();
    v6 = prefix.is_v6;
    while (!open.empty() && open.back().first < prefix.address) open.pop_back();
    if (!open.empty()) network_[at].parent = open.back().second;
    open.emplace_back(last_of(prefix), at);
    changes.push_back({prefix, at});
  }
  networks_.apply(changes);
}

template <class Pass>
void Tests::match_text(uint32_t key, std::string_view value, Pass pass) const {
  if (key == kNone) return;
  const Key& k = keys_[key];
  if (k.present != kNone) pass(k.present);
  if (k.any != kNone && !value.empty() && value.find('\n') == std::string_view::npos) pass(k.any);
  if (const uint32_t test = find(key, Op::exact, value); test != kNone) pass(test);
  const auto take = [&](uint32_t test, size_t) { pass(test); };
  prefixes_.walk(k.prefixes, arena_.data(), value, take);
  suffixes_.walk(k.suffixes, arena_.data(), value, take);
}

template <class Pass>
void Tests::match_field(Field field, std::string_view value, AuthzScratch::State& state, Pass pass) const {
  const auto& keys = plain_[static_cast<size_t>(field)];
  match_text(keys[0], value, pass);
  if (keys[1] != kNone) match_text(keys[1], folded(value, state.folded), pass);
}

template <class Pass>
void Tests::match_keyed(uint32_t key, std::string_view value, std::string& small, Pass pass) const {
  if (key != kNone) match_text(key, keys_[key].fold ? folded(value, small) : value, pass);
}

template <class Pass>
void Tests::match_address(size_t which, const Address& address, Pass pass) const {
  if (address.version == 0) return;
  for (const uint32_t k : plain_[which + static_cast<size_t>(Field::source_ip)])
    if (k != kNone && keys_[k].present != kNone) pass(keys_[k].present);
  if (network_.empty()) return;
  const int64_t found = address.version == 4 ? networks_.lookup(static_cast<uint32_t>(address.value.lo), -1)
                                             : networks_.lookup(address.value, -1);
  for (uint32_t n = found < 0 ? kNone : static_cast<uint32_t>(found); n != kNone; n = network_[n].parent)
    if (network_[n].test[which] != kNone) pass(network_[n].test[which]);
}

void Tests::collect(const Facts& facts, bool tcp, AuthzScratch::State& state) const {
  const auto pass = [&](uint32_t test) {
    if (state.passed.add(test) && covers_[test]) state.covers.push_back(test);
  };
  const char* arena = arena_.data();
  if (facts.peer.data() != nullptr) {
    match_field(Field::peer, facts.peer, state, pass);
    peers_.walk(arena, facts.peer, pass);
    const std::string_view id = facts.peer.substr(kScheme.size());
    if (peer_suffixes_ != kNone && id.find('\n') == std::string_view::npos)
      suffixes_.walk(peer_suffixes_, arena, id, [&](uint32_t test, size_t) { pass(test); });
  }
  match_address(0, facts.source_ip, pass);
  match_address(1, facts.remote_ip, pass);
  match_address(2, facts.destination_ip, pass);
  if (facts.destination_port >= 0) {
    const uint32_t key = plain_[static_cast<size_t>(Field::destination_port)][0];
    const auto port = static_cast<uint32_t>(facts.destination_port);
    if (key != kNone) {
      if (keys_[key].present != kNone) pass(keys_[key].present);
      if (const uint32_t test = find(key, Op::ports, port_text(port, port)); test != kNone) pass(test);
      for (const PortRange& range : port_ranges_)
        if (range.low <= port && port <= range.high) pass(range.test);
    }
  }
  if (facts.sni.data() != nullptr) match_field(Field::sni, facts.sni, state, pass);
  if (facts.http != nullptr && !tcp) {
    const RequestView& http = *facts.http;
    match_field(Field::method, http.method, state, pass);
    if (http.has_authority) match_field(Field::host, http.authority, state, pass);
    if (http.target.starts_with('/')) {
      match_field(Field::path, http.path(), state, pass);
      templates_.walk(arena, suffixes_, http.path(), state.templates, pass);
    }
    for (const HeaderLine& line : http.headers)
      if (static_cast<size_t>(line.slot) < header_keys_.size())
        for (const uint32_t key : header_keys_[static_cast<size_t>(line.slot)])
          match_keyed(key, line.value, state.folded, pass);
  }
  if (facts.context != nullptr) {
    const bool claims = facts.http != nullptr && !tcp;
    for (const uint32_t test : facts.context->passed)
      if (claims || keys_[tests_[test].key].field >= Field::metadata) pass(test);
  }
}

void Tests::prepare(Context& context) const {
  std::string small;
  NumberSet passed;
  for (const auto& [slot, value] : context.values)
    for (const uint32_t key : context_keys_[slot])
      match_keyed(key, value, small, [&](uint32_t test) { passed.add(test); });
  context.passed = passed.all();
}

template <class Each>
bool Tests::any_value(const Key& key, const Facts& facts, bool tcp, Each each) {
  const auto one = [&](std::string_view value, bool there) { return there && each(value); };
  const RequestView* http = tcp ? nullptr : facts.http;
  switch (key.field) {
    case Field::peer: return one(facts.peer, facts.peer.data() != nullptr);
    case Field::sni: return one(facts.sni, facts.sni.data() != nullptr);
    case Field::method: return http != nullptr && each(http->method);
    case Field::host: return http != nullptr && one(http->authority, http->has_authority);
    case Field::path: return http != nullptr && one(http->path(), http->target.starts_with('/'));
    case Field::header:
      return http != nullptr && std::any_of(http->headers.begin(), http->headers.end(), [&](const HeaderLine& line) {
               return static_cast<uint32_t>(line.slot) == key.slot && each(line.value);
             });
    case Field::claim:
    case Field::claim_text:
      if (http == nullptr) return false;
      [[fallthrough]];
    case Field::metadata:
    case Field::metadata_list:
      return facts.context != nullptr &&
             std::any_of(facts.context->values.begin(), facts.context->values.end(),
                         [&](const auto& value) { return value.first == key.slot && each(value.second); });
    default: return false;  // addresses and numbers are no texts
  }
}

bool Tests::holds(uint32_t test, const Facts& facts, bool tcp, AuthzScratch::State& state) const {
  if (state.passed.has(test)) return true;
  if (state.failed.has(test)) return false;
  const Test& asked = tests_[test];
  const Key& key = keys_[asked.key];
  const auto satisfied = [&](std::string_view value) {
    if (key.fold) value = folded(value, state.folded);
    return asked.op == Op::regex ? regexes_.at(test).full_match(value) : value.find(text(asked)) != std::string_view::npos;
  };
  const bool holds = any_value(key, facts, tcp, satisfied);
  (holds ? state.passed : state.failed).add(test);
  return holds;
}

size_t Tests::bytes() const {
  return tests_.capacity() * sizeof(Test) + index_.bytes() + prefixes_.bytes() + suffixes_.bytes() + templates_.bytes() +
         peers_.bytes() + network_.capacity() * sizeof(Network) + networks_.bytes() + covers_.size() / 8;
}

}  // namespace meshsieve::authz
