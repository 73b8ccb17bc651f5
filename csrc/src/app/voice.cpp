// Calls and media: SIP, RTP, RTCP, STUN, RTSP, RTMP, MGCP, Megaco, SAP, Discord's discovery.
//
// RTP     has no magic: two packets of one direction with the same source and payload type and rising sequence numbers
// SIP     its SDP announces the media flows
// Source  RFC 3261, 4566; 3550; 8489, 5389, 3489, 8656; 7826, 2326; Adobe RTMP 1.0; 3435; 3525; 2974
#include "app/dissectors.h"
#include "app/text.h"

namespace meshsieve::app {

namespace {

// ---- SIP

std::optional<uint32_t> ipv4_of(std::string_view text) {
  uint32_t address = 0;
  for (int i = 0; i < 4; ++i) {
    const std::string_view digits = text.substr(0, text.find_first_not_of("0123456789"));
    const auto value = number(digits, 3);
    if (!value || *value > 255) return std::nullopt;
    address = address << 8 | *value;
    text.remove_prefix(digits.size());
    if (i < 3 && !text.starts_with('.')) return std::nullopt;
    if (i < 3) text.remove_prefix(1);
  }
  return address;
}

// "c=IN IP4 10.0.0.1", "m=audio 4000 RTP/AVP 0"
void find_media(std::string_view text, Findings& out) {
  std::optional<uint32_t> address;
  constexpr size_t kMostMedia = 8;
  for (size_t n = 0; n < kMostMedia;) {
    const auto line = next_line(text);
    if (!line) return;
    if (line->starts_with("c=IN IP4 ")) address = ipv4_of(line->substr(9));
    if (!line->starts_with("m=audio ") && !line->starts_with("m=video ")) continue;
    const auto port = number(word(line->substr(8), " /"), 5);
    if (!port || *port == 0 || *port > 65534 || line->find(" RTP/") == std::string_view::npos || !address) continue;
    ++n;
    out.expectations.push_back({U128{0, *address}, false, static_cast<uint16_t>(*port), 17, App::rtp});
    out.expectations.push_back({U128{0, *address}, false, static_cast<uint16_t>(*port + 1), 17, App::rtcp});
  }
}

Answer sip(const Payload& p, Findings& out) {
  constexpr std::string_view kMethods[] = {"INVITE ", "ACK ", "BYE ", "CANCEL ", "REGISTER ", "OPTIONS ", "PRACK ",
                                           "SUBSCRIBE ", "NOTIFY ", "PUBLISH ", "INFO ", "REFER ", "MESSAGE ", "UPDATE "};
  std::string_view text = text_of(p.here);
  if (p.udp() && text.size() <= 4 && text.find_first_not_of("\r\n\0") == std::string_view::npos) {
    out.app = App::sip;
    return p.on_port(5060) ? Answer::likely : Answer::no;  // keep-alive
  }
  while (text.starts_with("\r\n")) text.remove_prefix(2);
  bool fits = text.starts_with("SIP/2.0 ");
  if (!fits) {
    const bool method = std::any_of(std::begin(kMethods), std::end(kMethods), [&](auto m) { return text.starts_with(m); });
    if (!method && text.size() >= 10) return Answer::no;
    const std::string_view line = word(text, "\r\n");
    const std::string_view target = line.size() > word(line).size() ? line.substr(word(line).size() + 1) : line;
    const bool uri = starts_nocase(target, "sip:") || starts_nocase(target, "sips:") || starts_nocase(target, "tel:");
    fits = method && (line.ends_with(" SIP/2.0") || (uri && line.size() == text.size()));
    if (!fits && p.tcp() && line.size() == text.size() && text.size() < 1024) {
      const bool could = method || std::any_of(std::begin(kMethods), std::end(kMethods), [&](auto m) { return m.starts_with(text); }) ||
                         std::string_view("SIP/2.0 ").starts_with(text);
      return could ? Answer::more : Answer::no;
    }
  }
  if (!fits) return Answer::no;
  out.app = App::sip;
  const std::string_view all = text;
  while (const auto line = next_line(text)) {
    if (starts_nocase(*line, "user-agent:")) out.attributes.set(Attribute::client_software, trimmed(line->substr(11)));
    if (starts_nocase(*line, "server:")) out.attributes.set(Attribute::server_software, trimmed(line->substr(7)));
    if (line->empty()) break;
  }
  find_media(all, out);
  return Answer::yes;
}

Answer rtsp(const Payload& p, Findings& out) {
  constexpr size_t kMaxMethod = 16;
  const std::string_view text = text_of(p.here), method = word(text.substr(0, kMaxMethod + 1));
  const bool capitals = !method.empty() && method.size() <= kMaxMethod &&
                        std::all_of(method.begin(), method.end(), [](char c) { return is_upper(c) || c == '_'; });
  if (!capitals && !text.starts_with("RTSP/")) return Answer::no;
  const std::string_view line = word(text, "\r\n");
  const bool request = capitals && (line.ends_with(" RTSP/1.0") || line.ends_with(" RTSP/2.0"));
  if (!text.starts_with("RTSP/1.0 ") && !text.starts_with("RTSP/2.0 ") && !request) {
    const bool open = line.size() == text.size() && text.size() < 1024;
    const bool response =
        std::string_view("RTSP/1.0 ").starts_with(text) || std::string_view("RTSP/2.0 ").starts_with(text);
    return open && (capitals || response) ? Answer::more : Answer::no;
  }
  out.app = App::rtsp;
  out.done = !p.there.empty();
  return Answer::yes;
}

// ---- RTP and RTCP

struct Rtp {
  uint8_t type;
  uint16_t sequence;
  uint32_t source;
};

std::optional<Rtp> read_rtp(Bytes bytes) {
  Reader reader(bytes);
  const uint8_t first = reader.u8(), second = reader.u8();
  Rtp out{static_cast<uint8_t>(second & 0x7f), reader.u16(), 0};
  reader.skip(4);
  out.source = reader.u32();
  reader.skip((first & 15) * 4u);
  if ((first & 0x10) != 0) {
    reader.skip(2);
    reader.skip(reader.u16() * size_t{4});
  }
  const bool rtcp = out.type >= 64 && out.type <= 95;  // RFC 5761, section 4
  if (!reader.ok() || first >> 6 != 2 || rtcp) return std::nullopt;
  return out;
}

Answer rtp(const Payload& p, Findings& out) {
  const auto here = read_rtp(p.here);
  if (!here) return Answer::no;
  out.app = App::rtp;
  for (const Datagram& earlier : p.history) {
    const auto other = read_rtp(earlier.bytes);
    if (!other || earlier.reply != p.reply || other->source != here->source) continue;
    const auto ahead = static_cast<uint16_t>(here->sequence - other->sequence);
    if (ahead >= 1 && ahead <= 64 && (other->type == here->type || here->type >= 96 || other->type >= 96)) {
      out.done = true;
      return Answer::yes;
    }
  }
  return Answer::more;
}

// RFC 4571: each packet behind its length.
Answer rtp_on_tcp(const Payload& p, Findings& out) {
  Reader reader(p.here);
  std::optional<Rtp> last;
  for (int n = 0; n < 3; ++n) {
    const uint16_t size = reader.u16();
    if (!reader.ok()) return Answer::more;
    if (size < 12 || size > 2048) return Answer::no;
    const Bytes packet = reader.bytes(size);
    if (!reader.ok()) return packet.empty() && (reader.left() == 0) && p.here.size() >= 14 && p.here[2] >> 6 != 2 ? Answer::no : Answer::more;
    const auto here = read_rtp(packet);
    if (!here) return Answer::no;
    if (last && (last->source != here->source || static_cast<uint16_t>(here->sequence - last->sequence) > 64)) return Answer::no;
    if (last) {
      out.app = App::rtp;
      out.done = true;
      return Answer::yes;
    }
    last = here;
  }
  return Answer::more;
}

Answer rtcp(const Payload& p, Findings& out) {
  Reader reader(p.here);
  size_t n = 0;
  uint8_t first_type = 0;
  while (reader.left() >= 4) {
    const uint8_t first = reader.u8(), type = reader.u8();
    const uint16_t words = reader.u16();
    if (first >> 6 != 2 || type < 192 || type > 213) break;
    if (n == 0) first_type = type;
    if (words * size_t{4} > reader.left()) return Answer::no;
    reader.skip(words * size_t{4});
    ++n;
  }
  if (n == 0 || first_type < 200) return Answer::no;
  out.app = App::rtcp;
  // The first packet of a compound one is a report; secured ones end with an index and a tag.
  const bool report = first_type == 200 || first_type == 201;
  if (report && (reader.empty() || reader.left() >= 4)) return Answer::yes;
  return reader.empty() ? Answer::likely : Answer::no;
}

// ---- STUN

Answer stun(const Payload& p, Findings& out) {
  const Bytes bytes = p.here;
  // WebRTC: what connectivity was checked for is DTLS.
  if (out.app != App::unknown && p.udp() && bytes[0] >= 20 && bytes[0] <= 26) {
    const App before = out.app;
    if (dtls(p, out) == Answer::yes) return Answer::yes;
    out.app = before;
  }
  if (out.app == App::dtls) return Answer::yes;
  Reader reader(bytes);
  const uint16_t type = reader.u16(), size = reader.u16();
  const uint32_t cookie = reader.u32();
  reader.skip(12);
  if (out.app == App::stun && (type >> 14) == 1) return Answer::yes;  // channel data
  if (!reader.ok()) return p.tcp() && (bytes[0] & 0xc0) == 0 ? Answer::more : Answer::no;
  if (type >> 14 != 0 || size % 4 != 0 || size > reader.left()) return Answer::no;
  if (p.udp() && p.whole && size != reader.left()) return Answer::no;
  Reader attributes(reader.bytes(size));
  size_t n = 0;
  for (; attributes.left() >= 4; ++n) {
    const uint16_t kind = attributes.u16(), length = attributes.u16();
    if (kind == 0x8022) out.attributes.set(p.reply ? Attribute::server_software : Attribute::client_software,
                                           trimmed(word(text_of(attributes.up_to(length)), std::string_view("\0", 1))));
    else attributes.skip(std::min<size_t>(length, attributes.left()));
    attributes.skip(std::min<size_t>(-length & 3u, attributes.left()));
  }
  const uint16_t method = (type & 0x0f) | (type & 0xe0) >> 1 | (type & 0x3e00) >> 2;
  const bool known = method >= 1 && method <= 12;
  out.app = App::stun;
  if (cookie == 0x2112a442 && known) return Answer::yes;
  // RFC 3489 had no cookie.
  const bool classic = type == 0x0001 || type == 0x0101 || type == 0x0111 || type == 0x0002 || type == 0x0102;
  if (!classic || p.tcp()) return Answer::no;
  return p.on_port(3478) || p.on_port(3479) || (n >= 2 && type != 0x0001) ? Answer::yes : Answer::likely;
}

Answer discord(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint16_t type = reader.u16(), size = reader.u16();
  if (!reader.ok() || (type != 1 && type != 2) || size != 70 || reader.left() != 70) return Answer::no;
  reader.skip(4);
  // A request has no address yet; an answer has it as text.
  const Bytes address = reader.bytes(64);
  const bool empty = std::all_of(address.begin(), address.end(), [](uint8_t byte) { return byte == 0; });
  if (type == 1 ? !empty : !is_digit(static_cast<char>(address[0]))) return Answer::no;
  out.app = App::discord;
  out.done = true;
  return Answer::yes;
}

// ---- others

Answer megaco(const Payload& p, Findings& out) {
  constexpr std::string_view kBeginnings[] = {"MEGACO/1 ", "MEGACO/2 ", "MEGACO/3 ", "!/1 ", "!/2 ", "!/3 "};
  for (const std::string_view beginning : kBeginnings) {
    if (!could_begin(p.here, beginning)) continue;
    if (p.here.size() <= beginning.size()) return p.tcp() ? Answer::more : Answer::no;
    // Then who speaks: "[address]:port", "<domain>:port" or the name of a device.
    const char next = text_of(p.here)[beginning.size()];
    if (next != '[' && next != '<' && !is_letter(next)) return Answer::no;
    out.app = App::megaco;
    out.done = true;
    return Answer::yes;
  }
  return Answer::no;
}

Answer mgcp(const Payload& p, Findings& out) {
  const std::string_view line = word(text_of(p.here), "\r\n");
  const bool command = line.ends_with(" MGCP 1.0") || line.find(" MGCP 1.0 ") != std::string_view::npos;
  const bool answer = line.size() > 4 && number(line.substr(0, 3)).has_value() && line[3] == ' ' && (p.on_port(2427) || p.on_port(2727));
  if (!command && !answer) return Answer::no;
  out.app = App::mgcp;
  out.done = true;
  return Answer::yes;
}

Answer announcement(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint8_t first = reader.u8(), words = reader.u8();
  reader.skip(2);
  reader.skip((first & 0x10) != 0 ? 16 : 4);
  reader.skip(words * size_t{4});
  if (!reader.ok() || first >> 5 != 1) return Answer::no;
  const std::string_view text = text_of(reader.rest());
  if (!text.starts_with("application/sdp") && !text.starts_with("v=0")) return Answer::no;
  out.app = App::sap;
  out.done = true;
  return Answer::yes;
}

Answer rtmp(const Payload& p, Findings& out) {
  constexpr size_t kHandshake = 1537;
  if (p.here[0] != 3) return Answer::no;
  if (p.here.size() < 9) return Answer::more;
  // Time, then four bytes of zero, or the version of a player that signs its handshake.
  const bool zero = p.here[5] == 0 && p.here[6] == 0 && p.here[7] == 0 && p.here[8] == 0;
  const bool version = p.here[5] >= 3 && p.here[5] <= 0x80 && p.here[6] <= 5;
  if (!zero && !version) return Answer::no;
  out.app = App::rtmp;
  if (p.here.size() < kHandshake) return Answer::more;
  out.done = true;
  return zero || (!p.there.empty() && p.there[0] == 3) ? Answer::yes : Answer::likely;
}

}  // namespace

void add_voice(Registry& registry) {
  registry.push_back({App::sip, kTcp | kUdp, letters() + bytes_of(std::string_view("\r\n\0", 3)), &sip});
  registry.push_back({App::rtsp, kTcp, letters(), &rtsp});
  registry.push_back({App::stun, kTcp | kUdp, byte_range(0, 3) + byte_range(0x40, 0x7f), &stun, true});
  registry.push_back({App::discord, kUdp, byte_range(0, 0), &discord});
  registry.push_back({App::rtcp, kUdp, byte_range(0x80, 0xbf), &rtcp});
  registry.push_back({App::megaco, kTcp | kUdp, bytes_of("M!"), &megaco});
  registry.push_back({App::mgcp, kUdp, letters() + byte_range('0', '9'), &mgcp});
  registry.push_back({App::sap, kUdp, byte_range(0x20, 0x3f), &announcement});
  registry.push_back({App::rtmp, kTcp, byte_range(3, 3), &rtmp});
  registry.push_back({App::rtp, kUdp, byte_range(0x80, 0xbf), &rtp});
  registry.push_back({App::rtp, kTcp, byte_range(0, 8), &rtp_on_tcp});
}

}  // namespace meshsieve::app
