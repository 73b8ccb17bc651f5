// SSL and TLS on TCP, DTLS on UDP.
//
// Records  type (20 to 24), version 3.0 to 3.4, length up to 2^14 + 2048; handshake messages may span records and
//          records hold several. A hello is taken only whole.
// Source   RFC 5246, 8446; SSL 2.0 hello: RFC 5246, appendix E.2; DTLS: RFC 6347, 9147
#include "app/dissectors.h"
#include "app/handshake.h"

namespace meshsieve::app {

namespace {

constexpr uint8_t kChangeCipherSpec = 20, kAlert = 21, kHandshake = 22, kApplicationData = 23, kHeartbeat = 24;
constexpr uint8_t kClientHello = 1, kServerHello = 2, kCertificate = 11, kServerHelloDone = 14;
constexpr size_t kMaxRecord = (1 << 14) + 2048;
constexpr size_t kMaxHandshake = 1 << 17;

bool is_handshake_type(uint8_t type) {
  return type <= 8 || (type >= 11 && type <= 16) || (type >= 20 && type <= 25) || type == 67;
}

// The messages at the start of `bytes`, of which the last may be cut off.
void read_messages(Bytes bytes, Attributes& out, TlsProgress& progress) {
  Reader reader(bytes);
  while (reader.left() >= 4) {
    const uint8_t type = reader.u8();
    const uint32_t size = reader.u24();
    if (!is_handshake_type(type) || size > kMaxHandshake) return;
    const Bytes body = reader.up_to(size);
    if (type == kCertificate && !out.has(Attribute::certificate_names)) read_certificates(body, out);  // its first entry may be whole although the list is not
    if (body.size() != size) return;
    if (type == kClientHello && read_client_hello(body, HelloOf::tls, out)) progress.client_hello = true;
    if (type == kServerHello && read_server_hello(body, out)) progress.server_hello = true;
    if (type == kServerHelloDone) progress.past_clear = true;
  }
}

// A ClientHello in the format of SSL 2.0: also how a client of SSL 3.0 or TLS 1.0 may begin.
Answer read_v2_hello(Bytes bytes, Attributes& out) {
  Reader reader(bytes);
  const uint16_t size = reader.u16() & 0x7fff;
  const uint8_t type = reader.u8();
  const uint16_t version = reader.u16();
  const bool plausible = (version == 0x0002 || (version >= 0x0300 && version <= 0x0303)) && size >= 9;
  if (!reader.ok()) return Answer::more;
  if (type == 1 && plausible) {
    const uint16_t ciphers = reader.u16(), session = reader.u16(), challenge = reader.u16();
    if (!reader.ok()) return Answer::more;
    const bool fits = ciphers != 0 && ciphers % 3 == 0 && (session == 0 || session == 16) && challenge >= 16 &&
                      challenge <= 32 && size == 9u + ciphers + session + challenge;
    if (!fits) return Answer::no;
    out.set(Attribute::tls_version, tls_version_name(version));
    return Answer::yes;
  }
  return Answer::no;
}

// Answer of the server in SSL 2.0: session-id-hit, certificate type, version, three lengths.
bool is_v2_server_hello(Bytes bytes, Attributes& out) {
  Reader reader(bytes);
  const uint16_t size = reader.u16() & 0x7fff;
  const uint8_t type = reader.u8(), hit = reader.u8(), certificate = reader.u8();
  const uint16_t version = reader.u16();
  const uint16_t certificate_size = reader.u16(), ciphers = reader.u16(), id = reader.u16();
  const bool fits = reader.ok() && type == 4 && hit <= 1 && certificate <= 1 && version == 2 && ciphers % 3 == 0 &&
                    size == 11u + certificate_size + ciphers + id;
  if (fits) out.replace(Attribute::tls_version, tls_version_name(version));
  return fits;
}

Answer tls(const Payload& p, Findings& out) {
  out.app = App::tls;
  if ((p.here[0] & 0x80) != 0) {
    if (is_v2_server_hello(p.here, out.attributes)) {
      out.done = true;
      return Answer::yes;
    }
    return read_v2_hello(p.here, out.attributes);
  }
  const TlsProgress here = read_tls_stream(p.here, out.attributes);
  // The other direction was read when it grew.
  out.done = out.attributes.has(Attribute::ja4) && out.attributes.has(Attribute::tls_cipher) && here.past_clear;
  out.told = here.client_hello || here.past_clear;
  return here.answer;
}

// ---- DTLS

struct Message {
  uint8_t type = 0;
  uint16_t sequence = 0;
  std::vector<uint8_t> body;
  size_t size = 0;
};

// Adds the fragments of a datagram that belong to its messages. False if it is not made of DTLS records.
bool read_dtls_datagram(Bytes bytes, std::vector<Message>& messages, bool& handshake) {
  Reader reader(bytes);
  size_t records = 0;
  while (!reader.empty()) {
    const uint8_t type = reader.rest()[0];
    if ((type & 0xe0) == 0x20) return records != 0;  // unified header of DTLS 1.3: encrypted
    reader.skip(1);
    const uint16_t version = reader.u16(), epoch = reader.u16();
    reader.skip(6);
    Reader record(reader.bytes(reader.u16()));
    if (!reader.ok()) return records != 0;
    const bool known = version == 0xfeff || version == 0xfefd || version == 0xfefc || version == 0x0100;
    if (type < kChangeCipherSpec || type > 26 || !known) return false;
    ++records;
    while (type == kHandshake && epoch == 0 && record.left() >= 12) {
      const uint8_t message_type = record.u8();
      const uint32_t size = record.u24();
      const uint16_t sequence = record.u16();
      const uint32_t offset = record.u24(), fragment = record.u24();
      const Bytes body = record.bytes(fragment);
      if (!record.ok() || !is_handshake_type(message_type) || size > kMaxHandshake) return false;
      if (offset > size || fragment > size - offset) return false;
      handshake = true;
      auto found = std::find_if(messages.begin(), messages.end(), [&](const Message& message) {
        return message.type == message_type && message.sequence == sequence;
      });
      if (found == messages.end()) {
        messages.push_back({message_type, sequence, {}, size});
        found = messages.end() - 1;
      }
      if (offset == found->body.size()) found->body.insert(found->body.end(), body.begin(), body.end());
    }
  }
  return records != 0;
}

}  // namespace

Answer dtls(const Payload& p, Findings& out) {
  const bool known = out.app == App::dtls;
  if (known && p.here[0] != kHandshake) return Answer::yes;  // nothing to read
  std::vector<Message> messages;
  bool handshake = false, before = false;
  for (const Datagram& datagram : p.history) {
    if (datagram.reply == p.reply) before = read_dtls_datagram(datagram.bytes, messages, handshake);
  }
  if (!read_dtls_datagram(p.here, messages, handshake)) {
    return known ? Answer::yes : Answer::no;  // DTLS 1.3 hides its records once keys are there
  }
  out.app = App::dtls;
  for (const Message& message : messages) {
    if (message.body.size() != message.size) continue;
    if (message.type == kClientHello) read_client_hello(message.body, HelloOf::dtls, out.attributes);
    if (message.type == kServerHello) read_server_hello(message.body, out.attributes);
    if (message.type == kCertificate && !out.attributes.has(Attribute::certificate_names)) {
      read_certificates(message.body, out.attributes);
    }
    if (message.type == kServerHelloDone) out.done = true;
  }
  return handshake || before || known ? Answer::yes : Answer::likely;
}

TlsProgress read_tls_stream(Bytes bytes, Attributes& out) {
  TlsProgress progress;
  Bytes handshake;              // of one record where it stands, or of several in `joined`
  std::vector<uint8_t> joined;
  Reader reader(bytes);
  size_t n_whole = 0;
  while (!reader.empty()) {
    if (reader.left() < 5) {
      if (n_whole == 0) progress.answer = could_begin(bytes.subspan(1), "\x03") ? Answer::more : Answer::no;
      break;
    }
    const uint8_t type = reader.u8();
    const uint16_t version = reader.u16();
    const size_t size = reader.u16();
    const bool valid = type >= kChangeCipherSpec && type <= kHeartbeat && version >= 0x0300 && version <= 0x0304 &&
                       size != 0 && size <= kMaxRecord && (type != kChangeCipherSpec || size == 1) &&
                       (type != kAlert || size >= 2);
    if (!valid) {
      // Not TLS from its start, or plain text again: what was whole before counts.
      if (n_whole >= 2 || !handshake.empty()) break;
      progress.answer = Answer::no;
      return progress;
    }
    const Bytes body = reader.up_to(size);
    if (type == kChangeCipherSpec || type == kApplicationData) progress.past_clear = true;
    if (type == kHandshake && !progress.past_clear) {
      if (handshake.empty()) {
        handshake = body;
      } else {
        if (joined.empty()) joined.assign(handshake.begin(), handshake.end());
        joined.insert(joined.end(), body.begin(), body.end());
        handshake = joined;
      }
    }
    if (progress.answer == Answer::no) progress.answer = Answer::likely;
    if (body.size() == size) ++n_whole;
  }
  if (n_whole >= 2) progress.answer = Answer::yes;
  if (handshake.size() >= 6) {
    // A message that begins a conversation: its type, a length within bounds, and its version.
    const bool hello = (handshake[0] == kClientHello || handshake[0] == kServerHello) && handshake[1] == 0 &&
                       (handshake[4] == 3 || handshake[4] == 0x7f);
    if (hello) progress.answer = Answer::yes;
  }
  read_messages(handshake, out, progress);
  if (progress.client_hello || progress.server_hello || out.has(Attribute::certificate_names)) {
    progress.answer = Answer::yes;
  }
  return progress;
}

void add_tls(Registry& registry) {
  registry.push_back({App::tls, kTcp, byte_range(kChangeCipherSpec, kHeartbeat) | byte_range(0x80, 0xff), &tls});
  registry.push_back({App::dtls, kUdp, byte_range(kChangeCipherSpec, 26) | byte_range(0x20, 0x3f), &dtls, true});
}

}  // namespace meshsieve::app
