// The input is what the client says behind the preface, the mark, and what the server says.
#include "conversation.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 8192) return 0;
  const auto [frames, server] = two_directions(data, size);
  std::vector<uint8_t> client(meshsieve::kHttp2Preface.begin(), meshsieve::kHttp2Preface.end());
  client.insert(client.end(), frames.begin(), frames.end());
  const std::vector<Row> rows = whole(client, server);
  check(cut(client, server, 1) == rows, "byte by byte, other requests are read");
  check(cut(client, server, 40) == rows, "in pieces, other requests are read");
  return 0;
}
