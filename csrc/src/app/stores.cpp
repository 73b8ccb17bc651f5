// Stores without SQL: MongoDB, Redis, memcached, Cassandra, Elasticsearch, Aerospike, ZooKeeper.
//
// Source  MongoDB manual, "Wire Protocol"; redis.io, "RESP protocol spec"; memcached protocol.txt, BinaryProtocolRevamped;
//         Apache Cassandra native_protocol_v3 to v5.spec; Elasticsearch TcpHeader; Aerospike client "wire protocol";
//         ZooKeeper zookeeper.jute
#include "app/dissectors.h"
#include "app/text.h"

namespace meshsieve::app {

namespace {

using namespace std::string_view_literals;

Answer mongodb(const Payload& p, Findings& out) {
  constexpr uint32_t kMaxMessage = 48'000'000, kReply = 1, kQuery = 2004, kCompressed = 2012, kMessage = 2013;
  Reader reader(p.here);
  const uint32_t size = reader.le32();
  reader.skip(4);
  const uint32_t answers = reader.le32(), code = reader.le32();
  if (!reader.ok()) return Answer::more;
  if (size < 16 || size > kMaxMessage) return Answer::no;
  const bool known = code == kReply || code == 1000 || (code >= 2001 && code <= 2007) || (code >= 2010 && code <= 2013);
  if (!known) return Answer::no;
  const uint32_t flags = reader.le32();
  if (!reader.ok()) return Answer::more;
  if (code == kReply) {  // documents, of which the first says how long it is
    if (size < 36 || flags > 15) return Answer::no;
    reader.skip(12);
    const uint32_t returned = reader.le32(), document = returned != 0 ? reader.le32() : 0;
    if (!reader.ok()) return Answer::more;
    if (returned > (size - 36) / 5 || (returned == 0 && size != 36)) return Answer::no;
    if (returned != 0 && (document < 5 || document > size - 36)) return Answer::no;
  }
  if (code == kMessage && (size < 21 || (flags & 0xfff8) != 0)) return Answer::no;
  if (code == kQuery && ((answers != 0 && answers != 0xffffffff) || flags > 255)) return Answer::no;
  if (code == kQuery || (code >= 2001 && code <= 2006)) {
    const std::string_view text = text_of(reader.rest());
    const size_t end = text.find('\0');
    if (code == kQuery && end == std::string_view::npos && text.size() < 256 && p.here.size() < size) return Answer::more;
    if (code == kQuery && end != std::string_view::npos) out.attributes.set(Attribute::service, word(text.substr(0, end), "."));
    if (code == kQuery && (end == std::string_view::npos || end > 256 || !is_plain_text(text.substr(0, end)))) return Answer::no;
  }
  out.app = App::mongodb;
  out.done = true;
  const bool strong = code == kQuery || code == kMessage || code == kCompressed || code == kReply;
  return strong ? Answer::yes : Answer::likely;
}

// ---- Redis

// "*2\r\n$4\r\n": an array whose first element is a bulk string, which is how commands are sent.
Answer redis_command(std::string_view text) {
  const auto first = next_line(text);
  if (!first) return text.size() < 12 ? Answer::more : Answer::no;
  if (!number(first->substr(1), 7)) return Answer::no;
  const auto second = next_line(text);
  if (!second) return text.size() < 12 ? Answer::more : Answer::no;
  const bool bulk = second->starts_with('$') && number(second->substr(1), 9);
  const bool nested = second->starts_with('*') || second->starts_with(':');
  return bulk ? Answer::yes : nested ? Answer::likely : Answer::no;
}

// Commands without the framing: words that only Redis has.
bool is_inline_command(std::string_view text) {
  const std::string_view verb = word(text);
  if (text.find("\r\n") == std::string_view::npos) return false;
  for (const std::string_view command : {"PING", "INFO", "MONITOR", "SUBSCRIBE", "AUTH", "SYNC", "PSYNC", "REPLCONF", "HELLO"}) {
    if (equals_nocase(verb, command)) return true;
  }
  return false;
}

Answer redis(const Payload& p, Findings& out) {
  const std::string_view text = text_of(p.here), there = text_of(p.there);
  out.app = App::redis;
  Answer answer = Answer::no;
  std::string_view rest = text;
  switch (text[0]) {
    case '*': answer = redis_command(text); break;
    case '+': answer = text.starts_with("+OK\r\n") || text.starts_with("+PONG\r\n") || text.starts_with("+QUEUED\r\n")
                           ? Answer::likely : text.size() < 6 ? Answer::more : Answer::no;
      break;
    case '-': answer = text.starts_with("-ERR ") || text.starts_with("-NOAUTH") || text.starts_with("-MOVED ") ||
                               text.starts_with("-WRONGTYPE") || text.starts_with("-DENIED") || text.starts_with("-LOADING")
                           ? Answer::likely : Answer::no;
      break;
    case ':':
    case '$':
    case '%': {
      const auto line = next_line(rest);
      answer = !line ? (text.size() < 12 ? Answer::more : Answer::no)
               : number(line->substr(1), 9) || *line == "$-1" ? Answer::likely : Answer::no;
      break;
    }
    default:
      if (text.find("\r\n") == std::string_view::npos) return text.size() < 16 ? Answer::more : Answer::no;
      if (is_inline_command(text)) answer = Answer::likely;
  }
  if (answer == Answer::likely && there.starts_with('*') && redis_command(there) == Answer::yes) answer = Answer::yes;
  // POP3 has AUTH as well, and "+OK" and "-ERR" for it.
  if (answer == Answer::likely && !is_letter(text[0]) && is_inline_command(there) && !equals_nocase(word(there), "AUTH")) answer = Answer::yes;
  out.done = answer == Answer::yes;
  return answer;
}

// ---- memcached

Answer memcached_text(std::string_view text, Findings& out) {
  const std::string_view all = text;
  const auto line = next_line(text);
  if (!line) return all.size() < 280 && is_plain_text(all) ? Answer::more : Answer::no;
  out.app = App::memcached;
  const std::string_view verb = word(*line), rest = line->size() > verb.size() ? line->substr(verb.size() + 1) : ""sv;
  const auto n_words = [](std::string_view words) {
    size_t n = 0;
    while (!words.empty()) {
      const std::string_view one = word(words, " ");
      n += !one.empty();
      words.remove_prefix(std::min(words.size(), one.size() + 1));
    }
    return n;
  };
  for (const std::string_view stored : {"set", "add", "replace", "append", "prepend", "cas"}) {
    if (verb != stored) continue;
    const size_t n = n_words(rest);
    const std::string_view key = word(rest, " "), behind = rest.size() > key.size() ? rest.substr(key.size() + 1) : ""sv;
    return n >= 4 && n <= 6 && is_digit(behind.empty() ? ' ' : behind[0]) ? Answer::yes : Answer::no;
  }
  if ((verb == "VALUE" && n_words(rest) >= 3) || verb == "STORED" || verb == "NOT_STORED") return Answer::yes;
  if (verb == "STAT" && n_words(rest) == 2) return Answer::yes;
  if ((verb == "get" || verb == "gets" || verb == "gat") && n_words(rest) >= 1 && all.find("HTTP/") == std::string_view::npos) {
    return Answer::likely;
  }
  // Meta commands and their answers: "mg key flags", "HD", "EN"
  for (const std::string_view command : {"mg", "ms", "md", "ma", "me"}) {
    if (verb == command && n_words(rest) >= 1) return Answer::likely;
  }
  if (verb == "VERSION" && n_words(rest) == 1 && is_digit(rest[0])) return Answer::likely;
  if (verb == "HD" || *line == "EN" || *line == "MN" || *line == "NF" || (verb == "VA" && n_words(rest) >= 1)) return Answer::likely;
  if (verb == "stats" || verb == "version" || verb == "mn" || verb == "flush_all" || (verb == "END" && rest.empty()) || verb == "delete" ||
      verb == "incr" || verb == "decr" || verb == "touch" || verb == "NOT_FOUND" || verb == "DELETED") {
    return Answer::likely;
  }
  return Answer::no;
}

Answer memcached(const Payload& p, Findings& out) {
  Reader reader(p.here);
  if (p.tcp() && (p.here[0] == 0x80 || p.here[0] == 0x81)) {
    const uint8_t magic = reader.u8(), code = reader.u8();
    const uint16_t key = reader.u16();
    const uint8_t extras = reader.u8(), type = reader.u8();
    const uint16_t status = reader.u16();
    const uint32_t body = reader.u32();
    if (!reader.ok() || p.here.size() < 24) return Answer::more;
    const bool fits = code <= 0x48 && type == 0 && extras <= 32 && key <= 250 && body >= key + 0u + extras && body < 1 << 21 &&
                      (magic == 0x80 || status <= 0x86);
    if (!fits) return Answer::no;
    out.app = App::memcached;
    out.done = true;
    return Answer::yes;
  }
  if (p.tcp()) {
    Answer answer = memcached_text(text_of(p.here), out);
    // Commands are written small, answers in capitals.
    Findings other;
    if (answer == Answer::likely && !p.there.empty() && is_upper(text_of(p.here)[0]) != is_upper(text_of(p.there)[0]) &&
        memcached_text(text_of(p.there), other) >= Answer::likely) {
      answer = Answer::yes;
    }
    out.done = answer == Answer::yes;
    return answer;
  }
  // UDP: request id, sequence number, datagrams, zero (protocol.txt)
  reader.skip(2);
  const uint16_t sequence = reader.u16(), total = reader.u16(), zero = reader.u16();
  if (!reader.ok() || total == 0 || sequence >= total || zero != 0) return Answer::no;
  const Answer answer = memcached_text(text_of(reader.rest()), out);
  return answer == Answer::more ? Answer::no : answer;
}

// ---- Cassandra

Answer cassandra(const Payload& p, Findings& out) {
  Reader reader(p.here);
  if (p.here[0] == 0xca) {  // between nodes: a magic number (MessagingService)
    const uint32_t magic = reader.u32();
    if (!reader.ok()) return Answer::more;
    if (magic != 0xca552dfa) return Answer::no;
    out.app = App::cassandra;
    out.done = true;
    return Answer::yes;
  }
  const uint8_t version = reader.u8(), flags = reader.u8();
  const uint8_t number = version & 0x7f;
  const bool of_vendor = number == 0x41 || number == 0x42;  // DataStax Enterprise; its drivers try them first
  const bool response = (version & 0x80) != 0;
  reader.skip(number >= 3 ? 2 : 1);
  const uint8_t code = reader.u8();
  const uint32_t size = reader.u32();
  if (!reader.ok()) return (number >= 1 && number <= 6) || of_vendor ? Answer::more : Answer::no;
  if (number < 1 || (number > 6 && !of_vendor) || flags > 0x1f || code > 16 || size > 256 << 20) return Answer::no;
  // What begins a connection is told by its texts, which may come in several segments; it is never long.
  constexpr uint32_t kMostOfTexts = 4096;
  const bool by_texts = response ? code == 3 || code == 6 : code == 1 || code == 11;
  if (by_texts && size > kMostOfTexts) return Answer::no;
  const Bytes body = reader.up_to(size);
  const std::string_view text = text_of(body);
  const auto has = [&](std::string_view part) { return text.find(part) != std::string_view::npos; };
  bool sure = false, fits = false;
  if (!response) {
    sure = (code == 1 && has("CQL_VERSION")) || (code == 5 && size == 0 && flags == 0 && p.here.size() == (number >= 3 ? 9u : 8u)) ||
           (code == 7 && size > 6 && body.size() > 4 && is_letter(static_cast<char>(body[4]))) ||
           (code == 11 && (has("STATUS_CHANGE") || has("SCHEMA_CHANGE") || has("TOPOLOGY_CHANGE")));
    fits = code == 9 || code == 10 || code == 13 || code == 15;
  } else {
    sure = (code == 6 && has("CQL_VERSION")) || (code == 3 && has("org.apache.cassandra"));
    fits = (code == 0 && size >= 6) || (code == 2 && size == 0) || (code == 8 && size >= 4 && body.size() >= 4 && body[0] == 0) ||
           code == 12 || code == 14 || code == 16;
  }
  const bool too_early = by_texts || (!response && code == 7 && body.size() <= 4);
  if (!sure && too_early && body.size() < size) return Answer::more;
  if (!sure && (!fits || of_vendor)) return Answer::no;
  out.app = App::cassandra;
  out.done = sure;
  return sure ? Answer::yes : Answer::likely;
}

Answer elasticsearch(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const Bytes magic = reader.bytes(2);
  const uint32_t size = reader.u32();
  if (!could_begin(p.here, "ES")) return Answer::no;
  if (!reader.ok()) return Answer::more;
  if (text_of(magic) != "ES") return Answer::no;
  if (size != 0xffffffff) {  // a ping has no more
    reader.skip(8);
    const uint8_t status = reader.u8();
    const uint32_t version = reader.u32();
    if (!reader.ok()) return Answer::more;
    if (size < 13 || size > 1u << 30 || status > 0x1f || version < 900 || version > 99'999'999) return Answer::no;
  }
  out.app = App::elasticsearch;
  out.done = true;
  return Answer::yes;
}

Answer aerospike(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint8_t version = reader.u8(), type = reader.u8();
  const bool has_type = reader.ok();
  const uint64_t size = static_cast<uint64_t>(reader.u16()) << 32 | reader.u32();
  if (version != 2 || (has_type && type != 1 && type != 3)) return Answer::no;
  if (!reader.ok()) return Answer::more;
  if (size == 0 || size > 128 << 20) return Answer::no;
  out.app = App::aerospike;
  if (type == 3) {  // a message, whose header is 22 bytes long
    if (reader.empty()) return Answer::more;
    return reader.u8() == 22 && size >= 22 ? Answer::yes : Answer::no;
  }
  const std::string_view text = text_of(reader.up_to(size));  // names of what is asked for
  if (!is_plain_text(text)) return Answer::no;
  if (text.size() < size) return Answer::more;
  return size > 8 ? Answer::yes : Answer::likely;
}

Answer zookeeper(const Payload& p, Findings& out) {
  Reader reader(p.here);
  if (p.here.size() == 4 && p.there_port == 2181) {
    for (const std::string_view command : {"ruok", "stat", "srvr", "mntr", "conf", "envi", "dump", "cons", "wchs", "isro"}) {
      if (text_of(p.here) != command) continue;
      out.app = App::zookeeper;
      return Answer::yes;
    }
  }
  const uint32_t size = reader.u32(), version = reader.u32();
  if (!reader.ok()) return p.here[0] == 0 ? Answer::more : Answer::no;
  if (size < 36 || size > 45 || version != 0) return Answer::no;
  const bool request = size == 44 || size == 45;
  if (!request && size != 36 && size != 37) return Answer::no;
  if (request) reader.skip(8);
  const uint32_t timeout = reader.u32();
  reader.skip(8);
  const uint32_t password = reader.u32();
  if (!reader.ok()) return Answer::more;
  if (password != 16 || timeout > 3'600'000) return Answer::no;
  out.app = App::zookeeper;
  out.done = true;
  return Answer::yes;
}

}  // namespace

void add_stores(Registry& registry) {
  registry.push_back({App::elasticsearch, kTcp, bytes_of("E"), &elasticsearch});
  registry.push_back({App::cassandra, kTcp, byte_range(1, 6) + byte_range(0x81, 0x86) + bytes_of("\x41\x42\xc1\xc2\xca"), &cassandra});
  registry.push_back({App::mongodb, kTcp, any_byte(), &mongodb});
  registry.push_back({App::redis, kTcp, bytes_of("*+-:$%") + letters(), &redis});
  registry.push_back({App::memcached, kTcp, bytes_of("\x80\x81") + letters(), &memcached});
  registry.push_back({App::memcached, kUdp, any_byte(), &memcached});
  registry.push_back({App::aerospike, kTcp, byte_range(2, 2), &aerospike});
  registry.push_back({App::zookeeper, kTcp, bytes_of("\0"sv) + letters(), &zookeeper});
}

}  // namespace meshsieve::app
