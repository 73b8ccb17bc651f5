#include "route/literal_prefix.h"

#include <cctype>

namespace meshsieve::route {
namespace {

// Whether an alternation stands outside of every group. A class ends at its first `]` that may end it, which is never
// too late; \Q quotes are not followed, so they count as one.
bool may_alternate(std::string_view pattern) {
  int depth = 0;
  for (size_t i = 0; i < pattern.size(); ++i) {
    switch (pattern[i]) {
      case '\\':
        if (i + 1 < pattern.size() && pattern[i + 1] == 'Q') return true;
        ++i;
        break;
      case '[':
        ++i;
        if (i < pattern.size() && pattern[i] == '^') ++i;
        for (size_t first = i; i < pattern.size() && (pattern[i] != ']' || i == first); ++i)
          if (pattern[i] == '\\') ++i;
        break;
      case '(': ++depth; break;
      case ')': --depth; break;
      case '|':
        if (depth <= 0) return true;
        break;
      default: break;
    }
  }
  return false;
}

}  // namespace

std::string literal_prefix(std::string_view pattern) {
  if (may_alternate(pattern)) return {};
  std::string out;
  size_t i = pattern.starts_with('^') ? 1 : 0;
  while (i < pattern.size()) {
    char c = pattern[i++];
    if (c == '\\') {
      if (i == pattern.size() || std::isalnum(static_cast<unsigned char>(pattern[i]))) break;
      c = pattern[i++];
    } else if (std::string_view(".[]()*+?{}|^$").find(c) != std::string_view::npos) {
      break;
    }
    const char next = i < pattern.size() ? pattern[i] : 'a';
    if (next == '*' || next == '?' || next == '{') break;
    out.push_back(c);
    if (next == '+') break;
  }
  return out;
}

}  // namespace meshsieve::route
