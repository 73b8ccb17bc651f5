#include "app/dns_answers.h"

#include <algorithm>
#include <optional>

namespace meshsieve::app {

namespace {

constexpr uint16_t kA = 1, kCname = 5, kAaaa = 28, kIn = 1;
constexpr size_t kMostRecords = 256, kMostNames = 64, kMostJumps = 32, kMostPairs = 1024;

struct DnsRecord {
  std::string owner;
  uint16_t type;
  uint32_t ttl;
  Bytes data;
  std::string target;  // of a CNAME
};

// The name at `at` in lower case without its last dot, following compression; `at` moves behind it. Labels with dots or
// bytes that do not print make no host name: nullopt, as for what is broken.
std::optional<std::string> read_name(Bytes message, size_t& at) {
  std::string out;
  size_t here = at, jumps = 0;
  bool jumped = false;
  for (;;) {
    if (here >= message.size()) return std::nullopt;
    const uint8_t size = message[here];
    if (size == 0) {
      if (!jumped) at = here + 1;
      return out;
    }
    if ((size & 0xc0) == 0xc0) {
      if (here + 1 >= message.size() || ++jumps > kMostJumps) return std::nullopt;
      const size_t target = static_cast<size_t>(size & 0x3f) << 8 | message[here + 1];
      if (target >= here) return std::nullopt;  // only backwards, so that every walk ends
      if (!jumped) at = here + 2;
      jumped = true;
      here = target;
      continue;
    }
    if (size > 63 || size > message.size() - here - 1 || out.size() + size > 253) return std::nullopt;
    if (!out.empty()) out += '.';
    for (const uint8_t byte : message.subspan(here + 1, size)) {
      if (byte <= ' ' || byte >= 0x7f || byte == '.') return std::nullopt;
      out += static_cast<char>(byte >= 'A' && byte <= 'Z' ? byte + ('a' - 'A') : byte);
    }
    here += size + 1u;
  }
}

std::optional<std::vector<DnsRecord>> read_records(Bytes message, size_t at, size_t count) {
  std::vector<DnsRecord> records;
  for (size_t i = 0; i < std::min(count, kMostRecords); ++i) {
    const std::optional<std::string> owner = read_name(message, at);
    if (!owner || at > message.size()) return std::nullopt;
    Reader reader(message.subspan(at));
    const uint16_t type = reader.u16(), kind = reader.u16();
    const uint32_t ttl = reader.u32();
    const uint16_t size = reader.u16();
    const Bytes data = reader.bytes(size);
    if (!reader.ok()) return std::nullopt;
    const size_t begin = at + 10;
    at = begin + size;
    if (kind != kIn || (type != kA && type != kAaaa && type != kCname)) continue;
    DnsRecord record{*owner, type, (ttl & 0x80000000u) != 0 ? 0 : ttl, data, {}};
    if (type == kCname) {
      size_t name_at = begin;
      std::optional<std::string> target = read_name(message, name_at);
      if (!target || name_at != at) return std::nullopt;
      record.target = std::move(*target);
    } else if (size != (type == kA ? 4 : 16)) {
      return std::nullopt;
    }
    records.push_back(std::move(record));
  }
  return records;
}

}  // namespace

size_t read_dns_answers(Bytes message, int64_t time_ns, std::vector<DnsAnswer>& out) {
  Reader header(message);
  header.skip(2);
  const uint16_t flags = header.u16(), questions = header.u16(), answers = header.u16();
  header.skip(4);
  // A response (QR) to a standard query, not cut (TC), without error.
  if (!header.ok() || (flags & 0xfa0f) != 0x8000 || questions != 1 || answers == 0) return 0;
  size_t at = 12;
  const std::optional<std::string> asked = read_name(message, at);
  if (!asked || asked->empty() || message.size() - at < 4) return 0;
  const std::optional<std::vector<DnsRecord>> records = read_records(message, at + 4, answers);
  if (!records) return 0;

  struct Link {
    std::string name;
    uint32_t ttl;  // of the alias that leads on from it
  };
  std::vector<Link> chain{{*asked, UINT32_MAX}};
  while (chain.size() < kMostNames) {
    const std::string here = chain.back().name;
    const auto alias = std::find_if(records->begin(), records->end(),
                                    [&](const DnsRecord& r) { return r.type == kCname && r.owner == here; });
    const bool known = alias == records->end() || std::any_of(chain.begin(), chain.end(), [&](const Link& link) {
                         return link.name == alias->target;
                       });
    if (known) break;
    chain.back().ttl = alias->ttl;
    chain.push_back({alias->target, UINT32_MAX});
  }
  size_t pairs = 0;
  for (const DnsRecord& record : *records) {
    if (record.type == kCname || record.owner != chain.back().name) continue;
    uint32_t ttl = record.ttl;
    for (auto link = chain.rbegin(); link != chain.rend(); ++link) {
      ttl = std::min(ttl, link->ttl);
      if (++pairs > kMostPairs) continue;
      DnsAnswer answer{time_ns, ttl, static_cast<uint8_t>(record.type == kA ? 4 : 6), {}, link->name};
      std::copy(record.data.begin(), record.data.end(), answer.address.end() - static_cast<long>(record.data.size()));
      out.push_back(std::move(answer));
    }
  }
  return pairs > kMostPairs ? pairs - kMostPairs : 0;
}

}  // namespace meshsieve::app
