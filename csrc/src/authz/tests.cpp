#include "authz/tests.h"

#include <algorithm>
#include <cstring>

#include "meshsieve/errors.h"

namespace meshsieve::authz {
namespace {

constexpr size_t kMaxNumber = size_t{1} << 30;
constexpr size_t kMaxText = size_t{1} << 31;

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

// The text of a `ports` test of one port.
void put_port(uint32_t port, char* out) {
  for (int i = 0; i < 8; ++i) out[i] = static_cast<char>(port >> (24 - 8 * (i % 4)));
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
  const uint32_t kind = kind_of(key, op);
  const uint64_t hash = hash_of(text, kind);
  const uint32_t found =
      index_.find(hash, [&](uint32_t t) { return drafts_[t].kind == kind && draft_text(t) == text; });
  if (found != HashIndex::kMissing) return found;
  if (text.size() >= kMaxText || draft_texts_.size() + text.size() > 0xffffffffu)
    throw CompileError("the texts of policies are too long: at most 4 GiB in all");
  const auto test = static_cast<uint32_t>(drafts_.size());
  drafts_.push_back({static_cast<uint32_t>(draft_texts_.size()), static_cast<uint32_t>(text.size()), kind});
  draft_texts_.insert(draft_texts_.end(), text.begin(), text.end());
  index_.insert(hash, test, [&](uint32_t t) { return hash_of(draft_text(t), drafts_[t].kind); });
  return test;
}

std::vector<float> Tests::chances(const std::vector<uint32_t>& mentions) const {
  // How much of what policies name lies under each text: of a key's sorted texts, those a prefix begins are neighbours.
  std::vector<float> chance(drafts_.size(), 1.0f);
  const auto weigh = [&](std::vector<std::pair<std::string_view, uint32_t>>& items, Op wide, bool reversed) {
    std::sort(items.begin(), items.end());
    std::vector<uint64_t> sum(items.size() + 1);
    for (size_t i = 0; i < items.size(); ++i) sum[i + 1] = sum[i] + mentions[items[i].second];
    // Requests may hold what no policy names, so few mentions say less than their share.
    const auto all = static_cast<float>(sum.back()) + 8.0f;
    for (size_t i = 0; i < items.size(); ++i) {
      const Op op = op_of(drafts_[items[i].second].kind);
      if (reversed && op != wide) continue;
      size_t end = i + 1;
      if (op == wide || op == Op::path_template) {
        const std::string_view text = items[i].first;
        end = static_cast<size_t>(std::partition_point(items.begin() + static_cast<ptrdiff_t>(i), items.end(),
                                                       [&](const auto& item) { return item.first.starts_with(text); }) -
                                  items.begin());
      }
      chance[items[i].second] = (static_cast<float>(sum[end] - sum[i]) + 0.5f) / all;
    }
  };
  std::vector<std::vector<std::pair<std::string_view, uint32_t>>> forward(keys_.size()), backward(keys_.size());
  std::vector<std::string> reversed(drafts_.size());
  std::vector<uint64_t> sums(keys_.size() * kOps);
  std::vector<bool> has_suffix(keys_.size());
  for (uint32_t t = 0; t < drafts_.size(); ++t) {
    const Op op = op_of(drafts_[t].kind);
    const std::string_view text = draft_text(t);
    sums[drafts_[t].kind] += mentions[t];
    if (op == Op::exact || op == Op::prefix) forward[key_of(t)].emplace_back(text, t);
    if (op == Op::path_template) forward[key_of(t)].emplace_back(text.substr(0, text.find('{')), t);
    if (op == Op::suffix) has_suffix[key_of(t)] = true;
  }
  for (uint32_t t = 0; t < drafts_.size(); ++t) {
    const Op op = op_of(drafts_[t].kind);
    if (!has_suffix[key_of(t)] || (op != Op::exact && op != Op::suffix)) continue;
    const std::string_view text = draft_text(t);
    reversed[t].assign(text.rbegin(), text.rend());
    backward[key_of(t)].emplace_back(reversed[t], t);
  }
  for (auto& items : forward) weigh(items, Op::prefix, false);
  for (auto& items : backward) weigh(items, Op::suffix, true);
  // Networks likewise: what lies inside follows in order of addresses.
  std::vector<std::pair<PrefixTable::Prefix, uint32_t>> networks;
  for (uint32_t t = 0; t < drafts_.size(); ++t)
    if (op_of(drafts_[t].kind) == Op::network) networks.emplace_back(prefix_of(draft_text(t)), t);
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
  for (uint32_t t = 0; t < drafts_.size(); ++t) {
    const Op op = op_of(drafts_[t].kind);
    if (op < Op::name_space || op == Op::network) continue;
    const uint64_t all = sums[drafts_[t].kind];
    chance[t] = (static_cast<float>(mentions[t]) + 0.5f) / (static_cast<float>(all) + 8.0f);
  }
  return chance;
}

std::vector<uint32_t> Tests::place() {
  size_t next = 0;
  for (const Draft& draft : drafts_) {
    number_.push_back(static_cast<uint32_t>(next / 4));
    next += (sizeof(Record) + draft.length + 3) / 4 * 4;
    if (next / 4 > kMaxNumber) throw CompileError("the texts of policies are too long: at most 4 GiB in all");
  }
  arena_.resize(next);
  return number_;
}

void Tests::seal(const std::vector<bool>& covers) {
  if (keys_.empty()) key(Field::path, false, "");
  index_ = {};
  const auto hash_at = [&](uint32_t test) { return hash_of(text(test), record(test).kind); };
  for (uint32_t t = 0; t < drafts_.size(); ++t) {
    const uint32_t test = number_[t];
    Record record{drafts_[t].kind, drafts_[t].length, covers[t]};
    std::memcpy(arena_.data() + size_t{test} * 4, &record, sizeof record);
    std::memcpy(arena_.data() + size_t{test} * 4 + sizeof record, draft_texts_.data() + drafts_[t].text, record.length);
    const Op op = op_of(record.kind);
    const std::string_view text = this->text(test);
    Key& key = keys_[record.kind / kOps];
    switch (op) {
      case Op::present: key.present = test; break;
      case Op::any: key.any = test; break;
      case Op::exact:
        key.exact = true;
        [[fallthrough]];
      case Op::prefix:
      case Op::suffix:
      case Op::peer_suffix: index_.insert(hash_at(test), test, hash_at); break;
      case Op::ports:
        if (const uint32_t low = word_at(text, 0), high = word_at(text, 4); low != high) {
          port_ranges_.push_back({low, high, test});
        } else {
          index_.insert(hash_at(test), test, hash_at);
        }
        break;
      // Folded keys take no regular expressions: folding would change them.
      case Op::regex: regexes_.try_emplace(test, std::string(text)); break;
      case Op::path_template: templates_.add(arena(), text, test); break;
      case Op::name_space:
      case Op::service_account:
      case Op::trust_domain: peers_.add(arena(), peer_kind(op), text, test); break;
      default: break;
    }
  }
  index_.seal(hash_at);
  seal_lengths();
  templates_.seal(arena());
  peers_.seal(arena());
  seal_networks();
  drafts_ = {};
  draft_texts_ = {};
  number_ = {};
  prefixes_.shrink();
  suffixes_.shrink();
}

void Tests::seal_lengths() {
  std::vector<std::vector<uint32_t>> prefixes(keys_.size()), suffixes(keys_.size());
  std::vector<uint32_t> of_peers;
  for (const uint32_t test : number_) {
    const uint32_t key = record(test).kind / kOps;
    switch (op_of(record(test).kind)) {
      case Op::prefix: prefixes[key].push_back(test); break;
      case Op::suffix: suffixes[key].push_back(test); break;
      case Op::peer_suffix: of_peers.push_back(test); break;
      default: break;
    }
  }
  const auto choose = [&](const std::vector<uint32_t>& tests, Lengths& out, auto& trees, bool at_front) {
    std::map<uint32_t, Cut> cuts;
    for (const uint32_t test : tests) {
      const std::string_view text = this->text(test);
      Cut& cut = cuts.try_emplace(static_cast<uint32_t>(text.size())).first->second;
      cut.length = static_cast<uint32_t>(text.size());
      if (!text.empty()) cut.add(at_front ? text.back() : text.front());
    }
    if (cuts.size() <= kMostLengths) {
      for (const auto& [length, cut] : cuts) out.cuts.push_back(cut);
      return;
    }
    typename std::decay_t<decltype(trees)>::Items items;
    for (const uint32_t test : tests) items.push_back({text(test), test});
    out.root = trees.add(arena(), items);
  };
  for (size_t k = 0; k < keys_.size(); ++k) {
    choose(prefixes[k], keys_[k].prefixes, prefixes_, true);
    choose(suffixes[k], keys_[k].suffixes, suffixes_, false);
  }
  choose(of_peers, peer_suffixes_, suffixes_, false);
}

void Tests::seal_networks() {
  std::map<PrefixTable::Prefix, uint32_t> position;
  for (const uint32_t test : number_) {
    if (op_of(record(test).kind) != Op::network) continue;
    const auto at =
        position.try_emplace(prefix_of(text(test)), static_cast<uint32_t>(network_.size())).first->second;
    if (at == network_.size()) network_.emplace_back();
    network_[at].test[address_index(keys_[record(test).kind / kOps].field)] = test;
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

void Tests::probe_text(uint32_t k, std::string_view value, AuthzScratch::State& state) const {
  const Key& key = keys_[k];
  if (key.present != kNone) pass(key.present, state);
  if (key.any != kNone && !value.empty() && value.find('\n') == std::string_view::npos) pass(key.any, state);
  if (key.exact) probe(kind_of(k, Op::exact), value, state);
  for (const Cut& cut : key.prefixes.cuts) {
    if (cut.length > value.size()) break;
    if (cut.length == 0 || cut.may(value[cut.length - 1]))
      probe(kind_of(k, Op::prefix), value.substr(0, cut.length), state);
  }
  prefixes_.walk(key.prefixes.root, arena(), value, [&](uint32_t test, size_t) { pass(test, state); });
  probe_suffixes(key.suffixes, kind_of(k, Op::suffix), value, state);
}

void Tests::probe_suffixes(const Lengths& of, uint32_t kind, std::string_view value, AuthzScratch::State& state) const {
  for (const Cut& cut : of.cuts) {
    if (cut.length > value.size()) break;
    const std::string_view text = value.substr(value.size() - cut.length);
    if (text.empty() || cut.may(text[0])) probe(kind, text, state);
  }
  suffixes_.walk(of.root, arena(), value, [&](uint32_t test, size_t) { pass(test, state); });
}

void Tests::probe_keyed(uint32_t key, std::string_view value, AuthzScratch::State& state) const {
  if (key == kNone) return;
  if (keys_[key].fold) {
    if (state.folded.size() == state.n_folded) state.folded.emplace_back();
    value = folded(value, state.folded[state.n_folded++]);
  }
  probe_text(key, value, state);
}

void Tests::probe_field(Field field, std::string_view value, AuthzScratch::State& state) const {
  for (const uint32_t key : plain_[static_cast<size_t>(field)]) probe_keyed(key, value, state);
}

void Tests::look_up(AuthzScratch::State& state) const {
  state.likely.clear();
  for (uint32_t i = 0; i < state.probes.size(); ++i)
    index_.find(state.probes[i].hash, [&](uint32_t test) {
      __builtin_prefetch(&record(test));
      state.likely.emplace_back(i, test);
      return false;  // the texts are compared when all have come
    });
}

void Tests::compare(AuthzScratch::State& state) const {
  for (const auto& [i, test] : state.likely) {
    const Probe& probe = state.probes[i];
    if (record(test).kind == probe.kind && text(test) == probe.text) pass(test, state);
  }
  state.probes.clear();
  state.n_folded = 0;
}

void Tests::match_address(size_t which, const Address& address, AuthzScratch::State& state) const {
  if (address.version == 0) return;
  for (const uint32_t k : plain_[which + static_cast<size_t>(Field::source_ip)])
    if (k != kNone && keys_[k].present != kNone) pass(keys_[k].present, state);
  if (network_.empty()) return;
  const int64_t found = address.version == 4 ? networks_.lookup(static_cast<uint32_t>(address.value.lo), -1)
                                             : networks_.lookup(address.value, -1);
  for (uint32_t n = found < 0 ? kNone : static_cast<uint32_t>(found); n != kNone; n = network_[n].parent)
    if (network_[n].test[which] != kNone) pass(network_[n].test[which], state);
}

void Tests::start(const Facts& facts, bool tcp, AuthzScratch::State& state) const {
  state.passed.clear();
  state.failed.clear();
  state.covers.clear();
  if (facts.peer.data() != nullptr) {
    probe_field(Field::peer, facts.peer, state);
    const std::string_view id = facts.peer.substr(kScheme.size());
    if (!peer_suffixes_.empty() && id.find('\n') == std::string_view::npos)
      probe_suffixes(peer_suffixes_, kind_of(plain_[static_cast<size_t>(Field::peer)][0], Op::peer_suffix), id, state);
  }
  if (facts.sni.data() != nullptr) probe_field(Field::sni, facts.sni, state);
  if (const uint32_t key = plain_[static_cast<size_t>(Field::destination_port)][0];
      facts.destination_port >= 0 && key != kNone) {
    const auto number = static_cast<uint32_t>(facts.destination_port);
    put_port(number, state.port);
    if (keys_[key].present != kNone) pass(keys_[key].present, state);
    probe(kind_of(key, Op::ports), {state.port, sizeof state.port}, state);
    for (const PortRange& range : port_ranges_)
      if (range.low <= number && number <= range.high) pass(range.test, state);
  }
  if (facts.http != nullptr && !tcp) {
    const RequestView& http = *facts.http;
    probe_field(Field::method, http.method, state);
    if (http.has_authority) probe_field(Field::host, http.authority, state);
    if (http.target.starts_with('/')) probe_field(Field::path, http.path(), state);
    for (const HeaderLine& line : http.headers)
      if (static_cast<size_t>(line.slot) < header_keys_.size())
        for (const uint32_t key : header_keys_[static_cast<size_t>(line.slot)]) probe_keyed(key, line.value, state);
  }
}

void Tests::finish(const Facts& facts, bool tcp, AuthzScratch::State& state) const {
  const auto take = [&](uint32_t test) { pass(test, state); };
  const auto asked = [&](Field field) {
    const auto& keys = plain_[static_cast<size_t>(field)];
    return keys[0] != kNone || keys[1] != kNone;
  };
  compare(state);
  if (facts.peer.data() != nullptr) peers_.walk(arena(), facts.peer, take);
  if (facts.http != nullptr && !tcp) templates_.walk(arena(), facts.http->path(), take);
  if (asked(Field::source_ip)) match_address(0, facts.source_ip, state);
  if (asked(Field::remote_ip)) match_address(1, facts.remote_ip, state);
  if (asked(Field::destination_ip)) match_address(2, facts.destination_ip, state);
  if (facts.context != nullptr) {
    const bool claims = facts.http != nullptr && !tcp;
    for (const uint32_t test : facts.context->passed)
      if (claims || keys_[record(test).kind / kOps].field >= Field::metadata) pass(test, state);
  }
}

void Tests::prepare(Context& context, AuthzScratch::State& state) const {
  state.passed.clear();
  state.covers.clear();
  for (const auto& [slot, value] : context.values)
    for (const uint32_t key : context_keys_[slot]) probe_keyed(key, value, state);
  look_up(state);
  compare(state);
  context.passed = state.passed.all();
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
  const Key& key = keys_[record(test).kind / kOps];
  const Op op = op_of(record(test).kind);
  std::string small;
  const auto satisfied = [&](std::string_view value) {
    if (key.fold) value = folded(value, small);
    if (op == Op::regex) return regexes_.at(test).full_match(value);
    const std::string_view wanted = text(test);  // memmem is linear, std::string_view::find is not
    return ::memmem(value.data(), value.size(), wanted.data(), wanted.size()) != nullptr;
  };
  const bool holds = any_value(key, facts, tcp, satisfied);
  (holds ? state.passed : state.failed).add(test);
  return holds;
}

size_t Tests::bytes() const {
  return keys_.capacity() * sizeof(Key) + index_.bytes() + prefixes_.bytes() + suffixes_.bytes() + templates_.bytes() +
         peers_.bytes() + network_.capacity() * sizeof(Network) + networks_.bytes();
}

}  // namespace meshsieve::authz
