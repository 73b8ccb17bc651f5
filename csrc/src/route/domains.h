// Which virtual host an authority belongs to: exact name, else the longest suffix wildcard, else the longest prefix
// wildcard, else `*`. The star takes at least one byte. No way back once a host is chosen.
//
// Cost    One probe for the name, one for each length of wildcards that occurs and is shorter than the name.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "route/string_table.h"

namespace meshsieve::route {

class Domains {
 public:
  void add(const std::string& domain, uint32_t host);  // lower case
  void freeze();

  // Whether the one host there is takes every request, even without an authority.
  bool takes_all() const { return takes_all_; }
  // `name` lower case, not empty; hash: hash_of(name).
  uint64_t hash_of(std::string_view name) const { return table_.hash(kExact, name); }
  void prefetch(uint64_t hash) const { table_.prefetch(hash); }
  uint32_t find(std::string_view name, uint64_t hash) const;
  size_t bytes() const { return table_.bytes(); }

 private:
  enum : uint32_t { kExact, kSuffix, kPrefix };

  StringTable table_;
  std::vector<size_t> suffixes_, prefixes_;  // lengths of wildcards, the longest first
  uint32_t any_ = kNone;
  bool takes_all_ = true;
};

}  // namespace meshsieve::route
