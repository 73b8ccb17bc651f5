// Industrial control: Modbus, DNP3, IEC 60870-5-104, OPC UA, BACnet, EtherNet/IP, FINS. (S7 is in remote.cpp, on TPKT.)
//
// Source  Modbus Messaging on TCP/IP 1.0b; IEEE 1815; IEC 60870-5-104; OPC 10000-6; ASHRAE 135 annex J; ODVA CIP volume 2;
//         Omron W342
#include "app/dissectors.h"
#include "app/text.h"

namespace meshsieve::app {

namespace {

Answer found(App app, Findings& out) {
  out.app = app;
  out.done = true;
  return Answer::yes;
}

Answer modbus(const Payload& p, Findings& out) {
  Reader reader(p.here);
  reader.skip(2);
  const uint16_t protocol = reader.u16(), size = reader.u16();
  reader.skip(1);
  const uint8_t function = reader.u8();
  if (!reader.ok()) return p.here.size() < 4 || protocol == 0 ? Answer::more : Answer::no;
  const uint8_t code = function & 0x7f;
  const bool known = (code >= 1 && code <= 8) || (code >= 11 && code <= 24) || code == 43 || code == 90 || (code >= 100 && code <= 110);
  if (protocol != 0 || size < 2 || size > 254 || !known) return Answer::no;
  if ((function & 0x80) != 0 && size != 3) return Answer::no;
  // The next message of the direction begins where this one ends.
  const size_t end = 6u + size;
  if (p.here.size() > end) {
    Reader next(p.here.subspan(end));
    next.skip(2);
    if (next.left() >= 2 && next.u16() != 0) return Answer::no;
  }
  out.app = App::modbus;
  out.done = p.on_port(502);
  return p.on_port(502) ? Answer::yes : p.here.size() >= end ? Answer::likely : Answer::more;
}

// CRC-16 of DNP: polynomial 0x3d65, reflected, inverted.
uint16_t dnp3_check(Bytes bytes) {
  uint16_t check = 0;
  for (const uint8_t byte : bytes) {
    check ^= byte;
    for (int bit = 0; bit < 8; ++bit) check = static_cast<uint16_t>((check & 1) != 0 ? check >> 1 ^ 0xa6bc : check >> 1);
  }
  return static_cast<uint16_t>(~check);
}

Answer dnp3(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint16_t magic = reader.u16();
  const uint8_t size = reader.u8();
  if (!reader.ok()) return p.tcp() ? Answer::more : Answer::no;
  if (magic != 0x0564 || size < 5) return Answer::no;
  if (p.here.size() < 10) return p.tcp() ? Answer::more : Answer::no;
  return dnp3_check(p.here.first(8)) == (p.here[8] | p.here[9] << 8) ? found(App::dnp3, out) : Answer::no;
}

// Type identifications and causes of transmission that are defined (IEC 60870-5-101, 7.2.1 and 7.2.3).
bool is_iec_data(uint8_t type, uint8_t cause) {
  const bool known = (type >= 1 && type <= 40) || (type >= 45 && type <= 51) || (type >= 58 && type <= 64) || type == 70 ||
                     (type >= 100 && type <= 107) || (type >= 110 && type <= 113) || (type >= 120 && type <= 127);
  return known && ((cause >= 1 && cause <= 13) || (cause >= 20 && cause <= 41) || (cause >= 44 && cause <= 47));
}

// APDUs one after another: start, length, four control bytes. A lone one with data is sure when it fills the direction.
Answer iec104(const Payload& p, Findings& out) {
  Reader reader(p.here);
  size_t n = 0;
  bool sure = p.on_port(2404);
  while (reader.left() >= 6) {
    const uint8_t start = reader.u8(), size = reader.u8();
    if (start != 0x68 || size < 4) return Answer::no;
    Reader apdu(reader.up_to(size));
    const bool whole = apdu.left() == size;
    const uint8_t first = apdu.u8(), second = apdu.u8(), third = apdu.u8(), fourth = apdu.u8();
    if (!apdu.ok()) break;
    if ((first & 3) == 3) {  // one of six: start, stop, test, each activated or confirmed
      const uint8_t function = first >> 2;
      if (size != 4 || second != 0 || third != 0 || fourth != 0 || function == 0 || (function & (function - 1)) != 0) return Answer::no;
      sure = true;
    } else if ((first & 3) == 1) {
      if (size != 4 || first != 1 || second != 0 || (third & 1) != 0) return Answer::no;
      sure = true;
    } else {
      const uint8_t type = apdu.u8();
      const uint8_t objects = apdu.u8() & 0x7f, cause = apdu.u8() & 0x3f;
      if (size >= 12 && !apdu.ok()) break;
      if (size < 12 || (third & 1) != 0 || objects == 0 || !is_iec_data(type, cause)) return Answer::no;
      sure = sure || (whole && (n != 0 || reader.empty()));
    }
    ++n;
  }
  if (n == 0) return Answer::more;
  return sure ? found(App::iec104, out) : Answer::likely;
}

Answer opc_ua(const Payload& p, Findings& out) {
  if (p.here.size() < 8) return Answer::more;
  const std::string_view text = text_of(p.here), kind = text.substr(0, 3);
  Reader reader(p.here);
  reader.skip(4);
  const uint32_t size = reader.le32();
  bool known = false;
  for (const std::string_view message : {"HEL", "ACK", "ERR", "RHE", "MSG", "OPN", "CLO"}) known = known || kind == message;
  if (!known || (text[3] != 'F' && text[3] != 'C' && text[3] != 'A') || size < 8 || size > 64 << 20) return Answer::no;
  return found(App::opcua, out);
}

Answer bacnet(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint8_t type = reader.u8(), function = reader.u8();
  const uint16_t size = reader.u16();
  if (!reader.ok() || type != 0x81 || function > 0x0c || size < 4 || size > p.here.size() || (p.whole && size != p.here.size())) return Answer::no;
  return found(App::bacnet, out);
}

Answer ethernet_ip(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint16_t command = reader.le16(), size = reader.le16();
  reader.skip(4);
  const uint32_t status = reader.le32();
  reader.skip(8);
  const uint32_t options = reader.le32();
  const bool known = command == 0 || command == 4 || (command >= 0x63 && command <= 0x66) || command == 0x6f || command == 0x70 ||
                     command == 0x72 || command == 0x73;
  if (!known) return Answer::no;
  if (!reader.ok()) return p.tcp() ? Answer::more : Answer::no;
  if (size > 65511 || status > 0x69 || options != 0) return Answer::no;
  if (p.udp() && size != reader.left()) return Answer::no;
  const bool port = p.on_port(44818) || p.on_port(2222);
  out.app = App::ethernet_ip;
  if (port && command != 0) return found(App::ethernet_ip, out);
  if (port) return Answer::likely;
  return command != 0 && size == reader.left() && size != 0 ? Answer::likely : Answer::no;
}

Answer fins(const Payload& p, Findings& out) {
  if (p.tcp()) {
    if (!could_begin(p.here, "FINS")) return Answer::no;
    return p.here.size() < 8 ? Answer::more : found(App::fins, out);
  }
  if (!p.on_port(9600) || p.here.size() < 12) return Answer::no;
  const uint8_t control = p.here[0];
  if ((control & 0x3e) != 0 || p.here[1] != 0 || p.here[2] > 7) return Answer::no;
  return found(App::fins, out);
}

}  // namespace

void add_industry(Registry& registry) {
  registry.push_back({App::dnp3, kTcp | kUdp, byte_range(5, 5), &dnp3});
  registry.push_back({App::iec104, kTcp, byte_range(0x68, 0x68), &iec104});
  registry.push_back({App::opcua, kTcp, bytes_of("HAERMOC"), &opc_ua});
  registry.push_back({App::bacnet, kUdp, byte_range(0x81, 0x81), &bacnet});
  registry.push_back({App::fins, kTcp | kUdp, bytes_of("F\x80\x81\xc0\xc1"), &fins});
  registry.push_back({App::modbus, kTcp, any_byte(), &modbus});
  registry.push_back({App::ethernet_ip, kTcp | kUdp, byte_range(0, 0x73), &ethernet_ip});
}

}  // namespace meshsieve::app
