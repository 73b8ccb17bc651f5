// The next-generation capture format (draft-ietf-opsawg-pcapng): blocks of
//
// | type 4 | total length 4 | body | total length 4 |
//
// A section header starts a section with its own byte order and its own interfaces; an interface has a link type, a
// snapshot length, and the resolution and offset of its time stamps. Packets are in enhanced, simple or (obsolete)
// packet blocks. All others - name resolution, statistics, decryption secrets, custom, unknown - are skipped unread.
#include <algorithm>
#include <cstring>
#include <limits>

#include "meshsieve/errors.h"
#include "packet/record_reader.h"

namespace meshsieve {

namespace {

constexpr uint32_t kSectionHeader = 0x0a0d0d0a, kInterface = 1, kObsoletePacket = 2, kSimplePacket = 3,
                   kEnhancedPacket = 6;
constexpr uint32_t kByteOrderMagic = 0x1a2b3c4d;
constexpr uint16_t kOptionEnd = 0, kOptionResolution = 9, kOptionOffset = 14;
constexpr uint32_t kSmallestBlock = 12;

struct Interface {
  uint32_t link_type;
  uint32_t snap_length;     // 0 = unlimited
  uint8_t resolution;       // if_tsresol: high bit 0: 10^-n s, 1: 2^-n s
  int64_t offset_seconds;
};

int64_t saturated(__int128 value) {
  constexpr __int128 low = std::numeric_limits<int64_t>::min();
  constexpr __int128 high = std::numeric_limits<int64_t>::max();
  return static_cast<int64_t>(std::clamp(value, low, high));
}

// A time stamp of `units` as nanoseconds since 1970. Resolutions finer than a nanosecond are cut; times outside
// int64 saturate (years 1677 to 2262).
int64_t nanoseconds(uint64_t units, const Interface& interface) {
  const int exponent = interface.resolution & 0x7f;
  unsigned __int128 ns = units;
  if ((interface.resolution & 0x80) != 0) {
    ns = ns * 1'000'000'000u >> exponent;
  } else if (exponent <= 9) {
    for (int i = exponent; i < 9; ++i) ns *= 10;
  } else {
    for (int i = 9; i < exponent && ns != 0; ++i) ns /= 10;
  }
  return saturated(static_cast<__int128>(ns) + static_cast<__int128>(interface.offset_seconds) * 1'000'000'000);
}

class PcapngReader final : public RecordReader {
 public:
  explicit PcapngReader(std::unique_ptr<BlockBuffer> buffer) : RecordReader(std::move(buffer)) {}

 private:
  Step take(Record& record) override {
    if (buffer_->available() < kSmallestBlock) return want(kSmallestBlock, "a block header");
    const bool section = raw(0) == kSectionHeader;  // reads the same in both orders
    if (section) {
      if (raw(8) != kByteOrderMagic && raw(8) != __builtin_bswap32(kByteOrderMagic)) {
        return fail("the section header's byte-order magic is wrong");
      }
      swapped_ = raw(8) != kByteOrderMagic;
    }
    const uint32_t total = word(4);
    if (total < kSmallestBlock || total % 4 != 0) {
      return fail("a block claims a length of " + std::to_string(total) +
                  " bytes; it must be a multiple of 4 and at least 12");
    }
    if (total > kMaxBlockBytes) {
      return fail("a block claims " + std::to_string(total) + " bytes, over the limit of " +
                  std::to_string(kMaxBlockBytes));
    }
    if (buffer_->available() < total) return want(total, "a block");
    if (word(total - 4) != total) return fail("the lengths at the two ends of a block differ");
    const uint32_t body = total - 12;
    Step step = Step::skipped;
    switch (section ? kSectionHeader : word(0)) {
      case kSectionHeader: step = section_header(body); break;
      case kInterface: step = interface(body); break;
      case kEnhancedPacket: step = enhanced(body, record); break;
      case kObsoletePacket: step = obsolete(body, record); break;
      case kSimplePacket: step = simple(body, record); break;
      default: break;
    }
    if (keeps_prologue_ && step == Step::skipped && (section || word(0) == kInterface)) {
      if (section) prologue_.clear();
      if (can_be_split()) prologue_.append(reinterpret_cast<const char*>(buffer_->data()), total);
    }
    if (step != Step::end) buffer_->skip(total);
    return step;
  }

  Step section_header(uint32_t body) {
    if (body < 16) return fail("a section header block is too short");
    const uint16_t major = half(8 + 4);
    if (major != 1) return fail("pcapng version " + std::to_string(major) + " is not known; 1 is");
    interfaces_.clear();
    return Step::skipped;
  }

  Step interface(uint32_t body) {
    if (body < 8) return fail("an interface description block is too short");
    if (interfaces_.size() == kMaxInterfaces) {
      return fail("the section describes over " + std::to_string(kMaxInterfaces) + " interfaces");
    }
    Interface described{half(8), word(12), 6, 0};
    uint32_t at = 16;
    const uint32_t end = 8 + body;
    while (end - at >= 4) {
      const uint16_t code = half(at);
      const uint32_t length = half(at + 2);
      const uint32_t padded = (length + 3) & ~3u;
      at += 4;
      if (code == kOptionEnd) break;
      if (padded > end - at) return fail("an option runs beyond its interface description block");
      if (code == kOptionResolution && length == 1) described.resolution = buffer_->data()[at];
      if (code == kOptionOffset && length == 8) described.offset_seconds = signed_double_word(at);
      at += padded;
    }
    interfaces_.push_back(described);
    return Step::skipped;
  }

  Step enhanced(uint32_t body, Record& record) {
    if (body < 20) return fail("an enhanced packet block is too short");
    return packet(word(8), word(12), word(16), word(20), word(24), 28, body - 20, record);
  }

  Step obsolete(uint32_t body, Record& record) {
    if (body < 20) return fail("a packet block is too short");
    return packet(half(8), word(12), word(16), word(20), word(24), 28, body - 20, record);
  }

  Step packet(uint32_t number, uint32_t high, uint32_t low, uint32_t captured, uint32_t length, uint32_t at,
              uint32_t room, Record& record) {
    if (number >= interfaces_.size()) return undescribed(number);
    if (captured > room) return fail("a packet of " + std::to_string(captured) + " bytes runs beyond its block");
    if (captured > kMaxPacketBytes) {
      return fail("a packet of " + std::to_string(captured) + " bytes is over the limit of " +
                  std::to_string(kMaxPacketBytes));
    }
    const Interface& source = interfaces_[number];
    last_time_ns_ = nanoseconds(uint64_t{high} << 32 | low, source);
    return deliver(source, captured, length, at, record);
  }

  // A simple packet has no time: it is given that of the packet before it, which keeps the order.
  Step simple(uint32_t body, Record& record) {
    if (interfaces_.empty()) return undescribed(0);
    if (body < 4) return fail("a simple packet block is too short");
    const Interface& source = interfaces_.front();
    const uint32_t length = word(8);
    uint32_t captured = length;
    if (source.snap_length != 0) captured = std::min(captured, source.snap_length);
    if (captured > body - 4) return fail("a packet of " + std::to_string(captured) + " bytes runs beyond its block");
    if (captured > kMaxPacketBytes) {
      return fail("a packet of " + std::to_string(captured) + " bytes is over the limit of " +
                  std::to_string(kMaxPacketBytes));
    }
    return deliver(source, captured, length, 12, record);
  }

  Step deliver(const Interface& source, uint32_t captured, uint32_t length, uint32_t at, Record& record) {
    record.time_ns = last_time_ns_;
    record.captured = captured;
    record.length = std::max(captured, length);
    record.link_type = source.link_type;
    record.data = buffer_->data() + at;
    return Step::record;
  }

  Step undescribed(uint32_t number) {
    return fail("a packet names interface " + std::to_string(number) + ", but the section describes " +
                std::to_string(interfaces_.size()));
  }

  uint32_t raw(size_t at) const {
    uint32_t v;
    std::memcpy(&v, buffer_->data() + at, 4);
    return v;
  }
  uint32_t word(size_t at) const { return swapped_ ? __builtin_bswap32(raw(at)) : raw(at); }
  uint16_t half(size_t at) const {
    uint16_t v;
    std::memcpy(&v, buffer_->data() + at, 2);
    return swapped_ ? __builtin_bswap16(v) : v;
  }
  int64_t signed_double_word(size_t at) const {
    const uint64_t first = word(at), second = word(at + 4);
    return static_cast<int64_t>(swapped_ ? first << 32 | second : second << 32 | first);
  }

  bool swapped_ = false;
  std::vector<Interface> interfaces_;
};

}  // namespace

bool is_pcapng_magic(uint32_t magic) { return magic == kSectionHeader; }

std::unique_ptr<RecordReader> make_pcapng_reader(std::unique_ptr<BlockBuffer> buffer) {
  return std::make_unique<PcapngReader>(std::move(buffer));
}

}  // namespace meshsieve
