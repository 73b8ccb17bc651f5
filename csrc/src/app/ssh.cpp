// SSH: the identification lines of both sides; of a connection that was picked up behind them, the key exchange.
//
// Source  RFC 4253, sections 4.2, 6, 7.1
#include "app/dissectors.h"
#include "app/text.h"

namespace meshsieve::app {

namespace {

// The packet that names algorithms: its length, that of its padding, 20, a cookie, and lists of names.
Answer key_exchange(const Payload& p, Findings& out) {
  constexpr uint32_t kMaxPacket = 35000;
  constexpr uint8_t kExchangeInit = 20;
  if (p.from_start) return Answer::no;
  Reader reader(p.here);
  const uint32_t size = reader.u32();
  const uint8_t padding = reader.u8(), type = reader.u8();
  reader.skip(16);
  const uint32_t names_size = reader.u32();
  if (!reader.ok()) return Answer::no;
  if (size > kMaxPacket || padding < 4 || padding >= size || type != kExchangeInit || names_size > size) return Answer::no;
  const std::string_view names = text_of(reader.up_to(names_size));
  const bool known = names.find("diffie-hellman-") != std::string_view::npos || names.find("curve25519-") != std::string_view::npos ||
                     names.find("ecdh-") != std::string_view::npos;
  if (!known || !is_plain_text(names)) return Answer::no;
  out.app = App::ssh;
  out.done = true;
  return Answer::yes;
}

Answer ssh(const Payload& p, Findings& out) {
  constexpr std::string_view kStart = "SSH-";
  constexpr size_t kMaxLine = 255;
  if (p.here[0] == 0) return key_exchange(p, out);
  if (!could_begin(p.here, kStart)) return Answer::no;
  if (p.here.size() < 8) return Answer::more;
  if (!is_digit(static_cast<char>(p.here[4])) || p.here[5] != '.') return Answer::no;
  out.app = App::ssh;
  std::string_view text = text_of(p.here);
  if (const auto line = next_line(text); line && line->size() <= kMaxLine) {
    out.attributes.set(p.reply ? Attribute::server_software : Attribute::client_software, *line);
  }
  out.done = out.attributes.has(Attribute::server_software) && out.attributes.has(Attribute::client_software);
  return Answer::yes;
}

}  // namespace

void add_ssh(Registry& registry) { registry.push_back({App::ssh, kTcp, bytes_of(std::string_view("S\0", 2)), &ssh}); }

}  // namespace meshsieve::app
