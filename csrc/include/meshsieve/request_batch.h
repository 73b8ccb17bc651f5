// Many requests as columns of bytes: what routing and authorization read, without the interpreter.
//
// What    One text column a property (method, scheme, authority, path, ...), header lines a row or a column a header,
//         and numbers. Nothing is owned: the arrays belong to the caller (Python: meshsieve.request_columns) and must
//         outlive the batch.
// Forms   A text column is a buffer with offsets; with `codes` it is dictionary encoded, and code -1 is an absent
//         value; with stride 0 its first value stands for every row.
// Names   Header names are lower case, values without surrounding blanks; both are the maker's duty (promise: a request
//         is read once). Everything else is done by read_request (request_view.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "meshsieve/types.h"

namespace meshsieve {

struct TextColumn {
  const char* data = nullptr;
  const int64_t* offsets = nullptr;  // one more than there are values; nullptr: absent in every row
  const int32_t* codes = nullptr;    // row -> value, -1 absent; nullptr: row i has value i
  size_t stride = 1;                 // 0: row 0 stands for all

  // Whether the row has a value; `out` is set if so.
  bool get(size_t row, std::string_view& out) const {
    if (offsets == nullptr) return false;
    size_t value = row * stride;
    if (codes != nullptr) {
      if (codes[value] < 0) return false;
      value = static_cast<size_t>(codes[value]);
    }
    out = {data + offsets[value], static_cast<size_t>(offsets[value + 1] - offsets[value])};
    return true;
  }
  std::string_view value_or(size_t row, std::string_view missing) const {
    get(row, missing);
    return missing;
  }
};

// ip_ver 0: absent. IPv4 addresses lie in the low 32 bits.
struct AddressColumn {
  const U128* address = nullptr;
  const uint8_t* ip_ver = nullptr;
};

enum class RequestText : uint8_t { method, scheme, authority, path, sni, alpn, principal };
constexpr size_t kRequestTexts = 7;
enum class RequestAddress : uint8_t { source_ip, destination_ip, remote_ip };
constexpr size_t kRequestAddresses = 3;
enum class RequestNumber : uint8_t { source_port, destination_port, random_value, tls, context, time_ns, random_given };
constexpr size_t kRequestNumbers = 7;

// Bits of RequestNumber::tls.
constexpr int64_t kTlsPresented = 1;
constexpr int64_t kTlsValidated = 2;
constexpr int64_t kTlsKnown = 4;  // set beside them; alone: the client presents no certificate

struct RequestBatch {
  size_t n = 0;
  TextColumn text[kRequestTexts];
  AddressColumn address[kRequestAddresses];
  // int64 a row. Ports: -1 is absent. random_value: the bits of a uint64, 0 where a request has none. context: which of
  // the caller's structured values (claims, metadata, filter state, runtime) the row has; 0: none of them. time_ns and random_given (1: a random_value of 0 is one) are the caller's.
  const int64_t* number[kRequestNumbers] = {};

  // Headers, in two forms that add up: a column each, absent where a row lacks it, then lines [begin[i], begin[i + 1])
  // of row i, each with the position of its name in `line_names`.
  struct HeaderColumn {
    std::string name;
    TextColumn value;
  };
  std::vector<HeaderColumn> header_columns;
  std::vector<std::string> line_names;
  const int64_t* line_begin = nullptr;
  const int32_t* line_name = nullptr;
  TextColumn line_value;

  const TextColumn& operator[](RequestText which) const { return text[static_cast<size_t>(which)]; }
  int64_t number_or(RequestNumber which, size_t row, int64_t missing) const {
    const int64_t* column = number[static_cast<size_t>(which)];
    return column == nullptr ? missing : column[row];
  }
};

}  // namespace meshsieve
