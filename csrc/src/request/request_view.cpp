#include "meshsieve/request_view.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace meshsieve {
namespace {

// Methods of Envoy's HTTP/1 codec.
constexpr std::string_view kMethods[] = {
    "ACL",      "BIND",     "CHECKOUT", "CONNECT",   "COPY",   "DELETE",     "GET",         "HEAD",   "LINK",
    "LOCK",     "MERGE",    "MKACTIVITY", "MKCALENDAR", "MKCOL", "MOVE",    "MSEARCH",     "M-SEARCH", "NOTIFY",
    "OPTIONS",  "PATCH",    "POST",     "PROPFIND",  "PROPPATCH", "PURGE",   "PUT",         "REBIND", "REPORT",
    "SEARCH",   "SOURCE",   "SUBSCRIBE", "TRACE",    "UNBIND", "UNLINK",     "UNLOCK",      "UNSUBSCRIBE"};

// Headers that Envoy keeps as one value, their lines joined with a comma (http_options.py, JOINED_HEADERS).
constexpr std::string_view kJoinedHeaders[] = {
    "accept", "accept-encoding", "access-control-request-headers", "access-control-request-method",
    "access-control-request-private-network", "authorization", "cache-control", "content-encoding", "content-type",
    "expect", "grpc-accept-encoding", "grpc-timeout", "if-match", "if-modified-since", "if-none-match", "if-range",
    "if-unmodified-since", "origin", "pragma", "proxy-status", "referer", "user-agent", "via", "x-client-trace-id",
    "x-envoy-attempt-count", "x-envoy-decorator-operation", "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node", "x-envoy-external-address", "x-envoy-is-timeout-retry",
    "x-envoy-original-path", "x-envoy-original-host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port",
    "x-forwarded-proto", "x-request-id"};

bool known_method(std::string_view method) {
  if (method == "GET" || method == "POST") return true;
  for (const std::string_view known : kMethods)
    if (method == known) return true;
  return false;
}

constexpr std::array<uint8_t, 256> hex_table() {
  std::array<uint8_t, 256> table{};
  for (int i = 0; i < 256; ++i) table[i] = 255;
  for (int i = 0; i < 10; ++i) table['0' + i] = static_cast<uint8_t>(i);
  for (int i = 0; i < 6; ++i) table['a' + i] = table['A' + i] = static_cast<uint8_t>(10 + i);
  return table;
}
constexpr std::array<uint8_t, 256> kHex = hex_table();

bool is_unreserved(uint8_t c) {
  const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  return letter || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~';
}

bool is_digits(std::string_view text) {
  if (text.empty()) return false;
  for (const char c : text)
    if (c < '0' || c > '9') return false;
  return true;
}

// "http://" or "https://" at the beginning, in any case; its length, else 0.
size_t absolute_prefix(std::string_view target) {
  static constexpr std::string_view kHttp = "http";
  if (target.size() < 7) return 0;
  for (size_t i = 0; i < kHttp.size(); ++i)
    if ((target[i] | 0x20) != kHttp[i]) return 0;
  const size_t colon = (target[4] | 0x20) == 's' ? 5 : 4;
  return target.substr(colon, 3) == "://" ? colon + 3 : 0;
}

Refused check_codec(RequestView& view, RequestScratch& scratch) {
  if (!known_method(view.method)) return Refused::codec;
  if (view.method == "CONNECT") return view.target.starts_with('/') ? Refused::codec : Refused::no;
  if (!view.target.starts_with('/')) {
    if (const size_t begin = absolute_prefix(view.target)) {
      const size_t end = std::min(view.target.find_first_of("/?", begin), view.target.size());
      view.authority = view.target.substr(begin, end - begin);
      view.has_authority = true;
      if (end < view.target.size() && view.target[end] == '/') {
        view.target = view.target.substr(end);
      } else {
        scratch.target.clear();
        scratch.target.push_back('/');
        scratch.target.append(view.target.substr(end));
        view.target = scratch.target;
      }
    }
  }
  bool bad = false;
  for (const char c : view.target) {  // without an early end, so that it becomes vector code
    const uint8_t byte = static_cast<uint8_t>(c);
    bad |= (byte < 0x21) | (byte > 0x7E) | (byte == '#');
  }
  return bad || !view.target.starts_with('/') ? Refused::codec : Refused::no;
}

void strip_host(const HttpOptions& options, RequestView& view, RequestScratch& scratch) {
  const std::string_view host = view.authority;
  const size_t colon = host.rfind(':');
  const bool has_port = colon != std::string_view::npos && !host.ends_with(']');
  std::string_view name = has_port ? host.substr(0, colon) : host;
  const std::string_view port = has_port ? host.substr(colon + 1) : std::string_view();
  if (options.strip_trailing_host_dot && name.ends_with('.')) name.remove_suffix(1);
  const bool matching = options.strip_matching_host_port && port == std::to_string(options.listener_port);
  if (!has_port || (options.strip_any_host_port && is_digits(port)) || matching) {
    view.authority = name;
  } else if (name.size() != colon) {
    std::string text(name);
    text.push_back(':');
    text.append(port);
    scratch.authority = std::move(text);
    view.authority = scratch.authority;
  }
}

// Whether `%2F` or `%5C` stands at i.
bool is_escaped_slash(std::string_view path, size_t i) {
  if (path[i] != '%' || i + 2 >= path.size()) return false;
  const char low = path[i + 2] | 0x20;
  return (path[i + 1] == '2' && low == 'f') || (path[i + 1] == '5' && low == 'c');
}

bool has_escaped_slash(std::string_view path) {
  for (size_t i = path.find('%'); i != std::string_view::npos; i = path.find('%', i + 1))
    if (is_escaped_slash(path, i)) return true;
  return false;
}

std::string unescaped_slashes(std::string_view path) {
  std::string out;
  for (size_t i = 0; i < path.size(); ++i) {
    if (is_escaped_slash(path, i)) {
      out.push_back(path[i + 1] == '2' ? '/' : '\\');
      i += 2;
    } else {
      out.push_back(path[i]);
    }
  }
  return out;
}

// Parameters of dot segments cut (`/..;x/` -> `/../`), where dots and `;` are written as such.
std::string without_dot_parameters(std::string_view path) {
  std::string out;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    std::string_view segment = path.substr(begin, end - begin);
    const size_t name = segment.find_first_not_of('.');
    if ((name == 1 || name == 2) && segment[name] == ';') segment = segment.substr(0, name);
    out.append(segment);
    if (end < path.size()) out.push_back('/');
    begin = end + 1;
  }
  return out;
}

// Codes of unreserved characters decoded. A `%` that begins no code stays, unless a decoded character would make it
// begin one: then it is written `%25`, so that nothing can be decoded twice (googleurl's CheckForNestedEscapes).
std::string decoded_unreserved(std::string_view path) {
  const auto hex = [](char c) { return kHex[static_cast<uint8_t>(c)]; };
  std::string out;
  out.reserve(path.size());
  size_t stray = std::string::npos;  // position in out of the last % that begins no code
  for (size_t at = 0; at < path.size();) {
    const bool code = path[at] == '%' && path.size() - at > 2 && hex(path[at + 1]) != 255 && hex(path[at + 2]) != 255;
    if (!code) {
      if (path[at] == '%') stray = out.size();
      out.push_back(path[at++]);
      continue;
    }
    const uint8_t byte = static_cast<uint8_t>(hex(path[at + 1]) << 4 | hex(path[at + 2]));
    if (!is_unreserved(byte)) {
      out.append(path.substr(at, 3));
      at += 3;
      continue;
    }
    at += 3;
    out.push_back(static_cast<char>(byte));
    if (stray == std::string::npos) continue;
    const size_t behind = out.size() - stray - 1;  // bytes of out after the stray %
    const bool completed = (behind == 2 && hex(out[stray + 1]) != 255 && hex(out[stray + 2]) != 255) ||
                           (behind == 1 && at < path.size() && hex(out[stray + 1]) != 255 && hex(path[at]) != 255);
    if (completed) out.insert(stray + 1, "25");
  }
  return out;
}

// Backslashes, unreserved codes and bytes that are not allowed raw.
std::string canonical(std::string_view path) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : decoded_unreserved(without_dot_parameters(path))) {
    if (c == '\\') {
      out.push_back('/');
    } else if (std::memchr("\"<>^`{|}", c, 8) != nullptr) {
      out.append({'%', kDigits[static_cast<uint8_t>(c) >> 4], kDigits[c & 15]});
    } else {
      out.push_back(c);
    }
  }
  return out;
}

// `.` and `..` segments resolved. What stands before the first slash goes.
std::string without_dots(std::string_view path) {
  std::vector<std::string_view> kept;
  size_t slash = path.find('/');
  while (slash != std::string_view::npos) {
    const size_t next = path.find('/', slash + 1);
    const bool last = next == std::string_view::npos;
    const std::string_view segment = path.substr(slash + 1, last ? std::string_view::npos : next - slash - 1);
    if (segment != "." && segment != "..") {
      kept.push_back(segment);
    } else {
      if (segment == ".." && !kept.empty()) kept.pop_back();
      if (last) kept.emplace_back();
    }
    slash = next;
  }
  std::string out;
  for (const std::string_view segment : kept) {
    out.push_back('/');
    out.append(segment);
  }
  if (out.empty()) out.push_back('/');
  return out;
}

// A path of nothing but slashes keeps two (measured).
std::string merged_slashes(std::string_view path) {
  if (path.size() > 1 && path.find_first_not_of('/') == std::string_view::npos) return "//";
  std::string out;
  for (const char c : path)
    if (c != '/' || !out.ends_with('/')) out.push_back(c);
  return out;
}

// Whether nothing in the path can be what normalisation changes: no byte that it codes or decodes, and behind no slash a
// dot or another slash.
bool is_normal(std::string_view path) {
  static constexpr std::array<uint8_t, 256> kMoves = [] {
    std::array<uint8_t, 256> moves{};
    for (const char c : std::string_view("%\\\"<>^`{|}")) moves[static_cast<uint8_t>(c)] = 3;
    for (int c = 0x80; c < 0x100; ++c) moves[c] = 3;
    for (int c = 0; c < 0x21; ++c) moves[c] = 3;
    moves['/'] = 1;
    moves['.'] = 1;
    return moves;
  }();
  if (!path.starts_with('/')) return false;
  uint8_t before = 0, bad = 0;
  for (const char c : path) {
    const uint8_t move = kMoves[static_cast<uint8_t>(c)];
    bad |= (move & 2) | static_cast<uint8_t>(before & move);
    before = c == '/';
  }
  return bad == 0;
}

Refused normalize(const HttpOptions& options, RequestView& view, RequestScratch& scratch) {
  const bool slashes = options.escaped_slashes != EscapedSlashes::keep;
  if (!slashes && !options.normalize_path && !options.merge_slashes) return Refused::no;
  const size_t mark = std::min(view.target.find('?'), view.target.size());
  if (is_normal(view.target.substr(0, mark))) return Refused::no;
  std::string path(view.target.substr(0, mark));
  const bool escaped = slashes && has_escaped_slash(path);
  if (escaped) {
    if (options.escaped_slashes == EscapedSlashes::reject) return Refused::escaped_slash;
    path = unescaped_slashes(path);
  }
  if (options.normalize_path) {
    if (path.find("%00") != std::string::npos) return Refused::escaped_nul;
    path = without_dots(canonical(path));
  }
  if (options.merge_slashes) path = merged_slashes(path);
  path.append(view.target.substr(mark));
  scratch.target = std::move(path);
  view.target = scratch.target;
  return escaped && options.escaped_slashes == EscapedSlashes::unescape_and_redirect ? Refused::redirect_unescaped
                                                                                     : Refused::no;
}

}  // namespace

int32_t HeaderNames::slot(const std::string& name) {
  const auto [found, fresh] = slots_.try_emplace(name, static_cast<int32_t>(names_.size()));
  if (fresh) {
    names_.push_back(name);
    joined_.push_back(std::find(std::begin(kJoinedHeaders), std::end(kJoinedHeaders), name) != std::end(kJoinedHeaders));
  }
  return found->second;
}

int32_t HeaderNames::find(std::string_view name) const {
  const auto found = slots_.find(std::string(name));
  return found == slots_.end() ? -1 : found->second;
}

Refused read_request(const HttpOptions& options, RequestView& view, RequestScratch& scratch) {
  if (options.codec)
    if (const Refused refused = check_codec(view, scratch); refused != Refused::no) return refused;
  if (view.has_authority) strip_host(options, view, scratch);
  if (view.method != "CONNECT")
    if (const Refused refused = normalize(options, view, scratch); refused != Refused::no) return refused;
  view.path_size = std::min(view.target.find('?'), view.target.size());
  view.path_size = std::min(view.path().find('#'), view.path_size);  // find_first_of makes a call a byte
  return Refused::no;
}

void RequestScratch::add_line(const HeaderNames& names, int32_t slot, std::string_view value) {
  if (names.joined(slot))
    for (HeaderLine& line : lines) {
      if (line.slot != slot) continue;
      if (value.empty()) return;
      if (line.value.empty()) return void(line.value = value);
      joined.push_back(std::make_unique<std::string>(line.value));
      joined.back()->append(1, ',').append(value);
      line.value = *joined.back();
      return;
    }
  lines.push_back({slot, value});
}

BatchReader::BatchReader(const RequestBatch& batch, const HttpOptions& options, const HeaderNames& names)
    : batch_(batch), options_(options), names_(names) {
  for (const RequestBatch::HeaderColumn& column : batch.header_columns)
    if (const int32_t slot = names.find(column.name); slot >= 0) columns_.emplace_back(slot, &column.value);
  for (const std::string& name : batch.line_names) {
    line_slots_.push_back(names.find(name));
    any_line_ |= line_slots_.back() >= 0;
  }
}

Refused BatchReader::read(size_t row, RequestView& view, RequestScratch& scratch) const {
  view.row = row;
  view.method = batch_[RequestText::method].value_or(row, "GET");
  view.scheme = batch_[RequestText::scheme].value_or(row, "http");
  view.authority = batch_[RequestText::authority].value_or(row, "");
  view.has_authority = !view.authority.empty();
  view.target = batch_[RequestText::path].value_or(row, "/");
  view.random = static_cast<uint64_t>(batch_.number_or(RequestNumber::random_value, row, 0));
  view.tls = static_cast<uint8_t>(batch_.number_or(RequestNumber::tls, row, 0));
  view.context = batch_.number_or(RequestNumber::context, row, 0);
  scratch.lines.clear();
  scratch.joined.clear();
  std::string_view value;
  for (const auto& [slot, column] : columns_)
    if (column->get(row, value)) scratch.add_line(names_, slot, value);
  if (any_line_) {
    for (int64_t line = batch_.line_begin[row]; line < batch_.line_begin[row + 1]; ++line) {
      const int32_t slot = line_slots_[static_cast<size_t>(batch_.line_name[line])];
      if (slot >= 0) scratch.add_line(names_, slot, batch_.line_value.value_or(static_cast<size_t>(line), ""));
    }
  }
  view.headers = scratch.lines;
  return read_request(options_, view, scratch);
}

}  // namespace meshsieve
