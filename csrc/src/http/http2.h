// An HTTP/2 connection: frames of both directions, header blocks, streams (RFC 9113).
//
// What    read() takes frames off the bytes of one direction. A request is written when both sides of its stream have
//         ended, when it is reset, or at the end.
// Errors  What breaks the framing or the header compression stops that direction, for nothing behind it can be
//         understood: one context spans the connection. The rest is counted as unread.
// Gaps    After a hole outside of DATA, and where a connection was picked up, reading goes on at a segment that begins
//         with frames that can be; header lines that need lost compression state are missing and noted.
// Limits  Header blocks of kMaxHeaderBlock bytes over all CONTINUATION frames; HttpLimits::pending streams at a time, the
//         oldest written early; DATA is counted as it comes and never kept.
#pragma once

#include <array>
#include <map>
#include <optional>

#include "http/hpack.h"
#include "http/http1.h"
#include "http/http_context.h"

namespace meshsieve {

inline constexpr std::string_view kHttp2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
inline constexpr uint32_t kMaxHeaderBlock = 256 << 10;

// Whether bytes begin as a server does: with a SETTINGS frame.
Begins begins_as_http2_server(Bytes bytes);

struct FrameHead;
enum class Http2Side : uint8_t { client, server };

// Who sent bytes that begin, in the middle of a connection, with frames among which is a header block that names a
// method (client) or a status (server).
std::optional<Http2Side> http2_sender(Bytes bytes);

class Http2Connection {
 public:
  using Side = Http2Side;

  // `base` has what all requests share: flow, addresses, notes.
  Http2Connection(HttpContext& context, const HttpRequest& base);

  // An upgraded connection begins with this request as stream 1, and with the settings of its HTTP2-Settings header.
  void adopt(HttpRequest request, std::string_view settings_base64url);

  // The connection was running when the capture began.
  void pick_up();

  void read(Side side, Bytes& bytes, int64_t now_ns);
  bool stopped(Side side) const { return of(side).at == At::stopped; }
  // `n` bytes were not captured; what they were decides whether the direction can be read on.
  void skip(Side side, uint64_t n);
  // The connection is over.
  void finish();
  void note(uint32_t notes) { base_.notes |= notes; }
  size_t bytes() const;

 private:
  enum class At : uint8_t { preface, search, header, data, ignored, stopped };
  struct Stream {
    HttpRequest request;
    bool hidden = false;  // malformed: counted, not written
  };
  struct Direction {
    At at = At::header;
    uint32_t left = 0;     // of the frame's payload; of DATA without padding
    uint32_t padding = 0;  // behind it
    uint32_t stream = 0;
    bool ends_stream = false;
    HpackDecoder hpack;
    // A header block that is not complete.
    std::vector<uint8_t> block;
    uint32_t block_stream = 0;
    bool in_block = false;
    bool block_ends_stream = false;
    bool block_is_promise = false;
  };

  Direction& of(Side side) { return directions_[static_cast<size_t>(side)]; }
  const Direction& of(Side side) const { return directions_[static_cast<size_t>(side)]; }
  bool frame(Side side, Bytes& bytes, int64_t now_ns);
  bool data_frame(Side side, const FrameHead& frame, Bytes& bytes, int64_t now_ns);
  void end_data(Side side, int64_t now_ns);
  void block_frame(Side side, const FrameHead& frame, Bytes payload, int64_t now_ns);
  void settings(Side side, Bytes payload);
  void header_block(Side side, int64_t now_ns);
  void request_headers(uint32_t id, HeaderLines lines, const HpackDecoder::Outcome& outcome, int64_t now_ns);
  void response_headers(uint32_t id, const HeaderLines& lines, bool ends, int64_t now_ns);
  void end(Side side, uint32_t id, int64_t now_ns);
  void write(std::map<uint32_t, Stream>::iterator stream);
  void reset(uint32_t id);
  void stop(Side side, uint64_t& count);

  HttpContext& context_;
  HttpRequest base_;
  std::array<Direction, 2> directions_;
  std::map<uint32_t, Stream> streams_;
  uint32_t last_client_stream_ = 0;
  size_t stream_bytes_ = 0;
};

}  // namespace meshsieve
