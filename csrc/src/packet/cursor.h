// A bounded view of the bytes that are left of a frame. All reads of the decoder go through it: a length is compared
// with what is left before anything is read or skipped, and sums that could wrap are never formed.
#pragma once

#include <cassert>
#include <cstdint>
#include <cstring>

#include "meshsieve/types.h"

namespace meshsieve {

class Cursor {
 public:
  Cursor(const uint8_t* data, uint32_t size) : begin_(data), at_(data), left_(size) {}

  bool has(uint32_t n) const { return n <= left_; }
  uint32_t left() const { return left_; }
  uint32_t offset() const { return static_cast<uint32_t>(at_ - begin_); }

  // Big-endian reads `i` bytes ahead; the caller has checked has().
  uint8_t u8(uint32_t i) const { return at_[i]; }
  uint16_t u16(uint32_t i) const {
    uint16_t v;
    std::memcpy(&v, at_ + i, 2);
    return __builtin_bswap16(v);
  }
  uint32_t u32(uint32_t i) const {
    uint32_t v;
    std::memcpy(&v, at_ + i, 4);
    return __builtin_bswap32(v);
  }
  uint64_t u64(uint32_t i) const {
    uint64_t v;
    std::memcpy(&v, at_ + i, 8);
    return __builtin_bswap64(v);
  }
  U128 u128(uint32_t i) const { return {u64(i), u64(i + 8)}; }
  uint16_t le16(uint32_t i) const { return __builtin_bswap16(u16(i)); }

  void skip(uint32_t n) {  // n <= left()
    assert(n <= left_);
    at_ += n;
    left_ -= n;
  }
  // What follows `n` bytes from here is padding.
  void limit(uint32_t n) {
    if (n < left_) left_ = n;
  }

 private:
  const uint8_t* begin_;
  const uint8_t* at_;
  uint32_t left_;
};

}  // namespace meshsieve
