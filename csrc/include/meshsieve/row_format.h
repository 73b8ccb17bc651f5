// Rows of results as text: NDJSON lines, CSV lines.
//
// What    A layout says what stands before each cell, between rows, and for "no value"; append() writes n rows of typed
//         columns. Texts are codes into tables of finished pieces: whoever fills a table has quoted and escaped them.
// Why     A Python object a cell costs more than reading and classifying the packet. Here a cell is one memcpy or one
//         number conversion, and a row needs a single bounds check: its longest form is known beforehand.
// Limits  a row is at most the sum of its prefixes, 20 bytes a number, 48 an address and the longest text of each table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "meshsieve/types.h"

namespace meshsieve {

enum class CellKind : uint8_t { number, address, text };

struct CellLayout {
  CellKind kind = CellKind::number;
  std::string prefix;   // what comes before the value: separator, field name
  bool quoted = false;  // addresses between double quotes
};

// One column of n rows. data: integers of `width` bytes; U128 for addresses; int32 codes for texts, -1 = no value.
struct CellColumn {
  const void* data = nullptr;
  uint32_t width = 0;
  bool is_signed = false;
  const uint8_t* valid = nullptr;    // 0 = no value; nullptr = every row has one
  const uint8_t* version = nullptr;  // addresses: 4 or 6
};

class RowFormatter {
 public:
  RowFormatter(std::vector<CellLayout> cells, std::string row_begin, std::string row_end, std::string null_text);

  // Adds pieces to the table of a text column; codes count from 0 in the order of adding.
  void add_texts(size_t column, const std::vector<std::string>& pieces);
  // Empties the table of a text column: its codes count from 0 again.
  void clear_texts(size_t column);
  // From now on the codes of `column` are those of `owner`, whose table is its own. clear_texts() gives it its own again.
  void share_texts(size_t column, size_t owner);
  // Appends n rows to `out`. Throws ModelError if the columns do not fit the layout or a code has no text.
  void append(const std::vector<CellColumn>& columns, size_t n, std::string& out) const;

 private:
  std::vector<CellLayout> cells_;
  std::string row_begin_, row_end_, null_text_;
  std::vector<std::vector<std::string>> tables_;
  std::vector<size_t> longest_;
  std::vector<size_t> table_of_;  // by column: its own, or that of the column that it shares with

  void check_text_column(size_t column) const;
};

inline constexpr size_t kMaxAddressText = 45;  // INET6_ADDRSTRLEN - 1

// Text of an address (IPv6 as RFC 5952 and inet_ntop write it), at most kMaxAddressText bytes, not terminated.
size_t format_address(U128 address, uint8_t version, char* out);

}  // namespace meshsieve
