// Private networks and tunnels: WireGuard, OpenVPN, IKE and ESP in UDP, L2TP, PPTP; and outer flows of VXLAN, GENEVE, Teredo
// and GTP-U where the decoder found nothing inside that it reads.
//
// Source  wireguard.com/protocol; draft-openvpn-wire-protocol; RFC 7296, 2408, 3948; 2661; 2637; 7348; 8926; 4380;
//         3GPP TS 29.281
#include "app/dissectors.h"
#include "app/text.h"

namespace meshsieve::app {

namespace {

Answer found(App app, Findings& out) {
  out.app = app;
  out.done = true;
  return Answer::yes;
}

Answer wireguard(const Payload& p, Findings& out) {
  const size_t size = p.here.size();
  if (size < 32 || p.here[1] != 0 || p.here[2] != 0 || p.here[3] != 0) return Answer::no;
  out.app = App::wireguard;
  switch (p.here[0]) {
    case 1: return size == 148 ? found(App::wireguard, out) : Answer::no;
    case 2: return size == 92 ? found(App::wireguard, out) : Answer::no;
    case 3: return size == 64 ? found(App::wireguard, out) : Answer::no;
    case 4: {  // data: receiver, a counter, multiples of 16 bytes
      Reader reader(p.here);
      reader.skip(8);
      if (size % 16 != 0 || reader.le64() > uint64_t{1} << 40) return Answer::no;
      return Answer::likely;
    }
    default: return Answer::no;
  }
}

// ---- OpenVPN

constexpr uint8_t kClientReset1 = 1, kServerReset1 = 2, kControl = 4, kAck = 5, kClientReset2 = 7, kServerReset2 = 8,
                  kData1 = 6, kData2 = 9, kClientReset3 = 10;

bool contains(Bytes bytes, Bytes part) {
  return std::search(bytes.begin(), bytes.end(), part.begin(), part.end()) != bytes.end();
}

// With tls-auth or tls-crypt: a packet number from 1 on and the time, before or behind a digest.
bool has_replay_id(Bytes packet) {
  for (const size_t at : {9, 25, 29, 33, 41, 57, 73}) {
    Reader reader(packet.subspan(std::min<size_t>(at, packet.size())));
    const uint32_t number = reader.u32(), time = reader.u32();
    if (reader.ok() && number >= 1 && number <= 16 && time > 0x38000000 && time < 0x80000000) return true;
  }
  return false;
}

// Data packets of a tunnel that was picked up later: they begin alike, with the peer's number (version 2), and those of one
// direction count up; of version 1 only the first byte shows, so there must be more of them.
bool continues_data(Bytes packet, const Payload& p) {
  const bool second = packet[0] >> 3 == kData2;
  if (!second && packet[0] >> 3 != kData1) return false;
  int alike = 0;
  for (const Datagram& earlier : p.history) {
    if (earlier.reply != p.reply || earlier.bytes.size() < 14) continue;
    Reader before(earlier.bytes), now(packet);
    const bool same = second ? before.u32() == now.u32() : before.u8() == now.u8();
    if (!same) return false;
    if (second && now.u32() - before.u32() > 1 << 16) return false;
    ++alike;
  }
  return alike >= (second ? 1 : 3);
}

Answer openvpn_packet(Bytes packet, const Payload& p, Findings& out) {
  if (packet.size() < 14) return Answer::no;
  const uint8_t code = packet[0] >> 3, key = packet[0] & 7;
  const bool client = code == kClientReset1 || code == kClientReset2 || code == kClientReset3;
  const bool server = code == kServerReset1 || code == kServerReset2;
  const bool control = code == kControl || code == kAck;
  if (code == 0 || code > 11 || ((client || server) && key != 0) || is_plain_text(text_of(packet))) return Answer::no;
  out.app = App::openvpn;
  // Every control packet of one side names, after it was answered, the other side's session.
  for (const Datagram& earlier : p.history) {
    if (earlier.bytes.size() < 9) continue;
    if (earlier.reply == p.reply) {  // sent again
      if (client && text_of(packet.first(9)) == text_of(Bytes(earlier.bytes).first(9))) return found(App::openvpn, out);
      continue;
    }
    const uint8_t other = earlier.bytes[0] >> 3;
    if (other == 0 || other > 11 || other == 6 || other == 9) continue;
    if ((server || control || client) && contains(packet.subspan(9), Bytes(earlier.bytes).subspan(1, 8))) return found(App::openvpn, out);
  }
  // Without tls-auth a reset has no acknowledgements and packet number 0.
  const bool bare = client && packet.size() == 14 && packet[9] == 0 && packet[10] == 0 && packet[11] == 0 && packet[12] == 0;
  if (bare && packet[13] == 0) return found(App::openvpn, out);
  // The server's answer: one acknowledgement, of packet 0, the client's session, its own packet 0.
  const auto zeros = [&](size_t at) { return (packet[at] | packet[at + 1] | packet[at + 2] | packet[at + 3]) == 0; };
  if (server && packet.size() == 26 && packet[9] == 1 && zeros(10) && zeros(22)) return found(App::openvpn, out);
  if ((client || server) && has_replay_id(packet)) return found(App::openvpn, out);
  if (client && packet.size() <= 110 && packet.size() >= 34) return p.on_port(1194) ? found(App::openvpn, out) : Answer::more;
  if (control || server || client) return Answer::more;
  return p.on_port(1194) && continues_data(packet, p) ? Answer::likely : Answer::more;
}

Answer openvpn(const Payload& p, Findings& out) {
  if (p.udp()) return openvpn_packet(p.here, p, out);
  Reader reader(p.here);
  const uint16_t size = reader.u16();
  if (!reader.ok()) return Answer::more;
  if (size < 14 || size > 2048) return Answer::no;
  const Bytes packet = reader.bytes(size);
  if (!reader.ok()) return Answer::more;
  const uint8_t code = packet[0] >> 3;
  if (code == kServerReset2 || code == kServerReset1) {
    Reader other(p.there);
    const Bytes client = other.bytes(other.u16());
    if (other.ok() && client.size() >= 9 && contains(packet.subspan(9), client.subspan(1, 8))) return found(App::openvpn, out);
  }
  const Answer answer = openvpn_packet(packet, p, out);
  const bool client = code == kClientReset2 || code == kClientReset1 || code == kClientReset3;
  return answer == Answer::likely && !client ? Answer::no : answer;
}

// ---- IPsec

Answer ike(Bytes bytes, bool whole, Findings& out) {
  Reader reader(bytes);
  const uint64_t initiator = reader.u64();
  reader.skip(8);
  const uint8_t next = reader.u8(), version = reader.u8(), exchange = reader.u8(), flags = reader.u8();
  reader.skip(4);
  const uint32_t size = reader.u32();
  if (!reader.ok() || initiator == 0 || (version != 0x10 && version != 0x20) || (flags & 0xc0) != 0) return Answer::no;
  const bool first = version == 0x10 && (exchange <= 6 || (exchange >= 32 && exchange <= 34)) && exchange != 0;
  const bool second = version == 0x20 && exchange >= 34 && exchange <= 43;
  const bool fits = whole ? size == bytes.size() : size >= bytes.size();
  if ((!first && !second) || size < 28 || size > 65535 || !fits || (next > 21 && next < 33) || next > 55) return Answer::no;
  out.attributes.set(Attribute::protocol_version, version == 0x10 ? "IKEv1" : "IKEv2");
  return found(App::ipsec, out);
}

// ESP behind UDP: packets of one direction have one index and count up.
bool is_esp(const Payload& p) {
  constexpr uint32_t kMostLost = 1 << 16;
  Reader now(p.here);
  const uint32_t index = now.u32(), number = now.u32();
  if (index < 256) return false;
  return std::any_of(p.history.begin(), p.history.end(), [&](const Datagram& earlier) {
    Reader before(earlier.bytes);
    return earlier.reply == p.reply && before.u32() == index && number - before.u32() < kMostLost && before.ok();
  });
}

Answer ipsec(const Payload& p, Findings& out) {
  Reader reader(p.here);
  if (p.on_port(4500)) {
    if (p.here.size() == 1 && p.here[0] == 0xff) {
      out.app = App::ipsec;
      return Answer::likely;
    }
    if (reader.u32() == 0 && reader.ok()) return ike(reader.rest(), p.whole, out);
    if (p.here.size() < 20) return Answer::no;
    out.app = App::ipsec;
    return is_esp(p) ? Answer::likely : Answer::more;
  }
  return ike(p.here, p.whole, out);
}

// ---- L2TP and PPTP

Answer l2tp(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint16_t flags = reader.u16(), size = reader.u16();
  const uint16_t version = flags & 0x0f;
  if (!reader.ok() || version < 2 || version > 3) return Answer::no;
  out.app = App::l2tp;
  if ((flags & 0x8000) == 0) return p.on_port(1701) && (flags & 0x30f0) == 0 ? Answer::likely : Answer::no;
  // Control: length and sequence numbers are there, nothing else is set.
  if ((flags & 0xfff0) != 0xc800 || (p.whole ? size != p.here.size() : size < p.here.size())) return Answer::no;
  reader.skip(8);
  if (size == 12) return reader.ok() ? found(App::l2tp, out) : Answer::no;
  // The message type comes first: mandatory, 8 bytes, vendor 0, attribute 0.
  const uint16_t avp = reader.u16(), vendor = reader.u16(), attribute = reader.u16();
  return reader.ok() && avp == 0x8008 && vendor == 0 && attribute == 0 ? found(App::l2tp, out) : Answer::no;
}

Answer pptp(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint16_t size = reader.u16(), type = reader.u16();
  const uint32_t magic = reader.u32();
  if (!reader.ok()) return Answer::more;
  if (size < 16 || size > 220 || type != 1 || magic != 0x1a2b3c4d) return Answer::no;
  return found(App::pptp, out);
}

// ---- outer flows

// IPv6 that fills the datagram; before it perhaps how the client was authenticated, and where it was seen (RFC 4380, 5.1.1).
bool is_teredo(const Payload& p) {
  Reader reader(p.here);
  if (begins(reader.rest(), std::string_view("\0\1", 2))) {
    reader.skip(2);
    const size_t client = reader.u8(), value = reader.u8();
    reader.skip(client + value + 9);
  }
  if (begins(reader.rest(), std::string_view("\0\0", 2))) reader.skip(8);
  const size_t left = reader.left();
  const uint8_t version = reader.u8() >> 4;
  reader.skip(3);
  const uint16_t size = reader.u16();
  return reader.ok() && version == 6 && (size + size_t{40} == left || !p.whole);
}

Answer outer(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint8_t first = reader.u8(), second = reader.u8();
  if (p.on_port(4789) || p.on_port(8472)) {
    // Flags: I, of VXLAN-GPE also P and O, of the group policy extension G; without one of these, zeros follow.
    const uint16_t reserved = reader.u16();
    const bool extended = (first & 0x85) != 0;
    const bool flags = (first & 0x08) != 0 && (first & 0x72) == 0 && (extended || (second == 0 && reserved == 0));
    return p.here.size() >= 8 && flags && p.here[7] == 0 ? found(App::vxlan, out) : Answer::no;
  }
  if (p.on_port(6081)) {  // version 0, options in words, the type of what is inside, a network, zero
    const uint16_t type = reader.u16();
    const bool fits = p.here.size() >= 8u + (first & 0x3f) * 4u && first >> 6 == 0 && (second & 0x3f) == 0 && type >= 0x600;
    return fits && p.here[7] == 0 ? found(App::geneve, out) : Answer::no;
  }
  if (p.on_port(2152)) {
    const uint16_t size = reader.u16();
    const bool known = second == 1 || second == 2 || second == 26 || second == 31 || second == 254 || second == 255;
    return reader.ok() && (first & 0xf0) == 0x30 && known && size <= p.here.size() - 4 ? found(App::gtp_u, out) : Answer::no;
  }
  if (p.on_port(3544)) return is_teredo(p) ? found(App::teredo, out) : Answer::no;
  // Between clients Teredo has no port: IPv6 that fills the datagram, from or to 2001:0::/32.
  if (first >> 4 != 6 || p.here.size() < 40) return Answer::no;
  Reader header(p.here);
  header.skip(4);
  const uint16_t size = header.u16();
  header.skip(2);
  const uint32_t source = header.u32();
  header.skip(12);
  const uint32_t destination = header.u32();
  const bool ours = source == 0x20010000 || destination == 0x20010000;
  return ours && size + size_t{40} == p.here.size() ? found(App::teredo, out) : Answer::no;
}

}  // namespace

void add_tunnels(Registry& registry) {
  registry.push_back({App::wireguard, kUdp, byte_range(1, 4), &wireguard});
  registry.push_back({App::ipsec, kUdp, any_byte(), &ipsec});
  registry.push_back({App::l2tp, kUdp, any_byte(), &l2tp});
  registry.push_back({App::pptp, kTcp, byte_range(0, 0), &pptp});
  registry.push_back({App::openvpn, kUdp, byte_range(0x08, 0x5f), &openvpn});
  registry.push_back({App::openvpn, kTcp, byte_range(0, 8), &openvpn});
  registry.push_back({App::vxlan, kUdp, any_byte(), &outer});
}

}  // namespace meshsieve::app
