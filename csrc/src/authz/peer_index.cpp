#include "authz/peer_index.h"

#include <algorithm>

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

uint64_t PeerIndex::hash_at(const char* arena, uint32_t i) const {
  const std::string_view text(arena + literals_[i].text, literals_[i].length);
  if (literals_[i].kind != Kind::service_account) return hash_of(text, static_cast<uint64_t>(literals_[i].kind));
  const size_t slash = text.find('/');
  return pair_hash(text.substr(0, slash), text.substr(slash + 1));
}

}  // namespace meshsieve::authz
