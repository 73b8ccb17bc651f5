// Tests of a peer's identity that Istio writes as regular expressions, answered without running them.
//
// What    namespace        .*/ns/X/.*            the segment behind "ns"; X* and *X by trees, at every place they can stand
//         service account  spiffe://.+/ns/N/(.+/|)sa/S(/.+)?     pairs of the segments behind "ns" and "sa"
//         trust domain     spiffe://A[^/]*B/.*   the text before the first slash; A by a tree of prefixes, B of suffixes
//         The quirks of the expressions stay: an identity with two "ns" segments is in two namespaces, and *a is a
//         namespace test that .../ns/x/sa/y passes by the a of "sa".
// Why     One expression a policy would make every decision linear in the policies.
// Cost    One pass over the segments. Pairs are looked up one by one: as many as "ns" times "sa" segments, one as a rule;
//         where they are more than 64, the policies' pairs are looked up in the identity instead.
// Limits  Texts of policies that hold a line feed, a slash or a star at another place than X*, *X: not `takes`n here.
//         `.` takes no line feed, so an identity that holds one passes none of these tests, but for a trust domain's
//         [^/]*, which takes it.
// Source  Istio's pilot/pkg/security/authz/model/generator.go.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "authz/hash_index.h"
#include "authz/radix.h"

namespace meshsieve::authz {

constexpr std::string_view kScheme = "spiffe://";

class PeerIndex {
 public:
  enum class Kind : uint8_t { name_space, service_account, trust_domain };

  // Texts: a namespace with its star; NAMESPACE/ACCOUNT; a trust domain with its star.
  static bool takes(Kind kind, std::string_view text);

  void add(const char* arena, Kind kind, std::string_view text, uint32_t id);
  void seal(const char* arena);
  bool empty() const { return empty_; }

  // Calls found(id) for every test that the identity passes; one id may come twice. `peer` begins with spiffe://.
  template <class Found>
  void walk(const char* arena, std::string_view peer, Found found) const {
    if (empty_) return;
    const std::string_view id = peer.substr(kScheme.size());
    const bool one_line = std::memchr(id.data(), '\n', id.size()) == nullptr;
    if (domain_prefixes_ != kNone || domain_suffixes_ != kNone) domain(arena, id, one_line, found);
    if (one_line && has_namespaces_) namespaces(arena, peer, found);
    if (one_line && has_accounts_) accounts(arena, id, found);
  }

  size_t bytes() const {
    return literals_.capacity() * sizeof(Literal) + index_.bytes() + prefixes_.bytes() + suffixes_.bytes();
  }

 private:
  struct Literal {
    uint32_t text, length, id;
    Kind kind;
  };

  template <class Found>
  void domain(const char* arena, std::string_view id, bool one_line, Found found) const {
    const size_t end = id.find('/');
    if (end == std::string_view::npos) return;
    if (!one_line && std::memchr(id.data() + end, '\n', id.size() - end) != nullptr) return;
    const auto take = [&](uint32_t test, size_t) { found(test); };
    prefixes_.walk(domain_prefixes_, arena, id.substr(0, end), take);
    suffixes_.walk(domain_suffixes_, arena, id.substr(0, end), take);
  }

  template <class Found>
  void namespaces(const char* arena, std::string_view peer, Found found) const {
    const auto take = [&](uint32_t test, size_t) { found(test); };
    const size_t last_slash = peer.rfind('/');
    size_t first = std::string_view::npos;  // behind the first /ns/
    // From slash to slash: `begin` is behind one, `end` at the next.
    for (size_t begin = peer.find('/') + 1; begin <= last_slash;) {
      const size_t end = peer.find('/', begin);
      if (first != std::string_view::npos) suffixes_.walk(namespace_suffixes_, arena, peer.substr(first, end - first), take);
      const bool is_ns = end - begin == 2 && peer[begin] == 'n' && peer[begin + 1] == 's';
      begin = end + 1;
      if (!is_ns || begin > last_slash) continue;
      if (first == std::string_view::npos) first = begin;
      look_up(arena, Kind::name_space, peer.substr(begin, peer.find('/', begin) - begin), found);
      // X* takes what begins with X and has a slash anywhere behind it.
      prefixes_.walk(namespace_prefixes_, arena, peer.substr(begin, last_slash - begin), take);
    }
  }

  template <class Found>
  void accounts(const char* arena, std::string_view id, Found found) const {
    size_t pairs = 0;
    const size_t last_sa = id.rfind("/sa/");
    if (last_sa == std::string_view::npos) return;
    for (size_t ns = id.find("/ns/", 1); ns != std::string_view::npos; ns = id.find("/ns/", ns + 1)) {
      const size_t name = ns + 4;
      const size_t name_end = id.find('/', name);
      if (name_end == std::string_view::npos || name_end > last_sa) return;
      for (size_t sa = id.find("/sa/", name_end); sa != std::string_view::npos; sa = id.find("/sa/", sa + 1)) {
        if (++pairs > kMostPairs) {
          for (const uint32_t test : accounts_of_many(arena, id)) found(test);
          return;
        }
        // Between the two: nothing, or at least one byte in front of the slash.
        if (sa == name_end + 1) continue;
        if (const std::string_view account = account_at(id, sa); account.data() != nullptr)
          pair(arena, id.substr(name, name_end - name), account, found);
      }
    }
  }
  static constexpr size_t kMostPairs = 64;
  // The segment behind the "/sa/" at `sa`; without data where a single slash follows it, which (/.+)? does not take.
  static std::string_view account_at(std::string_view id, size_t sa) {
    const size_t begin = sa + 4;
    const size_t end = std::min(id.find('/', begin), id.size());
    return end + 1 == id.size() ? std::string_view() : id.substr(begin, end - begin);
  }
  std::vector<uint32_t> accounts_of_many(const char* arena, std::string_view id) const;

  template <class Found>
  void look_up(const char* arena, Kind kind, std::string_view text, Found found) const {
    const uint32_t at = index_.find(hash_of(text, static_cast<uint64_t>(kind)), [&](uint32_t i) {
      return literals_[i].kind == kind && std::string_view(arena + literals_[i].text, literals_[i].length) == text;
    });
    if (at != HashIndex::kMissing) found(literals_[at].id);
  }
  template <class Found>
  void pair(const char* arena, std::string_view name, std::string_view account, Found found) const {
    const uint32_t at = index_.find(pair_hash(name, account), [&](uint32_t i) {
      const std::string_view text(arena + literals_[i].text, literals_[i].length);
      return literals_[i].kind == Kind::service_account && text.size() == name.size() + 1 + account.size() &&
             text.starts_with(name) && text[name.size()] == '/' && text.ends_with(account);
    });
    if (at != HashIndex::kMissing) found(literals_[at].id);
  }
  static uint64_t pair_hash(std::string_view name, std::string_view account) {
    return hash_of(account, hash_of(name, static_cast<uint64_t>(Kind::service_account)));
  }
  uint64_t hash_at(const char* arena, uint32_t i) const;

  bool empty_ = true, has_namespaces_ = false, has_accounts_ = false;
  std::vector<Literal> literals_;  // exact namespaces and service accounts
  HashIndex index_;                // of literals_
  Radix<End::front> prefixes_;
  Radix<End::back> suffixes_;
  std::vector<Radix<End::front>::Item> prefix_items_[2];  // by Kind: namespaces, trust domains; until `seal`
  std::vector<Radix<End::back>::Item> suffix_items_[2];
  uint32_t namespace_prefixes_ = kNone, namespace_suffixes_ = kNone, domain_prefixes_ = kNone, domain_suffixes_ = kNone;
};

}  // namespace meshsieve::authz
