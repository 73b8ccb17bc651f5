// What keeps a network running: NTP, DHCP, syslog, TFTP, flow export, routing protocols, GTP control, Wake-on-LAN.
//
// Source  RFC 5905; 951, 2131; 8415; 3164, 5424, 6587; 1350, 2347; 3954; 7011; sFlow version 5; 1058, 2453, 2080; 4271;
//         2281; 5880; 3GPP TS 29.060, 29.274
#include <array>

#include "app/dissectors.h"
#include "app/text.h"

namespace meshsieve::app {

namespace {

Answer found(App app, Findings& out) {
  out.app = app;
  out.done = true;
  return Answer::yes;
}

// Control messages (mode 6: RFC 9327) say how much data follows; private ones (mode 7, of ntpd) which implementation
// speaks and how many items follow.
bool is_ntp_query(const Payload& p) {
  Reader reader(p.here);
  const uint8_t mode = reader.u8() & 7, operation = reader.u8() & 31;
  if (mode == 6) {
    if (operation > 12 && operation != 31) return false;
    reader.skip(8);
    const uint16_t size = reader.u16();
    return reader.ok() && size <= 468 && (!p.whole || size <= reader.left());
  }
  const uint8_t implementation = reader.u8();
  reader.skip(1);
  const uint16_t items = reader.u16() & 0x0fff, size = reader.u16() & 0x0fff;
  const bool fits = size_t{items} * size <= reader.left() || !p.whole;
  return reader.ok() && (implementation == 0 || implementation == 2 || implementation == 3) && fits;
}

// Stratum, poll interval and precision (logarithms; clients that tell little about themselves send 0 or 32) in their
// bounds, and nothing or whole words behind the 48 bytes: extension fields, a message digest.
bool is_ntp_time(const Payload& p) {
  if (p.here.size() < 48 || p.here.size() % 4 != 0) return false;
  const auto poll = static_cast<int8_t>(p.here[2]), precision = static_cast<int8_t>(p.here[3]);
  return p.here[1] <= 16 && poll >= -7 && poll <= 17 && precision >= -40 && precision <= 32;
}

Answer ntp(const Payload& p, Findings& out) {
  const uint8_t first = p.here[0], version = first >> 3 & 7, mode = first & 7;
  if (!p.on_port(123) || version < 1 || version > 4 || (mode == 0 && version != 1)) return Answer::no;
  out.attributes.set(Attribute::protocol_version, std::to_string(version));
  return (mode >= 6 ? is_ntp_query(p) : is_ntp_time(p)) ? found(App::ntp, out) : Answer::no;
}

Answer dhcp(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint8_t operation = reader.u8(), hardware = reader.u8(), size = reader.u8(), hops = reader.u8();
  reader.skip(232);
  const bool ports = p.on_port(67) || p.on_port(68);
  if (!reader.ok() || operation < 1 || operation > 2 || hardware == 0 || size > 16 || hops > 16) {
    return p.here.size() < 236 && !p.whole && ports && operation <= 2 ? found(App::dhcp, out) : Answer::no;
  }
  const bool cookie = reader.u32() == 0x63825363;
  return cookie || ports ? found(App::dhcp, out) : Answer::no;
}

Answer dhcpv6(const Payload& p, Findings& out) {
  if (!p.on_port(546) && !p.on_port(547)) return Answer::no;
  Reader reader(p.here);
  const uint8_t type = reader.u8();
  const bool relay = type == 12 || type == 13;
  reader.skip(relay ? 33 : 3);
  if (!reader.ok() || type == 0 || type > 36) return Answer::no;
  while (reader.left() >= 4) {
    const uint16_t option = reader.u16();
    if (option == 0 || option > 255) return Answer::no;
    reader.skip(reader.u16());
  }
  if (p.whole && (!reader.ok() || !reader.empty())) return Answer::no;
  return found(App::dhcpv6, out);
}

// ---- syslog

bool has_rfc3164_time(std::string_view text) {
  constexpr std::string_view kMonths = "JanFebMarAprMayJunJulAugSepOctNovDec";
  if (text.size() < 15) return false;
  const size_t month = kMonths.find(text.substr(0, 3));
  return month != std::string_view::npos && month % 3 == 0 && text[3] == ' ' && text[6] == ' ' && text[9] == ':' && text[12] == ':';
}

Answer syslog_message(std::string_view text, const Payload& p, Findings& out) {
  if (text.size() < 3 || text[0] != '<') return Answer::no;
  const size_t end = text.find('>');
  if (end == std::string_view::npos || end > 4) return Answer::no;
  const auto priority = number(text.substr(1, end - 1), 3);
  if (!priority || *priority > 191) return Answer::no;
  const std::string_view behind = text.substr(end + 1);
  const bool rfc5424 = behind.starts_with("1 ") && behind.size() > 6 && (is_digit(behind[2]) || behind[2] == '-');
  if (rfc5424) out.attributes.set(Attribute::protocol_version, "RFC 5424");
  out.app = App::syslog;
  if (rfc5424 || has_rfc3164_time(behind) || p.on_port(514)) return found(App::syslog, out);
  return is_plain_text(behind.substr(0, 32)) ? Answer::likely : Answer::no;
}

Answer syslog(const Payload& p, Findings& out) {
  std::string_view text = text_of(p.here);
  if (p.tcp() && is_digit(text[0])) {  // RFC 6587: the message's length, a blank
    const std::string_view count = word(text, " ");
    if (count.size() == text.size()) return text.size() < 6 ? Answer::more : Answer::no;
    if (!number(count, 5)) return Answer::no;
    text.remove_prefix(count.size() + 1);
    if (text.size() < 20) return text.empty() || text[0] == '<' ? Answer::more : Answer::no;
  }
  return syslog_message(text, p, out);
}

// ---- TFTP

Answer tftp(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint16_t code = reader.u16();
  if (!reader.ok()) return Answer::no;
  const std::string_view text = text_of(reader.rest());
  if (code == 1 || code == 2) {
    const size_t name_end = text.find('\0');
    // Requests that are not what they should be, on the port where nothing else is.
    if (p.on_port(69) && text.find("octet") != std::string_view::npos) out.app = App::tftp;
    if (name_end == std::string_view::npos || name_end == 0 || !is_plain_text(text.substr(0, name_end))) {
      return out.app == App::tftp ? Answer::likely : Answer::no;
    }
    const std::string_view mode = word(text.substr(name_end + 1), std::string_view("\0", 1));
    if (!equals_nocase(mode, "octet") && !equals_nocase(mode, "netascii") && !equals_nocase(mode, "mail")) return out.app == App::tftp ? Answer::likely : Answer::no;
    out.attributes.set(Attribute::service, text.substr(0, name_end));
    // The answer comes from another port of the server.
    out.expectations.push_back({{}, false, p.here_port, 17, App::tftp});
    out.app = App::tftp;
    return Answer::yes;
  }
  // A block and its acknowledgement, in opposite directions.
  if ((code != 3 && code != 4) || p.here.size() > 65468 || (code == 4 && p.here.size() != 4)) return Answer::no;
  const uint16_t block = reader.u16();
  for (const Datagram& earlier : p.history) {
    Reader other(earlier.bytes);
    const uint16_t other_code = other.u16(), other_block = other.u16();
    if (other.ok() && earlier.reply != p.reply && other_code == 7 - code && other_block + 1u - (code == 4 ? 1 : 0) == block) {
      out.app = App::tftp;
      return Answer::yes;
    }
  }
  out.app = App::tftp;
  return p.on_port(69) ? Answer::likely : Answer::more;
}

// ---- flow export

Answer netflow(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint16_t version = reader.u16(), count = reader.u16();
  if (!reader.ok()) return Answer::no;
  const size_t size = p.here.size();
  const auto exact = [&](size_t header, size_t record) { return count >= 1 && count <= 60 && (size == header + count * record || !p.whole); };
  bool fits = false;
  switch (version) {
    case 1: fits = count <= 30 && exact(16, 52); break;
    case 5: fits = count <= 30 && exact(24, 48); break;
    case 7: fits = count <= 30 && exact(24, 52); break;
    case 9: {
      reader.skip(16);
      const uint16_t set = reader.u16(), set_size = reader.u16();
      fits = reader.ok() && count >= 1 && (set <= 1 || set >= 256) && set_size >= 4 && (set_size <= size - 20 || !p.whole);
      break;
    }
    case 10: {
      reader.skip(12);
      const uint16_t set = reader.u16(), set_size = reader.u16();
      fits = count == size && ((set >= 2 && set <= 3) || set >= 256) && (size == 16 || (reader.ok() && set_size >= 4 && set_size <= size - 16));
      break;
    }
    default: break;
  }
  if (!fits) return Answer::no;
  out.attributes.set(Attribute::protocol_version, std::to_string(version));
  return found(version == 10 ? App::ipfix : App::netflow, out);
}

Answer sflow(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint32_t version = reader.u32(), family = reader.u32();
  reader.skip(family == 2 ? 16 : 4);
  reader.skip(12);
  const uint32_t samples = reader.u32(), kind = reader.u32();
  if (!reader.ok() || (version != 5 && version != 4 && version != 2) || family < 1 || family > 2) return Answer::no;
  if (samples == 0 || samples > 500 || (kind & 0xfff) > 5 || (kind & 0xfff) == 0) return Answer::no;
  return found(App::sflow, out);
}

// ---- routing

Answer rip(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint8_t command = reader.u8(), version = reader.u8();
  const uint16_t zero = reader.u16();
  if (!reader.ok() || (!p.on_port(520) && !p.on_port(521)) || command < 1 || command > 6 || version < 1 || version > 2) return Answer::no;
  if (reader.left() % 20 != 0 || reader.empty() || (version == 1 && zero != 0)) return Answer::no;
  return found(App::rip, out);
}

Answer bgp(const Payload& p, Findings& out) {
  Reader reader(p.here);
  for (const uint8_t byte : reader.up_to(16)) {
    if (byte != 0xff) return Answer::no;
  }
  const uint16_t size = reader.u16();
  const uint8_t type = reader.u8();
  if (!reader.ok()) return Answer::more;
  if (size < 19 || size > 4096 || type < 1 || type > 5) return Answer::no;
  return found(App::bgp, out);
}

Answer hsrp(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint8_t first = reader.u8(), second = reader.u8(), third = reader.u8(), fourth = reader.u8();
  if (p.here.size() < 20 || (p.there_port != 1985 && p.there_port != 2029)) return Answer::no;
  // Version 1: operation (hello, coup, resign) and state; or an advertisement of interfaces: type, size. Version 2 is made
  // of pieces with kind and size; that of a group has the version, operation, state from 0 to 6, and that of IP.
  const bool state = third <= 16 && (third & (third - 1)) == 0;
  const bool old = first == 0 && ((second <= 2 && state && p.here[7] == 0) || (second == 3 && third == 0 && fourth == 1));
  const bool group = first == 1 && second == 40 && third == 2 && fourth <= 2 && p.here[4] <= 6 && (p.here[5] == 4 || p.here[5] == 6);
  return old || group ? found(App::hsrp, out) : Answer::no;
}

Answer bfd(const Payload& p, Findings& out) {
  // Single hop, its echo, many hops, link aggregates (RFC 7130), seamless (RFC 7881).
  constexpr std::array<uint16_t, 5> kPorts = {3784, 3785, 4784, 6784, 7784};
  if (std::find(kPorts.begin(), kPorts.end(), p.there_port) == kPorts.end()) return Answer::no;
  Reader reader(p.here);
  const uint8_t version = reader.u8() >> 5, flags = reader.u8(), multiplier = reader.u8(), size = reader.u8();
  const uint32_t discriminator = reader.u32();
  const bool authenticated = (flags & 4) != 0, multipoint = (flags & 1) != 0;
  if (version != 1 || multiplier == 0 || discriminator == 0 || multipoint || p.here.size() < 24) return Answer::no;
  if (size > p.here.size()) return Answer::no;
  const size_t section = authenticated && size > 25 ? p.here[25] : 0;  // its type, its size
  return size == 24 + section && (section == 0 ? !authenticated : p.here[24] <= 5) ? found(App::bfd, out) : Answer::no;
}

Answer gtp_control(const Payload& p, Findings& out) {
  if (!p.on_port(2123)) return Answer::no;
  Reader reader(p.here);
  const uint8_t first = reader.u8();
  reader.skip(1);
  const uint16_t size = reader.u16();
  const uint8_t version = first >> 5;
  const size_t header = version == 2 ? 4 : 8;
  if (!reader.ok() || version < 1 || version > 2 || p.here.size() < header || (p.whole && size != p.here.size() - header)) return Answer::no;
  return found(App::gtp, out);
}

Answer wake_on_lan(const Payload& p, Findings& out) {
  if (p.here.size() < 102 || p.here[6] == 0xff) return Answer::no;  // a group's address cannot be woken
  for (size_t i = 0; i < 6; ++i) {
    if (p.here[i] != 0xff) return Answer::no;
  }
  for (size_t i = 12; i < 102; ++i) {
    if (p.here[i] != p.here[6 + i % 6]) return Answer::no;
  }
  return found(App::wol, out);
}

}  // namespace

void add_infrastructure(Registry& registry) {
  registry.push_back({App::ntp, kUdp, any_byte(), &ntp});
  registry.push_back({App::dhcp, kUdp, byte_range(1, 2), &dhcp});
  registry.push_back({App::dhcpv6, kUdp, byte_range(1, 36), &dhcpv6});
  registry.push_back({App::syslog, kUdp, bytes_of("<"), &syslog});
  registry.push_back({App::syslog, kTcp, bytes_of("<123456789"), &syslog});
  registry.push_back({App::netflow, kUdp, byte_range(0, 0), &netflow});
  registry.push_back({App::sflow, kUdp, byte_range(0, 0), &sflow});
  registry.push_back({App::rip, kUdp, byte_range(1, 6), &rip});
  registry.push_back({App::bgp, kTcp, byte_range(0xff, 0xff), &bgp});
  registry.push_back({App::hsrp, kUdp, byte_range(0, 1), &hsrp});
  registry.push_back({App::bfd, kUdp, byte_range(0x20, 0x3f), &bfd});
  registry.push_back({App::gtp, kUdp, byte_range(0x20, 0x5f), &gtp_control});
  registry.push_back({App::wol, kUdp, byte_range(0xff, 0xff), &wake_on_lan});
  registry.push_back({App::tftp, kUdp, byte_range(0, 0), &tftp});
}

}  // namespace meshsieve::app
