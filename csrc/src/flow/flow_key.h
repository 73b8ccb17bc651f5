// The key of a flow, the same for both directions, and its keyed hash.
#pragma once

#include <cstdint>
#include <cstring>

#include "meshsieve/packet.h"
#include "meshsieve/types.h"

namespace meshsieve {

// `low` is the endpoint with the smaller (address, port). 56 bytes without padding: compared as bytes.
struct FlowKey {
  U128 low, high;
  uint16_t low_port = 0, high_port = 0;
  uint8_t proto = 0, ip_ver = 0;
  uint16_t vlan = 0;     // only if part of the key, plus 1
  uint32_t vni = 0;      // the same
  uint32_t tunnel = 0;   // the same

  // Without a call: memcmp of 48 bytes makes one.
  bool operator==(const FlowKey& other) const {
    uint64_t a[6], b[6];
    std::memcpy(a, this, sizeof a);
    std::memcpy(b, &other, sizeof b);
    return ((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]) | (a[5] ^ b[5])) == 0;
  }
};
static_assert(sizeof(FlowKey) == 48);

// Which endpoint sent the packet.
struct DirectedKey {
  FlowKey key;
  bool from_high;
};

inline DirectedKey make_key(const U128& src, const U128& dst, uint16_t sport, uint16_t dport, uint8_t proto,
                            uint8_t ip_ver) {
  // Without branches: which end is lower is a coin toss that no predictor knows.
  const auto s = static_cast<unsigned __int128>(src.hi) << 64 | src.lo;
  const auto d = static_cast<unsigned __int128>(dst.hi) << 64 | dst.lo;
  const bool swap = (s > d) | ((s == d) & (sport > dport));
  const uint64_t mask = -static_cast<uint64_t>(swap);
  const uint64_t hi = (src.hi ^ dst.hi) & mask, lo = (src.lo ^ dst.lo) & mask;
  const auto ports = static_cast<uint16_t>((sport ^ dport) & mask);
  DirectedKey out;
  out.key.low = {src.hi ^ hi, src.lo ^ lo};
  out.key.high = {dst.hi ^ hi, dst.lo ^ lo};
  out.key.low_port = sport ^ ports;
  out.key.high_port = dport ^ ports;
  out.key.proto = proto;
  out.key.ip_ver = ip_ver;
  out.from_high = swap;
  return out;
}

// Multiply-and-fold (as wyhash does) with six secret words. Not a cryptographic hash: the secret is what keeps a sender
// from preparing collisions, and the probe limit what bounds them.
class KeyedHash {
 public:
  KeyedHash();  // random secret

  uint64_t operator()(const FlowKey& key) const {
    uint64_t tail[2];
    std::memcpy(tail, &key.low_port, 16);
    const uint64_t low = fold(key.low.lo ^ secret_[0], key.high.lo ^ secret_[1]);
    const uint64_t high = fold(key.low.hi ^ secret_[2], key.high.hi ^ secret_[3]);
    return fold(low ^ tail[0] ^ secret_[4], high ^ tail[1] ^ secret_[5]);
  }

 private:
  static uint64_t fold(uint64_t a, uint64_t b) {
    const auto product = static_cast<unsigned __int128>(a) * b;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  }
  uint64_t secret_[6];
};

}  // namespace meshsieve
