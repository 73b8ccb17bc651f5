// What the fuzz targets share. Every target has an oracle: check() ends the run with the input that broke it.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

using Bytes = std::span<const uint8_t>;

inline void check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "oracle: %s\n", what);
  std::abort();
}

// An input of two directions: what stands before the mark, and behind it.
inline constexpr std::string_view kMark = "--8<--";
inline std::pair<Bytes, Bytes> two_directions(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t at = text.find(kMark);
  if (at == std::string_view::npos) return {{data, size}, {}};
  return {{data, at}, {data + at + kMark.size(), size - at - kMark.size()}};
}

// Where to cut an input: numbers that follow from its bytes, so that a run can be repeated.
class Cuts {
 public:
  explicit Cuts(Bytes bytes) {
    for (const uint8_t byte : bytes) state_ = (state_ ^ byte) * 0x100000001b3;
  }
  size_t below(size_t n) {
    state_ = state_ * 6364136223846793005 + 1442695040888963407;
    return n == 0 ? 0 : static_cast<size_t>(state_ >> 33) % n;
  }

 private:
  uint64_t state_ = 0xcbf29ce484222325;
};
