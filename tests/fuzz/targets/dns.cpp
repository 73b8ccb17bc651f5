// The input is a DNS message: as datagram, and behind its size over TCP.
#include "payload.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || size > 4096) return 0;
  fuzz_udp({data, size}, 53);
  std::vector<uint8_t> message{static_cast<uint8_t>(size >> 8), static_cast<uint8_t>(size)};
  message.insert(message.end(), data, data + size);
  fuzz_tcp(message, 53);
  return 0;
}
