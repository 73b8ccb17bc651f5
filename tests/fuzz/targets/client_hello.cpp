// The input is what a TCP client says first, on port 443: TLS records with a ClientHello.
#include "payload.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size != 0 && size <= 8192) fuzz_tcp({data, size}, 443);
  return 0;
}
