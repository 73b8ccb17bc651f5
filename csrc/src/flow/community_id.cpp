// Community ID: the same short text for the same flow in every tool that knows it (Zeek, Suricata, Arkime, Wireshark).
//
// What    SHA-1 over seed (2 bytes), both addresses, protocol, a zero byte and both ports, the smaller endpoint first,
//         in base64 behind "1:". ICMP has type and the type of its answer in the place of ports; a message that has no
//         answer keeps the order in which it was sent.
// Source  github.com/corelight/community-id-spec (version 1); SHA-1: FIPS 180-4; base64: RFC 4648.
#define OPENSSL_SUPPRESS_DEPRECATED  // the one-block function; what replaces it costs more than the block
#include <openssl/sha.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "meshsieve/flow_table.h"

namespace meshsieve {

namespace {

constexpr size_t kDigest = 20;

// SHA-1 of at most 55 bytes: one block.
void sha1_of_short(const uint8_t* data, size_t size, uint8_t out[kDigest]) {
  uint8_t block[SHA_CBLOCK] = {};
  std::memcpy(block, data, size);
  block[size] = 0x80;
  block[62] = static_cast<uint8_t>(size * 8 >> 8);
  block[63] = static_cast<uint8_t>(size * 8);
  SHA_CTX state;
  SHA1_Init(&state);
  SHA1_Transform(&state, block);
  const uint32_t words[] = {state.h0, state.h1, state.h2, state.h3, state.h4};
  for (size_t i = 0; i < 5; ++i) {
    const uint32_t word = __builtin_bswap32(words[i]);
    std::memcpy(out + 4 * i, &word, 4);
  }
}

// 28 characters, the last of them '='.
void put_base64(const uint8_t digest[kDigest], char* out) {
  constexpr const char* kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; i < kDigest; i += 3) {
    const uint32_t last = i + 2 < kDigest ? digest[i + 2] : 0;
    const uint32_t bits = static_cast<uint32_t>(digest[i] << 16 | digest[i + 1] << 8) | last;
    for (int shift = 18; shift >= 0; shift -= 6) *out++ = kAlphabet[bits >> shift & 63];
  }
  out[-1] = '=';
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

void put_community_id(const FlowBatch& flows, size_t i, char* out) {
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
  uint8_t digest[kDigest];
  sha1_of_short(bytes, size, digest);
  out[0] = '1';
  out[1] = ':';
  put_base64(digest, out + 2);
}

}  // namespace meshsieve
