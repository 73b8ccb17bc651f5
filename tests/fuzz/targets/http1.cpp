// The input is what the client says, the mark, and what the server says.
#include "conversation.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 8192) return 0;  // below the sizes from which waiting is given up
  const auto [client, server] = two_directions(data, size);
  const std::vector<Row> rows = whole(client, server);
  check(cut(client, server, 1) == rows, "byte by byte, other requests are read");
  check(cut(client, server, 40) == rows, "in pieces, other requests are read");
  return 0;
}
