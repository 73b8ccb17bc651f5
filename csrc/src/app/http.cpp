// HTTP/1 and what looks like it: WebSocket after an upgrade, Elasticsearch by its own header, SSDP on UDP; HTTP/2 in
// clear text.
//
// Confirms  a request line "METHOD target HTTP/1.x" with a token as method, or a status line "HTTP/1.x nnn"; the preface of
//           HTTP/2, or its SETTINGS frame as a server's first
// Source    RFC 9112, 6455, 9113; UPnP Device Architecture 2.0
#include "app/dissectors.h"
#include "app/handshake.h"
#include "app/text.h"
#include "http/hpack.h"

namespace meshsieve::app {

namespace {

constexpr size_t kMaxRequestLine = 8192;
constexpr size_t kMaxOtherLine = 2048;  // with a method that is not well known

struct Message {
  Answer answer = Answer::no;
  bool request = false;
  bool whole = false;  // the header section has come to its end
  size_t size = 0;     // of the header section
  std::string_view method, target, status;
  std::string_view host, upgrade, content_type, agent, server;
  bool elastic = false;
};

// Methods may be any token; those in use are capitals.
bool is_method(std::string_view text) {
  constexpr size_t kMaxMethod = 32;
  if (text.empty() || text.size() > kMaxMethod) return false;
  return std::all_of(text.begin(), text.end(), [](char c) { return is_upper(c) || is_digit(c) || c == '_' || c == '-'; });
}

// "HTTP/1.0", "HTTP/1.1", and what sloppy peers make of it
bool is_version(std::string_view text) {
  return text.size() == 8 && (text.starts_with("HTTP/1.") || text.starts_with("HTTP/0.")) && is_digit(text[7]);
}

// Could this be the beginning of a request line of which the end has not come?
bool could_be_request(std::string_view text) {
  constexpr std::string_view kMethods[] = {
      "GET ",   "HEAD ",   "POST ",  "PUT ",   "DELETE ",    "CONNECT ",  "OPTIONS ", "TRACE ", "PATCH ", "PROPFIND ",
      "LOCK ",  "UNLOCK ", "COPY ",  "MOVE ",  "PROPPATCH ", "MKCOL ",    "SEARCH ",  "MERGE ", "REPORT ", "SUBSCRIBE ",
      "NOTIFY ", "RPC_IN_DATA ", "RPC_OUT_DATA ", "BPROPFIND ", "UNSUBSCRIBE ", "CHECKOUT ", "MKACTIVITY "};
  for (const std::string_view method : kMethods) {
    const size_t n = std::min(method.size(), text.size());
    if (text.substr(0, n) == method.substr(0, n)) return text.size() < kMaxRequestLine;
  }
  return false;
}

bool has_host_line(std::string_view headers) {
  while (const auto line = next_line(headers)) {
    if (starts_nocase(*line, "host:")) return true;
  }
  return false;
}

Message read_message(Bytes bytes) {
  Message out;
  std::string_view text = text_of(bytes);
  while (text.starts_with("\r\n")) text.remove_prefix(2);  // RFC 9112, section 2.2
  const std::string_view all = text;
  const auto line = next_line(text);
  if (all.starts_with("HTTP/")) {
    if (all.size() < 12) {
      out.answer = Answer::more;
      return out;
    }
    if (!is_version(all.substr(0, 8)) || all[8] != ' ' || !number(all.substr(9, 3))) return out;
    out.status = all.substr(9, 3);
  } else if (!line) {
    if (could_be_request(all) || (is_method(word(all, " ")) && all.size() < kMaxOtherLine)) out.answer = Answer::more;
    return out;
  } else {
    const size_t space = line->find(' '), last = line->rfind(' ');
    if (space == std::string_view::npos || !is_method(line->substr(0, space))) return out;
    // A line without version is one of HTTP only with headers behind it.
    const bool versioned = last > space && is_version(line->substr(last + 1));
    if (!versioned && (text.empty() || text == "\r\n") && line->starts_with("GET /") && last == space) {  // HTTP/0.9
      out.answer = Answer::likely;
      out.request = true;
      out.method = "GET";
      out.target = line->substr(4);
      return out;
    }
    const bool plausible = could_be_request(all) || line->substr(space + 1).starts_with('/');
    if (!versioned && (!plausible || !has_host_line(text))) {
      const bool over = all.find("\n\n") != std::string_view::npos || all.find("\n\r\n") != std::string_view::npos;
      if (plausible && !over) out.answer = Answer::more;
      return out;
    }
    out.request = true;
    out.method = line->substr(0, space);
    out.target = trimmed(versioned ? line->substr(space + 1, last - space - 1) : word(line->substr(space + 1), " "));
  }
  out.answer = Answer::yes;
  while (const auto header = next_line(text)) {
    if (header->empty()) {
      out.whole = true;
      break;
    }
    const size_t colon = header->find(':');
    if (colon == std::string_view::npos) continue;
    const std::string_view name = header->substr(0, colon), value = trimmed(header->substr(colon + 1));
    const auto keep = [&](std::string_view wanted, std::string_view& into) {
      if (into.empty() && equals_nocase(name, wanted)) into = value;
    };
    switch (name.size()) {
      case 4: keep("host", out.host); break;
      case 6: keep("server", out.server); break;
      case 7: keep("upgrade", out.upgrade); break;
      case 10: keep("user-agent", out.agent); break;
      case 12: keep("content-type", out.content_type); break;
      case 17: out.elastic = out.elastic || equals_nocase(name, "x-elastic-product"); break;
      default: break;
    }
  }
  out.size = bytes.size() - text.size();
  return out;
}

// Host of a target in absolute or authority form.
std::string_view host_of_target(const Message& message) {
  if (message.method == "CONNECT") return message.target;
  const size_t scheme = message.target.find("://");
  if (scheme == std::string_view::npos || message.target.starts_with('/')) return {};
  return word(message.target.substr(scheme + 3), "/?#");
}

void keep(const Message& message, Attributes& out) {
  if (message.request) {
    out.set(Attribute::http_method, message.method);
    out.set(Attribute::http_path, message.target);
    out.set(Attribute::http_host, message.host.empty() ? host_of_target(message) : message.host);
    out.set(Attribute::user_agent, message.agent);
  } else if (!message.status.empty()) {
    out.set(Attribute::http_status, message.status);
    out.set(Attribute::server_software, message.server);
  }
  out.set(Attribute::content_type, message.content_type);
}

Answer http(const Payload& p, Findings& out) {
  const Message here = read_message(p.here);
  if (here.answer == Answer::no || here.answer == Answer::more) return here.answer;
  const Message there = p.there.empty() ? Message{} : read_message(p.there);
  const Message& request = here.request ? here : there;
  const Message& response = here.request ? there : here;
  out.app = App::http;
  keep(request, out.attributes);
  keep(response, out.attributes);
  if (response.elastic) out.app = App::elasticsearch;
  if (response.status == "101" && equals_nocase(response.upgrade, "websocket")) out.app = App::websocket;
  const bool tunnel = request.method == "CONNECT";
  if (tunnel && response.status.starts_with('2') && request.whole) {
    // What the tunnel carries, if it is TLS.
    const Bytes sent = (here.request ? p.here : p.there).subspan(request.size);
    const Bytes received = (here.request ? p.there : p.here).subspan(response.size);
    const TlsProgress client = read_tls_stream(sent, out.attributes);
    const TlsProgress server = read_tls_stream(received, out.attributes);
    out.done = client.client_hello && server.server_hello;
  } else {
    out.done = request.whole && response.whole && response.status != "100";
    out.told = here.whole && here.status != "100" && !tunnel;
  }
  return here.answer;
}

// ---- HTTP/2

constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

struct Frame {
  uint8_t type, flags;
  uint32_t stream;
  Bytes body;
  bool ok;
};

Frame read_frame(Reader& reader) {
  const uint32_t size = reader.u24();
  Frame out{};
  out.type = reader.u8();
  out.flags = reader.u8();
  out.stream = reader.u32();
  out.ok = reader.ok() && out.type <= 9 && out.stream >> 31 == 0 && size <= 1 << 20;
  if (out.ok) out.body = reader.bytes(size);
  out.ok = out.ok && reader.ok();
  return out;
}

// A SETTINGS frame that begins a connection: stream 0, known identifiers.
Answer begins_with_settings(Bytes bytes) {
  Reader reader(bytes);
  const uint32_t size = reader.u24();
  const uint8_t type = reader.u8(), flags = reader.u8();
  const uint32_t stream = reader.u32();
  if (!reader.ok()) return could_begin(bytes, std::string_view("\0\0", 2)) ? Answer::more : Answer::no;
  if (type != 4 || flags > 1 || stream != 0 || size % 6 != 0 || size > 120 || (flags == 1 && size != 0)) return Answer::no;
  Reader settings(reader.up_to(size));
  while (settings.left() >= 6) {
    const uint16_t identifier = settings.u16();
    settings.skip(4);
    if (identifier == 0 || (identifier > 9 && identifier < 0x0a0a && identifier != 16)) return Answer::no;
  }
  return Answer::yes;
}

void keep_header(const std::string& name, const std::string& value, Attributes& out) {
  if (name == ":method") out.set(Attribute::http_method, value);
  if (name == ":path") out.set(Attribute::http_path, value);
  if (name == ":authority") out.set(Attribute::http_host, value);
  if (name == ":status") out.set(Attribute::http_status, value);
  if (name == "user-agent") out.set(Attribute::user_agent, value);
  if (name == "server") out.set(Attribute::server_software, value);
  if (name == "content-type") out.set(Attribute::content_type, value);
  if (name == "grpc-status") out.set(Attribute::grpc_status, value);
}

// Headers of the frames that have come whole.
void read_frames(Bytes bytes, Attributes& out, size_t& n_frames) {
  constexpr uint8_t kData = 0, kHeaders = 1, kPushPromise = 5, kContinuation = 9, kEndHeaders = 4, kPadded = 8, kPriority = 32;
  constexpr size_t kMaxList = 16 << 10;
  HpackDecoder decoder;
  if (begins_with_settings(bytes) != Answer::yes) decoder.forget_history();
  std::vector<uint8_t> block;
  bool promised = false;
  Reader reader(bytes);
  for (Frame frame; (frame = read_frame(reader)).ok;) {
    ++n_frames;
    Reader body(frame.body);
    size_t padding = 0;
    if ((frame.type == kData || frame.type == kHeaders || frame.type == kPushPromise) && (frame.flags & kPadded) != 0) padding = body.u8();
    if (frame.type == kHeaders && (frame.flags & kPriority) != 0) body.skip(5);
    if (frame.type == kPushPromise) body.skip(4);
    if (!body.ok() || padding > body.left()) return;
    if (frame.type != kHeaders && frame.type != kPushPromise && frame.type != kContinuation) continue;
    if (frame.type != kContinuation) promised = frame.type == kPushPromise;
    const Bytes part = body.bytes(body.left() - padding);
    block.insert(block.end(), part.begin(), part.end());
    if ((frame.flags & kEndHeaders) == 0) continue;
    HeaderLines lines;
    if (!decoder.decode(block, kMaxList, lines).ok) return;
    block.clear();
    if (promised) continue;  // nobody asked for it
    for (const auto& [name, value] : lines) keep_header(name, value, out);
  }
}

// A HEADERS frame first: the connection was picked up later. Its block must decode to pseudo-headers.
Answer begins_with_headers(Bytes bytes) {
  Reader reader(bytes);
  const uint32_t size = reader.u24();
  const uint8_t type = reader.u8(), flags = reader.u8();
  const uint32_t stream = reader.u32();
  if (!reader.ok() || type != 1 || (flags & ~0x2d) != 0 || (flags & 4) == 0 || stream == 0 || stream >> 31 != 0) return Answer::no;
  if (size == 0 || size > 16384) return Answer::no;
  Reader body(reader.bytes(size));
  if (!reader.ok()) return Answer::more;
  const size_t padding = (flags & 8) != 0 ? body.u8() : 0;
  if ((flags & 0x20) != 0) body.skip(5);
  if (!body.ok() || padding >= body.left()) return Answer::no;
  HpackDecoder decoder;
  decoder.forget_history();
  HeaderLines lines;
  if (!decoder.decode(body.bytes(body.left() - padding), 16 << 10, lines).ok) return Answer::no;
  const bool pseudo = std::any_of(lines.begin(), lines.end(), [](const auto& line) {
    return line.first == ":method" || line.first == ":status" || line.first == ":path";
  });
  return pseudo ? Answer::yes : Answer::no;
}

Answer http2(const Payload& p, Findings& out) {
  const auto frames_of = [](Bytes bytes) {
    return bytes.size() >= kPreface.size() && begins(bytes, kPreface) ? bytes.subspan(kPreface.size()) : bytes;
  };
  Answer answer = Answer::no;
  if (could_begin(p.here, kPreface)) answer = begins(p.here, kPreface) ? Answer::yes : Answer::more;
  else answer = begins_with_settings(p.here);
  if (answer == Answer::no) answer = begins_with_headers(p.here);
  if (answer == Answer::no && out.app != App::unknown) answer = Answer::yes;
  if (answer != Answer::yes) return answer;
  out.app = App::http2;
  size_t n_frames = 0;
  read_frames(frames_of(p.here), out.attributes, n_frames);
  read_frames(frames_of(p.there), out.attributes, n_frames);
  if (out.attributes.get(Attribute::content_type).starts_with("application/grpc")) {
    out.attributes.set(Attribute::grpc_method, out.attributes.get(Attribute::http_path));
    if (out.attributes.get(Attribute::http_path).starts_with("/etcdserverpb.")) out.app = App::etcd;
    out.done = out.attributes.has(Attribute::grpc_status);
  } else {
    out.done = out.attributes.has(Attribute::http_status) && out.attributes.has(Attribute::http_path);
  }
  return Answer::yes;
}

// ---- WebSocket whose upgrade was not captured

struct WsFrames {
  bool fit = false, masked = false, text = false;
};

// Frames (RFC 6455, section 5.2) that fill `bytes` exactly, all masked or none.
WsFrames websocket_frames(Bytes bytes) {
  WsFrames out;
  Reader reader(bytes);
  size_t n = 0;
  while (!reader.empty()) {
    const uint8_t first = reader.u8(), second = reader.u8(), code = first & 15;
    const bool masked = (second & 0x80) != 0;
    if ((first & 0x70) != 0 || (code > 2 && (code < 8 || code > 10)) || (n != 0 && masked != out.masked)) return {};
    uint64_t size = second & 0x7f;
    if (size == 126) size = reader.u16();
    else if (size == 127) size = reader.u64();
    if (masked) reader.skip(4);
    if (!reader.ok() || size > reader.left()) return {};
    const std::string_view text = text_of(reader.bytes(static_cast<size_t>(size)));
    out.masked = masked;
    if (code == 1 && !masked && size > 3 && is_plain_text(text)) out.text = true;
    ++n;
  }
  out.fit = reader.ok() && n != 0;
  return out;
}

Answer websocket(const Payload& p, Findings& out) {
  if (p.from_start) return Answer::no;
  const WsFrames here = websocket_frames(p.here), there = p.there.empty() ? WsFrames{} : websocket_frames(p.there);
  if (!here.fit) return Answer::no;
  out.app = App::websocket;
  // Only clients mask.
  return there.fit && here.masked != there.masked && (here.text || there.text) ? Answer::yes : Answer::more;
}

// ---- on UDP

Answer ssdp(const Payload& p, Findings& out) {
  if (begins(p.here, "M-SEARCH * HTTP/1.") || begins(p.here, "NOTIFY * HTTP/1.")) {
    out.app = App::ssdp;
    return Answer::yes;
  }
  if (begins(p.here, "HTTP/1.1 200 OK") && text_of(p.here).find("USN:") != std::string_view::npos) {
    out.app = App::ssdp;
    return Answer::yes;
  }
  return Answer::no;
}

Answer ws_discovery(const Payload& p, Findings& out) {
  const std::string_view text = text_of(p.here);
  if (text.find("schemas.xmlsoap.org/ws/2005/04/discovery") == std::string_view::npos &&
      text.find("docs.oasis-open.org/ws-dd/ns/discovery") == std::string_view::npos) {
    return Answer::no;
  }
  out.app = App::wsd;
  return Answer::yes;
}

}  // namespace

void add_http(Registry& registry) {
  const FirstBytes start = letters() + bytes_of("\r");
  registry.push_back({App::http2, kTcp, bytes_of(std::string_view("P\0", 2)), &http2});
  registry.push_back({App::http, kTcp, start, &http});
  registry.push_back({App::websocket, kTcp, byte_range(0, 10) + byte_range(0x80, 0x8a), &websocket});
  registry.push_back({App::ssdp, kUdp, bytes_of("MNH"), &ssdp});
  registry.push_back({App::wsd, kUdp, bytes_of("<"), &ws_discovery});
}

}  // namespace meshsieve::app
