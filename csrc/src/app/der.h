// One element of BER or DER (X.690) at a time.
#pragma once

#include "app/bytes.h"

namespace meshsieve::app {

struct Element {
  uint8_t tag = 0;
  Bytes body;           // as much of it as there is
  uint64_t length = 0;  // of the body, as stated
  bool ok = false;      // tag and length were read; `whole` = and all of the body is there
  bool whole = false;
};

// Reads the next element. Definite lengths of up to 4 bytes; a tag number of 31 and more is not read.
inline Element read_element(Reader& reader) {
  Element out;
  out.tag = reader.u8();
  uint64_t length = reader.u8();
  if (length == 0x80 || length > 0x84) return out;
  if (length > 0x80) {
    const size_t n = length & 0x7f;
    length = 0;
    for (size_t i = 0; i < n; ++i) length = length << 8 | reader.u8();
  }
  if (!reader.ok() || (out.tag & 31) == 31) return out;
  out.length = length;
  out.whole = length <= reader.left();
  out.body = reader.up_to(static_cast<size_t>(length));
  out.ok = true;
  return out;
}

// The next element if it has this tag; not ok otherwise.
inline Element expect_element(Reader& reader, uint8_t tag) {
  Element out = read_element(reader);
  if (out.tag != tag) out.ok = false;
  return out;
}

}  // namespace meshsieve::app
