// Who is who: Kerberos, LDAP, RADIUS, Diameter, TACACS+; and SNMP, which is written in BER like the first two.
//
// Source  RFC 4120, 3244; 4511; 2865, 2866; 6733; 8907; 1157, 3416, 3412
#include "app/der.h"
#include "app/dissectors.h"
#include "app/handshake.h"
#include "app/text.h"

namespace meshsieve::app {

namespace {

constexpr uint8_t kSequence = 0x30, kInteger = 0x02, kOctets = 0x04;

std::optional<uint32_t> small_integer(const Element& element) {
  if (!element.ok || element.tag != kInteger || element.body.empty() || element.body.size() > 4) return std::nullopt;
  uint32_t value = 0;
  for (const uint8_t byte : element.body) value = value << 8 | byte;
  return value;
}

// ---- Kerberos

// [n] EXPLICIT around something.
Element tagged(Reader& reader, uint8_t n) {
  Reader inner(expect_element(reader, 0xa0 | n).body);
  return read_element(inner);
}

// KRB messages: [APPLICATION n] SEQUENCE { pvno 5, msg-type n, ... }
Answer kerberos_message(Bytes message, Attributes& out) {
  Reader reader(message);
  const Element application = read_element(reader);
  const uint8_t n = application.tag & 31;
  if (!application.ok) return message.size() < 6 ? Answer::more : Answer::no;
  if ((application.tag & 0xe0) != 0x60) return Answer::no;
  Reader body(application.body);
  const Element sequence = expect_element(body, kSequence);
  if (!sequence.ok) return Answer::no;
  Reader fields(sequence.body);
  // AS-REQ and TGS-REQ number their fields from 1.
  const bool request = n == 10 || n == 12;
  const auto version = small_integer(tagged(fields, request ? 1 : 0)), type = small_integer(tagged(fields, request ? 2 : 1));
  if (version != 5u || type != n) return Answer::no;
  // The realm: of a reply [2] or [3]; of a request inside req-body [4], where it is [2].
  for (Element field; (field = read_element(fields)).ok;) {
    Reader inner(field.body);
    if (request && field.tag == 0xa4) {
      Reader parts(expect_element(inner, kSequence).body);
      for (Element part; (part = read_element(parts)).ok;) {
        Reader name(part.body);
        const Element realm = read_element(name);
        if (part.tag == 0xa2 && realm.whole && realm.ok && realm.tag == 0x1b) out.set(Attribute::service, text_of(realm.body));
      }
    } else if (!request) {
      const Element realm = read_element(inner);
      if (realm.ok && realm.whole && realm.tag == 0x1b) out.set(Attribute::service, text_of(realm.body));
    }
  }
  return Answer::yes;
}

Answer kerberos(const Payload& p, Findings& out) {
  out.app = App::kerberos;
  out.done = true;
  if (p.on_port(464)) {  // password changes: length, version, AP-REQ length (RFC 3244)
    Reader reader(p.here);
    if (p.tcp()) reader.skip(4);
    const uint16_t size = reader.u16(), version = reader.u16();
    if (reader.ok() && size >= 6 && (version == 1 || version == 0xff80)) return Answer::yes;
  }
  if (p.udp()) {
    const Answer answer = kerberos_message(p.here, out.attributes);
    return answer == Answer::more ? Answer::no : answer;
  }
  Reader reader(p.here);
  const uint32_t size = reader.u32();
  if (!reader.ok() || reader.left() < 16) return p.here[0] == 0 ? Answer::more : Answer::no;
  if (size < 16 || size > 1 << 20) return Answer::no;
  const Bytes message = reader.up_to(size);
  const Answer answer = kerberos_message(message, out.attributes);
  out.done = message.size() == size;
  return answer == Answer::no && message.size() < std::min<size_t>(size, 256) ? Answer::more : answer;
}

// ---- LDAP

Answer ldap(const Payload& p, Findings& out) {
  constexpr std::string_view kStartTls = "1.3.6.1.4.1.1466.20037";
  Reader reader(p.here);
  const Element message = expect_element(reader, kSequence);
  if (!message.ok) return p.here.size() < 6 && p.tcp() ? Answer::more : Answer::no;
  Reader fields(message.body);
  const Element number = read_element(fields);
  const Element operation = read_element(fields);
  if (!number.ok || !operation.ok) return message.body.size() < message.length && p.tcp() && p.here.size() < 32 ? Answer::more : Answer::no;
  const Answer otherwise = p.tcp() && !message.whole && p.here.size() < 256 ? Answer::more : Answer::no;
  if (!small_integer(number)) return otherwise;
  Reader body(operation.body);
  bool sure = false;
  switch (operation.tag) {
    case 0x60: {  // BindRequest: version, name
      const auto version = small_integer(read_element(body));
      const Element name = read_element(body);
      sure = version >= 1u && version <= 3u && name.ok && name.tag == kOctets;
      break;
    }
    case 0x63: sure = expect_element(body, kOctets).ok && expect_element(body, 0x0a).ok && expect_element(body, 0x0a).ok; break;
    case 0x64: sure = expect_element(body, kOctets).ok && expect_element(body, kSequence).ok; break;
    case 0x61:
    case 0x65:
    case 0x67:
    case 0x69:
    case 0x6b:
    case 0x6d:
    case 0x6f:
    case 0x78: sure = expect_element(body, 0x0a).ok && expect_element(body, kOctets).ok; break;  // results
    case 0x77: sure = expect_element(body, 0x80).ok; break;
    case 0x42: sure = operation.length == 0; break;
    case 0x66:
    case 0x68:
    case 0x6c:
    case 0x6e: sure = expect_element(body, kOctets).ok; break;
    case 0x4a:
    case 0x50: sure = operation.length != 0; break;
    default: break;
  }
  if (!sure) return otherwise;
  out.app = App::ldap;
  // TLS begins behind the extended request and its answer.
  const auto behind = [](Bytes bytes) {
    Reader messages(bytes);
    if (!read_element(messages).whole || messages.empty() || messages.rest()[0] != 0x16) return Bytes{};
    return messages.rest();
  };
  const bool switches = text_of(p.here).find(kStartTls) != std::string_view::npos || text_of(p.there).find(kStartTls) != std::string_view::npos;
  if (p.tcp() && switches) {
    const Bytes here = behind(p.here), there = behind(p.there);
    const TlsProgress one = here.empty() ? TlsProgress{} : read_tls_stream(here, out.attributes);
    const TlsProgress two = there.empty() ? TlsProgress{} : read_tls_stream(there, out.attributes);
    if (one.answer == Answer::yes || two.answer == Answer::yes) out.attributes.set(Attribute::starttls, "yes");
    out.done = (one.client_hello && two.server_hello) || (two.client_hello && one.server_hello);
  } else {
    out.done = !p.tcp() || !p.there.empty();
  }
  return Answer::yes;
}

// ---- SNMP

Answer snmp(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const Element message = expect_element(reader, kSequence);
  if (!message.ok) return Answer::no;
  Reader fields(message.body);
  const auto version = small_integer(read_element(fields));
  if (!version) return Answer::no;
  if (*version == 3) {
    Reader header(expect_element(fields, kSequence).body);
    const bool fits = small_integer(read_element(header)).has_value() && small_integer(read_element(header)).has_value() &&
                      expect_element(header, kOctets).ok && small_integer(read_element(header)).has_value();
    if (!fits) return Answer::no;
  } else {
    const Element community = expect_element(fields, kOctets);
    const Element pdu = read_element(fields);
    if (*version > 1 || !community.ok || !pdu.ok || pdu.tag < 0xa0 || pdu.tag > 0xa8) return Answer::no;
  }
  out.app = App::snmp;
  out.attributes.set(Attribute::protocol_version, *version == 0 ? "1" : *version == 1 ? "2c" : "3");
  out.done = true;
  return Answer::yes;
}

// ---- AAA

Answer radius(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint8_t code = reader.u8();
  reader.skip(1);
  const uint16_t size = reader.u16();
  reader.skip(16);
  const bool known = (code >= 1 && code <= 5) || (code >= 11 && code <= 13) || (code >= 40 && code <= 45) || code == 255;
  if (!reader.ok() || !known || size < 20 || size > 4096 || size - 20u > reader.left()) return Answer::no;
  if (p.whole && size - 20u != reader.left()) return Answer::no;
  Reader attributes(reader.bytes(size - 20u));
  while (!attributes.empty()) {
    const uint8_t type = attributes.u8(), length = attributes.u8();
    if (!attributes.ok() || type == 0 || length < 2) return Answer::no;
    attributes.skip(length - 2u);
  }
  if (!attributes.ok()) return Answer::no;
  out.app = App::radius;
  out.done = true;
  const bool port = p.on_port(1812) || p.on_port(1813) || p.on_port(1645) || p.on_port(1646) || p.on_port(3799);
  return port || size > 40 ? Answer::yes : Answer::likely;
}

}  // namespace

// Also what SCTP carries.
Answer diameter(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint8_t version = reader.u8();
  const uint32_t size = reader.u24();
  const uint8_t flags = reader.u8();
  const uint32_t command = reader.u24();
  reader.skip(12);
  if (!reader.ok()) return version == 1 && p.tcp() ? Answer::more : Answer::no;
  // Commands of the base protocol and its applications, and those of vendors; a request tells of no error.
  const bool known = (command >= 257 && command < 1024) || (command >= 8'388'608 && command < 8'390'000);
  if (version != 1 || size < 20 || size % 4 != 0 || size > 1 << 20 || (flags & 0x0f) != 0 || (flags & 0xa0) == 0xa0 || !known) return Answer::no;
  if (size > 20) {
    const uint32_t code = reader.u32();
    const uint8_t avp_flags = reader.u8();
    const uint32_t avp_size = reader.u24();
    if (!reader.ok()) return p.tcp() ? Answer::more : Answer::no;
    if (code == 0 || (avp_flags & 0x1f) != 0 || avp_size < 8 || avp_size > size - 20) return Answer::no;
  }
  out.app = App::diameter;
  out.done = true;
  return Answer::yes;
}

namespace {

Answer tacacs(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint8_t version = reader.u8(), type = reader.u8(), sequence = reader.u8(), flags = reader.u8();
  reader.skip(4);
  const uint32_t size = reader.u32();
  if (!reader.ok()) return (version & 0xfe) == 0xc0 ? Answer::more : Answer::no;
  if ((version & 0xfe) != 0xc0 || type < 1 || type > 3 || sequence == 0 || (flags & ~5) != 0 || size > 1 << 16) return Answer::no;
  out.app = App::tacacs;
  out.done = true;
  return size == reader.left() && sequence == 1 ? Answer::yes : Answer::likely;
}

}  // namespace

void add_identity(Registry& registry) {
  registry.push_back({App::kerberos, kUdp, byte_range(0x60, 0x7f) + byte_range(0, 4), &kerberos});
  registry.push_back({App::kerberos, kTcp, byte_range(0, 0), &kerberos});
  registry.push_back({App::ldap, kTcp | kUdp, byte_range(kSequence, kSequence), &ldap});
  registry.push_back({App::snmp, kUdp | kTcp, byte_range(kSequence, kSequence), &snmp});
  registry.push_back({App::radius, kUdp, byte_range(1, 45) + byte_range(255, 255), &radius});
  registry.push_back({App::diameter, kTcp, byte_range(1, 1), &diameter});
  registry.push_back({App::tacacs, kTcp, byte_range(0xc0, 0xc1), &tacacs});
}

}  // namespace meshsieve::app
