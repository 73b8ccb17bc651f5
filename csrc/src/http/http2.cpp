#include "http/http2.h"

#include <algorithm>
#include <utility>

namespace meshsieve {

namespace {

constexpr size_t kFrameHeader = 9;
constexpr uint32_t kMaxSettings = 16384;  // bytes of one frame
enum FrameType : uint8_t {
  kData = 0, kHeaders = 1, kPriority = 2, kResetStream = 3, kSettings = 4, kPushPromise = 5,
  kPing = 6, kGoAway = 7, kWindowUpdate = 8, kContinuation = 9
};
enum FrameFlag : uint8_t { kEndStream = 1, kAck = 1, kEndHeaders = 4, kPadded = 8, kWithPriority = 32 };
constexpr uint16_t kHeaderTableSize = 1;

uint32_t u32(Bytes b, size_t at) {
  return uint32_t{b[at]} << 24 | uint32_t{b[at + 1]} << 16 | uint32_t{b[at + 2]} << 8 | b[at + 3];
}

bool has_upper_case(std::string_view name) {
  return std::any_of(name.begin(), name.end(), [](char c) { return c >= 'A' && c <= 'Z'; });
}

// RFC 9113, section 8.2.2
bool belongs_to_connection(std::string_view name, std::string_view value) {
  return name == "connection" || name == "proxy-connection" || name == "keep-alive" || name == "transfer-encoding" ||
         name == "upgrade" || (name == "te" && !equal_without_case(value, "trailers"));
}

// RFC 9113, section 8.2.1
bool has_forbidden_byte(std::string_view value) {
  return value.find_first_of(std::string_view("\0\r\n", 3)) != std::string_view::npos ||
         (!value.empty() && (value.front() == ' ' || value.front() == '\t' || value.back() == ' ' ||
                             value.back() == '\t'));
}

int32_t small_number(std::string_view text) {  // -1 if it is none
  int32_t number = text.empty() || text.size() > 6 ? -1 : 0;
  for (const char c : text) {
    if (number < 0 || c < '0' || c > '9') return -1;
    number = number * 10 + (c - '0');
  }
  return number;
}

std::vector<uint8_t> base64url(std::string_view text) {
  std::vector<uint8_t> out;
  uint32_t bits = 0;
  int have = 0;
  for (const char c : text) {
    int value = -1;
    if (c >= 'A' && c <= 'Z') value = c - 'A';
    else if (c >= 'a' && c <= 'z') value = c - 'a' + 26;
    else if (c >= '0' && c <= '9') value = c - '0' + 52;
    else if (c == '-' || c == '+') value = 62;
    else if (c == '_' || c == '/') value = 63;
    else break;
    bits = bits << 6 | static_cast<uint32_t>(value);
    have += 6;
    if (have >= 8) out.push_back(static_cast<uint8_t>(bits >> (have -= 8)));
  }
  return out;
}

}  // namespace

Begins begins_as_http2_server(Bytes b) {
  // length (a multiple of 6, here under 65,536), type SETTINGS, no flags, stream 0
  constexpr std::array<int, 9> kShape = {0, -1, -1, kSettings, 0, 0, 0, 0, 0};
  for (size_t i = 0; i < std::min(b.size(), kShape.size()); ++i) {
    if (kShape[i] >= 0 && b[i] != kShape[i]) return Begins::no;
  }
  if (b.size() < kShape.size()) return Begins::open;
  return (b[1] * 256 + b[2]) % 6 == 0 ? Begins::yes : Begins::no;
}

struct FrameHead {
  uint32_t length;
  uint8_t type, flags;
  uint32_t stream;

  explicit FrameHead(Bytes b) : length(u32(b, 0) >> 8), type(b[3]), flags(b[4]), stream(u32(b, 5)) {}

  // Whether a frame may begin so that was not announced by what stands before it. Default frame size.
  bool plausible() const {
    if (length > 16384 || stream >> 31 != 0) return false;
    switch (type) {
      case kData: return stream != 0 && (flags & ~(kEndStream | kPadded)) == 0;
      case kHeaders:
        return stream != 0 && length != 0 && (flags & ~(kEndStream | kEndHeaders | kPadded | kWithPriority)) == 0;
      case kPriority: return stream != 0 && length == 5 && flags == 0;
      case kResetStream: return stream != 0 && length == 4 && flags == 0;
      case kSettings: return stream == 0 && length % 6 == 0 && (flags & ~kAck) == 0;
      case kPing: return stream == 0 && length == 8 && (flags & ~kAck) == 0;
      case kGoAway: return stream == 0 && length >= 8 && flags == 0;
      case kWindowUpdate: return length == 4 && flags == 0;
      default: return false;
    }
  }
};

namespace {

// Frames that can be, as far as the bytes go. `open` = no whole frame header.
Begins begins_with_frames(Bytes bytes) {
  if (bytes.size() < kFrameHeader) return Begins::open;
  for (int i = 0; i < 4 && bytes.size() >= kFrameHeader; ++i) {
    const FrameHead head(bytes);
    if (!head.plausible()) return Begins::no;
    if (bytes.size() - kFrameHeader <= head.length) break;
    bytes = bytes.subspan(kFrameHeader + head.length);
  }
  return Begins::yes;
}

}  // namespace

std::optional<Http2Side> http2_sender(Bytes bytes) {
  if (begins_with_frames(bytes) != Begins::yes) return std::nullopt;
  constexpr size_t kMaxLooked = 16384;
  for (int i = 0; i < 8 && bytes.size() >= kFrameHeader; ++i) {
    const FrameHead head(bytes);
    if (!head.plausible() || bytes.size() - kFrameHeader < head.length) break;
    if (head.type == kHeaders && (head.flags & kEndHeaders) != 0 && head.stream % 2 == 1) {
      Bytes block = bytes.subspan(kFrameHeader, head.length);
      const size_t padding = (head.flags & kPadded) != 0 ? block[0] : 0u;
      const size_t front = ((head.flags & kPadded) != 0 ? 1u : 0u) + ((head.flags & kWithPriority) != 0 ? 5u : 0u);
      if (front + padding > block.size()) break;
      block = block.subspan(front, block.size() - front - padding);
      HpackDecoder decoder;
      decoder.forget_history();
      HeaderLines lines;
      if (!decoder.decode(block, kMaxLooked, lines).ok) break;
      for (const auto& [name, value] : lines) {
        if (name == ":method" || name == ":path") return Http2Side::client;
        if (name == ":status") return Http2Side::server;
      }
    }
    bytes = bytes.subspan(kFrameHeader + head.length);
  }
  return std::nullopt;
}

Http2Connection::Http2Connection(HttpContext& context, const HttpRequest& base) : context_(context), base_(base) {
  base_.version = 20;
  of(Side::client).at = At::preface;
}

void Http2Connection::adopt(HttpRequest request, std::string_view settings_base64url) {
  const std::vector<uint8_t> payload = base64url(settings_base64url);
  settings(Side::client, Bytes(payload).first(payload.size() / 6 * 6));
  request.stream = 1;
  last_client_stream_ = 1;
  stream_bytes_ += request.bytes();
  streams_[1].request = std::move(request);
}

void Http2Connection::pick_up() {
  for (Direction& d : directions_) {
    d.at = At::search;
    d.hpack.forget_history();
  }
}

void Http2Connection::stop(Side side, uint64_t& count) {
  ++count;
  of(side).at = At::stopped;
  of(side).block = {};
}

void Http2Connection::read(Side side, Bytes& bytes, int64_t now_ns) {
  Direction& d = of(side);
  for (;;) {
    switch (d.at) {
      case At::preface:
        switch (begins_with(bytes, kHttp2Preface)) {
          case Begins::open: return;
          case Begins::no: stop(side, context_.counts.bad_frame); return;
          case Begins::yes: break;
        }
        bytes = bytes.subspan(kHttp2Preface.size());
        d.at = At::header;
        break;
      case At::search:
        switch (begins_with_frames(bytes)) {
          case Begins::open: return;
          case Begins::no:
            context_.counts.unread_bytes += bytes.size();
            bytes = {};
            return;
          case Begins::yes: d.at = At::header;
        }
        break;
      case At::header:
        if (!frame(side, bytes, now_ns)) return;
        break;
      case At::data: {
        const auto n = static_cast<uint32_t>(std::min<size_t>(d.left, bytes.size()));
        const auto stream = streams_.find(d.stream);
        if (stream != streams_.end()) {
          HttpRequest& request = stream->second.request;
          (side == Side::client ? request.request_body_bytes : request.response_body_bytes) += n;
        }
        d.left -= n;
        bytes = bytes.subspan(n);
        if (d.left != 0) return;
        end_data(side, now_ns);
        break;
      }
      case At::ignored: {
        const auto n = static_cast<uint32_t>(std::min<size_t>(d.left, bytes.size()));
        d.left -= n;
        bytes = bytes.subspan(n);
        if (d.left != 0) return;
        d.at = At::header;
        break;
      }
      case At::stopped: return;
    }
  }
}

// The data of a DATA frame are over; padding may follow.
void Http2Connection::end_data(Side side, int64_t now_ns) {
  Direction& d = of(side);
  if (d.ends_stream) end(side, d.stream, now_ns);
  d.left = std::exchange(d.padding, 0);
  d.at = d.left != 0 ? At::ignored : At::header;
}

void Http2Connection::skip(Side side, uint64_t n) {
  Direction& d = of(side);
  if (d.at == At::data && n <= d.left) {
    const auto stream = streams_.find(d.stream);
    if (stream != streams_.end()) {
      HttpRequest& request = stream->second.request;
      (side == Side::client ? request.request_body_bytes : request.response_body_bytes) += n;
      request.notes |= kNote_body_gap;
    }
    d.left -= static_cast<uint32_t>(n);
  } else if (d.at == At::ignored && n <= d.left) {
    d.left -= static_cast<uint32_t>(n);
  } else if (d.at != At::stopped) {
    d.at = At::search;
    d.block = {};
    d.in_block = false;
    d.hpack.forget_history();
    if (side == Side::client) base_.notes |= kNote_after_gap;
  }
}

// Takes a frame off the front; false if it is not there whole (DATA: its first bytes).
bool Http2Connection::frame(Side side, Bytes& bytes, int64_t now_ns) {
  if (bytes.size() < kFrameHeader) return false;
  FrameHead frame(bytes);
  frame.stream &= 0x7fffffff;
  Direction& d = of(side);
  if (d.in_block && (frame.type != kContinuation || frame.stream != d.block_stream)) {
    stop(side, context_.counts.bad_frame);
    return false;
  }
  switch (frame.type) {
    case kData: return data_frame(side, frame, bytes, now_ns);
    case kHeaders:
    case kPushPromise:
    case kContinuation:
      if (frame.length > kMaxHeaderBlock - d.block.size()) {
        stop(side, context_.counts.head_too_large);
        return false;
      }
      break;
    case kResetStream:
    case kSettings:
      if (frame.length > kMaxSettings || (frame.type == kResetStream && frame.length != 4)) {
        stop(side, context_.counts.bad_frame);
        return false;
      }
      break;
    default:
      d.left = frame.length;
      d.at = At::ignored;
      bytes = bytes.subspan(kFrameHeader);
      return true;
  }
  if (bytes.size() - kFrameHeader < frame.length) return false;
  const Bytes payload = bytes.subspan(kFrameHeader, frame.length);
  if (frame.type == kResetStream) reset(frame.stream);
  else if (frame.type != kSettings) block_frame(side, frame, payload, now_ns);
  else if ((frame.flags & kAck) == 0 && frame.length % 6 == 0) settings(side, payload);
  else if ((frame.flags & kAck) == 0) stop(side, context_.counts.bad_frame);
  bytes = bytes.subspan(kFrameHeader + frame.length);
  return d.at != At::stopped;
}

bool Http2Connection::data_frame(Side side, const FrameHead& frame, Bytes& bytes, int64_t now_ns) {
  const bool padded = (frame.flags & kPadded) != 0;
  if (bytes.size() < kFrameHeader + padded) return false;
  const uint32_t padding = padded ? bytes[kFrameHeader] : 0u;
  if (frame.stream == 0 || (padded && padding >= frame.length)) {
    stop(side, context_.counts.bad_frame);
    return false;
  }
  Direction& d = of(side);
  d.stream = frame.stream;
  d.ends_stream = (frame.flags & kEndStream) != 0;
  d.padding = padding;
  d.left = frame.length - padding - padded;
  d.at = At::data;
  bytes = bytes.subspan(kFrameHeader + padded);
  if (d.left == 0) end_data(side, now_ns);
  return true;
}

// HEADERS, PUSH_PROMISE and CONTINUATION: pieces of a header block.
void Http2Connection::block_frame(Side side, const FrameHead& frame, Bytes payload, int64_t now_ns) {
  Direction& d = of(side);
  if (frame.type == kContinuation) {
    if (!d.in_block) return stop(side, context_.counts.bad_frame);
  } else {
    size_t front = 0, padding = 0;
    if ((frame.flags & kPadded) != 0) {
      if (payload.empty()) return stop(side, context_.counts.bad_frame);
      padding = payload[0];
      front = 1;
    }
    d.block_is_promise = frame.type == kPushPromise;
    if (d.block_is_promise) front += 4;  // the promised stream
    else if ((frame.flags & kWithPriority) != 0) front += 5;
    const bool wrong_side = d.block_is_promise ? side == Side::client : side == Side::client && frame.stream % 2 == 0;
    if (frame.stream == 0 || front + padding > payload.size() || wrong_side) {
      return stop(side, context_.counts.bad_frame);
    }
    payload = payload.subspan(front, payload.size() - front - padding);
    d.block_stream = frame.stream;
    d.block_ends_stream = frame.type == kHeaders && (frame.flags & kEndStream) != 0;
    d.in_block = true;
  }
  d.block.insert(d.block.end(), payload.begin(), payload.end());
  if ((frame.flags & kEndHeaders) != 0) header_block(side, now_ns);
}

// One side's settings bind the other side's sending.
void Http2Connection::settings(Side side, Bytes payload) {
  for (; payload.size() >= 6; payload = payload.subspan(6)) {
    if ((payload[0] << 8 | payload[1]) == kHeaderTableSize) {
      of(side == Side::client ? Side::server : Side::client).hpack.allow_table(u32(payload, 2));
    }
  }
}

void Http2Connection::header_block(Side side, int64_t now_ns) {
  Direction& d = of(side);
  HeaderLines lines;
  const HpackDecoder::Outcome outcome = d.hpack.decode(d.block, context_.limits.head_bytes, lines);
  d.block = {};
  d.in_block = false;
  if (!outcome.ok) return stop(side, context_.counts.bad_compression);
  if (d.block_is_promise) {
    ++context_.counts.pushed;
    return;
  }
  if (side == Side::client) request_headers(d.block_stream, std::move(lines), outcome, now_ns);
  else response_headers(d.block_stream, lines, d.block_ends_stream, now_ns);
  if (d.block_ends_stream) end(side, d.block_stream, now_ns);
}

void Http2Connection::request_headers(uint32_t id, HeaderLines lines, const HpackDecoder::Outcome& outcome,
                                      int64_t now_ns) {
  if (streams_.contains(id)) return;        // trailers
  if (id <= last_client_stream_) return;    // a stream that is closed (RFC 9113, section 5.1.1)
  last_client_stream_ = id;
  if (streams_.size() >= context_.limits.pending) {
    ++context_.counts.evicted;
    write(streams_.begin());
  }
  Stream& stream = streams_[id];
  HttpRequest& request = stream.request = base_;
  request.stream = id;
  request.time_ns = now_ns;
  if (outcome.missing) request.notes |= kNote_headers_missing;
  if (outcome.too_large) request.notes |= kNote_headers_left_out;
  bool malformed = false, regular_seen = false;
  std::string protocol;
  const std::string* host = nullptr;
  unsigned seen = 0;
  for (auto& [name, value] : lines) {
    if (has_forbidden_byte(value) || has_upper_case(name)) request.notes |= kNote_bad_header;
    if (!name.starts_with(':')) {
      regular_seen = true;
      if (belongs_to_connection(name, value)) request.notes |= kNote_bad_header;
      if (request.headers.size() == context_.limits.header_lines) {
        request.notes |= kNote_headers_left_out;
        continue;
      }
      request.headers.emplace_back(std::move(name), std::move(value));
      continue;
    }
    std::string* const place = name == ":method"      ? &request.method
                               : name == ":scheme"    ? &request.scheme
                               : name == ":authority" ? &request.authority
                               : name == ":path"      ? &request.path
                               : name == ":protocol"  ? &protocol
                                                      : nullptr;
    const unsigned bit = place == nullptr ? 0u : 1u << (name[1] == 'p' ? (name == ":path" ? 3 : 4)
                                                       : name[1] == 'm' ? 0
                                                       : name[1] == 's' ? 1
                                                                        : 2);
    // RFC 9113, section 8.3: known ones, once, before all others.
    malformed = malformed || bit == 0 || (seen & bit) != 0 || regular_seen;
    seen |= bit;
    if (place != nullptr) *place = std::move(value);
  }
  for (const auto& [name, value] : request.headers) {
    if (name != "host") continue;
    if (host != nullptr || (!request.authority.empty() && !equal_without_case(value, request.authority))) {
      request.notes |= kNote_bad_host;
    }
    host = &value;
  }
  if (request.authority.empty() && host != nullptr) request.authority = *host;
  if (request.authority.empty()) request.notes |= kNote_bad_host;
  const bool connect = request.method == "CONNECT" && protocol.empty();
  malformed = malformed || request.method.empty() || (!connect && (request.path.empty() || request.scheme.empty()));
  if (!request.path.empty() && request.path.front() != '/' && request.path != "*") request.notes |= kNote_bad_target;
  request.upgrade = protocol;  // RFC 8441
  stream.hidden = malformed;
  if (malformed) ++context_.counts.incomplete_requests;
  stream_bytes_ += request.bytes();
}

void Http2Connection::response_headers(uint32_t id, const HeaderLines& lines, bool ends, int64_t now_ns) {
  const auto found = streams_.find(id);
  if (found == streams_.end()) {
    if (id > last_client_stream_) ++context_.counts.responses_unmatched;
    return;
  }
  HttpRequest& request = found->second.request;
  int32_t status = -1;
  for (const auto& [name, value] : lines) {
    if (name == ":status") status = small_number(value);
    else if (name == "grpc-status") request.grpc_status = small_number(value);
  }
  if (status >= 100 && status < 200 && !ends) return;  // interim
  if (request.response_ns == kNoTime) {
    request.response_ns = now_ns;
    if (status >= 100 && status <= 999) request.status = static_cast<uint16_t>(status);
  }
}

void Http2Connection::end(Side side, uint32_t id, int64_t now_ns) {
  const auto found = streams_.find(id);
  if (found == streams_.end()) return;
  HttpRequest& request = found->second.request;
  (side == Side::client ? request.request_end_ns : request.response_end_ns) = now_ns;
  if (request.request_end_ns != kNoTime && request.response_end_ns != kNoTime) write(found);
}

void Http2Connection::reset(uint32_t id) {
  const auto found = streams_.find(id);
  if (found == streams_.end()) return;
  if (found->second.request.response_end_ns == kNoTime) found->second.request.notes |= kNote_reset;
  write(found);
}

void Http2Connection::write(std::map<uint32_t, Stream>::iterator stream) {
  stream_bytes_ -= std::min(stream_bytes_, stream->second.request.bytes());
  if (!stream->second.hidden) context_.write(std::move(stream->second.request));
  streams_.erase(stream);
}

void Http2Connection::finish() {
  while (!streams_.empty()) write(streams_.begin());
}

size_t Http2Connection::bytes() const {
  size_t sum = sizeof *this + stream_bytes_;
  for (const Direction& d : directions_) sum += d.block.capacity() + d.hpack.bytes();
  return sum;
}

}  // namespace meshsieve
