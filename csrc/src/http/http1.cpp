#include "http/http1.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace meshsieve {

namespace {

constexpr size_t kLongestMethod = 32;
constexpr uint64_t kLongestBody = uint64_t{1} << 60;

// token characters (RFC 9110, section 5.6.2)
constexpr std::array<bool, 256> make_token_table() {
  std::array<bool, 256> table{};
  for (int c = '0'; c <= '9'; ++c) table[c] = true;
  for (int c = 'a'; c <= 'z'; ++c) table[c] = table[c - 'a' + 'A'] = true;
  for (const char c : std::string_view("!#$%&'*+-.^_`|~")) table[static_cast<uint8_t>(c)] = true;
  return table;
}
constexpr auto kToken = make_token_table();

bool is_token(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return kToken[static_cast<uint8_t>(c)]; });
}
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_blank(char c) { return c == ' ' || c == '\t'; }
char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }
std::string_view text_of(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

bool is_version(std::string_view text) {  // HTTP/d.d
  return text.size() == 8 && text.starts_with("HTTP/") && is_digit(text[5]) && text[6] == '.' && is_digit(text[7]);
}

// The next line without its end; notes an LF without CR.
std::string_view take_line(std::string_view& rest, uint32_t& notes) {
  const size_t end = rest.find('\n');
  std::string_view line = rest.substr(0, end);
  rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  if (line.ends_with('\r')) line.remove_suffix(1);
  else notes |= kNote_bare_lf;
  return line;
}

// Values of a comma-separated list.
template <class Visit>
void each_element(std::string_view list, Visit visit) {
  for (;;) {
    const size_t comma = list.find(',');
    visit(trimmed(list.substr(0, comma)));
    if (comma == std::string_view::npos) return;
    list.remove_prefix(comma + 1);
  }
}

// What Content-Length and Transfer-Encoding lines say together (RFC 9112, section 6).
class FramingReader {
 public:
  void line(std::string_view name, std::string_view value, bool misspelt) {
    if (equal_without_case(name, "content-length")) length(value, misspelt);
    else if (equal_without_case(name, "transfer-encoding")) coding(value, misspelt);
  }

  void decide(Http1Head& head, Framing without) const {
    head.notes |= notes_;
    if (n_codings_ != 0) {
      if (n_lengths_ != 0) head.notes |= kNote_length_and_chunked;
      const bool chunked = last_is_chunked_ && n_chunked_ == 1 && !bad_coding_;
      if (head.version == 10 || !chunked) {
        head.notes |= kNote_bad_transfer_coding;
        head.framing = Framing::unknown;
      } else {
        head.framing = Framing::chunked;
      }
    } else if (n_lengths_ != 0) {
      head.framing = (notes_ & kNote_bad_length) != 0 ? Framing::unknown : Framing::length;
      head.length = length_;
    } else {
      head.framing = without;
    }
  }

 private:
  void length(std::string_view value, bool misspelt) {
    each_element(value, [&](std::string_view element) {
      uint64_t number = 0;
      bool good = !element.empty() && !misspelt;
      element.remove_prefix(std::min(element.find_first_not_of('0'), element.size()));
      good = good && element.size() <= 18;
      for (const char c : element) {
        good = good && is_digit(c);
        number = good ? number * 10 + static_cast<uint64_t>(c - '0') : 0;
      }
      if (!good || (n_lengths_ != 0 && number != length_)) notes_ |= kNote_bad_length;
      else if (n_lengths_ != 0) notes_ |= kNote_repeated_length;
      ++n_lengths_;
      length_ = number;
    });
  }
  void coding(std::string_view value, bool misspelt) {
    each_element(value, [&](std::string_view element) {
      ++n_codings_;
      last_is_chunked_ = equal_without_case(element, "chunked");
      n_chunked_ += last_is_chunked_;
      bad_coding_ = bad_coding_ || misspelt || !is_token(element.substr(0, element.find(';'))) ||
                    (!last_is_chunked_ && lower_starts_with_chunked(element));
    });
  }
  static bool lower_starts_with_chunked(std::string_view element) {
    return element.size() >= 7 && equal_without_case(element.substr(0, 7), "chunked");
  }

  uint32_t notes_ = 0;
  size_t n_lengths_ = 0, n_codings_ = 0, n_chunked_ = 0;
  bool last_is_chunked_ = false, bad_coding_ = false;
  uint64_t length_ = 0;
};

void parse_header_lines(std::string_view rest, const HttpLimits& limits, Framing without, Http1Head& head) {
  FramingReader framing;
  while (!rest.empty()) {
    const std::string_view line = take_line(rest, head.notes);
    if (line.empty()) break;
    if (is_blank(line.front())) {
      head.notes |= kNote_folded_header;
      if (head.lines.empty()) {
        head.notes |= kNote_bad_header;  // nothing to continue
        continue;
      }
      std::string& value = head.lines.back().second;
      value.append(" ").append(trimmed(line));
      // A framing header in pieces: readers that drop the second piece see another message.
      if (equal_without_case(head.lines.back().first, "content-length")) head.notes |= kNote_bad_length;
      if (equal_without_case(head.lines.back().first, "transfer-encoding")) head.notes |= kNote_bad_transfer_coding;
      continue;
    }
    const size_t colon = line.find(':');
    std::string_view name = line.substr(0, colon);
    const bool blank_before_colon = !name.empty() && is_blank(name.back());
    name = trimmed(name);
    if (colon == std::string_view::npos || !is_token(name)) {
      head.notes |= kNote_bad_header;
      continue;
    }
    const std::string_view value = trimmed(line.substr(colon + 1));
    const bool odd = std::any_of(value.begin(), value.end(), [](char c) {
      return (static_cast<uint8_t>(c) < 32 && c != '\t') || c == 127;
    });
    if (odd || blank_before_colon) head.notes |= kNote_bad_header;
    framing.line(name, value, odd || blank_before_colon);
    if (head.lines.size() < limits.header_lines) head.lines.emplace_back(name, value);
    else head.notes |= kNote_headers_left_out;
  }
  const uint32_t folded_framing = head.notes & (kNote_bad_length | kNote_bad_transfer_coding);
  framing.decide(head, without);
  if (folded_framing != 0) head.framing = Framing::unknown;
}

}  // namespace

bool equal_without_case(std::string_view a, std::string_view b) {
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) { return lower(x) == lower(y); });
}

Begins begins_with(Bytes bytes, std::string_view text) {
  const size_t n = std::min(bytes.size(), text.size());
  if (text_of(bytes.first(n)) != text.substr(0, n)) return Begins::no;
  return n == text.size() ? Begins::yes : Begins::open;
}

Begins begins_as_request(Bytes bytes) {
  const std::string_view text = text_of(bytes);
  size_t method = 0;
  while (method < text.size() && kToken[static_cast<uint8_t>(text[method])]) ++method;
  if (method > kLongestMethod) return Begins::no;
  if (method == text.size()) return Begins::open;
  if (method == 0 || text[method] != ' ') return Begins::no;
  const size_t end = text.find('\n');
  std::string_view line = text.substr(0, end);
  if (line.find('\0') != std::string_view::npos) return Begins::no;
  if (end == std::string_view::npos) return Begins::open;
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line.size() > method + 9 && is_version(line.substr(line.size() - 8)) && line[line.size() - 9] == ' '
             ? Begins::yes
             : Begins::no;
}

Begins begins_as_response(Bytes bytes) {
  constexpr std::string_view kShape = "HTTP/d.d ddd";
  const std::string_view text = text_of(bytes);
  for (size_t i = 0; i < std::min(text.size(), kShape.size()); ++i) {
    if (kShape[i] == 'd' ? !is_digit(text[i]) : text[i] != kShape[i]) return Begins::no;
  }
  return text.size() < kShape.size() ? Begins::open : Begins::yes;
}

size_t head_size(Bytes bytes, size_t& scanned) {
  for (size_t at = scanned; at < bytes.size();) {
    const void* found = std::memchr(bytes.data() + at, '\n', bytes.size() - at);
    if (found == nullptr) break;
    const size_t end = static_cast<size_t>(static_cast<const uint8_t*>(found) - bytes.data());
    const size_t next = end + 1;
    scanned = end;  // look at this line end again if what follows it is not there yet
    if (next >= bytes.size()) return 0;
    if (bytes[next] == '\n') return next + 1;
    if (bytes[next] == '\r') {
      if (next + 1 >= bytes.size()) return 0;
      if (bytes[next + 1] == '\n') return next + 2;
    }
    at = next;
  }
  scanned = std::max(scanned, bytes.empty() ? 0 : bytes.size() - 1);
  return 0;
}

std::string Http1Head::all(std::string_view name) const {
  std::string out;
  for (const auto& [key, value] : lines) {
    if (!equal_without_case(key, name)) continue;
    if (!out.empty()) out += ", ";
    out += value;
  }
  return out;
}

Http1Head parse_request_head(Bytes bytes, const HttpLimits& limits) {
  Http1Head head;
  std::string_view rest = text_of(bytes);
  const std::string_view line = take_line(rest, head.notes);
  const size_t first = line.find(' '), last = line.rfind(' ');
  if (first == std::string_view::npos || last == first) return head;
  const std::string_view method = line.substr(0, first), target = line.substr(first + 1, last - first - 1);
  const std::string_view version = line.substr(last + 1);
  const bool odd_target = std::any_of(target.begin(), target.end(), [](char c) {
    return static_cast<uint8_t>(c) <= 32 || c == 127;
  });
  if (!is_token(method) || method.size() > kLongestMethod || target.empty() || odd_target || !is_version(version) || version[5] != '1') return head;
  head.ok = true;
  head.method = method;
  head.target = target;
  head.version = version[7] == '0' ? 10 : 11;
  parse_header_lines(rest, limits, Framing::none, head);
  return head;
}

Http1Head parse_response_head(Bytes bytes, const HttpLimits& limits) {
  Http1Head head;
  std::string_view rest = text_of(bytes);
  const std::string_view line = take_line(rest, head.notes);
  if (line.size() < 12 || !is_version(line.substr(0, 8)) || line[5] != '1' || line[8] != ' ') return head;
  if (!is_digit(line[9]) || !is_digit(line[10]) || !is_digit(line[11]) || line[9] == '0') return head;
  if (line.size() > 12 && line[12] != ' ') return head;
  head.ok = true;
  head.status = static_cast<uint16_t>((line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0'));
  head.version = line[7] == '0' ? 10 : 11;
  const bool bodyless = head.status < 200 || head.status == 204 || head.status == 304;
  parse_header_lines(rest, limits, Framing::until_close, head);
  if (bodyless) head.framing = Framing::none;
  return head;
}

void set_target(const Http1Head& head, HttpRequest& request) {
  const std::string_view target = head.target;
  std::string_view host;
  size_t hosts = 0;
  bool same = true;
  for (const auto& [name, value] : head.lines) {
    if (!equal_without_case(name, "host")) continue;
    same = same && (hosts == 0 || equal_without_case(host, value));
    host = value;
    ++hosts;
  }
  if (hosts > 1 || (hosts == 0 && head.version == 11)) request.notes |= kNote_bad_host;
  request.scheme = "http";
  // Of several hosts none is the right one.
  if (same) request.authority = host;
  if (head.method == "CONNECT") {
    request.authority = target;
    request.path.clear();
  } else if (target.front() == '/' || target == "*") {
    request.path = target;
  } else {
    const size_t colon = target.find("://");
    const bool absolute = colon != std::string_view::npos && colon != 0 &&
                          std::all_of(target.begin(), target.begin() + static_cast<ptrdiff_t>(colon), [](char c) {
                            return is_digit(c) || (lower(c) >= 'a' && lower(c) <= 'z') || c == '+' || c == '-' ||
                                   c == '.';
                          });
    if (!absolute) {
      request.path = target;
      request.notes |= kNote_bad_target;
      return;
    }
    request.scheme.assign(target.substr(0, colon));
    std::transform(request.scheme.begin(), request.scheme.end(), request.scheme.begin(), lower);
    const std::string_view rest = target.substr(colon + 3);
    const size_t end = std::min(rest.find_first_of("/?#"), rest.size());
    const std::string_view authority = rest.substr(0, end);
    if (hosts != 0 && !equal_without_case(authority, host)) request.notes |= kNote_bad_host;
    request.authority = authority;  // RFC 9112, section 3.2.2: Host is ignored
    request.path = rest.substr(end);
    if (!request.path.starts_with('/')) request.path.insert(0, 1, '/');
  }
}

// ---- bodies

void Http1Body::start(Framing framing, uint64_t length) {
  *this = Http1Body();
  framing_ = framing;
  left_ = framing == Framing::length ? length : 0;
}

Http1Body::State Http1Body::take(Bytes& bytes) {
  switch (framing_) {
    case Framing::none:
    case Framing::unknown: return State::done;
    case Framing::until_close:
      bytes_ += bytes.size();
      bytes = {};
      return State::more;
    case Framing::length: {
      const size_t n = static_cast<size_t>(std::min<uint64_t>(left_, bytes.size()));
      bytes_ += n;
      left_ -= n;
      bytes = bytes.subspan(n);
      return left_ == 0 ? State::done : State::more;
    }
    case Framing::chunked: break;
  }
  while (!bytes.empty()) {
    if (at_ == At::data && left_ != 0) {
      const size_t n = static_cast<size_t>(std::min<uint64_t>(left_, bytes.size()));
      bytes_ += n;
      left_ -= n;
      bytes = bytes.subspan(n);
      if (left_ == 0) at_ = At::data_cr;
      continue;
    }
    const State state = chunk_byte(bytes.front());
    bytes = bytes.subspan(1);
    if (state != State::more) return state;
  }
  return State::more;
}

Http1Body::State Http1Body::end_of_size_line() {
  line_ = 0;
  if (left_ == 0) {
    at_ = At::trailer_begin;
  } else {
    at_ = At::data;
  }
  digits_ = 0;
  return State::more;
}

// RFC 9112, section 7.1: size [;extensions] CRLF data CRLF ... 0 CRLF trailers CRLF
Http1Body::State Http1Body::chunk_byte(uint8_t byte) {
  const char c = static_cast<char>(byte);
  switch (at_) {
    case At::size: {
      const char l = lower(c);
      const int digit = is_digit(c) ? c - '0' : l >= 'a' && l <= 'f' ? l - 'a' + 10 : -1;
      if (digit >= 0) {
        if (++digits_ > 16 || left_ >= kLongestBody >> 4) return State::bad;
        left_ = left_ << 4 | static_cast<uint64_t>(digit);
        return State::more;
      }
      if (digits_ == 0) return State::bad;
      if (c == '\r') at_ = At::size_lf;
      else if (c == ';' || is_blank(c)) at_ = At::extension;
      else if (c == '\n') {
        notes_ |= kNote_bare_lf;
        return end_of_size_line();
      } else {
        return State::bad;
      }
      return State::more;
    }
    case At::extension:
      if (++line_ > kMaxLine) return State::bad;
      if (c == '\r') at_ = At::size_lf;
      else if (c == '\n') {  // some readers go on to the next CR LF here
        notes_ |= kNote_bare_lf;
        return State::bad;
      }
      return State::more;
    case At::size_lf: return c == '\n' ? end_of_size_line() : State::bad;
    case At::data:
    case At::data_cr:
      at_ = At::data_lf;
      return c == '\r' ? State::more : State::bad;
    case At::data_lf:
      at_ = At::size;
      return c == '\n' ? State::more : State::bad;
    case At::trailer_begin:
      if (c == '\r') {
        at_ = At::end_lf;
        return State::more;
      }
      if (c == '\n') {
        notes_ |= kNote_bare_lf;
        return State::done;
      }
      at_ = At::trailer;
      [[fallthrough]];
    case At::trailer:
      if (++line_ > kMaxLine) return State::bad;
      if (c == '\n') at_ = At::trailer_begin;
      return State::more;
    case At::end_lf: return c == '\n' ? State::done : State::bad;
  }
  return State::bad;
}

bool Http1Body::skip(uint64_t n) {
  const bool data = framing_ == Framing::until_close || framing_ == Framing::length ||
                    (framing_ == Framing::chunked && at_ == At::data);
  if (!data) return false;
  if (framing_ != Framing::until_close) {
    if (n > left_) return false;
    left_ -= n;
    if (left_ == 0 && framing_ == Framing::chunked) at_ = At::data_cr;
  }
  bytes_ += n;
  return true;
}

}  // namespace meshsieve
