// QUIC: versions 1 and 2, drafts 23 to 34, Google QUIC.
//
// How      The Initial packets of both sides are sealed with keys made from the client's first connection id and a salt of
//          the version, so anybody who sees them reads the ClientHello. CRYPTO frames may be split over packets and
//          datagrams and come in any order; they are put together from `history`.
// Cost     about 12 us an Initial (measured in design work); only while the hellos are not whole. What opens with no key is
//          tried kMaxClosed times a look, and of one datagram kMaxInitials are: a sender can pack hundreds into it.
// Source   RFC 9000, 9001, 9369; draft-ietf-quic-tls-23 to -34 (salts); QUIC crypto of Google's Q043 to Q050
#include <array>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <optional>

#include "app/digest.h"
#include "app/dissectors.h"
#include "app/handshake.h"

namespace meshsieve::app {

namespace {

constexpr uint32_t kVersion1 = 1, kVersion2 = 0x6b3343cf, kVersion2Draft = 0x709a50c4, kFacebook2 = 0xfaceb002;

bool is_second(uint32_t version) { return version == kVersion2 || version == kVersion2Draft; }
constexpr size_t kMaxCrypto = 16 << 10;
constexpr int kMaxInitials = 8, kMaxClosed = 8;

uint64_t read_varint(Reader& reader) {
  const uint8_t first = reader.u8();
  uint64_t value = first & 0x3f;
  for (int i = (1 << (first >> 6)) - 1; i > 0; --i) value = value << 8 | reader.u8();
  return value;
}

bool is_draft(uint32_t version) { return version >= 0xff000017 && version <= 0xff000022; }
bool is_google(uint32_t version) {  // "Q0nn", "T0nn"
  const uint8_t family = version >> 24;
  const uint8_t tens = version >> 8 & 0xff, ones = version & 0xff;
  return (family == 'Q' || family == 'T') && (version >> 16 & 0xff) == '0' && tens >= '0' && tens <= '9' &&
         ones >= '0' && ones <= '9';
}
bool is_ietf(uint32_t version) {
  return version == kVersion1 || is_second(version) || (version >> 8 == 0xff0000) ||
         (version & 0x0f0f0f0f) == 0x0a0a0a0a || version >> 4 == 0xfaceb00;
}

std::string_view salt_of(uint32_t version) {
  using namespace std::string_view_literals;
  if (version == kVersion1 || (version >= 0xff000021 && is_draft(version))) {
    return "\x38\x76\x2c\xf7\xf5\x59\x34\xb3\x4d\x17\x9a\xe6\xa4\xc8\x0c\xad\xcc\xbb\x7f\x0a"sv;
  }
  if (version == kVersion2) {
    return "\x0d\xed\xe3\xde\xf7\x00\xa6\xdb\x81\x93\x81\xbe\x6e\x26\x9d\xcb\xf9\xbd\x2e\xd9"sv;
  }
  if (version == kVersion2Draft) {
    return "\xa7\x07\xc2\x03\xa5\x9b\x47\x18\x4a\x1d\x62\xca\x57\x04\x06\xea\x7a\xe3\xe5\xd3"sv;
  }
  if (version == 0x51303530) {  // Q050
    return "\x50\x45\x74\xef\xd0\x66\xfe\x2f\x9d\x94\x5c\xfc\xdb\xd3\xa7\xf0\xd3\xb5\x6b\x45"sv;
  }
  if (version >= 0xff00001d && version <= 0xff000020) {
    return "\xaf\xbf\xec\x28\x99\x93\xd2\x4c\x9e\x97\x86\xf1\x9c\x61\x11\xe0\x43\x90\xa8\x99"sv;
  }
  if (is_draft(version) || version == kFacebook2) return "\xc3\xee\xf7\x12\xc7\x2e\xbb\x5a\x11\xa7\xd2\x43\x2b\xb4\x63\x65\xbe\xf9\xf5\x02"sv;
  return {};
}

std::string version_name(uint32_t version) {
  if (version == kVersion1) return "1";
  if (version == kVersion2) return "2";
  if (is_draft(version)) return "draft-" + std::to_string(version & 0xff);
  if (is_google(version)) {
    return {static_cast<char>(version >> 24), static_cast<char>(version >> 16), static_cast<char>(version >> 8),
            static_cast<char>(version)};
  }
  char text[11];
  std::snprintf(text, sizeof text, "0x%08x", version);
  return text;
}

struct LongHeader {
  uint8_t first = 0;
  uint32_t version = 0;
  Bytes destination, source;
  bool initial = false;
  Bytes token;
  size_t number_offset = 0;  // of the packet number, from the packet's start
  Bytes packet;              // up to the end that its length field gives
};

// Reads one packet off the front of a datagram. False if it has no long header that makes sense.
bool read_long_header(Reader& datagram, LongHeader& out) {
  const Bytes start = datagram.rest();
  Reader reader(start);
  out.first = reader.u8();
  if ((out.first & 0x80) == 0) return false;
  out.version = reader.u32();
  out.destination = reader.vector8();
  out.source = reader.vector8();
  if (!reader.ok() || out.destination.size() > 20 || out.source.size() > 20) return false;
  if (out.version == 0 || (!is_ietf(out.version) && !is_google(out.version))) return false;
  const uint8_t type = out.first >> 4 & 3;
  out.initial = type == (is_second(out.version) ? 1 : 0);
  if (out.initial) {
    const uint64_t token = read_varint(reader);
    out.token = token > reader.left() ? reader.bytes(reader.left() + 1) : reader.bytes(static_cast<size_t>(token));
  } else if (type == (is_second(out.version) ? 0 : 3)) {  // Retry: no length, no number
    datagram.skip(datagram.left());
    out.packet = start;
    return true;
  }
  const uint64_t length = read_varint(reader);
  if (!reader.ok() || length < 20) return false;
  out.number_offset = start.size() - reader.left();
  out.packet = start.first(out.number_offset + reader.up_to(static_cast<size_t>(std::min<uint64_t>(length, start.size()))).size());
  datagram.skip(out.packet.size());
  return true;
}

struct Keys {
  Aes128Key key, header;
  std::array<uint8_t, 12> iv;
};

Keys derive_keys(uint32_t version, Bytes destination, bool from_server) {
  const std::string_view salt = salt_of(version);
  const Sha256 initial = hmac_sha256({reinterpret_cast<const uint8_t*>(salt.data()), salt.size()}, destination);
  const auto secret = hkdf_expand_label(initial, from_server ? "server in" : "client in", 32);
  const bool second = is_second(version);
  const auto key = hkdf_expand_label(secret, second ? "quicv2 key" : "quic key", 16);
  const auto iv = hkdf_expand_label(secret, second ? "quicv2 iv" : "quic iv", 12);
  const auto header = hkdf_expand_label(secret, second ? "quicv2 hp" : "quic hp", 16);
  Keys out;
  std::copy_n(key.begin(), 16, out.key.begin());
  std::copy_n(iv.begin(), 12, out.iv.begin());
  std::copy_n(header.begin(), 16, out.header.begin());
  return out;
}

// Derived once for the datagrams of a connection, which mostly come close together: each look at a flow reads all its
// Initial packets again. `destination`: at most 20 bytes (read_long_header).
const Keys& initial_keys(uint32_t version, Bytes destination, bool from_server) {
  struct Entry {
    std::string connection;  // version, side, connection id
    Keys keys;
  };
  static thread_local std::array<Entry, 64> entries;
  char connection[4 + 1 + 20];
  std::memcpy(connection, &version, 4);
  connection[4] = from_server;
  std::copy(destination.begin(), destination.end(), connection + 5);
  const std::string_view key(connection, 5 + destination.size());
  Entry& entry = entries[std::hash<std::string_view>()(key) % entries.size()];
  if (entry.connection != key) {
    entry.keys = derive_keys(version, destination, from_server);
    entry.connection = key;
  }
  return entry.keys;
}

bool open_initial(const LongHeader& header, const Keys& keys, std::vector<uint8_t>& plain) {
  constexpr size_t kSample = 16;
  std::vector<uint8_t> packet(header.packet.begin(), header.packet.end());
  if (packet.size() < header.number_offset + 4 + kSample) return false;
  const auto mask = aes128_block(keys.header, packet.data() + header.number_offset + 4);
  packet[0] ^= mask[0] & 0x0f;
  const size_t n_number = (packet[0] & 3) + 1u;
  uint64_t number = 0;
  for (size_t i = 0; i < n_number; ++i) {
    packet[header.number_offset + i] ^= mask[1 + i];
    number = number << 8 | packet[header.number_offset + i];
  }
  auto nonce = keys.iv;
  for (int i = 0; i < 8; ++i) nonce[static_cast<size_t>(11 - i)] ^= static_cast<uint8_t>(number >> 8 * i);
  const Bytes all(packet);
  const size_t n_header = header.number_offset + n_number;
  return aes128_gcm_open(keys.key, nonce, all.first(n_header), all.subspan(n_header), plain);
}

// Pieces of the CRYPTO stream of one side.
class CryptoStream {
 public:
  void add(uint64_t offset, Bytes data) {
    if (offset > kMaxCrypto || data.size() > kMaxCrypto) return;
    pieces_.try_emplace(offset, data.begin(), data.end());
  }
  std::vector<uint8_t> bytes() const {
    std::vector<uint8_t> out;
    for (const auto& [offset, piece] : pieces_) {
      if (offset > out.size()) break;
      const size_t known = out.size() - static_cast<size_t>(offset);
      if (known < piece.size()) out.insert(out.end(), piece.begin() + static_cast<ptrdiff_t>(known), piece.end());
    }
    return out;
  }

 private:
  std::map<uint64_t, std::vector<uint8_t>> pieces_;
};

void read_frames(Bytes plain, CryptoStream& crypto) {
  Reader reader(plain);
  while (!reader.empty()) {
    const uint64_t type = read_varint(reader);
    if (type <= 1) continue;  // PADDING, PING
    if (type == 2 || type == 3) {
      read_varint(reader);
      read_varint(reader);
      const uint64_t ranges = read_varint(reader);
      read_varint(reader);
      for (uint64_t i = 0; i < ranges && reader.ok(); ++i) {
        read_varint(reader);
        read_varint(reader);
      }
      for (int i = 0; type == 3 && i < 3; ++i) read_varint(reader);
    } else if (type == 6) {
      const uint64_t offset = read_varint(reader), size = read_varint(reader);
      if (size > reader.left()) return;
      crypto.add(offset, reader.bytes(static_cast<size_t>(size)));
    } else {
      return;
    }
  }
}

// The tags of Google's CHLO message: tag, end offset; then the values.
void read_chlo(Bytes bytes, Attributes& out) {
  Reader reader(bytes);
  reader.skip(4);
  const uint16_t n = reader.le16();
  reader.skip(2);
  Reader values(reader.ok() && size_t{n} * 8 <= reader.left() ? reader.rest().subspan(size_t{n} * 8) : Bytes{});
  uint32_t begin = 0;
  for (uint16_t i = 0; i < n && reader.left() >= 8; ++i) {
    const Bytes tag = reader.bytes(4);
    const uint32_t end = reader.le32();
    if (end < begin) return;
    const Bytes value = values.bytes(end - begin);
    begin = end;
    if (!values.ok()) return;
    using namespace std::string_view_literals;
    if (text_of(tag) == "SNI\0"sv) out.set(Attribute::sni, value.data(), value.size());
    if (text_of(tag) == "UAID"sv) out.set(Attribute::user_agent, value.data(), value.size());
  }
}

bool find_chlo(Bytes bytes, Attributes& out) {
  const std::string_view text = text_of(bytes);
  const size_t at = text.find("CHLO");
  if (at == std::string_view::npos) return false;
  read_chlo(bytes.subspan(at), out);
  return true;
}

// Google QUIC up to Q043: public flags, connection id, version, then the hello in clear.
Answer old_google(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint8_t flags = reader.u8();
  if ((flags & 0xc0) != 0 || (flags & 1) == 0 || (flags & 8) == 0) return Answer::no;
  reader.skip(8);
  const uint32_t version = reader.u32();
  if (!reader.ok() || !is_google(version)) return Answer::no;
  out.attributes.set(Attribute::quic_version, version_name(version));
  find_chlo(p.here, out.attributes);
  out.done = out.attributes.has(Attribute::sni);
  return Answer::yes;
}

// Q046: form bit, version, one byte with both lengths of connection ids.
bool is_q046(const Payload& p, Attributes& out) {
  Reader reader(p.here);
  reader.skip(1);
  const uint32_t version = reader.u32();
  if (!reader.ok() || !is_google(version) || version >= 0x51303530) return false;
  out.set(Attribute::quic_version, version_name(version));
  find_chlo(p.here, out);
  return true;
}

// Server: every version it knows. RFC 9000, section 17.2.1.
bool is_version_negotiation(Bytes bytes) {
  Reader reader(bytes);
  reader.skip(1);
  const bool zero = reader.u32() == 0;
  const bool ids = reader.vector8().size() <= 20 && reader.vector8().size() <= 20;
  if (!reader.ok() || !zero || !ids || reader.empty() || reader.left() % 4 != 0) return false;
  while (!reader.empty()) {
    const uint32_t version = reader.u32();
    if (!is_ietf(version) && !is_google(version)) return false;
  }
  return true;
}

void read_hello(Bytes bytes, bool from_server, Findings& out) {
  if (begins(bytes, "CHLO")) read_chlo(bytes, out.attributes);
  Reader reader(bytes);
  const uint8_t type = reader.u8();
  const Bytes body = reader.bytes(reader.u24());
  if (!reader.ok()) return;
  if (!from_server && type == 1) read_client_hello(body, HelloOf::quic, out.attributes);
  if (from_server && type == 2 && read_server_hello(body, out.attributes)) {
    out.done = out.attributes.has(Attribute::ja4);
  }
}

// What the Initial packets of all datagrams say.
void read_initials(const Payload& p, Findings& out) {
  std::vector<uint8_t> client_id;
  std::optional<Keys> keys[2];  // of the client with that id, and of its server
  CryptoStream crypto[2];
  bool client_known = false, client_reply = false;
  std::vector<uint8_t> plain;
  int closed = 0;
  const auto read = [&](Bytes bytes, bool reply) {
    Reader datagram(bytes);
    int initials = 0;
    for (LongHeader header; !datagram.empty() && read_long_header(datagram, header);) {
      if (!header.initial || salt_of(header.version).empty()) continue;
      if (closed == kMaxClosed || ++initials > kMaxInitials) return;
      const bool from_server = client_known && reply != client_reply;
      const bool was_read = out.attributes.has(from_server ? Attribute::tls_cipher : Attribute::ja4);
      if (client_known && was_read && header.token.empty()) continue;
      if (client_known && !keys[from_server]) keys[from_server] = initial_keys(header.version, client_id, from_server);
      bool opened = client_known && open_initial(header, *keys[from_server], plain);
      if (!opened && !from_server) {  // the first one, or the one after a Retry
        const Keys first = initial_keys(header.version, header.destination, false);
        opened = open_initial(header, first, plain);
        if (opened) {
          client_id.assign(header.destination.begin(), header.destination.end());
          keys[false] = first;
          keys[true].reset();
          client_known = true;
          client_reply = reply;
        }
      }
      if (opened) read_frames(plain, crypto[from_server]);
      else ++closed;
    }
  };
  for (const Datagram& datagram : p.history) read(datagram.bytes, datagram.reply);
  read(p.here, p.reply);
  for (const bool from_server : {false, true}) read_hello(crypto[from_server].bytes(), from_server, out);
}

Answer quic(const Payload& p, Findings& out) {
  const bool known = out.app == App::quic;
  out.app = App::quic;
  if ((p.here[0] & 0x80) == 0) {
    const Answer answer = old_google(p, out);
    return known ? Answer::yes : answer;  // short headers
  }
  if (is_q046(p, out.attributes) || is_version_negotiation(p.here)) return Answer::yes;
  Reader datagram(p.here);
  LongHeader header;
  if (!read_long_header(datagram, header)) return known ? Answer::yes : Answer::no;
  out.attributes.set(Attribute::quic_version, version_name(header.version));
  bool initial = header.initial;
  while (!initial && !datagram.empty() && read_long_header(datagram, header)) initial = header.initial;
  if (initial) read_initials(p, out);  // else it says nothing new
  return Answer::yes;
}

}  // namespace

void add_quic(Registry& registry) {
  registry.push_back({App::quic, kUdp, byte_range(0x80, 0xff) + byte_range(0x08, 0x3f), &quic, true});
}

}  // namespace meshsieve::app
