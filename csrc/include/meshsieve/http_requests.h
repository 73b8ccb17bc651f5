// HTTP requests out of captured packets.
//
// What    Follows every TCP flow whose first bytes are HTTP/1.0, HTTP/1.1 or HTTP/2 in clear text, on any port, and gives
//         a row a request: what was asked, from whom, what came back and when. gRPC is HTTP/2 with a status of its own.
// Why     Routing, authorization and balancing are judged on requests; a capture is where real ones come from.
// One     reading. Bytes that two readers would cut into different messages (request smuggling) are read as RFC 9112
// reading says, and noted; where it names no reading, the rest of the direction is counted and not read. Nothing is guessed.
// Order   A row is written when its request and response are complete, or when they cannot be any more. The rows and
//         their order depend on nothing but the packets.
// Limits  HttpLimits. Beyond `memory_bytes` the connection that was silent longest is given up, its rows noted.
// Source  RFC 9110, 9112, 9113, 7541; gRPC over HTTP/2 (github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "meshsieve/packet_observer.h"

namespace meshsieve {

struct HttpLimits {
  uint32_t head_bytes = 128 << 10;         // start line and header lines; also a list unfolded from HPACK
  uint32_t header_lines = 1000;
  uint32_t pending = 1024;                 // requests of one connection that wait for their ends
  uint64_t memory_bytes = uint64_t{128} << 20;
};

enum HttpNote : uint32_t {
#define HTTP_NOTE(name, doc) kHttpNoteBit_##name,
#include "meshsieve/http_notes.def"
#undef HTTP_NOTE
  kHttpNotes
};
// kNote_bare_lf and so on: the bits of HttpRequest::notes.
#define HTTP_NOTE(name, doc) inline constexpr uint32_t kNote_##name = 1u << kHttpNoteBit_##name;
#include "meshsieve/http_notes.def"
#undef HTTP_NOTE
static_assert(kHttpNotes <= 32);

struct HttpCounts {
#define HTTP_COUNT(name, doc) uint64_t name = 0;
#include "meshsieve/http_counts.def"
#undef HTTP_COUNT
};

inline constexpr int64_t kNoTime = INT64_MIN;

// Texts are bytes as they were sent.
struct HttpRequest {
  uint64_t flow_id = 0;
  U128 src_ip, dst_ip;               // of the sender of the request
  uint16_t sport = 0, dport = 0;
  uint8_t ip_ver = 0;
  uint8_t version = 11;              // 10, 11 or 20
  uint32_t stream = 0;               // HTTP/2 stream; HTTP/1: 1, 2, 3, ... within the flow
  int64_t time_ns = kNoTime;         // first byte of the request
  int64_t request_end_ns = kNoTime;  // its last byte
  int64_t response_ns = kNoTime;     // first byte of the response (interim ones, 1xx, do not count)
  int64_t response_end_ns = kNoTime;
  uint64_t request_body_bytes = 0;   // without chunk sizes, padding and the like
  uint64_t response_body_bytes = 0;
  uint16_t status = 0;               // 0 = no response seen
  int32_t grpc_status = -1;          // -1 = none seen
  uint32_t notes = 0;
  std::string method, scheme, authority, path;
  std::string upgrade;               // protocol that a 101 response names
  std::vector<std::pair<std::string, std::string>> headers;  // of the request, without pseudo-headers

  size_t bytes() const;              // memory held
};

class HttpRequests : public PacketObserver {
 public:
  explicit HttpRequests(const HttpLimits& limits);
  ~HttpRequests() override;

  void update(const Packet* packets, const Record* records, size_t n, std::span<const JoinedDatagram> joined,
              const PacketBatch& batch, uint32_t row) override;
  // The capture is over: writes what is left.
  void finish();
  // Rows since the last call.
  std::vector<HttpRequest> take();
  size_t ready() const;
  const HttpCounts& counts() const;
  size_t bytes() const;  // memory held for connections

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace meshsieve
