#include "route/domains.h"

#include <algorithm>
#include <functional>

namespace meshsieve::route {

void Domains::add(const std::string& domain, uint32_t host) {
  takes_all_ = takes_all_ && domain == "*" && host == 0;
  if (domain == "*") {
    any_ = host;
  } else if (domain.starts_with('*')) {
    suffixes_.push_back(domain.size() - 1);
    table_.put(kSuffix, std::string_view(domain).substr(1), host);
  } else if (domain.ends_with('*')) {
    prefixes_.push_back(domain.size() - 1);
    table_.put(kPrefix, std::string_view(domain).substr(0, domain.size() - 1), host);
  } else {
    table_.put(kExact, domain, host);
  }
}

void Domains::freeze() {
  for (std::vector<size_t>* lengths : {&suffixes_, &prefixes_}) {
    std::sort(lengths->begin(), lengths->end(), std::greater<>());
    lengths->erase(std::unique(lengths->begin(), lengths->end()), lengths->end());
  }
  takes_all_ = takes_all_ && any_ != kNone;
  table_.freeze();
}

uint32_t Domains::find(std::string_view name, uint64_t hash) const {
  if (const uint32_t host = table_.find(hash, kExact, name); host != kNone) return host;
  for (const size_t length : suffixes_)
    if (length < name.size())
      if (const uint32_t host = table_.find(kSuffix, name.substr(name.size() - length)); host != kNone) return host;
  for (const size_t length : prefixes_)
    if (length < name.size())
      if (const uint32_t host = table_.find(kPrefix, name.substr(0, length)); host != kNone) return host;
  return any_;
}

}  // namespace meshsieve::route
