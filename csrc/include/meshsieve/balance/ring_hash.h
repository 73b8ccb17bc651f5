// Ring hash (ketama): hosts sit on a circle of 64-bit hashes, a key belongs to the next entry clockwise.
//
// What     A host has about `scale * weight` entries, the hashes of "<key>_0", "<key>_1", ... pick = the first entry with
//          hash >= h, the first of all past the end; a retry takes the entry `attempt` places further.
// Why      Envoy's and Istio's default consistent hash. Maglev is faster and evener; a ring moves fewer keys.
// Cost     build: ring_size hashes and a sort; 12 bytes an entry and 4 a bucket; pick: one bucket of the index (about one
//          entry a bucket), searched by halving.
// Limits   minimum <= maximum <= 8,388,608 entries (Envoy's), otherwise BalanceError. No host: kNoHost.
// Example  minimum 6, maximum 6, four equal hosts: scale 6, w 0.25: targets 1.5, 3, 4.5, 6 give 2, 1, 2, 1 entries.
// Source   envoyproxy/envoy ring_hash_lb.cc; ketama (Last.fm, 2007).
#pragma once

#include "meshsieve/balance/host_table.h"

namespace meshsieve::balance {

inline constexpr uint64_t kRingMaxSize = 8388608;

enum class RingHashFunction : uint8_t { XxHash, Murmur2 };

class RingTable final : public HostTable {
 public:
  static std::shared_ptr<const RingTable> build(const std::vector<Share>& shares, uint64_t minimum, uint64_t maximum,
                                                RingHashFunction function, const Checkpoint& checkpoint);

  int32_t pick(uint64_t h, uint32_t attempt) const noexcept override;
  size_t bytes() const noexcept override;

  // Entries in the order of the circle.
  const std::vector<uint64_t>& hashes() const { return hashes_; }
  const std::vector<int32_t>& hosts() const { return hosts_; }

 private:
  void index();

  std::vector<uint64_t> hashes_;  // ascending
  std::vector<int32_t> hosts_;
  std::vector<uint32_t> bucket_begin_;  // first entry whose top bits are >= the bucket's number; one more at the end
  int bucket_shift_ = 63;
};

}  // namespace meshsieve::balance
