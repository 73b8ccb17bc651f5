// Addresses and prefixes out of Python objects, in their usual forms only: whatever else there may be, the caller reads
// the slow and complete way, with the errors of Python's ipaddress.
#pragma once

#include <Python.h>

#include <cstdint>

#include "meshsieve/prefix_table.h"

// The parsers below take their steps without branches on digits, which nobody can predict. text[size] is readable and no
// digit, as Python's texts have it.

// Dotted decimal without leading zeros. -1: anything else.
static inline long long parse_dotted(const char* text, Py_ssize_t size) {
  if (size < 7 || size > 15) return -1;
  const char *p = text, *const end = text + size;
  uint32_t address = 0;
  for (int k = 0; k < 4; ++k) {
    const Py_ssize_t left = end - p;
    const auto digit = [p, left](Py_ssize_t i) { return static_cast<uint32_t>(p[i < left ? i : left] - '0'); };
    const uint32_t d0 = digit(0), d1 = digit(1), d2 = digit(2);
    const bool two = d1 <= 9, three = two & (d2 <= 9);
    uint32_t octet = d0;
    octet = two ? octet * 10 + d1 : octet;
    octet = three ? octet * 10 + d2 : octet;
    p += 1 + two + three;
    const bool closed = k < 3 ? p < end && *p == '.' : p == end;
    if ((d0 > 9) | (octet > 255) | (two & (d0 == 0)) | !closed) return -1;
    address = address << 8 | octet;
    ++p;
  }
  return address;
}

inline constexpr uint8_t kNoHex = 16;
struct HexDigits {
  uint8_t value[256];
  constexpr HexDigits() : value() {
    for (int c = 0; c < 256; ++c)
      value[c] = static_cast<uint8_t>(c >= '0' && c <= '9'   ? c - '0'
                                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                             : kNoHex);
  }
};
inline constexpr HexDigits kHex;

// Groups of up to four hexadecimal digits, one run of zeros left out at most (RFC 4291, 2.2, without forms 3 and zones).
static inline bool parse_v6(const char* text, Py_ssize_t size, meshsieve::U128& address) {
  if (size < 2 || size > 39) return false;
  const char *p = text, *const end = text + size;
  uint64_t word[2] = {0, 0};     // the groups, from the first
  int n = 0, gap = -1;           // how many, and how many of them stand before "::"
  if (p[0] == ':') {
    if (p[1] != ':') return false;
    gap = 0;
    p += 2;
  }
  while (p < end) {
    const Py_ssize_t left = end - p;
    const auto digit = [p, left](Py_ssize_t i) -> uint32_t {
      return kHex.value[static_cast<unsigned char>(p[i < left ? i : left])];
    };
    const uint32_t d0 = digit(0), d1 = digit(1), d2 = digit(2), d3 = digit(3);
    const bool two = d1 < kNoHex, three = two & (d2 < kNoHex), four = three & (d3 < kNoHex);
    uint64_t group = d0;
    group = two ? group << 4 | d1 : group;
    group = three ? group << 4 | d2 : group;
    group = four ? group << 4 | d3 : group;
    if (d0 >= kNoHex || n == 8) return false;
    word[n / 4] |= group << (48 - 16 * (n % 4));
    ++n;
    p += 1 + two + three + four;
    if (p == end) break;
    if (*p++ != ':' || p == end) return false;  // a fifth digit, something else, or one colon at the end
    if (*p != ':') continue;
    if (gap >= 0) return false;
    gap = n;
    ++p;
  }
  if (gap < 0 ? n != 8 : n == 8) return false;
  if (gap >= 0) {  // what stands behind the gap moves to the end
    const auto all = static_cast<unsigned __int128>(word[0]) << 64 | word[1];
    const unsigned __int128 before = gap == 0 ? 0 : all >> (128 - 16 * gap) << (128 - 16 * gap);
    const unsigned __int128 behind = (all ^ before) >> (16 * (8 - n));
    word[0] = static_cast<uint64_t>((before | behind) >> 64);
    word[1] = static_cast<uint64_t>(before | behind);
  }
  address = {word[0], word[1]};
  return true;
}

// An address with or without a length in decimal, and no host bits.
static inline bool parse_prefix(const char* text, Py_ssize_t size, meshsieve::PrefixTable::Prefix& prefix) {
  Py_ssize_t end = size;
  int bits = -1;
  for (Py_ssize_t digits = 1; digits <= 3 && digits < size; ++digits)
    if (text[size - digits - 1] == '/') end = size - digits - 1;
  if (end != size) {
    bits = 0;
    for (Py_ssize_t i = end + 1; i < size; ++i) {
      if (text[i] < '0' || text[i] > '9' || (i > end + 1 && bits == 0)) return false;
      bits = bits * 10 + (text[i] - '0');
    }
  }
  const long long v4 = parse_dotted(text, end);
  if (v4 >= 0) {
    if (bits < 0) bits = 32;
    if (bits > 32 || (v4 & ((1ll << (32 - bits)) - 1)) != 0) return false;
    prefix = {false, {0, static_cast<uint64_t>(v4)}, bits};
    return true;
  }
  meshsieve::U128 v6{};
  if (!parse_v6(text, end, v6)) return false;
  if (bits < 0) bits = 128;
  if (bits > 128) return false;
  const uint64_t low = bits >= 128 ? 0 : bits > 64 ? (uint64_t{1} << (128 - bits)) - 1 : ~uint64_t{0};
  const uint64_t high = bits >= 64 ? 0 : bits > 0 ? (uint64_t{1} << (64 - bits)) - 1 : ~uint64_t{0};
  if ((v6.lo & low) != 0 || (v6.hi & high) != 0) return false;
  prefix = {true, v6, bits};
  return true;
}

// nullptr where the object is no text of ASCII characters.
static inline const char* ascii_text(PyObject* text, Py_ssize_t* size) {
  if (!PyUnicode_CheckExact(text) || !PyUnicode_IS_COMPACT_ASCII(text)) return nullptr;
  *size = PyUnicode_GET_LENGTH(text);
  return reinterpret_cast<const char*>(PyUnicode_1BYTE_DATA(text));
}

// False: no int, negative, beyond 128 bits, or a Python whose ints look different inside.
static inline bool words_of(PyObject* number, meshsieve::U128& words) {
#if PY_VERSION_HEX < 0x030C0000
  if (!PyLong_CheckExact(number)) return false;
  const Py_ssize_t n = Py_SIZE(number);
  const digit* digits = reinterpret_cast<PyLongObject*>(number)->ob_digit;
  static_assert(PyLong_SHIFT == 30 || PyLong_SHIFT == 15, "what Python is built with");
  if (n < 0 || n * PyLong_SHIFT >= 128 + PyLong_SHIFT) return false;
  unsigned __int128 value = 0;
  for (Py_ssize_t i = n; i-- > 0;) {
    if ((value >> (128 - PyLong_SHIFT)) != 0) return false;
    value = value << PyLong_SHIFT | digits[i];
  }
  words = {static_cast<uint64_t>(value >> 64), static_cast<uint64_t>(value)};
  return true;
#else
  (void)number, (void)words;
  return false;
#endif
}

// An IPv4 address as an int, dotted text or four bytes; -1: something else.
static inline long long usual_v4(PyObject* address) {
  if (PyLong_CheckExact(address)) {
#if PY_VERSION_HEX < 0x030C0000
    const Py_ssize_t n = Py_SIZE(address);
    if (PyLong_SHIFT * 2 < 32 || n < 0 || n > 2) return -1;
    const digit* digits = reinterpret_cast<PyLongObject*>(address)->ob_digit;
    if (n == 0) return 0;
    // Addresses have one or two digits, which nobody can predict.
    const uint64_t second = static_cast<uint64_t>(digits[n - 1]) << PyLong_SHIFT & -static_cast<uint64_t>(n == 2);
    const uint64_t value = second | digits[0];
    return value <= 0xffffffffu ? static_cast<long long>(value) : -1;
#else
    int overflow = 0;
    const long long value = PyLong_AsLongLongAndOverflow(address, &overflow);
    return overflow == 0 && value >= 0 && value <= 0xffffffffll ? value : -1;
#endif
  }
  if (PyUnicode_CheckExact(address)) {
    Py_ssize_t size = 0;
    const char* text = ascii_text(address, &size);
    return text == nullptr ? -1 : parse_dotted(text, size);
  }
  if (PyBytes_CheckExact(address) && PyBytes_GET_SIZE(address) == 4) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(PyBytes_AS_STRING(address));
    return static_cast<long long>(uint32_t{bytes[0]} << 24 | uint32_t{bytes[1]} << 16 | uint32_t{bytes[2]} << 8 | bytes[3]);
  }
  return -1;
}
