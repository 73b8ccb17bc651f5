// Maglev: a look-up table in which every host owns its share of the slots.
//
// What     Each host has an own permutation of the M slots (offset, skip from its key). Hosts take turns: each takes its
//          next free slot, a lighter host sits out turns, until all slots are owned. pick = table[h mod M].
// Why      One load a pick; shares within 1 % at 65,537 slots and 1,000 hosts; few keys move when a host goes.
// Cost     build about M ln M steps; 2 bytes a slot below 65,536 hosts, else 4; pick: a multiplication and a load.
// Limits   M prime, at most 5,000,011 (Envoy's limits); otherwise BalanceError. No host: picks answer kNoHost.
// Example  6 hosts 127.0.0.1:90..95 and 7 slots give the table 2,4,0,1,5,0,3 (Envoy's maglev_lb_test.cc).
// Source   Eisenbud et al., NSDI 2016; envoyproxy/envoy maglev_lb.cc.
//
// Katran's table (variant `katran`) is the same idea with other numbers: MurmurHash3 of a 64-bit hash that the control
// plane keeps for each endpoint, hosts in the given order, and a weight that buys `weight` turns in the first round only.
// Source   facebookincubator/katran MaglevBase.cpp, MaglevHash.cpp (facts only).
#pragma once

#include "meshsieve/balance/host_table.h"

namespace meshsieve::balance {

inline constexpr uint32_t kMaglevMaxSize = 5000011;

class MaglevTable : public HostTable {
 public:
  // Host id of every slot; what diffs and balance reports read.
  virtual std::vector<int32_t> slots() const = 0;
};

std::shared_ptr<const MaglevTable> build_maglev(const std::vector<Share>& shares, uint32_t table_size,
                                                const Checkpoint& checkpoint);

struct KatranEndpoint {
  uint64_t hash;
  uint32_t weight;
};
std::shared_ptr<const MaglevTable> build_katran(const std::vector<KatranEndpoint>& endpoints, uint32_t table_size,
                                                const Checkpoint& checkpoint);

}  // namespace meshsieve::balance
