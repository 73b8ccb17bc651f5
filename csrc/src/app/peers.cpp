// Peer to peer and what finds its peers on the local network: BitTorrent, Dropbox, Spotify, Canon printers, rsync, git.
//
// Source  BEP 3, 5, 15, 29; rsync csprotocol.txt; git gitprotocol-pack; the discovery messages themselves
#include "app/dissectors.h"
#include "app/text.h"

namespace meshsieve::app {

namespace {

Answer found(App app, Findings& out) {
  out.app = app;
  out.done = true;
  return Answer::yes;
}

Answer peer_wire(const Payload& p, Findings& out) {
  constexpr std::string_view kStart = "\x13" "BitTorrent protocol";
  if (!could_begin(p.here, kStart)) return Answer::no;
  return p.here.size() < kStart.size() ? Answer::more : found(App::bittorrent, out);
}

// uTP: type and version, extension, connection id, times, window, numbers.
struct Utp {
  uint8_t type;
  uint16_t connection, sequence, acknowledged;
};

std::optional<Utp> read_utp(Bytes bytes) {
  Reader reader(bytes);
  const uint8_t first = reader.u8(), extension = reader.u8();
  Utp out{static_cast<uint8_t>(first >> 4), reader.u16(), 0, 0};
  reader.skip(12);
  out.sequence = reader.u16();
  out.acknowledged = reader.u16();
  if (!reader.ok() || (first & 15) != 1 || out.type > 4 || extension > 2) return std::nullopt;
  if (out.type == 4 && (extension != 0 && extension != 2)) return std::nullopt;
  return out;
}

Answer bittorrent_udp(const Payload& p, Findings& out) {
  const std::string_view text = text_of(p.here);
  if (text.starts_with("d1:") || text.starts_with("d2:ip")) {
    const bool query = text.find("1:y1:") != std::string_view::npos;
    const bool starts = text.starts_with("d1:ad2:id20:") || text.starts_with("d1:rd2:id20:") || text.starts_with("d1:eli");
    return query || starts ? found(App::bittorrent, out) : Answer::no;
  }
  Reader reader(p.here);
  if (p.here.size() == 16 && reader.u64() == 0x41727101980 && reader.u32() == 0) return found(App::bittorrent, out);
  if (begins(p.here, "BT-SEARCH * HTTP/1.1")) return found(App::bittorrent, out);
  const auto here = read_utp(p.here);
  if (!here) return Answer::no;
  out.app = App::bittorrent;
  // The answer to a SYN has its connection id and acknowledges its number; other packets of both sides differ by one.
  for (const Datagram& earlier : p.history) {
    const auto other = read_utp(earlier.bytes);
    if (!other || earlier.reply == p.reply) continue;
    const auto apart = static_cast<uint16_t>(here->connection - other->connection);
    const bool near_numbers = static_cast<uint16_t>(other->sequence - here->acknowledged + 64) < 128;
    if ((apart == 0 || apart == 1 || apart == 0xffff) && near_numbers) return found(App::bittorrent, out);
  }
  if (here->type == 4 && p.here.size() >= 20 && p.here.size() <= 30 && here->sequence == 1) return Answer::likely;
  return Answer::more;
}

Answer discovery(const Payload& p, Findings& out) {
  if (begins(p.here, "{\"host_int\"") || begins(p.here, "{\"version\": [")) return found(App::dropbox, out);
  if (begins(p.here, "SpotUdp")) return found(App::spotify, out);
  for (const std::string_view start : {"BJNP", "BJNB", "BNJB", "BJNI", "MFNP"}) {
    if (begins(p.here, start) && p.here.size() >= 16) return found(App::bjnp, out);
  }
  return Answer::no;
}

Answer rsync(const Payload& p, Findings& out) {
  if (!could_begin(p.here, "@RSYNCD: ")) return Answer::no;
  return p.here.size() < 9 ? Answer::more : found(App::rsync, out);
}

// "0032git-upload-pack /project.git\0host=...": a length of four hexadecimal digits.
Answer git(const Payload& p, Findings& out) {
  if (p.here.size() < 12) return Answer::more;
  const std::string_view text = text_of(p.here);
  const std::string_view digits = text.substr(0, 4);
  if (digits.find_first_not_of("0123456789abcdefABCDEF") != std::string_view::npos) return Answer::no;
  return text.substr(4).starts_with("git-") ? found(App::git, out) : Answer::no;
}

}  // namespace

void add_peers(Registry& registry) {
  registry.push_back({App::bittorrent, kTcp, byte_range(0x13, 0x13), &peer_wire});
  registry.push_back({App::bittorrent, kUdp, bytes_of(std::string_view("d\0B\x01\x11\x21\x31\x41", 8)), &bittorrent_udp});
  registry.push_back({App::dropbox, kUdp, bytes_of("{SBM"), &discovery});
  registry.push_back({App::rsync, kTcp, bytes_of("@"), &rsync});
  registry.push_back({App::git, kTcp, bytes_of("0"), &git});
}

}  // namespace meshsieve::app
