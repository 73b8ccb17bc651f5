// Community ID: the same short text for the same flow in every tool that knows it (Zeek, Suricata, Arkime, Wireshark).
//
// What    SHA-1 over seed (2 bytes), both addresses, protocol, a zero byte and both ports, the smaller endpoint first,
//         in base64 behind "1:". ICMP has type and the type of its answer in the place of ports; a message that has no
//         answer keeps the order in which it was sent.
// Source  github.com/corelight/community-id-spec (version 1); SHA-1: FIPS 180-4; base64: RFC 4648.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <string>
#include <utility>

#include "meshsieve/flow_table.h"

namespace meshsieve {

namespace {

using Digest = std::array<uint8_t, 20>;

// SHA-1 of at most 55 bytes: one block.
Digest sha1_of_short(const uint8_t* data, size_t size) {
  uint8_t block[64] = {};
  std::memcpy(block, data, size);
  block[size] = 0x80;
  block[62] = static_cast<uint8_t>(size * 8 >> 8);
  block[63] = static_cast<uint8_t>(size * 8);
  uint32_t w[80];
  for (int i = 0; i < 16; ++i) {
    std::memcpy(&w[i], block + 4 * i, 4);
    w[i] = __builtin_bswap32(w[i]);
  }
  for (int i = 16; i < 80; ++i) w[i] = std::rotl(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
  const std::array<uint32_t, 5> start = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
  auto [a, b, c, d, e] = start;
  for (int i = 0; i < 80; ++i) {
    const uint32_t f = i < 20   ? ((b & c) | (~b & d))
                       : i < 40 ? (b ^ c ^ d)
                       : i < 60 ? ((b & c) | (b & d) | (c & d))
                                : (b ^ c ^ d);
    const uint32_t k = i < 20 ? 0x5a827999 : i < 40 ? 0x6ed9eba1 : i < 60 ? 0x8f1bbcdc : 0xca62c1d6;
    const uint32_t t = std::rotl(a, 5) + f + e + k + w[i];
    e = d;
    d = c;
    c = std::rotl(b, 30);
    b = a;
    a = t;
  }
  const std::array<uint32_t, 5> sum = {start[0] + a, start[1] + b, start[2] + c, start[3] + d, start[4] + e};
  Digest digest;
  for (int i = 0; i < 5; ++i) {
    const uint32_t word = __builtin_bswap32(sum[i]);
    std::memcpy(digest.data() + 4 * i, &word, 4);
  }
  return digest;
}

std::string base64(const Digest& digest) {
  constexpr const char* kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < digest.size(); i += 3) {
    const size_t n = std::min<size_t>(3, digest.size() - i);
    uint32_t bits = 0;
    for (size_t j = 0; j < 3; ++j) bits = bits << 8 | (j < n ? digest[i + j] : 0u);
    for (size_t j = 0; j < 4; ++j) out += j <= n ? kAlphabet[bits >> (18 - 6 * j) & 63] : '=';
  }
  return out;
}

// The type of the message that answers an ICMP (version 4) or ICMPv6 message; -1 if nothing does.
int icmp_answer(uint8_t proto, uint8_t type) {
  constexpr std::pair<uint8_t, uint8_t> kV4[] = {{8, 0}, {13, 14}, {15, 16}, {10, 9}, {17, 18}};
  constexpr std::pair<uint8_t, uint8_t> kV6[] = {{128, 129}, {133, 134}, {135, 136}, {130, 131}, {144, 145}};
  const auto* begin = proto == 1 ? std::begin(kV4) : std::begin(kV6);
  for (const auto* pair = begin; pair != begin + 5; ++pair) {
    if (pair->first == type) return pair->second;
    if (pair->second == type) return pair->first;
  }
  return proto == 58 && type == 139 ? 140 : proto == 58 && type == 140 ? 139 : -1;
}

}  // namespace

std::string community_id(const FlowBatch& flows, size_t i) {
  U128 src = flows.src_ip[i], dst = flows.dst_ip[i];
  uint16_t sport = flows.sport[i], dport = flows.dport[i];
  const uint8_t proto = flows.proto[i];
  bool one_way = false;
  bool ports = has_ports(proto);
  if ((proto == 1 || proto == 58) && (flows.present[i] & bit_of(Field::icmp_type)) != 0) {
    const int answer = icmp_answer(proto, flows.icmp_type[i]);
    one_way = answer < 0;
    sport = flows.icmp_type[i];
    dport = one_way ? flows.icmp_code[i] : static_cast<uint16_t>(answer);
    ports = true;
  }
  if (!one_way && std::pair(dst, dport) < std::pair(src, sport)) {
    std::swap(src, dst);
    std::swap(sport, dport);
  }
  uint8_t bytes[2 + 16 + 16 + 2 + 4] = {};
  size_t size = 2;
  for (const U128& address : {src, dst}) {
    if (flows.ip_ver[i] == 4) {
      const uint32_t word = __builtin_bswap32(static_cast<uint32_t>(address.lo));
      std::memcpy(bytes + size, &word, 4);
      size += 4;
    } else {
      const uint64_t words[] = {__builtin_bswap64(address.hi), __builtin_bswap64(address.lo)};
      std::memcpy(bytes + size, words, 16);
      size += 16;
    }
  }
  bytes[size] = proto;
  size += 2;
  if (ports) {
    for (const uint16_t port : {sport, dport}) {
      bytes[size++] = static_cast<uint8_t>(port >> 8);
      bytes[size++] = static_cast<uint8_t>(port);
    }
  }
  return "1:" + base64(sha1_of_short(bytes, size));
}

}  // namespace meshsieve
