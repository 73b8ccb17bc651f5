// The classic capture format (draft-ietf-opsawg-pcap): a header of 24 bytes, then records of a 16-byte header and data.
//
// | magic 4 | major 2 | minor 2 | zone 4 | accuracy 4 | snapshot length 4 | link type 4 |
// | seconds 4 | fraction 4 | captured length 4 | length on the wire 4 |
//
// The magic tells byte order, resolution of the fraction, and the "modified" format of old Linux patches, whose record
// header has 8 more bytes (interface index, protocol, packet type, padding). The snapshot length is not believed.
#include <algorithm>
#include <cstring>
#include <utility>

#include "meshsieve/errors.h"
#include "packet/record_reader.h"

namespace meshsieve {

namespace {

constexpr uint32_t kMicroseconds = 0xa1b2c3d4, kNanoseconds = 0xa1b23c4d, kModified = 0xa1b2cd34;
constexpr size_t kFileHeader = 24;

class PcapReader final : public RecordReader {
 public:
  explicit PcapReader(std::unique_ptr<BlockBuffer> buffer) : RecordReader(std::move(buffer)) {
    if (!buffer_->fill(kFileHeader)) throw CaptureError("the file ends inside the 24-byte pcap header");
    uint32_t magic;
    std::memcpy(&magic, buffer_->data(), 4);
    swapped_ = magic != kMicroseconds && magic != kNanoseconds && magic != kModified;
    if (swapped_) magic = __builtin_bswap32(magic);
    unit_ns_ = magic == kNanoseconds ? 1 : 1000;
    header_ = magic == kModified ? 24 : 16;
    const uint32_t version = word(4);
    const uint32_t major = swapped_ ? version >> 16 : version & 0xffff;
    const uint32_t minor = swapped_ ? version & 0xffff : version >> 16;
    if (major != 2 || minor > 4) {
      throw CaptureError("pcap version " + std::to_string(major) + "." + std::to_string(minor) +
                         " is not known; 2.0 to 2.4 are");
    }
    minor_ = minor;
    link_type_ = word(20) & 0x03ffffff;  // above: length of the frame check sequence
    prologue_.assign(reinterpret_cast<const char*>(buffer_->data()), kFileHeader);
    buffer_->skip(kFileHeader);
  }

 private:
  // The common form, of this machine's byte order and with lengths in the order of the standard.
  size_t take_plain(Record* out, size_t room) override {
    if (swapped_ || minor_ != 4) return 0;
    const uint8_t* at = buffer_->data();
    size_t left = buffer_->available();
    size_t n = 0;
    for (; n < room && left >= header_; ++n) {
      uint32_t words[4];
      std::memcpy(words, at, sizeof words);
      const uint32_t captured = words[2];
      if (captured > kMaxPacketBytes || captured > left - header_) break;
      Record& record = out[n];
      record.time_ns = time_ns(words[0], words[1]);
      record.captured = captured;
      record.length = std::max(captured, words[3]);
      record.link_type = link_type_;
      record.data = at + header_;
      prefetch_headers(record);
      at += header_ + captured;
      left -= header_ + captured;
    }
    buffer_->skip(buffer_->available() - left);
    return n;
  }

  Step take(Record& record) override {
    if (buffer_->available() < header_) return want(header_, "a record header");
    uint32_t captured = word(8);
    uint32_t length = word(12);
    // Versions before 2.3 wrote the lengths in the other order, and 2.3 sometimes.
    if (minor_ < 3 || (minor_ == 3 && captured > length)) std::swap(captured, length);
    if (captured > kMaxPacketBytes) {
      return fail("a record claims " + std::to_string(captured) + " captured bytes, over the limit of " +
                  std::to_string(kMaxPacketBytes));
    }
    if (buffer_->available() < header_ + captured) return want(header_ + captured, "a packet");
    record.time_ns = time_ns(word(0), word(4));
    record.captured = captured;
    record.length = std::max(captured, length);
    record.link_type = link_type_;
    record.data = buffer_->data() + header_;
    buffer_->skip(header_ + captured);
    return Step::record;
  }

  int64_t time_ns(uint32_t seconds, uint32_t fraction) const {
    return static_cast<int64_t>(seconds) * 1'000'000'000 + static_cast<int64_t>(fraction) * unit_ns_;
  }
  uint32_t word(size_t at) const {
    uint32_t v;
    std::memcpy(&v, buffer_->data() + at, 4);
    return swapped_ ? __builtin_bswap32(v) : v;
  }

  bool swapped_;
  uint32_t minor_;
  uint32_t unit_ns_;
  uint32_t header_;
  uint32_t link_type_;
};

}  // namespace

bool is_pcap_magic(uint32_t magic) {
  for (const uint32_t known : {kMicroseconds, kNanoseconds, kModified}) {
    if (magic == known || magic == __builtin_bswap32(known)) return true;
  }
  return false;
}

std::unique_ptr<RecordReader> make_pcap_reader(std::unique_ptr<BlockBuffer> buffer) {
  return std::make_unique<PcapReader>(std::move(buffer));
}

}  // namespace meshsieve
