// HTTP/1.0 and HTTP/1.1 messages: start lines, heads, bodies (RFC 9112). Pure functions and a byte machine; what belongs
// to which request is http_flow.h.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "http/hpack.h"
#include "meshsieve/http_requests.h"

namespace meshsieve {

using Bytes = std::span<const uint8_t>;

// Whether bytes begin as something does; `open` = they are too few to tell.
enum class Begins : uint8_t { no, open, yes };
Begins begins_as_request(Bytes bytes);   // METHOD SP target SP HTTP/d.d and the end of the line
Begins begins_as_response(Bytes bytes);  // HTTP/d.d SP ddd
Begins begins_with(Bytes bytes, std::string_view text);

// The size of a head, its empty line included; 0 if its end is not there. Looks from `scanned` on, which it moves.
size_t head_size(Bytes bytes, size_t& scanned);

// How long a body is. `unknown`: the head contradicts itself and no reading is the right one.
enum class Framing : uint8_t { none, length, chunked, until_close, unknown };

struct Http1Head {
  bool ok = false;  // false: the start line is none
  std::string method, target;
  uint16_t status = 0;
  uint8_t version = 11;
  HeaderLines lines;
  uint32_t notes = 0;
  Framing framing = Framing::none;  // of a response: for a request other than HEAD and CONNECT
  uint64_t length = 0;

  // The values of all lines of that name, joined by commas.
  std::string all(std::string_view name) const;
};
Http1Head parse_request_head(Bytes head, const HttpLimits& limits);
Http1Head parse_response_head(Bytes head, const HttpLimits& limits);

// Scheme, authority and path of a request, from target and Host; notes what is wrong with them.
void set_target(const Http1Head& head, HttpRequest& request);

// A body on its way. Chunk sizes, extensions and trailers are read byte by byte and never kept.
class Http1Body {
 public:
  void start(Framing framing, uint64_t length);
  enum class State : uint8_t { more, done, bad };
  // Takes what belongs to the body off the front of `bytes`.
  State take(Bytes& bytes);
  // `n` bytes were not captured; false if they may hold more than body data.
  bool skip(uint64_t n);
  // The direction is over: true if that is the end of the body.
  bool ends_at_close() const { return framing_ == Framing::until_close; }
  uint64_t bytes() const { return bytes_; }
  uint32_t notes() const { return notes_; }

 private:
  enum class At : uint8_t { size, extension, size_lf, data, data_cr, data_lf, trailer_begin, trailer, end_lf };
  State chunk_byte(uint8_t byte);
  State end_of_size_line();

  static constexpr uint32_t kMaxLine = 64 << 10;  // a chunk size with extensions; all trailers
  Framing framing_ = Framing::none;
  At at_ = At::size;
  uint64_t left_ = 0;   // of the body, or of the chunk
  uint64_t bytes_ = 0;
  uint32_t digits_ = 0;
  uint32_t line_ = 0;
  uint32_t notes_ = 0;
};

bool equal_without_case(std::string_view a, std::string_view b);

}  // namespace meshsieve
