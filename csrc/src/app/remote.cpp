// Screens and shells: VNC, Citrix, Telnet, X11, rlogin, TeamViewer, SOCKS; and what rides on TPKT and COTP: RDP, S7, H.323.
//
// Source  RFC 6143; 854, 855; X11R7 protocol; 1282; 1928, 1929; 1006, 905; MS-RDPBCGR 2.2.1, MS-RDPEUDP; ITU-T H.225.0, Q.931
#include <algorithm>
#include <array>

#include "app/dissectors.h"
#include "app/handshake.h"
#include "app/text.h"

namespace meshsieve::app {

namespace {

using namespace std::string_view_literals;

Answer found(App app, Findings& out) {
  out.app = app;
  out.done = true;
  return Answer::yes;
}

Answer vnc(const Payload& p, Findings& out) {
  if (!could_begin(p.here, "RFB ")) return Answer::no;
  if (p.here.size() < 12) return Answer::more;
  const std::string_view text = text_of(p.here);
  if (!number(text.substr(4, 3)) || text[7] != '.' || !number(text.substr(8, 3))) return Answer::no;
  out.attributes.set(Attribute::protocol_version, text.substr(4, 7));
  return found(App::vnc, out);
}

Answer citrix(const Payload& p, Findings& out) {
  for (const std::string_view start : {"\x7f\x7f" "ICA\0"sv, "\x1a" "CGP/"sv}) {
    if (!could_begin(p.here, start)) continue;
    return p.here.size() < start.size() ? Answer::more : found(App::citrix, out);
  }
  return Answer::no;
}

// Commands from their start: IAC, WILL to DONT, option; or a subnegotiation.
Answer telnet(const Payload& p, Findings& out) {
  constexpr uint8_t kIac = 255, kSubnegotiation = 250, kWill = 251, kSubnegotiationEnd = 240;
  Reader reader(p.here);
  size_t n = 0;
  while (reader.left() >= 3 && reader.rest()[0] == kIac) {
    reader.skip(1);
    const uint8_t command = reader.u8();
    if (command == kSubnegotiation) {
      const std::string_view rest = text_of(reader.rest());
      const size_t end = rest.find(std::string_view("\xff\xf0", 2));
      if (end == std::string_view::npos) break;
      reader.skip(end + 2);
    } else if (command >= kWill && command != kIac) {
      const uint8_t option = reader.u8();
      if (option > 49 && option < 138) return Answer::no;
    } else if (command < kSubnegotiationEnd || command == kIac) {
      return Answer::no;
    }
    ++n;
  }
  if (n == 0) return p.here.size() < 3 ? Answer::more : Answer::no;
  out.app = App::telnet;
  out.done = true;
  return n >= 2 || reader.empty() ? Answer::yes : Answer::likely;
}

Answer x11(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint8_t order = reader.u8(), unused = reader.u8();
  const bool big = order == 'B';
  const auto u16 = [&] { return big ? reader.u16() : reader.le16(); };
  if (order == 'B' || order == 'l') {
    const uint16_t major = u16(), minor = u16(), name = u16(), data = u16();
    if (!reader.ok()) return unused == 0 || p.here.size() == 1 ? Answer::more : Answer::no;
    if (unused != 0 || major != 11 || minor > 1 || name > 64 || data > 256) return Answer::no;
    return found(App::x11, out);
  }
  // The server accepts (1), or refuses with a reason (0), with its version.
  const uint16_t big_major = Reader(p.here.subspan(std::min<size_t>(2, p.here.size()))).u16();
  if (p.here.size() < 8 || order > 1 || (big_major != 11 && big_major != 11 << 8)) return Answer::no;
  out.app = App::x11;
  return Answer::likely;
}

// Client: NUL, its user NUL, the server's user NUL, terminal "/" speed NUL.
Answer rlogin(const Payload& p, Findings& out) {
  std::string_view text = text_of(p.here);
  if (text[0] != '\0') return Answer::no;
  if (text.size() == 1) return p.on_port(513) ? Answer::likely : Answer::more;
  text.remove_prefix(1);
  for (size_t n = 0; n < 3; ++n) {
    const size_t end = text.find('\0');
    const std::string_view word = text.substr(0, end);
    if (end == 0 || word.size() > 64 || !is_plain_text(word)) return Answer::no;
    if (end == std::string_view::npos) return Answer::more;
    if (n == 2 && word.find('/') == std::string_view::npos) return Answer::no;
    text.remove_prefix(end + 1);
  }
  return found(App::rlogin, out);
}

Answer teamviewer(const Payload& p, Findings& out) {
  if (p.here.size() < 4) return Answer::more;
  const bool magic = (p.here[0] == 0x17 && p.here[1] == 0x24) || (p.here[0] == 0x11 && p.here[1] == 0x30);
  if (!magic || p.here[2] > 60) return Answer::no;
  out.app = App::teamviewer;
  return p.on_port(5938) ? Answer::yes : Answer::likely;
}

// Both directions of version 5 behind what they negotiated (RFC 1928, 1929); empty where it has not come to that.
Bytes behind_socks(Bytes bytes, bool client, bool password) {
  Reader reader(bytes);
  reader.skip(1);
  if (client) reader.vector8();
  else reader.skip(1);
  if (password) {
    reader.skip(1);
    if (client) reader.vector8(), reader.vector8();
    else reader.skip(1);
  }
  reader.skip(3);  // version, command or reply, zero
  const uint8_t kind = reader.u8();
  if (kind == 3) reader.vector8();
  else reader.skip(kind == 4 ? 16 : 4);
  reader.skip(2);
  return reader.ok() ? reader.rest() : Bytes{};
}

// What the proxied connection tells of itself, if it is TLS.
Answer read_proxied(Bytes client, Bytes server, Findings& out) {
  const bool password = server[1] == 2;
  const Bytes sent = behind_socks(client, true, password), received = behind_socks(server, false, password);
  const TlsProgress one = sent.empty() ? TlsProgress{} : read_tls_stream(sent, out.attributes);
  const TlsProgress two = received.empty() ? TlsProgress{} : read_tls_stream(received, out.attributes);
  const bool other = !sent.empty() && one.answer == Answer::no;
  out.app = App::socks;
  out.done = other || server[1] == 0xff || (one.client_hello && two.server_hello && two.past_clear);
  return Answer::yes;
}

Answer socks(const Payload& p, Findings& out) {
  const uint8_t version = p.here[0];
  const auto greeting = [](Bytes bytes) {  // version 5, methods
    if (bytes.size() < 3 || bytes[0] != 5 || bytes[1] == 0 || bytes.size() < 2u + bytes[1]) return false;
    return std::all_of(bytes.begin() + 2, bytes.begin() + 2 + bytes[1], [](uint8_t m) { return m <= 9 || m >= 0x80; });
  };
  if (version == 5) {
    // A known server's choice and its word on the password look like a greeting as well.
    if (!greeting(p.here) || (out.app == App::socks && p.reply)) {
      const bool answer = p.here.size() >= 2 && (p.here.size() == 2 || out.app == App::socks) && greeting(p.there);
      return answer ? read_proxied(p.there, p.here, out) : p.here.size() < 3 || p.here.size() < 2u + p.here[1] ? Answer::more : Answer::no;
    }
    if (p.there.size() >= 2 && p.there[0] == 5) return read_proxied(p.here, p.there, out);
    out.app = App::socks;
    return p.here.size() == 2u + p.here[1] ? Answer::likely : Answer::no;
  }
  out.app = App::socks;
  if (version == 0) {  // the answer of version 4
    const bool answer = p.here.size() == 8 && p.here[1] >= 0x5a && p.here[1] <= 0x5d && p.there.size() >= 9 && p.there[0] == 4;
    return answer ? found(App::socks, out) : Answer::no;
  }
  Reader reader(p.here);  // version 4: command, port, address, user
  reader.skip(1);
  const uint8_t command = reader.u8();
  const uint16_t port = reader.u16();
  reader.skip(4);
  if (!reader.ok()) return Answer::more;
  if (command < 1 || command > 2 || port == 0 || p.here.back() != 0 || p.here.size() > 300) return Answer::no;
  return Answer::likely;
}

// ---- TPKT and COTP

constexpr uint8_t kConnectionRequest = 0xe0, kConnectionConfirm = 0xd0, kData = 0xf0;

struct Cotp {
  uint8_t type = 0;
  Bytes parameters;  // of a request or confirmation; the data of a data unit
  size_t size = 0;   // of the whole packet
};

std::optional<Cotp> read_cotp(Bytes bytes) {
  Reader reader(bytes);
  const uint8_t version = reader.u8(), reserved = reader.u8();
  const uint16_t size = reader.u16();
  const uint8_t header = reader.u8(), type = reader.u8();
  if (!reader.ok() || version != 3 || reserved != 0 || size < 7 || header < 2 || header > size - 5) return std::nullopt;
  Cotp out{static_cast<uint8_t>(type & 0xf0), {}, size};
  Reader packet(reader.up_to(size - 6u));
  if (out.type == kData) packet.skip(1);
  else packet.skip(5);  // references and class
  out.parameters = packet.rest();
  return out;
}

// Negotiation of RDP: type, flags, length 8, protocols.
bool is_rdp_negotiation(Bytes parameters, uint8_t type) {
  return parameters.size() >= 8 && parameters[parameters.size() - 8] == type && parameters[parameters.size() - 6] == 8 &&
         parameters[parameters.size() - 5] == 0;
}

Answer tpkt(const Payload& p, Findings& out) {
  if (p.here.size() < 7) return p.here[0] == 3 && (p.here.size() < 2 || p.here[1] == 0) ? Answer::more : Answer::no;
  const auto behind = [](Bytes bytes) {  // TLS after the first packet
    Reader reader(bytes);
    reader.skip(2);
    const uint16_t size = reader.u16();
    return reader.ok() && size < bytes.size() ? bytes.subspan(size) : Bytes{};
  };
  Reader plain(p.here);
  plain.skip(2);
  const uint16_t size = plain.u16();
  if (plain.u8() == 8 && p.here[1] == 0 && size >= 10) {  // Q.931 without COTP: H.225 call signalling
    // A call reference of two bytes, then: alerting, proceeding, progress, setup, connect, setup acknowledged, release
    // complete, facility, notify, status inquiry, information, status
    constexpr std::array<uint8_t, 12> kMessages = {1, 2, 3, 5, 7, 0x0d, 0x5a, 0x62, 0x6e, 0x75, 0x7b, 0x7d};
    const uint8_t reference = plain.u8();
    plain.skip(2);
    const uint8_t message = plain.u8();
    if (!plain.ok()) return Answer::more;
    if (reference == 2 && std::find(kMessages.begin(), kMessages.end(), message) != kMessages.end()) return found(App::h323, out);
  }
  const auto here = read_cotp(p.here);
  if (!here) return Answer::no;
  if (here->size > p.here.size()) return Answer::more;
  const bool rdp = out.app == App::rdp;
  const std::string_view text = text_of(here->parameters);
  if (rdp || text.find("Cookie: ") != std::string_view::npos || is_rdp_negotiation(here->parameters, 1) ||
      is_rdp_negotiation(here->parameters, 2) || is_rdp_negotiation(here->parameters, 3)) {
    out.app = App::rdp;
    const size_t cookie = text.find("Cookie: mstshash=");
    if (cookie != std::string_view::npos) out.attributes.set(Attribute::service, word(text.substr(cookie + 17), "\r\n"));
    const TlsProgress one = read_tls_stream(behind(p.here), out.attributes);
    const TlsProgress two = p.there.empty() ? TlsProgress{} : read_tls_stream(behind(p.there), out.attributes);
    if (one.answer == Answer::yes || two.answer == Answer::yes) out.attributes.set(Attribute::starttls, "yes");
    out.done = (one.client_hello && two.server_hello) || (two.client_hello && one.server_hello);
    return Answer::yes;
  }
  if (here->type == kData) {
    if (!here->parameters.empty() && (here->parameters[0] == 0x32 || here->parameters[0] == 0x72)) return found(App::s7comm, out);
    if (begins(here->parameters, "\x7f\x65") ) return found(App::rdp, out);  // MCS Connect-Initial, no negotiation
    out.app = App::tpkt;
    return Answer::likely;
  }
  if (here->type != kConnectionRequest && here->type != kConnectionConfirm) return Answer::no;
  // What the connection is for shows in its first data; those of this direction lie behind the request.
  const Bytes rest = p.here.subspan(std::min(here->size, p.here.size()));
  if (const auto data = read_cotp(rest); data && data->type == kData && !data->parameters.empty()) {
    if (data->parameters[0] == 0x32 || data->parameters[0] == 0x72) return found(App::s7comm, out);
    if (begins(data->parameters, "\x7f\x65")) return found(App::rdp, out);
  }
  // RDP names no transport selectors.
  const bool selectors = !here->parameters.empty() && here->parameters[0] >= 0xc0 && here->parameters[0] <= 0xc2;
  const bool on_port = p.on_port(3389) && !selectors;
  out.app = on_port ? App::rdp : App::tpkt;
  if (on_port) return Answer::likely;
  const auto there = read_cotp(p.there);
  const bool answered = there && there->type != here->type && (there->type == kConnectionRequest || there->type == kConnectionConfirm);
  return answered ? Answer::yes : Answer::more;
}

// H.225 registration (RAS) in PER: the kind of message, optional parts, its number, then in requests and confirmations of
// discovery and registration the protocol's identifier: itu-t recommendation h 2250 0 version.
Answer h225_registration(const Payload& p, Findings& out) {
  constexpr std::string_view kProtocol = "\x06\0\x08\x91\x4a\0"sv;
  const std::string_view start = text_of(p.here).substr(0, 16);
  const uint8_t kind = p.here[0] >> 2;  // of 25 in the first edition
  const size_t at = start.find(kProtocol);
  return kind <= 24 && at != std::string_view::npos && at >= 3 ? found(App::h323, out) : Answer::no;
}

// MS-RDPEUDP: the first packet of either side.
Answer rdp_udp(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint32_t acknowledged = reader.u32();
  reader.skip(2);
  const uint16_t flags = reader.u16();
  if (!reader.ok() || p.here.size() < 1100 || (flags & 1) == 0 || (flags & 0xe000) != 0) return Answer::no;
  if (acknowledged != 0xffffffff && (flags & 4) == 0) return Answer::no;
  reader.skip(4);
  const uint16_t up = reader.u16(), down = reader.u16();
  if (!reader.ok() || up < 1132 || up > 1232 || down < 1132 || down > 1232) return Answer::no;
  return found(App::rdp, out);
}

}  // namespace

void add_remote(Registry& registry) {
  registry.push_back({App::vnc, kTcp, bytes_of("R"), &vnc});
  registry.push_back({App::citrix, kTcp, bytes_of("\x7f\x1a"), &citrix});
  registry.push_back({App::rdp, kTcp, byte_range(3, 3), &tpkt});
  registry.push_back({App::rdp, kUdp, any_byte(), &rdp_udp});
  registry.push_back({App::h323, kUdp, byte_range(0, 0x63), &h225_registration});
  registry.push_back({App::x11, kTcp, bytes_of("Bl\0\1"sv), &x11});
  registry.push_back({App::telnet, kTcp, byte_range(0xff, 0xff), &telnet});
  registry.push_back({App::rlogin, kTcp, byte_range(0, 0), &rlogin});
  registry.push_back({App::teamviewer, kTcp | kUdp, bytes_of("\x17\x11"), &teamviewer});
  registry.push_back({App::socks, kTcp, byte_range(4, 5) + byte_range(0, 0), &socks});
}

}  // namespace meshsieve::app
