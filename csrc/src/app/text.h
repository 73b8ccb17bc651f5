// Lines of text protocols.
#pragma once

#include <optional>

#include "app/bytes.h"

namespace meshsieve::app {

// The next line without CR LF or LF; none if its end has not come. `text` goes on behind it.
inline std::optional<std::string_view> next_line(std::string_view& text) {
  const size_t end = text.find('\n');
  if (end == std::string_view::npos) return std::nullopt;
  std::string_view line = text.substr(0, end);
  text.remove_prefix(end + 1);
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  return line;
}

inline char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }
inline bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
inline bool is_letter(char c) { return is_upper(c) || (c >= 'a' && c <= 'z'); }
inline bool is_digit(char c) { return c >= '0' && c <= '9'; }

inline bool equals_nocase(std::string_view a, std::string_view b) {
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) { return lower(x) == lower(y); });
}
inline bool starts_nocase(std::string_view text, std::string_view prefix) {
  return text.size() >= prefix.size() && equals_nocase(text.substr(0, prefix.size()), prefix);
}

inline std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r')) text.remove_suffix(1);
  return text;
}

// Whether every byte is printable ASCII, tab, CR or LF.
inline bool is_plain_text(std::string_view text) {
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if ((byte < 0x20 && byte != '\t' && byte != '\r' && byte != '\n') || byte >= 0x7f) return false;
  }
  return true;
}

// The text up to the first of `ends`, which may be missing. Not find_first_of, which makes a call a byte.
inline std::string_view word(std::string_view text, std::string_view ends = " \t\r\n") {
  const auto is_end = [&](char c) {
    bool end = false;
    for (const char e : ends) end |= c == e;
    return end;
  };
  return text.substr(0, static_cast<size_t>(std::find_if(text.begin(), text.end(), is_end) - text.begin()));
}

// A number of 1 to `digits` decimal digits that is all of `text`.
inline std::optional<uint32_t> number(std::string_view text, size_t digits = 9) {
  if (text.empty() || text.size() > digits) return std::nullopt;
  uint32_t value = 0;
  for (const char c : text) {
    if (!is_digit(c)) return std::nullopt;
    value = value * 10 + static_cast<uint32_t>(c - '0');
  }
  return value;
}

}  // namespace meshsieve::app
