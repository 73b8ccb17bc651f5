#include "authz/peer_index.h"

#include <algorithm>
#include <unordered_map>

namespace meshsieve::authz {

bool PeerIndex::takes(Kind kind, std::string_view text) {
  if (text.find('\n') != std::string_view::npos) return false;
  const auto stars = std::count(text.begin(), text.end(), '*');
  const auto slashes = std::count(text.begin(), text.end(), '/');
  const bool star_at_an_end = text.starts_with('*') || text.ends_with('*');
  switch (kind) {
    case Kind::name_space: return slashes == 0 && (stars == 0 || (stars == 1 && star_at_an_end));
    case Kind::service_account: return slashes == 1;
    case Kind::trust_domain: return slashes == 0 && stars == 1 && star_at_an_end;
  }
  return false;
}

void PeerIndex::add(const char* arena, Kind kind, std::string_view text, uint32_t id) {
  empty_ = false;
  has_namespaces_ = has_namespaces_ || kind == Kind::name_space;
  has_accounts_ = has_accounts_ || kind == Kind::service_account;
  const bool is_domain = kind == Kind::trust_domain;
  if (kind != Kind::service_account && text.ends_with('*')) {
    prefix_items_[is_domain].push_back({text.substr(0, text.size() - 1), id});
  } else if (kind != Kind::service_account && text.starts_with('*')) {
    suffix_items_[is_domain].push_back({text.substr(1), id});
  } else {
    const auto offset = static_cast<uint32_t>(text.data() - arena);
    literals_.push_back({offset, static_cast<uint32_t>(text.size()), id, kind});
    const auto last = static_cast<uint32_t>(literals_.size() - 1);
    index_.insert(hash_at(arena, last), last, [&](uint32_t i) { return hash_at(arena, i); });
  }
}

void PeerIndex::seal(const char* arena) {
  index_.seal([&](uint32_t i) { return hash_at(arena, i); });
  namespace_prefixes_ = prefixes_.add(arena, prefix_items_[0]);
  domain_prefixes_ = prefixes_.add(arena, prefix_items_[1]);
  namespace_suffixes_ = suffixes_.add(arena, suffix_items_[0]);
  domain_suffixes_ = suffixes_.add(arena, suffix_items_[1]);
  for (auto& items : prefix_items_) items = {};
  for (auto& items : suffix_items_) items = {};
  literals_.shrink_to_fit();
  prefixes_.shrink();
  suffixes_.shrink();
}

// A pair is there iff the last place of its account lies behind the first place of its namespace: at once, or with at
// least one byte between. (Places of one name are at least four bytes apart, so no other places need to be tried.)
std::vector<uint32_t> PeerIndex::accounts_of_many(const char* arena, std::string_view id) const {
  std::unordered_map<std::string_view, size_t> name_ends, account_begins;
  for (size_t ns = id.find("/ns/", 1); ns != std::string_view::npos; ns = id.find("/ns/", ns + 1)) {
    const size_t end = id.find('/', ns + 4);
    if (end != std::string_view::npos) name_ends.try_emplace(id.substr(ns + 4, end - ns - 4), end);
  }
  for (size_t sa = id.find("/sa/"); sa != std::string_view::npos; sa = id.find("/sa/", sa + 1))
    if (const std::string_view account = account_at(id, sa); account.data() != nullptr) account_begins[account] = sa;
  std::vector<uint32_t> out;
  for (const Literal& literal : literals_) {
    if (literal.kind != Kind::service_account) continue;
    const std::string_view text(arena + literal.text, literal.length);
    const size_t slash = text.find('/');
    const auto name = name_ends.find(text.substr(0, slash));
    const auto account = account_begins.find(text.substr(slash + 1));
    if (name == name_ends.end() || account == account_begins.end()) continue;
    if (account->second == name->second || account->second >= name->second + 2) out.push_back(literal.id);
  }
  return out;
}

uint64_t PeerIndex::hash_at(const char* arena, uint32_t i) const {
  const std::string_view text(arena + literals_[i].text, literals_[i].length);
  if (literals_[i].kind != Kind::service_account) return hash_of(text, static_cast<uint64_t>(literals_[i].kind));
  const size_t slash = text.find('/');
  return pair_hash(text.substr(0, slash), text.substr(slash + 1));
}

}  // namespace meshsieve::authz
