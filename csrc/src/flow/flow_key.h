// The key of a flow, the same for both directions, and its keyed hash.
#pragma once

#include <cstdint>

#include "meshsieve/packet.h"
#include "meshsieve/types.h"

namespace meshsieve {

// `low` is the endpoint with the smaller (address, port). Six words, compared and hashed as such: made of whole words too,
// because a word that is read right after its parts were written waits for them.
struct FlowKey {
  U128 low, high;
  uint64_t rest = 0;   // port of low : 16 | port of high : 16 | protocol : 8 | IP version : 8 | VLAN plus 1 : 16, if part
  uint64_t outer = 0;  // network identifier : 32 | kind of tunnel : 32, if part of the key

  static uint64_t rest_of(uint16_t low_port, uint16_t high_port, uint8_t proto, uint8_t ip_ver) {
    return low_port | uint64_t{high_port} << 16 | uint64_t{proto} << 32 | uint64_t{ip_ver} << 40;
  }
  void add_vlan(uint16_t vlan) { rest |= uint64_t{vlan + 1u} << 48; }
  void add_tunnel(uint32_t kind, uint32_t vni) { outer = vni | uint64_t{kind} << 32; }
  uint8_t proto() const { return static_cast<uint8_t>(rest >> 32); }
  // No packet has such a key: version 255.
  void make_void() { rest |= uint64_t{0xff} << 40; }

  bool operator==(const FlowKey& other) const {
    return ((low.hi ^ other.low.hi) | (low.lo ^ other.low.lo) | (high.hi ^ other.high.hi) | (high.lo ^ other.high.lo) |
            (rest ^ other.rest) | (outer ^ other.outer)) == 0;
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
  out.key.rest = FlowKey::rest_of(sport ^ ports, dport ^ ports, proto, ip_ver);
  out.from_high = swap;
  return out;
}

// Multiply-and-fold (as wyhash does) with six secret words. Not a cryptographic hash: the secret is what keeps a sender
// from preparing collisions, and the probe limit what bounds them.
class KeyedHash {
 public:
  KeyedHash();  // random secret

  uint64_t operator()(const FlowKey& key) const {
    const uint64_t low = fold(key.low.lo ^ secret_[0], key.high.lo ^ secret_[1]);
    const uint64_t high = fold(key.low.hi ^ secret_[2], key.high.hi ^ secret_[3]);
    return fold(low ^ key.rest ^ secret_[4], high ^ key.outer ^ secret_[5]);
  }

 private:
  static uint64_t fold(uint64_t a, uint64_t b) {
    const auto product = static_cast<unsigned __int128>(a) * b;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  }
  uint64_t secret_[6];
};

}  // namespace meshsieve
