// The steps that nearly every packet takes: Ethernet, VLAN tags, IPv4, IPv6, transport.
#include "packet/decode_plain.h"
#include "packet/frame_decoder.h"

namespace meshsieve {

namespace {

// Fields that belong to the frame rather than to one of its IP headers.
constexpr uint32_t kFrameFields = bit_of(Field::vlan);
constexpr uint32_t kIpFields = bit_of(Field::src_ip) | bit_of(Field::dst_ip) | bit_of(Field::ip_ver) |
                               bit_of(Field::fragment) | bit_of(Field::dscp) | bit_of(Field::ttl) |
                               bit_of(Field::ip_length) | bit_of(Field::eth_type);

constexpr uint32_t kLinkTypeEthernet = 1;
constexpr uint32_t kLargestPlainFrame = 1518;  // 1,500 bytes, Ethernet header, check sequence

bool is_extension(uint8_t next) {
  return next == ipproto::kHopByHop || next == ipproto::kRouting || next == ipproto::kFragment ||
         next == ipproto::kAuthentication || next == ipproto::kDestinationOptions;
}

}  // namespace

void decode(const Record& record, Packet& packet) {
  if (record.link_type == kLinkTypeEthernet && decode_plain(record, packet)) return;
  packet.clear();
  FrameDecoder(record, packet).run(record.link_type);
}

void FrameDecoder::run(uint32_t link_type) {
  Next next = link_type == kLinkTypeEthernet ? ethernet() : link(link_type);
  while (next != Next::done) {
    if (++layers_ > kMaxLayers) {
      fail_ip(DecodeStatus::too_many_layers);
      return;
    }
    switch (next) {
      case Next::ipv4: next = ipv4(); break;
      case Next::ipv6: next = ipv6(); break;
      case Next::ip: next = ip(); break;
      case Next::ethernet: next = ethernet(); break;
      case Next::llc: next = llc(); break;
      case Next::ppp: next = ppp(); break;
      case Next::mpls: next = mpls(); break;
      case Next::done: break;
    }
  }
}

// Outside a tunnel nothing is known yet. Inside one, what the rules are about is the inner packet: the outer header
// must not be judged in its place, so its fields go.
FrameDecoder::Next FrameDecoder::fail_link(DecodeStatus status) {
  note(status);
  p_.present &= kFrameFields;
  return Next::done;
}

FrameDecoder::Next FrameDecoder::fail_ip(DecodeStatus status) {
  note(status);
  p_.present &= kFrameFields;
  p_.payload_length = 0;
  return Next::done;
}

// A frame without IP. Inside a tunnel the tunnel's own packet stays the innermost IP packet.
FrameDecoder::Next FrameDecoder::not_ip(uint16_t type) {
  if (tunnels_ == 0) {
    p_.ip_ver = 0;
    p_.eth_type = type;
    p_.present |= bit_of(Field::ip_ver) | bit_of(Field::eth_type);
  }
  return Next::done;
}

FrameDecoder::Next FrameDecoder::ethernet() {
  if (!c_.has(14)) return fail_link(DecodeStatus::truncated_link);
  const uint16_t type = c_.u16(12);
  c_.skip(14);
  return by_ethertype(type);
}

FrameDecoder::Next FrameDecoder::by_ethertype(uint16_t type) {
  switch (type) {
    case ethertype::kIpv4: return Next::ipv4;
    case ethertype::kIpv6: return Next::ipv6;
    case ethertype::kVlan:
    case ethertype::kServiceVlan:
    case ethertype::kOldQinq:
    case ethertype::kOldQinq2: return vlan(type);
    case ethertype::kMpls:
    case ethertype::kMplsMulticast: return Next::mpls;
    case ethertype::kPppoeSession: return pppoe();
    case ethertype::kVnTag: return tagged(4);
    case ethertype::kETag: return tagged(6);
    case ethertype::kBackboneTag: {  // 802.1ah: 4 bytes of I-TAG, then the customer's addresses and EtherType
      if (!c_.has(4)) return fail_link(DecodeStatus::truncated_link);
      c_.skip(4);
      return Next::ethernet;
    }
    case ethertype::kFabricPath: {  // 2 bytes of tree and TTL, then a whole Ethernet frame
      if (!c_.has(2)) return fail_link(DecodeStatus::truncated_link);
      c_.skip(2);
      return Next::ethernet;
    }
    default: break;
  }
  if (type < ethertype::kFirst) {  // 802.3: a length, then LLC
    c_.limit(type);
    return Next::llc;
  }
  return not_ip(type);
}

FrameDecoder::Next FrameDecoder::vlan(uint16_t type) {
  do {
    if (++vlan_tags_ > kMaxVlanTags) return fail_link(DecodeStatus::too_many_vlan_tags);
    if (!c_.has(4)) return fail_link(DecodeStatus::truncated_link);
    const uint16_t id = c_.u16(0) & 0x0fff;
    if (vlan_tags_ == 1) {
      p_.vlan = id;
      p_.present |= bit_of(Field::vlan);
    } else if (vlan_tags_ == 2) {
      p_.sparse().vlan_inner = id;
    }
    type = c_.u16(2);
    c_.skip(4);
  } while (type == ethertype::kVlan || type == ethertype::kServiceVlan || type == ethertype::kOldQinq ||
           type == ethertype::kOldQinq2);
  return by_ethertype(type);
}

// A bare IP packet whose family only its version nibble tells.
FrameDecoder::Next FrameDecoder::ip() {
  if (!c_.has(1)) return fail_ip(DecodeStatus::truncated_ip);
  switch (c_.u8(0) >> 4) {
    case 4: return ipv4();
    case 6: return ipv6();
    default: return fail_ip(DecodeStatus::bad_ip_version);
  }
}

FrameDecoder::Next FrameDecoder::ipv4() {
  if (!c_.has(20)) return fail_ip(DecodeStatus::truncated_ip);
  const uint8_t first = c_.u8(0);
  if (first >> 4 != 4) return fail_ip(DecodeStatus::bad_ip_version);
  const uint32_t header = (first & 15u) * 4;
  uint32_t total = c_.u16(2);
  if (header < 20) return fail_ip(DecodeStatus::bad_ip_header);
  if (!c_.has(header)) return fail_ip(cut_ ? DecodeStatus::truncated_ip : DecodeStatus::bad_ip_header);
  if (header > total && total >= 20) return fail_ip(DecodeStatus::bad_ip_header);

  const uint8_t proto = c_.u8(9);
  const uint32_t place = c_.u16(6);
  const uint32_t fragment_offset = (place & 0x1fff) * 8;
  const bool more = (place & 0x2000) != 0;
  p_.src_ip = {0, c_.u32(12)};
  p_.dst_ip = {0, c_.u32(16)};
  p_.proto = proto;
  p_.ip_ver = 4;
  p_.dscp = c_.u8(1) >> 2;
  p_.ttl = c_.u8(8);
  p_.ip_length = static_cast<uint16_t>(total);
  p_.fragment = fragment_offset != 0;
  p_.eth_type = ethertype::kIpv4;
  p_.present = (p_.present & kFrameFields) | kIpFields | bit_of(Field::proto);
  if (tunnels_ != 0) forget_transport();
  const uint32_t id = c_.u16(4);
  c_.skip(header);
  if (total == 0 && wire_length_ > kLargestPlainFrame && tunnels_ == 0) {
    note(DecodeStatus::offloaded_length);
    total = header + wire_length_ - c_.offset();
    p_.ip_length = static_cast<uint16_t>(total < 65535 ? total : 65535);
  }
  if (total < header) {
    note(DecodeStatus::bad_ip_length);
    p_.payload_length = 0;
    return Next::done;
  }
  const uint32_t length = total - header;
  if (!c_.has(length)) {
    if (!cut_) note(DecodeStatus::ip_length_beyond_frame);
  } else {
    c_.limit(length);
  }
  Part part = Part::whole;
  if (fragment_offset != 0 || more) {
    SparseColumns& sparse = p_.sparse();
    sparse.fragment_id = id;
    sparse.fragment_offset = fragment_offset;
    sparse.fragment_length = static_cast<uint16_t>(length);
    sparse.more_fragments = more;
    sparse.fragment_level = static_cast<uint8_t>(tunnels_);
    if (fragment_offset + length > 65535) note(DecodeStatus::fragment_beyond_end);
    if (fragment_offset != 0) {
      payload();
      return Next::done;
    }
    part = Part::first_fragment;
  }
  return transport(proto, part);
}

FrameDecoder::Next FrameDecoder::ipv6() {
  if (!c_.has(40)) return fail_ip(DecodeStatus::truncated_ip);
  const uint32_t first = c_.u32(0);
  if (first >> 28 != 6) return fail_ip(DecodeStatus::bad_ip_version);
  const uint32_t length = c_.u16(4);
  const uint8_t next = c_.u8(6);
  p_.src_ip = c_.u128(8);
  p_.dst_ip = c_.u128(24);
  p_.ip_ver = 6;
  p_.dscp = (first >> 22) & 0x3f;
  p_.ttl = c_.u8(7);
  p_.ip_length = static_cast<uint16_t>(length + 40 < 65535 ? length + 40 : 65535);
  p_.fragment = 0;
  p_.eth_type = ethertype::kIpv6;
  p_.present = (p_.present & kFrameFields) | kIpFields;
  if (tunnels_ != 0) forget_transport();
  c_.skip(40);
  if (length == 0 && next == ipproto::kHopByHop) return ipv6_extension(next, true);  // perhaps a jumbogram
  if (!c_.has(length)) {
    if (!cut_) note(DecodeStatus::ip_length_beyond_frame);
  } else {
    c_.limit(length);
  }
  if (is_extension(next)) return ipv6_extension(next, false);
  p_.proto = next;
  p_.present |= bit_of(Field::proto);
  return transport(next, Part::whole);
}

// Walks the extension headers (RFC 8200, section 4). `unlimited`: the IPv6 header gave no length, so a jumbo payload
// option (RFC 2675) must; without one the datagram is empty.
FrameDecoder::Next FrameDecoder::ipv6_extension(uint8_t next, bool unlimited) {
  const auto truncated_here = [&] {
    note(DecodeStatus::truncated_extension);
    return Next::done;
  };
  Part part = Part::whole;
  for (int count = 0; is_extension(next); ++count) {
    if (count == kMaxExtensionHeaders) {
      note(DecodeStatus::too_many_extensions);
      return Next::done;
    }
    if (!c_.has(8)) return truncated_here();
    const uint8_t following = c_.u8(0);
    uint32_t bytes = 8;
    if (next == ipproto::kFragment) {
      const uint32_t place = c_.u16(2);
      const uint32_t fragment_offset = place & 0xfff8;
      const bool more = (place & 1) != 0;
      if (fragment_offset != 0 || more) {  // else an atomic fragment, a whole packet (RFC 6946)
        SparseColumns& sparse = p_.sparse();
        sparse.fragment_id = c_.u32(4);
        sparse.fragment_offset = fragment_offset;
        sparse.fragment_length = static_cast<uint16_t>(c_.left() - 8 < 65535 ? c_.left() - 8 : 65535);
        sparse.more_fragments = more;
        sparse.fragment_level = static_cast<uint8_t>(tunnels_);
        if (fragment_offset + sparse.fragment_length > 65535) note(DecodeStatus::fragment_beyond_end);
        part = Part::first_fragment;
      }
      if (fragment_offset != 0) {
        p_.fragment = 1;
        c_.skip(8);
        if (!is_extension(following)) {
          p_.proto = following;
          p_.present |= bit_of(Field::proto);
        }
        payload();
        return Next::done;
      }
    } else if (next == ipproto::kAuthentication) {
      bytes = (c_.u8(1) + 2u) * 4;
      if (bytes < 8) bytes = 8;
    } else {
      bytes = (c_.u8(1) + 1u) * 8;
      if (next == ipproto::kHopByHop && count != 0) note(DecodeStatus::misplaced_extension);
    }
    if (!c_.has(bytes)) return truncated_here();
    if (unlimited) {
      // Hop-by-hop options: the jumbo option is type 0xc2, length 4 (RFC 2675).
      uint32_t jumbo = 0;
      for (uint32_t i = 2; i < bytes;) {
        if (c_.u8(i) == 0) {
          ++i;
        } else {
          if (i + 2 > bytes) break;
          if (c_.u8(i) == 0xc2 && c_.u8(i + 1) == 4 && i + 6 <= bytes) jumbo = c_.u32(i + 2);
          i += 2u + c_.u8(i + 1);
        }
      }
      if (jumbo <= 65535) return truncated_here();
      c_.limit(jumbo);
      unlimited = false;
    }
    c_.skip(bytes);
    next = following;
  }
  p_.proto = next;
  p_.present |= bit_of(Field::proto);
  return transport(next, part);
}

FrameDecoder::Next FrameDecoder::transport(uint8_t proto, Part part) {
  switch (proto) {
    case ipproto::kTcp: return tcp(part);
    case ipproto::kUdp: return udp(part);
    case ipproto::kIcmp: {
      if (!c_.has(2)) break;
      const uint8_t type = c_.u8(0);
      icmp(type == 3 || type == 4 || type == 5 || type == 11 || type == 12);
      return Next::done;
    }
    case ipproto::kIcmpv6: {
      if (!c_.has(2)) break;
      const uint8_t type = c_.u8(0);
      icmp(type >= 1 && type <= 4);
      return Next::done;
    }
    case ipproto::kSctp:
    case ipproto::kDccp:
    case ipproto::kUdpLite: {
      if (c_.has(4)) ports();
      const uint32_t header = proto == ipproto::kUdpLite                ? 8
                              : proto == ipproto::kSctp || !c_.has(5) ? 12
                              : c_.u8(4) * 4u < 12                      ? 12
                                                                        : c_.u8(4) * 4u;
      if (!c_.has(header)) break;
      c_.skip(header);
      payload();
      return Next::done;
    }
    case ipproto::kGre: return gre();
    case ipproto::kIpv4: return ip_in_ip(Next::ipv4);
    case ipproto::kIpv6: return ip_in_ip(Next::ipv6);
    default: payload(); return Next::done;
  }
  truncated(part);
  p_.payload_length = 0;
  return Next::done;
}

FrameDecoder::Next FrameDecoder::tcp(Part part) {
  if (c_.has(4)) ports();
  if (c_.has(8)) p_.tcp_seq = c_.u32(4);
  if (c_.has(14)) {
    p_.tcp_ack = c_.u32(8);
    p_.tcp_flags = c_.u8(13);
    p_.present |= bit_of(Field::tcp_flags);
  }
  p_.payload_length = 0;
  if (!c_.has(20)) {
    truncated(part);
    return Next::done;
  }
  const uint32_t header = (c_.u8(12) >> 4) * 4u;
  if (header < 20) {
    note(DecodeStatus::bad_tcp_header);
  } else if (!c_.has(header)) {
    if (cut_ || part == Part::first_fragment) truncated(part);
    else note(DecodeStatus::bad_tcp_header);
  } else {
    c_.skip(header);
    payload();
  }
  return Next::done;
}

FrameDecoder::Next FrameDecoder::udp(Part part) {
  if (c_.has(4)) ports();
  if (!c_.has(8)) {
    truncated(part);
    p_.payload_length = 0;
    return Next::done;
  }
  const uint32_t length = c_.u16(4);
  c_.skip(8);
  if (length >= 8 && c_.has(length - 8)) {
    c_.limit(length - 8);
  } else if (length < 8 || (!cut_ && part == Part::whole)) {
    note(DecodeStatus::bad_udp_length);
  }
  payload();
  return udp_tunnel();
}

void FrameDecoder::icmp(bool error) {
  p_.icmp_type = c_.u8(0);
  p_.icmp_code = c_.u8(1);
  p_.present |= bit_of(Field::icmp_type) | bit_of(Field::icmp_code);
  if (!c_.has(8)) {
    truncated(Part::whole);
    p_.payload_length = 0;
    return;
  }
  c_.skip(8);
  payload();
  if (error) quoted_packet();
}

// The beginning of the packet that an ICMP error is about. Ports only from a first fragment; extension headers in a
// quoted IPv6 packet are not walked.
void FrameDecoder::quoted_packet() {
  Cursor c = c_;
  if (!c.has(20)) return;
  const int version = c.u8(0) >> 4;
  if (version == 4) {
    const uint32_t header = (c.u8(0) & 15u) * 4;
    if (header < 20) return;
    SparseColumns& sparse = p_.sparse();
    sparse.quoted_ip_ver = 4;
    sparse.quoted_proto = c.u8(9);
    sparse.quoted_src_ip = {0, c.u32(12)};
    sparse.quoted_dst_ip = {0, c.u32(16)};
    if ((c.u16(6) & 0x1fff) != 0 || !c.has(header)) return;
    c.skip(header);
  } else if (version == 6 && c.has(40)) {
    SparseColumns& sparse = p_.sparse();
    sparse.quoted_ip_ver = 6;
    sparse.quoted_proto = c.u8(6);
    sparse.quoted_src_ip = c.u128(8);
    sparse.quoted_dst_ip = c.u128(24);
    c.skip(40);
  } else {
    return;
  }
  if (has_ports(p_.quoted_proto) && c.has(4)) {
    p_.quoted_sport = c.u16(0);
    p_.quoted_dport = c.u16(2);
  }
}

}  // namespace meshsieve
