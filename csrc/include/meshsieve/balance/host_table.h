// What every exact balancer compiles to: a frozen function from a 64-bit hash to a host.
//
// What     pick(h, attempt) answers the host id of hash h, kNoHost when there is none. Ids are the caller's: the index
//          into the list of hosts the table was made from.
// Threads  immutable; held as shared_ptr<const HostTable>; an update is a new table and one pointer swap.
// Errors   none at run time. The builders throw BalanceError for what Envoy refuses too.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace meshsieve::balance {

inline constexpr int32_t kNoHost = -1;

// One host as a hash table sees it. weight: its share of the keys, > 0; the shares of a table need not sum to 1
// (a locality without a usable host keeps its part: spec of Envoy's locality weights).
struct Share {
  std::string key;
  double weight;
  int32_t id;
};

class HostTable {
 public:
  virtual ~HostTable() = default;

  // attempt: 0 for the first try of a request; a retry asks again with 1, 2, ...
  virtual int32_t pick(uint64_t h, uint32_t attempt) const noexcept = 0;
  virtual void pick_batch(const uint64_t* h, size_t n, uint32_t attempt, int32_t* out) const noexcept;
  virtual size_t bytes() const noexcept = 0;
};

// Called every few milliseconds of a build; it may throw to end it (Ctrl-C).
using Checkpoint = std::function<void()>;
inline constexpr uint32_t kStepsBetweenChecks = 1 << 16;

using HostTablePtr = std::shared_ptr<const HostTable>;

// No host for any hash.
HostTablePtr empty_table();

// Envoy's priorities in front of hash tables: residue h mod 100 names the level, and the same h picks in its table.
// A null table has no host to give.
inline constexpr size_t kPriorityResidues = 100;
HostTablePtr level_table(const std::array<uint8_t, kPriorityResidues>& level_of, std::vector<HostTablePtr> levels);

// Cumulative weights: v mod (sum of weights), then the first bound above it. Envoy's weighted clusters; NSX's IP hash.
// throws BalanceError if no weight is above 0 or the sum passes 2^32 - 1
HostTablePtr cumulative_table(const std::vector<uint64_t>& weights);

// Uniform: h mod n, Envoy's random balancer once the random value is known.
HostTablePtr uniform_table(int32_t n_hosts);

// Envoy's bounded loads (hash_balance_factor): the pick of `table` unless that host is over its share of the requests
// now active; then the first of a shuffle seeded by h that is not, else the least overloaded.
//   shares   the table's hosts in the order of the configuration
//   active   requests active now, by host id; factor in percent, >= 100
int32_t pick_bounded(const HostTable& table, const std::vector<Share>& shares, const std::vector<uint64_t>& active,
                     uint32_t factor, uint64_t h, uint32_t attempt);

}  // namespace meshsieve::balance
