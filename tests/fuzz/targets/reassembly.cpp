// The input is a list of segments: offset (2 bytes), size (1 byte), then that many bytes; an offset of ffff skips a hole,
// one of fffe consumes. Oracle: an array in which the first copy of a byte stays.
#include <algorithm>

#include "flow/reassembly.h"
#include "fuzz.h"

using namespace meshsieve;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr uint32_t kStart = 0xffffff80;  // wraps
  constexpr size_t kWorld = 0x10000 + 256;
  TcpStream stream(1 << 20, 4096, 64);
  stream.start(kStart);
  std::vector<int> world(kWorld, -1);
  std::vector<uint8_t> got;     // what came out
  std::vector<size_t> places;   // and where it belongs
  size_t next = 0;              // place of the first byte of stream.bytes()
  const auto consume = [&](size_t n) {
    const auto bytes = stream.bytes();
    for (size_t i = 0; i < n; ++i) {
      got.push_back(bytes[i]);
      places.push_back(next + i);
    }
    stream.consume(n);
    next += n;
  };
  for (size_t at = 0; at + 3 <= size;) {
    const size_t offset = data[at] << 8 | data[at + 1];
    const size_t n = std::min<size_t>(data[at + 2], size - at - 3);
    at += 3;
    if (offset == 0xffff) {
      consume(stream.bytes().size());
      if (stream.has_gap()) next += stream.skip_gap();
      continue;
    }
    if (offset == 0xfffe) {
      consume(std::min(n, stream.bytes().size()));
      continue;
    }
    const size_t reached = next + stream.bytes().size();
    for (size_t i = 0; i < n; ++i) {
      // Bytes before what was reached are late; those of a hole that was given up never count.
      if (offset + i >= reached && world[offset + i] < 0) world[offset + i] = data[at + i];
    }
    stream.add(kStart + static_cast<uint32_t>(offset), {data + at, n});
    at += n;
    check(stream.next() == kStart + static_cast<uint32_t>(next + stream.bytes().size()), "next() is not behind bytes()");
  }
  consume(stream.bytes().size());
  check(!stream.lost(), "bytes were lost within the limits");
  for (size_t i = 0; i < got.size(); ++i) check(world[places[i]] == got[i], "a byte is not its first copy");
  for (size_t place = next; stream.has_gap() == false && place < kWorld; ++place) {
    check(world[place] < 0, "a byte that came never came out");
  }
  return 0;
}
