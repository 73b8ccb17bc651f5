// SSH: the identification lines of both sides. Source: RFC 4253, section 4.2.
#include "app/dissectors.h"
#include "app/text.h"

namespace meshsieve::app {

namespace {

Answer ssh(const Payload& p, Findings& out) {
  constexpr std::string_view kStart = "SSH-";
  constexpr size_t kMaxLine = 255;
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

void add_ssh(Registry& registry) { registry.push_back({App::ssh, kTcp, bytes_of("S"), &ssh}); }

}  // namespace meshsieve::app
