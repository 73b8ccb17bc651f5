// Link layers other than plain Ethernet: what a capture's LINKTYPE_ value announces, and what lies between a link
// header and IP. Values: tcpdump.org/linktypes.html.
#include "packet/frame_decoder.h"

namespace meshsieve {

namespace {

enum LinkType : uint32_t {
  kNull = 0,
  kEthernet = 1,
  kPpp = 9,
  kAtmRfc1483 = 11,
  kRawBsd = 12,
  kRawOpenBsd = 14,
  kPppHdlc = 50,
  kPppEther = 51,
  kAtmRfc1483File = 100,
  kRaw = 101,
  kCiscoHdlc = 104,
  kWlan = 105,
  kLoop = 108,
  kCooked1 = 113,
  kRadiotap = 127,
  kPppPppd = 166,
  kErf = 197,
  kPppWithDirection = 204,
  kIpv4 = 228,
  kIpv6 = 229,
  kNflog = 239,
  kNetlink = 253,
  kCooked2 = 276,
};

constexpr uint16_t kPppIpv4 = 0x0021, kPppIpv6 = 0x0057, kPppMpls = 0x0281;
constexpr uint16_t kArphrdNetlink = 824;

// Address families of BSD, Linux and Darwin that mean IPv6.
bool is_family_ipv6(uint32_t family) { return family == 10 || family == 24 || family == 28 || family == 30; }

}  // namespace

bool link_type_is_known(uint32_t link_type) {
  switch (link_type) {
    case kNull: case kEthernet: case kPpp: case kAtmRfc1483: case kRawBsd: case kRawOpenBsd: case kPppHdlc:
    case kPppEther: case kAtmRfc1483File: case kRaw: case kCiscoHdlc: case kWlan: case kLoop: case kCooked1:
    case kRadiotap: case kPppPppd: case kErf: case kPppWithDirection: case kIpv4: case kIpv6: case kNflog:
    case kNetlink: case kCooked2:
      return true;
    default: return false;
  }
}

FrameDecoder::Next FrameDecoder::link(uint32_t link_type) {
  switch (link_type) {
    case kEthernet: return ethernet();
    case kNull: return null(false);
    case kLoop: return null(true);
    case kRawBsd:
    case kRawOpenBsd:
    case kRaw: return Next::ip;
    case kIpv4: return Next::ipv4;
    case kIpv6: return Next::ipv6;
    case kCooked1: return cooked1();
    case kCooked2: return cooked2();
    case kPpp:
    case kPppHdlc: return Next::ppp;
    case kPppPppd:
    case kPppWithDirection:
      if (!c_.has(1)) return fail_link(DecodeStatus::truncated_link);
      c_.skip(1);
      return Next::ppp;
    case kPppEther: return pppoe();
    case kAtmRfc1483:
    case kAtmRfc1483File: return Next::llc;
    case kCiscoHdlc: {
      if (!c_.has(4)) return fail_link(DecodeStatus::truncated_link);
      const uint16_t type = c_.u16(2);
      c_.skip(4);
      return by_ethertype(type);
    }
    case kWlan: return wlan();
    case kRadiotap: return radiotap();
    case kErf: return erf();
    case kNflog: return nflog();
    case kNetlink: return not_ip(0);
    default: return fail_link(DecodeStatus::unsupported_link);
  }
}

// IEEE 802.2: DSAP, SSAP, control; with SNAP an OUI and a protocol id.
FrameDecoder::Next FrameDecoder::llc() {
  if (!c_.has(3)) return c_.left() == 0 && !cut_ ? not_ip(0) : fail_link(DecodeStatus::truncated_link);
  const uint16_t saps = c_.u16(0);
  if (saps == 0x0606) {  // IP over 802.2
    c_.skip(3);
    return Next::ipv4;
  }
  if (saps != 0xaaaa || c_.u8(2) != 3) return not_ip(0);
  if (!c_.has(8)) return fail_link(DecodeStatus::truncated_link);
  const uint32_t oui = c_.u32(2) & 0xffffff;
  const uint16_t type = c_.u16(6);
  c_.skip(8);
  // OUI 0 is encapsulated Ethernet, 0xf8 the bridge tunnel (802.1H); others number protocols of their own.
  if ((oui != 0 && oui != 0xf8) || type < ethertype::kFirst) return not_ip(0);
  return by_ethertype(type);
}

// RFC 1661, 1662: address and control (ff 03) and the first byte of a short protocol number may be left out.
FrameDecoder::Next FrameDecoder::ppp() {
  if (c_.has(2) && c_.u16(0) == 0xff03) c_.skip(2);
  if (!c_.has(1)) return fail_link(DecodeStatus::truncated_link);
  if ((c_.u8(0) & 1) != 0) {
    const uint16_t protocol = c_.u8(0);
    c_.skip(1);
    return ppp_protocol(protocol);
  }
  if (!c_.has(2)) return fail_link(DecodeStatus::truncated_link);
  const uint16_t protocol = c_.u16(0);
  c_.skip(2);
  return ppp_protocol(protocol);
}

FrameDecoder::Next FrameDecoder::ppp_protocol(uint16_t protocol) {
  switch (protocol) {
    case kPppIpv4: return Next::ipv4;
    case kPppIpv6: return Next::ipv6;
    case kPppMpls: return Next::mpls;
    default: return not_ip(0);
  }
}

// RFC 2516: version and type 1, code 0 for session data, session id, length.
FrameDecoder::Next FrameDecoder::pppoe() {
  if (!c_.has(6)) return fail_link(DecodeStatus::truncated_link);
  if (c_.u8(0) != 0x11) return fail_link(DecodeStatus::bad_link);
  if (c_.u8(1) != 0) return not_ip(ethertype::kPppoeSession);
  const uint16_t length = c_.u16(4);
  c_.skip(6);
  c_.limit(length);
  return Next::ppp;
}

// RFC 3032: label 20 bits, class 3, bottom of stack 1, TTL 8. What follows the bottom is told by its first nibble.
FrameDecoder::Next FrameDecoder::mpls() {
  for (int count = 0; count < kMaxMplsLabels; ++count) {
    if (!c_.has(4)) return fail_link(DecodeStatus::truncated_link);
    const uint32_t entry = c_.u32(0);
    if (count == 0) p_.sparse().mpls_label = entry >> 12;
    c_.skip(4);
    if ((entry & 0x100) == 0) continue;
    if (!c_.has(1)) return fail_link(DecodeStatus::truncated_link);
    switch (c_.u8(0) >> 4) {
      case 4: return Next::ipv4;
      case 6: return Next::ipv6;
      case 0:  // a pseudowire control word (RFC 4385), then Ethernet
        if (c_.has(4 + 14)) {
          c_.skip(4);
          return Next::ethernet;
        }
        return fail_link(DecodeStatus::truncated_link);
      default: return ethernet_begins_at(0) ? Next::ethernet : not_ip(ethertype::kMpls);
    }
  }
  return fail_link(DecodeStatus::too_many_mpls_labels);
}

// BSD loopback: an address family in the byte order of the capturing machine (null) or of the network (loop).
FrameDecoder::Next FrameDecoder::null(bool network_order) {
  if (!c_.has(4)) return fail_link(DecodeStatus::truncated_link);
  uint32_t family = c_.u32(0);
  const auto type = static_cast<uint16_t>(family);
  if (!network_order && family > 0xffff) family = __builtin_bswap32(family);
  c_.skip(4);
  if (family == 2) return Next::ipv4;
  if (is_family_ipv6(family)) return Next::ipv6;
  // Some drivers put an EtherType into the last two bytes; Wireshark reads it so too.
  if (type == ethertype::kIpv4) return Next::ipv4;
  if (type == ethertype::kIpv6) return Next::ipv6;
  return not_ip(0);
}

FrameDecoder::Next FrameDecoder::cooked1() {
  if (!c_.has(16)) return fail_link(DecodeStatus::truncated_link);
  const uint16_t hardware = c_.u16(2);
  const uint16_t protocol = c_.u16(14);
  c_.skip(16);
  return cooked_protocol(hardware, protocol);
}

FrameDecoder::Next FrameDecoder::cooked2() {
  if (!c_.has(20)) return fail_link(DecodeStatus::truncated_link);
  const uint16_t protocol = c_.u16(0);
  const uint16_t hardware = c_.u16(8);
  c_.skip(20);
  return cooked_protocol(hardware, protocol);
}

FrameDecoder::Next FrameDecoder::cooked_protocol(uint16_t hardware, uint16_t protocol) {
  if (hardware == kArphrdNetlink) return not_ip(0);
  if (protocol >= ethertype::kFirst) return by_ethertype(protocol);
  return protocol == 4 ? Next::llc : not_ip(0);  // 4 = 802.2 frames (Linux if_ether.h)
}

// A tag of fixed size and then an EtherType (VNTag, 802.1BR E-Tag).
FrameDecoder::Next FrameDecoder::tagged(uint32_t tag_bytes) {
  if (++vlan_tags_ > kMaxVlanTags) return fail_link(DecodeStatus::too_many_vlan_tags);
  if (!c_.has(tag_bytes + 2)) return fail_link(DecodeStatus::truncated_link);
  const uint16_t type = c_.u16(tag_bytes);
  c_.skip(tag_bytes + 2);
  return by_ethertype(type);
}

FrameDecoder::Next FrameDecoder::radiotap() {
  if (!c_.has(4)) return fail_link(DecodeStatus::truncated_link);
  const uint32_t header = c_.le16(2);
  if (header < 8) return fail_link(DecodeStatus::bad_link);
  if (!c_.has(header)) return fail_link(DecodeStatus::truncated_link);
  c_.skip(header);
  return wlan();
}

// IEEE 802.11 data frames. Management and control frames, and data frames without payload, carry no IP.
FrameDecoder::Next FrameDecoder::wlan() {
  if (!c_.has(2)) return fail_link(DecodeStatus::truncated_link);
  const uint8_t kind = c_.u8(0);
  const uint8_t flags = c_.u8(1);
  if ((kind & 3) != 0) return fail_link(DecodeStatus::bad_link);  // protocol version
  const bool is_data = ((kind >> 2) & 3) == 2;
  if (!is_data || (kind & 0x40) != 0) return not_ip(0);
  uint32_t header = 24;
  if ((flags & 3) == 3) header += 6;  // between access points: a fourth address
  bool aggregated = false;
  if ((kind & 0x80) != 0) {  // quality of service
    if (!c_.has(header + 2)) return fail_link(DecodeStatus::truncated_link);
    aggregated = (c_.u8(header) & 0x80) != 0;
    header += 2;
    if ((flags & 0x80) != 0) header += 4;  // HT control
  }
  if ((flags & 0x40) != 0) return fail_link(DecodeStatus::encrypted_link);
  if (!c_.has(header)) return fail_link(DecodeStatus::truncated_link);
  c_.skip(header);
  if (!aggregated) return Next::llc;
  // A-MSDU: packets behind headers of their own (two addresses and a length), each padded to 4 bytes.
  constexpr uint32_t kSubframeHeader = 14;
  if (!c_.has(kSubframeHeader)) return fail_link(DecodeStatus::truncated_link);
  const uint32_t size = c_.u16(12);
  c_.skip(kSubframeHeader);
  const uint32_t padded = (kSubframeHeader + size + 3) / 4 * 4 - kSubframeHeader;
  if (c_.left() > padded && c_.left() - padded > kSubframeHeader) note(DecodeStatus::first_of_several);
  c_.limit(size);
  return Next::llc;
}

// Linux NFLOG: family, version, resource id, then attributes in the byte order of the capturing machine (taken as
// little-endian); attribute 9 is the packet.
FrameDecoder::Next FrameDecoder::nflog() {
  constexpr uint16_t kPayload = 9;
  if (!c_.has(4)) return fail_link(DecodeStatus::truncated_link);
  const uint8_t family = c_.u8(0);
  c_.skip(4);
  while (c_.left() != 0) {
    if (!c_.has(4)) return fail_link(DecodeStatus::truncated_link);
    const uint32_t length = c_.le16(0);
    const uint16_t type = c_.le16(2);
    if (length < 4) return fail_link(DecodeStatus::bad_link);
    if (type == kPayload) {
      c_.skip(4);
      c_.limit(length - 4);
      return family == 2 ? Next::ipv4 : family == 10 ? Next::ipv6 : family == 7 ? Next::ethernet : not_ip(0);
    }
    const uint32_t padded = (length + 3) & ~3u;
    if (!c_.has(padded)) return fail_link(DecodeStatus::truncated_link);
    c_.skip(padded);
  }
  return not_ip(0);
}

// Endace extensible record format: 16 bytes, of which byte 8 is the type; extension headers of 8 bytes while its high
// bit stands; Ethernet records have 2 bytes of padding.
FrameDecoder::Next FrameDecoder::erf() {
  if (!c_.has(16)) return fail_link(DecodeStatus::truncated_link);
  const uint8_t type = c_.u8(8);
  bool more = (type & 0x80) != 0;
  c_.skip(16);
  while (more) {
    if (!c_.has(8)) return fail_link(DecodeStatus::truncated_link);
    more = (c_.u8(0) & 0x80) != 0;
    c_.skip(8);
  }
  switch (type & 0x7f) {
    case 2:
    case 11:
    case 16:
    case 20: {
      if (!c_.has(2)) return fail_link(DecodeStatus::truncated_link);
      c_.skip(2);
      return Next::ethernet;
    }
    case 22: return Next::ipv4;
    case 23: return Next::ipv6;
    default: return fail_link(DecodeStatus::unsupported_link);
  }
}

}  // namespace meshsieve
