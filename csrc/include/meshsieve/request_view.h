// One request, read once: the only reading that routing and authorization see.
//
// What    Refusals of an HTTP/1 codec, host forms and path normalisation, as Envoy's HTTP connection manager does them,
//         in this order: codec, host, escaped slashes, percent-decoding, dot segments, repeated slashes. No byte is
//         decoded twice. Header lines whose names nobody asked for are left out.
// Why     Python's routes/http_options.py is the reference; this is the same for millions of rows without the lock.
// Cost    One pass over the target; memory is written only where normalisation changes something.
// Limits  Views point into the caller's bytes or into the scratch, and die with either.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "meshsieve/http_options.h"
#include "meshsieve/request_batch.h"

namespace meshsieve {

// Header names that a table looks at, each with a slot.
class HeaderNames {
 public:
  int32_t slot(const std::string& name);              // made on first use
  int32_t find(std::string_view name) const;          // -1: nobody looks at it
  size_t size() const { return names_.size(); }
  const std::vector<std::string>& names() const { return names_; }
  bool joined(int32_t slot) const { return joined_[static_cast<size_t>(slot)]; }  // lines become one (request_view.cpp)

 private:
  std::vector<std::string> names_;
  std::vector<bool> joined_;
  std::unordered_map<std::string, int32_t> slots_;
};

struct HeaderLine {
  int32_t slot;
  std::string_view value;
};

struct RequestView {
  std::string_view method, scheme, authority, target;
  bool has_authority = false;
  size_t path_size = 0;                  // of the target: up to the first ? or #
  std::span<const HeaderLine> headers;   // in order; known names only
  uint64_t random = 0;
  uint8_t tls = 0;                       // kTlsPresented | kTlsValidated
  int64_t context = 0;
  size_t row = 0;                        // of the batch

  std::string_view path() const { return target.substr(0, path_size); }
  // What follows the first `?`; has_query says whether there is one.
  bool query(std::string_view& out) const {
    const size_t mark = target.find('?', path_size);
    if (mark == std::string_view::npos) return false;
    out = target.substr(mark + 1);
    return true;
  }
};

// What the request gets instead of being matched.
enum class Refused : uint8_t { no, codec, escaped_slash, escaped_nul, redirect_unescaped };

struct RequestScratch {
  std::string target;
  std::string authority;
  std::vector<HeaderLine> lines;
  std::vector<std::unique_ptr<std::string>> joined;  // values of lines that were several

  void add_line(const HeaderNames& names, int32_t slot, std::string_view value);
};

// The reading of a request whose properties are set as given. `view` comes in with method, scheme, authority
// (has_authority false where it is absent or empty), target and headers, and goes out as everybody sees it.
Refused read_request(const HttpOptions& options, RequestView& view, RequestScratch& scratch);

// Rows of a batch as views.
class BatchReader {
 public:
  // `names` and `batch` must outlive the reader.
  BatchReader(const RequestBatch& batch, const HttpOptions& options, const HeaderNames& names);

  Refused read(size_t row, RequestView& view, RequestScratch& scratch) const;

 private:
  const RequestBatch& batch_;
  HttpOptions options_;
  const HeaderNames& names_;
  std::vector<std::pair<int32_t, const TextColumn*>> columns_;  // slot and values, of header columns with a slot
  std::vector<int32_t> line_slots_;                             // of batch.line_names; -1: left out
  bool any_line_ = false;
};

}  // namespace meshsieve
