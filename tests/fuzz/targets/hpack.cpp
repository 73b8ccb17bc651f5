// The input is header blocks, each behind its size (1 byte; the last takes the rest). Oracle: the list stays within its
// limit and the table within its own; a decoder that forgot its history finds a line or misses it, never another one.
#include <algorithm>

#include "fuzz.h"
#include "http/hpack.h"

using namespace meshsieve;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr size_t kLimit = 4096;
  HpackDecoder decoder, forgetful;
  forgetful.forget_history();
  decoder.allow_table(kMaxHpackTable);
  bool first = true;
  for (size_t at = 0; at < size;) {
    size_t n = data[at++];
    n = n == 255 ? size - at : std::min(n, size - at);
    const std::span<const uint8_t> block(data + at, n);
    at += n;
    HeaderLines lines, partial;
    const HpackDecoder::Outcome outcome = decoder.decode(block, kLimit, lines);
    size_t bytes = 0;
    for (const auto& [name, value] : lines) bytes += name.size() + value.size() + 32;
    check(bytes <= kLimit, "a list over its limit");
    check(decoder.bytes() <= kMaxHpackTable, "a table over its limit");
    if (!outcome.ok) return 0;
    if (first) {  // this one never saw the first block
      first = false;
      continue;
    }
    const HpackDecoder::Outcome seen = forgetful.decode(block, SIZE_MAX, partial);
    check(seen.ok, "the same block is none to a decoder without history");
    if (outcome.too_large) continue;
    auto place = lines.begin();
    for (const auto& line : partial) {
      place = std::find(place, lines.end(), line);
      check(place != lines.end(), "a line that was never sent");
      ++place;
    }
  }
  return 0;
}
