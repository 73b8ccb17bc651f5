// Message queues: Kafka, AMQP, MQTT, NATS, Pulsar, RocketMQ, ZeroMQ, STOMP; SMPP and CoAP.
//
// Source  kafka.apache.org/protocol; AMQP 0-9-1, OASIS AMQP 1.0; MQTT 3.1.1 and 5.0; docs.nats.io, "NATS protocol";
//         Pulsar PulsarApi.proto; RocketMQ remoting; rfc.zeromq.org/23; STOMP 1.2; SMPP 3.4; RFC 7252
#include "app/dissectors.h"
#include "app/text.h"

namespace meshsieve::app {

namespace {

using namespace std::string_view_literals;

// What stands behind the client's name in a large request, of which only the beginning is there: Produce says who must
// acknowledge, Fetch (before version 15) and ListOffsets that no broker asks, Metadata how many topics.
Answer kafka_body(uint16_t key, uint16_t version, uint32_t size, Reader body) {
  constexpr uint16_t kProduce = 0, kFetch = 1, kListOffsets = 2, kMetadata = 3;
  if (key > kMetadata) return Answer::no;
  const bool flexible = version >= (key == kFetch ? 12 : key == kListOffsets ? 6 : 9);
  if (flexible && body.u8() != 0) return Answer::no;  // no tagged fields
  bool fits = true;
  if (key == kProduce) {
    if (version >= 3) {  // the name of a transaction, or none: its size and 1
      const uint32_t name = flexible ? body.u8() : (body.u16() + 1u) & 0xffff;
      if (name > 128) return Answer::no;
      body.skip(name == 0 ? 0 : name - 1);
    }
    const auto acknowledged = static_cast<int16_t>(body.u16());
    fits = acknowledged >= -1 && acknowledged <= 1;
  } else if (key != kFetch || version < 15) {
    const uint32_t first = flexible && key == kMetadata ? body.u8() : body.u32();
    fits = first == 0xffffffff || (key == kMetadata && first <= size / 3);
  }
  return !body.ok() ? Answer::more : fits ? Answer::yes : Answer::no;
}

Answer kafka(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint32_t size = reader.u32();
  const uint16_t key = reader.u16(), version = reader.u16();
  reader.skip(4);
  const uint16_t name_size = reader.u16();
  if (!reader.ok()) return p.here[0] <= 6 ? Answer::more : Answer::no;
  if (size < 10 || size > 100 << 20 || key > 80 || version > 20) return Answer::no;
  if (name_size == 0xffff || name_size == 0) {
    if (size != p.here.size() - 4 || (name_size == 0 && size < 14)) return Answer::no;
    out.app = App::kafka;
    return Answer::likely;
  }
  if (name_size > 255 || name_size > size - 10) return Answer::no;
  const Bytes name = reader.bytes(name_size);
  if (!reader.ok()) return Answer::more;
  if (!is_plain_text(text_of(name))) return Answer::no;
  if (size > p.here.size() - 4) {
    if (const Answer answer = kafka_body(key, version, size, reader); answer != Answer::yes) return answer;
  }
  out.app = App::kafka;
  out.attributes.set(Attribute::client_software, name.data(), name.size());
  out.done = true;
  return Answer::yes;
}

Answer amqp(const Payload& p, Findings& out) {
  if (p.here[0] == 'A') {
    if (!could_begin(p.here, "AMQP")) return Answer::no;
    if (p.here.size() < 8) return Answer::more;
    const uint8_t id = p.here[4], major = p.here[5], minor = p.here[6], revision = p.here[7];
    if (id > 3 || major > 9 || minor > 10 || revision > 10) return Answer::no;
    out.app = App::amqp;
    // 0-9-1 writes 0, 0, 9, 1 where 0-8 and 0-9 wrote other orders; 1.0 has its protocol id first.
    out.attributes.set(Attribute::protocol_version, major == 0 && minor == 9 ? "0-9-1"
                                                    : major == 1 && minor == 0 ? "1.0" : "0-8 or 0-9");
    out.done = true;
    return Answer::yes;
  }
  Reader reader(p.here);
  const uint8_t type = reader.u8();
  reader.skip(2);
  const uint32_t size = reader.u32();
  if (!reader.ok()) return type <= 8 ? Answer::more : Answer::no;
  if ((type != 1 && type != 2 && type != 3 && type != 8) || size > 1 << 20) return Answer::no;
  const Bytes body = reader.bytes(size);
  const uint8_t end = reader.u8();
  if (!reader.ok()) return Answer::more;
  // A method frame names a class: 10, 20, ... 90.
  const bool method = type != 1 || (size >= 4 && body[0] == 0 && body[1] >= 10 && body[1] <= 90 && body[1] % 10 == 0);
  if (end != 0xce || !method || (type == 8 && size != 0)) return Answer::no;
  out.app = App::amqp;
  out.done = true;
  return Answer::yes;
}

// ---- MQTT

std::optional<uint32_t> remaining_length(Reader& reader) {
  uint32_t value = 0;
  for (int shift = 0; shift < 28; shift += 7) {
    const uint8_t byte = reader.u8();
    value |= static_cast<uint32_t>(byte & 0x7f) << shift;
    if ((byte & 0x80) == 0) return reader.ok() ? std::optional(value) : std::nullopt;
  }
  return std::nullopt;
}

Answer mqtt(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint8_t first = reader.u8(), type = first >> 4, flags = first & 15;
  if (p.here.size() < 2) return Answer::more;
  const auto size = remaining_length(reader);
  if (!size || type == 0) return Answer::no;
  const bool whole = *size == reader.left(), fits = *size <= reader.left();
  out.app = App::mqtt;
  switch (type) {
    case 1: {  // CONNECT
      const std::string_view name = text_of(reader.vector16());
      const uint8_t level = reader.u8();
      reader.skip(3);
      if (level >= 5) reader.skip(remaining_length(reader).value_or(0));  // properties
      const Bytes client = reader.vector16();
      if (name != "MQTT" && name != "MQIsdp") return p.here.size() < 10 ? Answer::more : Answer::no;
      if (!reader.ok() && *size < 1024) return Answer::more;
      out.attributes.set(Attribute::protocol_version, level == 3 ? "3.1" : level == 4 ? "3.1.1" : level == 5 ? "5.0" : "");
      out.attributes.set(Attribute::client_software, client.data(), client.size());
      out.done = true;
      return Answer::yes;
    }
    case 2: return flags == 0 && *size == 2 && whole && p.here[2] <= 1 && p.here[3] <= 5 ? Answer::likely : Answer::no;
    case 3: {
      const Bytes topic = reader.vector16();
      return reader.ok() && fits && !topic.empty() && is_plain_text(text_of(topic)) && (flags & 6) != 6 ? Answer::likely : Answer::no;
    }
    case 8: {  // SUBSCRIBE
      reader.skip(2);
      const Bytes topic = reader.vector16();
      return flags == 2 && reader.ok() && whole && is_plain_text(text_of(topic)) && !topic.empty() ? Answer::likely : Answer::no;
    }
    case 9: return flags == 0 && whole && *size >= 3 ? Answer::likely : Answer::no;
    case 4:
    case 5:
    case 6:
    case 7:
    case 11: return whole && *size == 2 ? Answer::likely : Answer::no;
    case 12:
    case 13:
    case 14: return first != 0xff && flags == 0 && *size == 0 ? Answer::likely : Answer::no;
    default: return Answer::no;
  }
}

Answer nats(const Payload& p, Findings& out) {
  std::string_view text = text_of(p.here);
  out.app = App::nats;
  for (const std::string_view start : {"INFO {", "CONNECT {"}) {
    if (!could_begin(p.here, start)) continue;
    if (!text.starts_with(start)) return Answer::more;
    out.done = true;
    return Answer::yes;
  }
  const auto line = next_line(text);
  if (!line) return p.here.size() < 256 && is_plain_text(text_of(p.here)) ? Answer::more : Answer::no;
  const std::string_view verb = word(*line);
  const size_t last = line->rfind(' ');
  const bool counted = last != std::string_view::npos && number(line->substr(last + 1)).has_value();
  const auto n_spaces = std::count(line->begin(), line->end(), ' ');
  if (verb == "MSG" || verb == "HMSG" || verb == "PUB" || verb == "HPUB") {
    return counted && n_spaces >= 2 && n_spaces <= 5 ? Answer::yes : Answer::no;
  }
  if (verb == "SUB") return n_spaces >= 2 && n_spaces <= 3 && counted ? Answer::yes : Answer::no;
  if (*line == "PING" || *line == "PONG" || verb == "UNSUB" || verb == "-ERR") return Answer::likely;
  return Answer::no;
}

Answer pulsar(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint32_t total = reader.u32(), command = reader.u32();
  const uint8_t tag = reader.u8(), type = reader.u8(), inner = reader.u8();
  if (!reader.ok()) return p.here[0] == 0 ? Answer::more : Answer::no;
  if (total < 8 || total > 6 << 20 || command < 2 || command > total - 4 || tag != 0x08 || type < 2 || type > 72) return Answer::no;
  // The command's own message has its type as field number, in the first sixteen.
  if (type < 16 && inner != (type << 3 | 2)) return Answer::no;
  out.app = App::pulsar;
  out.done = type < 16;
  return type < 16 ? Answer::yes : Answer::likely;
}

Answer rocketmq(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint32_t total = reader.u32(), header = reader.u32();
  if (!reader.ok() || reader.left() < 8) return p.here[0] <= 1 ? Answer::more : Answer::no;
  const uint32_t size = header & 0xffffff;
  if (total < size + 4u || total > 64 << 20 || header >> 24 > 1) return Answer::no;
  const bool json = header >> 24 == 0 && begins(reader.rest(), "{\"") &&
                    text_of(reader.rest()).substr(0, size).find("\"code\":") != std::string_view::npos;
  if (!json) return Answer::no;
  out.app = App::rocketmq;
  out.done = true;
  return Answer::yes;
}

Answer zmtp(const Payload& p, Findings& out) {
  if (p.here.size() < 10) return Answer::more;
  const bool greeting = p.here[0] == 0xff && p.here[1] == 0 && p.here[9] == 0x7f;
  if (!greeting) return Answer::no;
  out.app = App::zmtp;
  out.done = true;
  return Answer::yes;
}

Answer stomp(const Payload& p, Findings& out) {
  std::string_view text = text_of(p.here);
  const std::string_view all = text;
  const auto line = next_line(text);
  if (!line) return could_begin(p.here, "CONNECTED\r") || could_begin(p.here, "STOMP\r") || all == "CONNECT\r" ? Answer::more : Answer::no;
  if (*line != "CONNECT" && *line != "STOMP" && *line != "CONNECTED") return Answer::no;
  const bool headers = all.find("version:") != std::string_view::npos || all.find("login:") != std::string_view::npos ||
                       all.find("session:") != std::string_view::npos || all.find("host:") != std::string_view::npos;
  if (!headers) return all.size() < 512 && all.find("\n\n") == std::string_view::npos ? Answer::more : Answer::no;
  out.app = App::stomp;
  out.done = true;
  return Answer::yes;
}

Answer smpp(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint32_t size = reader.u32(), command = reader.u32(), status = reader.u32(), sequence = reader.u32();
  if (!reader.ok()) return p.here[0] == 0 ? Answer::more : Answer::no;
  const uint32_t kind = command & 0x7fffffff;
  const bool known = (kind >= 1 && kind <= 9) || kind == 0x15 || kind == 0x21 || kind == 0x0b || kind == 0x102 || kind == 0x103;
  if (size < 16 || size > 4096 || !known || status > 0x500 || sequence == 0 || sequence > 0x7fffffff) return Answer::no;
  if ((command & 0x80000000) == 0 && status != 0) return Answer::no;
  if ((kind == 0x15 || kind == 6) && size != 16) return Answer::no;
  out.app = App::smpp;
  return size <= p.here.size() ? Answer::yes : Answer::likely;
}

Answer coap(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint8_t first = reader.u8(), code = reader.u8();
  reader.skip(2);
  const uint8_t token = first & 15, kind = code >> 5;
  // Requests are never text, and answers hardly.
  if (kind != 0 && is_plain_text(text_of(p.here))) return Answer::no;
  if (first >> 6 != 1 || token > 8 || kind == 1 || kind == 3 || kind > 5 || (kind == 0 && (code & 31) > 7)) return Answer::no;
  reader.skip(token);
  if (code == 0 && (token != 0 || !reader.empty())) return Answer::no;
  while (!reader.empty()) {
    const uint8_t byte = reader.u8();
    if (byte == 0xff) {
      if (reader.empty()) return Answer::no;
      reader.skip(reader.left());
      break;
    }
    size_t delta = byte >> 4, size = byte & 15;
    for (size_t* value : {&delta, &size}) {
      if (*value == 15) return Answer::no;
      if (*value == 13) *value = 13u + reader.u8();
      else if (*value == 14) *value = 269u + reader.u16();
    }
    reader.skip(size);
  }
  if (!reader.ok()) return Answer::no;
  out.app = App::coap;
  return p.on_port(5683) ? Answer::yes : Answer::likely;
}

}  // namespace

void add_queues(Registry& registry) {
  registry.push_back({App::amqp, kTcp, bytes_of("A\x01\x02\x03\x08"), &amqp});
  registry.push_back({App::nats, kTcp, bytes_of("ICMHPSU-"), &nats});
  registry.push_back({App::zmtp, kTcp, bytes_of("\xff"), &zmtp});
  registry.push_back({App::stomp, kTcp, bytes_of("CS"), &stomp});
  registry.push_back({App::rocketmq, kTcp, bytes_of("\0\1"sv), &rocketmq});
  registry.push_back({App::pulsar, kTcp, bytes_of("\0"sv), &pulsar});
  registry.push_back({App::kafka, kTcp, byte_range(0, 6), &kafka});
  registry.push_back({App::smpp, kTcp, bytes_of("\0"sv), &smpp});
  registry.push_back({App::mqtt, kTcp, byte_range(0x10, 0xef), &mqtt});
  registry.push_back({App::coap, kUdp, byte_range(0x40, 0x7f), &coap});
}

}  // namespace meshsieve::app
