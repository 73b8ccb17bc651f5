// The input is what a client says first, behind two bytes: transport (odd = UDP), and the port among those of all dissectors.
#include "payload.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr uint16_t kPorts[] = {21,   22,   23,   25,   53,   69,   88,    110,   123,   143,   161,  389,  443, 445,
                                 502,  514,  1433, 1521, 1812, 2049, 3306,  3389,  3868,  4222,  5060, 5432, 5672, 5900,
                                 6379, 8080, 9042, 9092, 9200, 11211, 20000, 27017, 51820};
  if (size < 3 || size > 8192) return 0;
  const uint16_t port = kPorts[data[1] % std::size(kPorts)];
  const Bytes payload{data + 2, size - 2};
  if (data[0] % 2 != 0) fuzz_udp(payload, port);
  else fuzz_tcp(payload, port, false);
  return 0;
}
