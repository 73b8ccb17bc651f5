// Remote procedure calls: ONC RPC with NFS, DCE/RPC, Thrift, Dubbo.
//
// Source  RFC 5531, 1813, 7530; C706 and MS-RPCE; Apache Thrift specs (binary, compact, framed); Apache Dubbo protocol
#include "app/dissectors.h"
#include "app/text.h"

namespace meshsieve::app {

namespace {

struct Program {
  uint32_t number;
  App app;
  std::string_view name;
};
constexpr Program kPrograms[] = {
    {100000, App::rpc, "portmapper"}, {100003, App::nfs, "nfs"},     {100005, App::rpc, "mount"},
    {100021, App::rpc, "nlockmgr"},   {100024, App::rpc, "status"},  {100227, App::nfs, "nfs_acl"},
    {100011, App::rpc, "rquotad"},    {100004, App::rpc, "ypserv"},  {100007, App::rpc, "ypbind"},
    {100020, App::rpc, "llockmgr"},   {100001, App::rpc, "rstatd"},  {100002, App::rpc, "rusersd"},
    {150001, App::rpc, "pcnfsd"},     {100083, App::rpc, "ttdbserverd"}, {390113, App::rpc, "nsrexecd"}};

bool read_auth(Reader& reader) {
  const uint32_t flavor = reader.u32(), size = reader.u32();
  if (!reader.ok() || flavor > 400'000 || size > 400) return false;
  reader.skip((size + 3) & ~3u);
  return true;
}

// One message. The call names its program; an answer is known by its shape only.
Answer rpc_message(Bytes message, Findings& out, bool& call) {
  Reader reader(message);
  reader.skip(4);
  const uint32_t type = reader.u32();
  if (!reader.ok()) return message.size() < 4 || (message.size() < 8 && message[4] == 0) ? Answer::more : Answer::no;
  if (type == 0) {
    const uint32_t version = reader.u32(), program = reader.u32(), program_version = reader.u32(), procedure = reader.u32();
    if (!reader.ok()) return Answer::more;
    if (version != 2 || program < 100'000 || program > 0x60000000 || program_version > 10 || procedure > 100) return Answer::no;
    if (!read_auth(reader)) return Answer::no;
    out.app = App::rpc;
    for (const Program& known : kPrograms) {
      if (known.number != program) continue;
      out.app = known.app;
      out.attributes.set(Attribute::service, known.name);
    }
    out.attributes.set(Attribute::protocol_version, std::to_string(program_version));
    call = true;
    return Answer::yes;
  }
  if (type != 1) return Answer::no;
  const uint32_t state = reader.u32();
  if (!reader.ok() || state > 1) return Answer::no;
  if (state == 0) {
    if (!read_auth(reader)) return Answer::no;
    if (reader.u32() > 5 || !reader.ok()) return Answer::no;
  } else if (reader.u32() > 1 || !reader.ok()) {
    return Answer::no;
  }
  if (out.app == App::unknown) out.app = App::rpc;
  return Answer::likely;
}

Answer onc_rpc(const Payload& p, Findings& out) {
  bool call = false;
  Bytes message = p.here;
  if (p.tcp()) {
    Reader reader(p.here);
    const uint32_t mark = reader.u32();
    if (!reader.ok()) return Answer::more;
    const uint32_t size = mark & 0x7fffffff;
    if (size < 24 || size > 4 << 20) return Answer::no;
    message = reader.up_to(size);
    if (message.size() < 28 && message.size() < size) return Answer::more;
    const Answer answer = rpc_message(message, out, call);
    if (answer == Answer::no && message.size() < std::min<size_t>(size, 512)) return Answer::more;
  } else if (p.here.size() < 24) {
    return Answer::no;
  }
  const Answer answer = rpc_message(message, out, call);
  out.done = call;
  const bool port = p.on_port(2049) || p.on_port(111);
  if (answer == Answer::likely && p.on_port(2049)) out.app = App::nfs;
  return answer == Answer::likely && port ? Answer::yes : answer;
}

// ---- DCE/RPC

std::string uuid_text(Bytes bytes, bool little) {
  constexpr char kDigits[] = "0123456789abcdef";
  constexpr uint8_t kLittle[] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
  std::string out;
  for (size_t i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) out += '-';
    const uint8_t byte = bytes[little ? kLittle[i] : i];
    out += kDigits[byte >> 4];
    out += kDigits[byte & 15];
  }
  return out;
}

Answer dce_rpc(const Payload& p, Findings& out) {
  constexpr uint8_t kBind = 11, kAlterContext = 14;
  Reader reader(p.here);
  const uint8_t version = reader.u8(), minor = reader.u8(), type = reader.u8(), flags = reader.u8();
  const uint8_t order = reader.u8(), real = reader.u8();
  reader.skip(2);
  const bool little = (order & 0xf0) == 0x10;
  const uint16_t size = little ? reader.le16() : reader.u16(), auth = little ? reader.le16() : reader.u16();
  reader.skip(4);
  if (!reader.ok()) return version == 5 && (p.here.size() < 2 || minor <= 1) ? Answer::more : Answer::no;
  if (version != 5 || minor > 1 || type > 19 || (order & 0xef) > 1 || real > 3 || size < 16) return Answer::no;
  if (auth > size - 16 || (flags & 0x40) != 0) return Answer::no;
  out.app = App::dcerpc;
  if (type == kBind || type == kAlterContext) {
    reader.skip(8 + 4 + 2 + 2);  // fragment sizes and group, contexts, context id, transfer syntaxes
    const Bytes interface = reader.bytes(16);
    if (reader.ok()) out.attributes.set(Attribute::service, uuid_text(interface, little));
    out.done = reader.ok();
  }
  return Answer::yes;
}

// Connectionless: RPC version 4, 80 bytes of header. PROFINET's context manager speaks it.
Answer dce_rpc_datagram(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint8_t version = reader.u8(), type = reader.u8();
  const uint8_t flags1 = reader.u8(), flags2 = reader.u8();
  const uint8_t order = reader.u8(), real = reader.u8(), character = reader.u8();
  reader.skip(17);
  const Bytes interface = reader.bytes(16);
  reader.skip(34);
  const uint16_t size = (order & 0xf0) == 0x10 ? reader.le16() : reader.u16();
  reader.skip(4);
  if (!reader.ok() || version != 4 || type > 10 || flags2 > 7 || (order & 0xef) > 1 || real > 3 || character != 0) return Answer::no;
  if (size > reader.left() || (flags1 & 0x81) != 0) return Answer::no;
  out.app = p.on_port(34964) ? App::profinet : App::dcerpc;
  out.attributes.set(Attribute::service, uuid_text(interface, (order & 0xf0) == 0x10));
  out.done = true;
  return Answer::yes;
}

// ---- Thrift

bool is_identifier(Bytes name) {
  return !name.empty() && name.size() <= 128 && std::all_of(name.begin(), name.end(), [](uint8_t byte) {
           const char c = static_cast<char>(byte);
           return is_letter(c) || is_digit(c) || c == '_' || c == ':' || c == '.';
         });
}

// Returns the method's name; empty if it is no message.
Bytes thrift_method(Bytes message) {
  Reader reader(message);
  const uint8_t first = reader.u8(), second = reader.u8();
  if (first == 0x80 && second == 0x01) {
    reader.skip(1);
    const uint8_t type = reader.u8();
    const Bytes name = reader.bytes(reader.u32());
    return reader.ok() && type >= 1 && type <= 4 && is_identifier(name) ? name : Bytes{};
  }
  if (first == 0x82 && (second & 31) == 1 && second >> 5 >= 1 && second >> 5 <= 4) {
    for (int i = 0; i < 5 && (reader.u8() & 0x80) != 0; ++i) {
    }
    const Bytes name = reader.vector8();
    return reader.ok() && is_identifier(name) ? name : Bytes{};
  }
  return {};
}

Answer thrift(const Payload& p, Findings& out) {
  constexpr uint32_t kShortest = 6;  // a call by a name of one letter without arguments, in the compact protocol
  if (p.here.size() < kShortest || (p.udp() && p.here.size() < 16)) return p.tcp() ? Answer::more : Answer::no;
  Bytes method = thrift_method(p.here);
  if (method.empty()) {
    Reader framed(p.here);
    const uint32_t size = framed.u32();
    if (size >= kShortest && size <= 16 << 20) method = thrift_method(framed.rest());
  }
  if (method.empty()) {
    const auto starts = [](Bytes bytes) { return begins(bytes, "\x80\x01") || (bytes.size() > 1 && bytes[0] == 0x82 && (bytes[1] & 31) == 1); };
    const bool could = p.here.size() < 16 || (p.here.size() < 160 && (starts(p.here) || starts(p.here.subspan(4))));
    return p.tcp() && could ? Answer::more : Answer::no;
  }
  out.app = App::thrift;
  out.attributes.set(Attribute::service, text_of(method));
  out.done = true;
  return Answer::yes;
}

Answer dubbo(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint16_t magic = reader.u16();
  reader.skip(10);
  const uint32_t size = reader.u32();
  if (magic != 0xdabb) return p.here.size() == 1 ? Answer::more : Answer::no;
  if (!reader.ok()) return Answer::more;
  if (size > 64 << 20) return Answer::no;
  out.app = App::dubbo;
  out.done = true;
  return Answer::yes;
}

}  // namespace

void add_rpc(Registry& registry) {
  registry.push_back({App::dubbo, kTcp, byte_range(0xda, 0xda), &dubbo});
  registry.push_back({App::dcerpc, kTcp, byte_range(5, 5), &dce_rpc});
  registry.push_back({App::dcerpc, kUdp, byte_range(4, 4), &dce_rpc_datagram});
  registry.push_back({App::thrift, kTcp | kUdp, byte_range(0, 1) + byte_range(0x80, 0x82), &thrift});
  registry.push_back({App::rpc, kTcp, byte_range(0, 0) + byte_range(0x80, 0x80), &onc_rpc});
  registry.push_back({App::rpc, kUdp, any_byte(), &onc_rpc});
}

}  // namespace meshsieve::app
