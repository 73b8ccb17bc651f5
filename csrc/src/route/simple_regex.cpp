#include "route/simple_regex.h"

#include <algorithm>
#include <cctype>
#include <cstring>

#include "meshsieve/errors.h"

namespace meshsieve::route {
namespace {

enum : uint8_t { kLiteral, kOne, kRun, kTail, kEnd };
constexpr uint8_t kMany = 255;
constexpr size_t kMostClasses = 0xFFFF;

}  // namespace

// Reads a pattern as items; fails (ok == false) at whatever is not simple.
struct SimpleRegexes::Parser {
  std::string_view pattern;
  size_t at = 0;
  bool ok = true;
  std::vector<Item> items;

  bool more() const { return at < pattern.size(); }
  bool next_is(std::string_view any) const { return more() && any.find(pattern[at]) != std::string_view::npos; }

  bool parse() {
    if (pattern.starts_with('^')) ++at;
    int depth = 0;
    while (ok && more()) {
      const char c = pattern[at++];
      if (c == '(') {
        if (pattern.substr(at).starts_with("?:")) at += 2;
        else if (next_is("?*")) return false;
        ++depth;
        if (next_is("*+?{")) return false;
      } else if (c == ')') {
        if (--depth < 0 || next_is("*+?{")) return false;
      } else if (c == '$') {
        return at == pattern.size() && depth == 0;
      } else if (c == '|' || c == '^' || c == '*' || c == '+' || c == '?' || c == '{') {
        return false;
      } else {
        Item item{};
        item.bytes = atom(c);
        if (next_is("*+?")) {
          const char q = pattern[at++];
          item.least = q == '+' ? 1 : 0;
          item.most = q == '?' ? 1 : kMany;
        }
        if (next_is("*+?{")) return false;
        items.push_back(item);
      }
    }
    return ok && depth == 0;
  }

  static void add_range(ByteClass& set, uint8_t low, uint8_t high) {
    for (int byte = low; byte <= high; ++byte) set[static_cast<size_t>(byte)] = true;
  }

  // \d, \w, or a byte that stands for itself.
  void escaped(ByteClass& set, uint8_t* single) {
    if (!more()) return void(ok = false);
    const uint8_t c = static_cast<uint8_t>(pattern[at++]);
    if (c == 'd' || c == 'w') {
      add_range(set, '0', '9');
      if (c == 'w') add_range(set, 'a', 'z'), add_range(set, 'A', 'Z'), set['_'] = true;
    } else if (c >= 0x80 || std::isalnum(c)) {
      ok = false;
    } else {
      set[c] = true;
      if (single != nullptr) *single = c;
    }
  }

  ByteClass atom(char c) {
    ByteClass set{};
    if (c == '.') {
      set.fill(true);
      set['\n'] = false;
    } else if (c == '\\') {
      escaped(set, nullptr);
    } else if (c == '[') {
      set = brackets();
    } else {
      set[static_cast<uint8_t>(c)] = true;
    }
    return set;
  }

  ByteClass brackets() {
    ByteClass set{};
    const bool negated = next_is("^");
    if (negated) ++at;
    for (bool first = true; ok; first = false) {
      if (!more() || pattern.substr(at).starts_with("[:")) {
        ok = false;
        break;
      }
      if (pattern[at] == ']' && !first) break;
      uint8_t low = static_cast<uint8_t>(pattern[at++]);
      bool is_single = true;
      if (low == '\\') {
        const size_t before = at;
        escaped(set, &low);
        is_single = ok && !(pattern[before] == 'd' || pattern[before] == 'w');
      }
      const bool range = next_is("-") && at + 1 < pattern.size() && pattern[at + 1] != ']';
      if (!range) {
        if (is_single) set[low] = true;
        continue;
      }
      uint8_t high = static_cast<uint8_t>(pattern[at + 1]);
      at += 2;
      if (high == '\\' || high == '[' || !is_single || high < low) ok = false;
      else add_range(set, low, high);
    }
    ++at;
    if (negated)
      for (bool& byte : set) byte = !byte;
    return set;
  }
};

std::optional<uint32_t> SimpleRegexes::add(std::string_view pattern) {
  Parser parser{pattern};
  if (!parser.parse()) return std::nullopt;
  const std::vector<Item>& items = parser.items;
  // The items behind the last one that is not exactly once have a fixed length.
  size_t fixed = items.size();
  while (fixed > 0 && items[fixed - 1].once()) --fixed;
  const auto apart = [](const ByteClass& a, const ByteClass& b) {
    for (size_t i = 0; i < a.size(); ++i)
      if (a[i] && b[i]) return false;
    return true;
  };
  for (size_t i = 0; i + 1 < fixed; ++i) {
    if (items[i].once()) continue;
    if (items[i + 1].least == 0 || !apart(items[i].bytes, items[i + 1].bytes)) return std::nullopt;
  }
  if (items.size() > 0xFFFF || classes_.size() + items.size() > kMostClasses) return std::nullopt;
  if (code_.size() >= 0x3FFFFFFF) throw CompileError("the regular expressions of a route table exceed 1 GiB");

  const uint32_t program = static_cast<uint32_t>(code_.size());
  std::string literal;
  const auto flush = [&] {
    if (!literal.empty()) put({kLiteral, 1, 1, 0, static_cast<uint16_t>(literal.size()), 0, 0}, literal);
    literal.clear();
  };
  for (size_t i = 0; i < items.size(); ++i) {
    const Item& item = items[i];
    const auto first = std::find(item.bytes.begin(), item.bytes.end(), true);
    const bool single = std::count(first, item.bytes.end(), true) == 1;
    if (item.once() && single) {
      literal.push_back(static_cast<char>(first - item.bytes.begin()));
      continue;
    }
    flush();
    const uint32_t behind = i + 1 == fixed ? static_cast<uint32_t>(items.size() - fixed) : 0;
    const uint8_t kind = item.once() ? kOne : i + 1 == fixed ? kTail : kRun;
    put({kind, item.least, item.most, 0, 0, class_of(item.bytes), behind});
  }
  flush();
  put({kEnd, 0, 0, 0, 0, 0, 0});
  return program;
}

uint16_t SimpleRegexes::class_of(const ByteClass& bytes) {
  const auto found = std::find(classes_.begin(), classes_.end(), bytes);
  const size_t position = static_cast<size_t>(found - classes_.begin());
  if (found == classes_.end()) classes_.push_back(bytes);
  return static_cast<uint16_t>(position);
}

void SimpleRegexes::put(Op op, std::string_view literal) {
  char raw[sizeof op];
  std::memcpy(raw, &op, sizeof op);
  code_.insert(code_.end(), raw, raw + sizeof op);
  code_.insert(code_.end(), literal.begin(), literal.end());
}

std::string_view SimpleRegexes::prefix(uint32_t program) const {
  Op op;
  std::memcpy(&op, code_.data() + program, sizeof op);
  return {code_.data() + program + sizeof op, op.size};
}

bool SimpleRegexes::matches(uint32_t program, std::string_view text) const {
  const char* here = code_.data() + program;
  Op op;
  std::memcpy(&op, here, sizeof op);
  size_t at = op.size;  // the prefix
  here += sizeof op + op.size;
  if (op.kind != kLiteral) here = code_.data() + program;
  while (true) {
    std::memcpy(&op, here, sizeof op);
    here += sizeof op;
    switch (op.kind) {
      case kLiteral:
        if (!text.substr(at).starts_with(std::string_view(here, op.size))) return false;
        at += op.size;
        here += op.size;
        break;
      case kOne:
        if (at == text.size() || !classes_[op.class_][static_cast<uint8_t>(text[at])]) return false;
        ++at;
        break;
      case kRun:
      case kTail: {
        const ByteClass& bytes = classes_[op.class_];
        size_t end = text.size();
        if (op.kind == kTail) {
          if (end - at < op.behind) return false;
          end -= op.behind;
        }
        const size_t limit = op.most == kMany ? end : std::min(end, at + 1);
        size_t to = at;
        while (to < limit && bytes[static_cast<uint8_t>(text[to])]) ++to;
        if (to - at < op.least || (op.kind == kTail && to != end)) return false;
        at = to;
        break;
      }
      default: return at == text.size();
    }
  }
}

}  // namespace meshsieve::route
