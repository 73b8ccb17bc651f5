// What is inside tunnels. A tunnel that only a port announces must prove itself: ports are also used by others.
#include "packet/frame_decoder.h"

namespace meshsieve {

// Remembers the outermost IP header before the inner one takes the field columns. False if the nesting is too deep.
bool FrameDecoder::enter_tunnel(TunnelKind kind, uint32_t vni) {
  if (++tunnels_ > kMaxTunnels) {
    fail_ip(DecodeStatus::too_many_tunnels);
    return false;
  }
  SparseColumns& sparse = p_.sparse();
  sparse.tunnel_depth = static_cast<uint8_t>(tunnels_);
  if (tunnels_ > 1) return true;
  sparse.tunnel = static_cast<uint8_t>(kind);
  sparse.vni = vni;
  sparse.outer_src_ip = p_.src_ip;
  sparse.outer_dst_ip = p_.dst_ip;
  sparse.outer_proto = p_.proto;
  sparse.outer_ip_ver = p_.ip_ver;
  if (p_.has(Field::sport)) {
    sparse.outer_sport = p_.sport;
    sparse.outer_dport = p_.dport;
  }
  return true;
}

FrameDecoder::Next FrameDecoder::ip_in_ip(Next inner) {
  return enter_tunnel(TunnelKind::ipip, 0) ? inner : Next::done;
}

bool FrameDecoder::ip_begins_at(uint32_t i) const {
  if (i >= c_.left()) return false;
  const uint8_t first = c_.u8(i);
  const uint32_t left = c_.left() - i;
  if (first >> 4 == 4) return (first & 15) >= 5 && (left < 20 || c_.u16(i + 2) >= (first & 15u) * 4);
  return first >> 4 == 6;
}

// True unless what stands `i` bytes ahead surely is no Ethernet frame.
bool FrameDecoder::ethernet_begins_at(uint32_t i) const {
  if (i > c_.left() || c_.left() - i < 14) return false;
  const uint16_t type = c_.u16(i + 12);
  if (type == ethertype::kIpv4 || type == ethertype::kIpv6) return c_.left() - i == 14 || ip_begins_at(i + 14);
  return true;
}

FrameDecoder::Next FrameDecoder::udp_tunnel() {
  switch (p_.dport) {
    case 4789:    // IANA
    case 8472: return vxlan(false);  // Linux before the assignment
    case 4790: return vxlan(true);
    case 6081: return geneve();
    case 6635: return mpls_udp();
    default: break;
  }
  if (p_.dport == 2152 || p_.sport == 2152) return gtpu();
  if (p_.dport == 3544 || p_.sport == 3544) return teredo();
  return Next::done;
}

// 8 bytes: flags (I = 0x08), reserved, VNI in bytes 4..6. GPE (draft-ietf-nvo3-vxlan-gpe): P = 0x04, byte 3 = protocol.
FrameDecoder::Next FrameDecoder::vxlan(bool generic) {
  if (!c_.has(8) || (c_.u8(0) & 0x08) == 0) return Next::done;
  const uint32_t vni = c_.u32(4) >> 8;
  if (generic && (c_.u8(0) & 0x04) != 0) {
    const uint8_t protocol = c_.u8(3);
    if (protocol == 3 ? !ethernet_begins_at(8) : (protocol != 1 && protocol != 2) || !ip_begins_at(8)) return Next::done;
    if (!enter_tunnel(TunnelKind::vxlan, vni)) return Next::done;
    c_.skip(8);
    return protocol == 3 ? Next::ethernet : Next::ip;
  }
  if (!ethernet_begins_at(8)) return Next::done;
  if (!enter_tunnel(TunnelKind::vxlan, vni)) return Next::done;
  c_.skip(8);
  return Next::ethernet;
}

// RFC 8926: version 2 bits, option length 6 bits (words), flags, protocol, VNI, options.
FrameDecoder::Next FrameDecoder::geneve() {
  if (!c_.has(8) || c_.u8(0) >> 6 != 0) return Next::done;
  const uint32_t header = 8 + (c_.u8(0) & 0x3fu) * 4;
  const uint16_t protocol = c_.u16(2);
  if (!c_.has(header)) return Next::done;
  if (protocol != ethertype::kTransparentBridging && protocol != ethertype::kIpv4 && protocol != ethertype::kIpv6) {
    return Next::done;
  }
  if (!enter_tunnel(TunnelKind::geneve, c_.u32(4) >> 8)) return Next::done;
  c_.skip(header);
  return by_inner_ethertype(protocol);
}

// 3GPP TS 29.281: version 1 and protocol type 1 in the first nibble; E, S, PN flags; message 255 carries a packet.
FrameDecoder::Next FrameDecoder::gtpu() {
  if (!c_.has(8) || (c_.u8(0) & 0xf0) != 0x30 || c_.u8(1) != 255) return Next::done;
  uint32_t header = 8;
  if ((c_.u8(0) & 0x07) != 0) {
    header = 12;
    if (!c_.has(header)) return Next::done;
    uint8_t extension = (c_.u8(0) & 0x04) != 0 ? c_.u8(11) : 0;
    while (extension != 0) {  // each extension: length in words, content, next type; a length of 0 ends the proof
      if (c_.left() - header < 4) return Next::done;
      const uint32_t bytes = c_.u8(header) * 4u;
      if (bytes == 0 || c_.left() - header < bytes) return Next::done;
      extension = c_.u8(header + bytes - 1);
      header += bytes;
    }
  }
  if (!ip_begins_at(header) || !enter_tunnel(TunnelKind::gtpu, c_.u32(4))) return Next::done;
  c_.skip(header);
  return Next::ip;
}

// RFC 4380, section 5.1.1: an authentication header and an origin indication may stand before the IPv6 packet.
FrameDecoder::Next FrameDecoder::teredo() {
  uint32_t header = 0;
  if (c_.has(4) && c_.u16(0) == 1) header = 4 + c_.u8(2) + c_.u8(3) + 9;  // client id, value, nonce 8, confirmation 1
  if (header + 2 <= c_.left() && c_.u16(header) == 0) header += 8;
  if (header > c_.left() || c_.left() - header < 40) return Next::done;
  if (c_.u8(header) >> 4 != 6 || c_.u16(header + 4) > c_.left() - header - 40) return Next::done;
  if (!enter_tunnel(TunnelKind::teredo, 0)) return Next::done;
  c_.skip(header);
  return Next::ipv6;
}

FrameDecoder::Next FrameDecoder::mpls_udp() {
  if (!c_.has(4) || !enter_tunnel(TunnelKind::mpls_udp, c_.u32(0) >> 12)) return Next::done;
  return Next::mpls;
}

// RFC 2784 and 2890: C, R, K, S flags each add a word; version 1 is PPTP's (RFC 2637) with an acknowledgement word.
FrameDecoder::Next FrameDecoder::gre() {
  payload();
  if (!c_.has(4)) {
    truncated(Part::whole);
    return Next::done;
  }
  const uint16_t flags = c_.u16(0);
  const uint16_t protocol = c_.u16(2);
  const int version = flags & 7;
  if (version > 1 || (flags & 0x4000) != 0) return Next::done;  // source routing (RFC 1701) is not followed
  uint32_t header = 4;
  uint32_t key = 0;
  if ((flags & 0x8000) != 0) header += 4;
  if ((flags & 0x2000) != 0) {
    if (!c_.has(header + 4)) {
      truncated(Part::whole);
      return Next::done;
    }
    key = c_.u32(header);
    header += 4;
  }
  const bool sequence = (flags & 0x1000) != 0;
  if (sequence) header += 4;
  if (version == 1 && (flags & 0x0080) != 0) header += 4;
  if (!c_.has(header)) {
    truncated(Part::whole);
    return Next::done;
  }
  c_.skip(header);
  payload();
  if (protocol == ethertype::kErspan && !sequence) {  // ERSPAN type I has no header of its own
    if (!ethernet_begins_at(0)) return Next::done;
    return enter_tunnel(TunnelKind::erspan, 0) ? Next::ethernet : Next::done;
  }
  return gre_payload(protocol, key);
}

FrameDecoder::Next FrameDecoder::gre_payload(uint16_t protocol, uint32_t key) {
  switch (protocol) {
    case ethertype::kIpv4:
    case ethertype::kIpv6:
    case ethertype::kMpls:
    case ethertype::kMplsMulticast:
    case ethertype::kTransparentBridging:
      return enter_tunnel(TunnelKind::gre, key) ? by_inner_ethertype(protocol) : Next::done;
    case ethertype::kErspan:
    case ethertype::kErspan3: {
      const uint32_t header = protocol == ethertype::kErspan ? 8 : 12;
      if (!c_.has(header)) break;
      // Type III has a platform subheader of 8 bytes where the last bit of its header says so.
      const uint32_t extra = header == 12 && (c_.u8(11) & 1) != 0 ? 8 : 0;
      if (!c_.has(header + extra)) break;
      if (!enter_tunnel(TunnelKind::erspan, c_.u16(2) & 0x3ff)) return Next::done;
      c_.skip(header + extra);
      return Next::ethernet;
    }
    case ethertype::kPppInGre:
      return c_.left() != 0 && enter_tunnel(TunnelKind::gre, key) ? Next::ppp : Next::done;
    case ethertype::kWccp: {  // WCCPv2 puts 4 bytes before the packet; version 1 does not
      const bool second_version = !ip_begins_at(0);
      if (second_version && !ip_begins_at(4)) break;
      if (!enter_tunnel(TunnelKind::gre, key)) return Next::done;
      if (second_version) c_.skip(4);
      return Next::ip;
    }
    default: break;
  }
  return Next::done;
}

FrameDecoder::Next FrameDecoder::by_inner_ethertype(uint16_t type) {
  switch (type) {
    case ethertype::kIpv4: return Next::ipv4;
    case ethertype::kIpv6: return Next::ipv6;
    case ethertype::kTransparentBridging: return Next::ethernet;
    default: return Next::mpls;
  }
}

}  // namespace meshsieve
