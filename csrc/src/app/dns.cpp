// DNS on UDP and TCP, multicast DNS, LLMNR, NetBIOS name and datagram services.
//
// Confirms  a header whose counts make sense, and a first question (or, without one, a first record) with a name, type and
//           class that exist
// Source    RFC 1035, 2136, 2181, 6762, 4795, 1002
#include "app/dissectors.h"

namespace meshsieve::app {

namespace {

constexpr std::string_view kRcodes[] = {"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED",
                                        "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE"};

struct Type {
  uint16_t number;
  std::string_view name;
};
constexpr Type kTypes[] = {
    {1, "A"},       {2, "NS"},      {5, "CNAME"},  {6, "SOA"},     {10, "NULL"},    {11, "WKS"},     {12, "PTR"},
    {13, "HINFO"},  {15, "MX"},     {16, "TXT"},   {17, "RP"},     {18, "AFSDB"},   {24, "SIG"},     {25, "KEY"},
    {28, "AAAA"},   {29, "LOC"},    {32, "NB"},    {33, "SRV"},    {35, "NAPTR"},   {36, "KX"},      {37, "CERT"},
    {38, "A6"},     {39, "DNAME"},  {41, "OPT"},   {42, "APL"},    {43, "DS"},      {44, "SSHFP"},   {45, "IPSECKEY"},
    {46, "RRSIG"},  {47, "NSEC"},   {48, "DNSKEY"}, {49, "DHCID"}, {50, "NSEC3"},   {51, "NSEC3PARAM"}, {52, "TLSA"},
    {53, "SMIMEA"}, {55, "HIP"},    {59, "CDS"},   {60, "CDNSKEY"}, {61, "OPENPGPKEY"}, {62, "CSYNC"}, {63, "ZONEMD"},
    {64, "SVCB"},   {65, "HTTPS"},  {99, "SPF"},   {108, "EUI48"}, {109, "EUI64"},  {249, "TKEY"},   {250, "TSIG"},
    {251, "IXFR"},  {252, "AXFR"},  {253, "MAILB"}, {255, "ANY"},  {256, "URI"},    {257, "CAA"},    {32769, "DLV"}};

std::string type_name(uint16_t number) {
  for (const Type& type : kTypes) {
    if (type.number == number) return std::string(type.name);
  }
  return "TYPE" + std::to_string(number);
}
bool is_known(uint16_t number) {
  return std::any_of(std::begin(kTypes), std::end(kTypes), [=](const Type& type) { return type.number == number; }) ||
         number == 65534 || number == 65535;
}

// A name in presentation form (RFC 1035, section 5.1): '\' before dots and backslashes in labels, \DDD for what does not
// print. The first name of a message cannot point anywhere. False if it is none.
bool read_name(Reader& reader, std::string& out) {
  size_t wire = 1;
  for (;;) {
    const uint8_t size = reader.u8();
    if (!reader.ok() || size > 63) return false;
    if (size == 0) break;
    wire += size + 1u;
    if (wire > 255) return false;
    if (!out.empty()) out += '.';
    for (const uint8_t byte : reader.bytes(size)) {
      if (byte == '.' || byte == '\\') {
        out += '\\';
        out += static_cast<char>(byte);
      } else if (byte > ' ' && byte < 0x7f) {
        out += static_cast<char>(byte);
      } else {
        out += '\\';
        out += static_cast<char>('0' + byte / 100);
        out += static_cast<char>('0' + byte / 10 % 10);
        out += static_cast<char>('0' + byte % 10);
      }
    }
  }
  if (out.empty()) out = ".";
  return reader.ok();
}

// "CKAAAA...": two letters A to P a byte, 16 bytes, the last of them the kind of the name.
bool is_netbios_name(std::string_view name) {
  const std::string_view label = name.substr(0, name.find('.'));
  return label.size() == 32 && std::all_of(label.begin(), label.end(), [](char c) { return c >= 'A' && c <= 'P'; });
}
std::string netbios_name(std::string_view coded) {
  std::string out;
  for (size_t i = 0; i < 30; i += 2) out += static_cast<char>((coded[i] - 'A') << 4 | (coded[i + 1] - 'A'));
  while (!out.empty() && (out.back() == ' ' || out.back() == '\0')) out.pop_back();
  return out;
}

App app_by(const Payload& p) {
  if (p.udp() && p.on_port(5353)) return App::mdns;
  if (p.on_port(5355)) return App::llmnr;
  return App::dns;
}

bool is_class(uint16_t value) {
  value &= 0x7fff;  // multicast DNS uses the top bit
  return (value >= 1 && value <= 4) || value == 254 || value == 255;
}

Answer dns_message(const Payload& p, Bytes message, Findings& out) {
  Reader reader(message);
  reader.skip(2);
  const uint16_t flags = reader.u16();
  const uint16_t questions = reader.u16(), answers = reader.u16(), authorities = reader.u16(), more = reader.u16();
  if (!reader.ok()) return Answer::no;
  const bool response = (flags & 0x8000) != 0;
  const unsigned opcode = flags >> 11 & 15, code = flags & 15;
  const bool on_port = p.on_port(53) || p.on_port(5353) || p.on_port(5355) || p.on_port(137);
  if (opcode > 8 || opcode == 3 || (flags & 0x40) != 0) return Answer::no;
  if (questions > 128 || answers > 2048 || authorities > 512 || more > 512) return Answer::no;
  if (!response && answers != 0 && opcode == 0 && !on_port) return Answer::no;
  const auto keep_code = [&] {
    if (!response) return;
    if (code < std::size(kRcodes)) out.attributes.set(Attribute::dns_status, kRcodes[code]);
  };
  if (questions + answers + authorities + more == 0) {
    if (!on_port || !response) return Answer::no;
    out.app = app_by(p);
    keep_code();
    return Answer::likely;
  }
  std::string name;
  const bool named = read_name(reader, name);
  const uint16_t type = reader.u16(), kind = reader.u16();
  if (!named || !reader.ok()) {
    // Cut off by the capture or a fragment, or broken.
    out.app = app_by(p);
    return on_port && (!p.whole || response) ? Answer::likely : Answer::no;
  }
  if (questions == 0) {
    const uint32_t ttl = reader.u32();
    const size_t size = reader.u16();
    const bool fits = reader.ok() && (is_class(kind) || type == 41) && is_known(type) && size <= reader.left();
    if (!fits || (!on_port && ttl > 604800)) return Answer::no;
  } else if (!is_class(kind) || (!is_known(type) && !on_port)) {
    return Answer::no;
  }
  // A NetBIOS name asks for NB or NBSTAT; elsewhere type 33 is SRV.
  if (is_netbios_name(name) && (type == 32 || type == 33) && (name.size() == 32 || type == 32)) {
    out.app = App::netbios;
    out.attributes.set(Attribute::dns_name, netbios_name(name));
    out.done = response;
    return Answer::yes;
  }
  out.app = app_by(p);
  if (questions != 0) {
    out.attributes.set(Attribute::dns_name, name);
    out.attributes.set(Attribute::dns_type, type_name(type));
  }
  keep_code();
  out.done = response && questions != 0;
  // With no port to speak for it: nothing may stand behind a lone question, nor a record be unknown.
  const bool exact = on_port || questions != 1 || answers + authorities + more != 0 || reader.empty();
  return exact ? Answer::yes : Answer::no;
}

Answer dns(const Payload& p, Findings& out) {
  if (p.udp()) return dns_message(p, p.here, out);
  Reader reader(p.here);
  const size_t size = reader.u16();
  if (!reader.ok()) return Answer::more;
  if (size < 12) return Answer::no;
  const Bytes message = reader.up_to(size);
  if (message.size() >= size) return dns_message(p, message, out);
  // Not whole: its question may be.
  if (message.size() < 12) return Answer::more;
  Findings partial;
  const Answer answer = dns_message(p, message, partial);
  if (answer != Answer::yes) return message.size() > 300 ? answer : Answer::more;
  out = partial;
  return Answer::yes;
}

// RFC 1002, section 4.4: type, flags, id, source address, port, length, offset, then names.
Answer netbios_datagram(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint8_t type = reader.u8(), flags = reader.u8();
  reader.skip(6);
  const uint16_t port = reader.u16();
  const uint16_t size = reader.u16();
  if (!reader.ok() || type < 0x10 || type > 0x16 || flags > 0x0f || !p.on_port(138)) return Answer::no;
  if (type <= 0x12 && (port != 138 || (p.whole && size > reader.left()))) return Answer::no;
  if (type == 0x13 && p.here.size() != 11) return Answer::no;
  if (type >= 0x14 && size >> 8 != 32) return Answer::no;  // a name follows the port
  out.app = App::netbios;
  out.done = true;
  return Answer::yes;
}

}  // namespace

void add_dns(Registry& registry) {
  registry.push_back({App::netbios, kUdp, byte_range(0x10, 0x16), &netbios_datagram});
  registry.push_back({App::dns, kTcp | kUdp, any_byte(), &dns});
}

}  // namespace meshsieve::app
