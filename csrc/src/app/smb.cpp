// SMB 1, 2 and 3, directly on TCP or in NetBIOS sessions.
//
// Confirms  a session header (RFC 1002, section 4.3) around 0xff, 0xfe, 0xfd or 0xfc and "SMB"
// Dialect   SMB 2 and 3 name it in the NEGOTIATE response; whoever answers in SMB 1 speaks 1.0
// Source    MS-CIFS, MS-SMB2 2.2.1, 2.2.4
#include "app/dissectors.h"

namespace meshsieve::app {

namespace {

constexpr uint8_t kSessionMessage = 0x00, kSessionRequest = 0x81, kSessionResponse = 0x82;

std::string_view dialect_name(uint16_t dialect) {
  switch (dialect) {
    case 0x0202: return "2.0.2";
    case 0x0210: return "2.1";
    case 0x0300: return "3.0";
    case 0x0302: return "3.0.2";
    case 0x0311: return "3.1.1";
    default: return {};  // 0x02ff only says that SMB 2 goes on
  }
}

// One message; `whole` = all of it is there.
void read_message(Bytes message, Attributes& out, bool& done) {
  Reader reader(message);
  const uint32_t magic = reader.u32();
  if (magic == 0xff534d42) {
    const uint8_t command = reader.u8();
    const uint32_t status = reader.le32();
    const uint8_t flags = reader.u8();
    if (!reader.ok() || (flags & 0x80) == 0) return;  // only answers
    if (command == 0x72 && status == 0) {
      reader.skip(22);
      const uint8_t words = reader.u8();
      if (words == 0 || reader.le16() == 0xffff) return;  // no common dialect
    }
    out.set(Attribute::smb_dialect, "1.0");
    done = command != 0x72;
  } else if (magic == 0xfe534d42) {
    reader.skip(8);
    const uint16_t command = reader.le16();
    reader.skip(2);
    const uint32_t flags = reader.le32();
    reader.skip(44);
    if (!reader.ok()) return;
    if ((flags & 1) == 0) return;
    if (command != 0) {
      done = true;
      return;
    }
    const uint16_t size = reader.le16();
    reader.skip(2);
    const uint16_t dialect = reader.le16();
    if (!reader.ok() || size != 65 || dialect_name(dialect).empty()) return;
    out.replace(Attribute::smb_dialect, dialect_name(dialect));
    done = true;
  }
}

Answer read_session(Bytes bytes, Findings& out) {
  Reader reader(bytes);
  Answer answer = Answer::no;
  for (int i = 0; i < 64 && !reader.empty(); ++i) {
    const uint8_t type = reader.u8();
    const uint32_t size = reader.u24();
    if (!reader.ok()) return answer == Answer::no ? Answer::more : answer;
    if (type == kSessionRequest || (type >= kSessionResponse && type <= 0x85)) {
      const Bytes body = reader.up_to(size);
      const bool request = type == kSessionRequest && size == 68 && (body.empty() || body[0] == 32);
      if (type == kSessionRequest && !request) return answer;
      if (type != kSessionRequest && size > 8) return answer;
      if (request && body.size() == size && out.app == App::unknown) out.app = App::netbios;
      answer = request && body.size() == size ? Answer::yes : answer == Answer::yes ? answer : Answer::more;
      continue;
    }
    if (type != kSessionMessage) return answer;
    if (reader.left() < 4) return answer == Answer::no && size >= 32 ? Answer::more : answer;
    const Bytes start = reader.rest().first(4);
    if (start[0] < 0xfc || text_of(start.subspan(1)) != "SMB") return answer;
    out.app = App::smb;
    answer = Answer::yes;
    bool done = false;
    read_message(reader.up_to(size), out.attributes, done);
    out.done = out.done || done;
  }
  return answer;
}

Answer smb(const Payload& p, Findings& out) { return read_session(p.here, out); }

}  // namespace

void add_smb(Registry& registry) {
  registry.push_back({App::smb, kTcp, bytes_of(std::string_view("\0\x81\x82\x83\x84\x85", 6)), &smb});
}

}  // namespace meshsieve::app
