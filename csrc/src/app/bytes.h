// A bounded view that dissectors read payload through.
//
// A read beyond the end gives 0, ends the view and makes ok() false for good, so a dissector can read a whole header and
// ask once. Every length is compared with what is left; nothing is added up that could wrap.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace meshsieve::app {

using Bytes = std::span<const uint8_t>;

inline std::string_view text_of(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

// Whether `bytes` begins with `text`; of a shorter `bytes`, whether it could.
inline bool begins(Bytes bytes, std::string_view text) {
  return text_of(bytes).starts_with(text);
}
inline bool could_begin(Bytes bytes, std::string_view text) {
  const size_t n = std::min(bytes.size(), text.size());
  return text_of(bytes.first(n)) == text.substr(0, n);
}

class Reader {
 public:
  explicit Reader(Bytes bytes) : bytes_(bytes) {}

  bool ok() const { return ok_; }
  size_t left() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  Bytes rest() const { return bytes_; }

  uint8_t u8() { return static_cast<uint8_t>(big(1)); }
  uint16_t u16() { return static_cast<uint16_t>(big(2)); }
  uint32_t u24() { return static_cast<uint32_t>(big(3)); }
  uint32_t u32() { return static_cast<uint32_t>(big(4)); }
  uint64_t u64() { return big(8); }
  uint16_t le16() { return static_cast<uint16_t>(little(2)); }
  uint32_t le24() { return static_cast<uint32_t>(little(3)); }
  uint32_t le32() { return static_cast<uint32_t>(little(4)); }
  uint64_t le64() { return little(8); }

  Bytes bytes(size_t n) {
    if (n > bytes_.size()) return fail(), Bytes{};
    const Bytes out = bytes_.first(n);
    bytes_ = bytes_.subspan(n);
    return out;
  }
  void skip(size_t n) { bytes(n); }
  // The next n bytes, or as many as there are: what a length field encloses, of which the end may be missing.
  Bytes up_to(size_t n) { return bytes(std::min(n, bytes_.size())); }
  // A vector of TLS and others: a length of one or two bytes, then as much.
  Bytes vector8() { return bytes(u8()); }
  Bytes vector16() { return bytes(u16()); }

 private:
  void fail() {
    ok_ = false;
    bytes_ = {};
  }
  uint64_t big(size_t n) {
    uint64_t value = 0;
    for (const uint8_t byte : bytes(n)) value = value << 8 | byte;
    return value;
  }
  uint64_t little(size_t n) {
    uint64_t value = 0;
    int shift = 0;
    for (const uint8_t byte : bytes(n)) {
      value |= static_cast<uint64_t>(byte) << shift;
      shift += 8;
    }
    return value;
  }

  Bytes bytes_;
  bool ok_ = true;
};

}  // namespace meshsieve::app
