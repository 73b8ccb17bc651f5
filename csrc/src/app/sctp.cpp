// Users of SCTP, by the payload protocol identifier of DATA chunks. Source: RFC 9260, section 3.3; IANA SCTP Payload Protocol
// Identifiers; RFC 4666, 3331, 3868.
#include "app/dissectors.h"

namespace meshsieve::app {

namespace {

App app_of_identifier(uint32_t identifier) {
  switch (identifier) {
    case 2: return App::m2ua;
    case 3: return App::m3ua;
    case 4: return App::sua;
    case 18: return App::s1ap;
    case 46: return App::diameter;
    case 60: return App::ngap;
    default: return App::unknown;
  }
}

Answer sctp(const Payload& p, Findings& out) {
  constexpr uint8_t kData = 0;
  Reader reader(p.here);
  while (reader.left() >= 4) {
    const uint8_t type = reader.u8();
    reader.skip(1);
    const uint16_t size = reader.u16();
    if (size < 4) return Answer::no;
    Reader chunk(reader.up_to(size - 4u));
    reader.skip(std::min<size_t>(-size & 3u, reader.left()));
    if (type != kData) continue;
    chunk.skip(8);
    const uint32_t identifier = chunk.u32();
    if (!chunk.ok()) return Answer::no;
    out.app = app_of_identifier(identifier);
    if (out.app == App::unknown && begins(chunk.rest(), "\x01") && (p.on_port(3868) || identifier == 0)) {
      Payload inner = p;
      inner.here = chunk.rest();
      if (diameter(inner, out) == Answer::yes) return Answer::yes;
    }
    if (out.app == App::unknown) continue;
    out.done = true;
    return Answer::yes;
  }
  return Answer::more;
}

}  // namespace

void add_sctp(Registry& registry) { registry.push_back({App::sctp, kSctp, any_byte(), &sctp}); }

}  // namespace meshsieve::app
