#include "meshsieve/row_format.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <numeric>

#include "meshsieve/errors.h"

namespace meshsieve {
namespace {

constexpr size_t kMaxNumberText = 20;  // -9223372036854775808, 18446744073709551615

char* put(char* at, std::string_view text) {
  std::memcpy(at, text.data(), text.size());
  return at + text.size();
}

template <class T>
T value_at(const void* data, size_t i) {
  T value;
  std::memcpy(&value, static_cast<const uint8_t*>(data) + i * sizeof(T), sizeof(T));
  return value;
}

char* put_number(char* at, const CellColumn& column, size_t i) {
  const auto put_as = [&](auto value) { return std::to_chars(at, at + kMaxNumberText, value).ptr; };
  switch (column.width) {
    case 1: return put_as(static_cast<unsigned>(value_at<uint8_t>(column.data, i)));
    case 2: return put_as(static_cast<unsigned>(value_at<uint16_t>(column.data, i)));
    case 4: return column.is_signed ? put_as(value_at<int32_t>(column.data, i)) : put_as(value_at<uint32_t>(column.data, i));
    default:
      return column.is_signed ? put_as(value_at<int64_t>(column.data, i)) : put_as(value_at<uint64_t>(column.data, i));
  }
}

size_t format_v4(uint32_t address, char* out) {
  char* at = out;
  for (int shift = 24; shift >= 0; shift -= 8) {
    const unsigned byte = address >> shift & 0xff;
    if (byte >= 100) *at++ = static_cast<char>('0' + byte / 100);
    if (byte >= 10) *at++ = static_cast<char>('0' + byte / 10 % 10);
    *at++ = static_cast<char>('0' + byte % 10);
    if (shift > 0) *at++ = '.';
  }
  return static_cast<size_t>(at - out);
}

}  // namespace

size_t format_address(U128 address, uint8_t version, char* out) {
  if (version != 6) return format_v4(static_cast<uint32_t>(address.lo), out);
  uint8_t network[16];
  for (int i = 0; i < 8; ++i) {
    network[i] = static_cast<uint8_t>(address.hi >> (56 - 8 * i));
    network[i + 8] = static_cast<uint8_t>(address.lo >> (56 - 8 * i));
  }
  char text[INET6_ADDRSTRLEN];
  inet_ntop(AF_INET6, network, text, sizeof(text));
  const size_t length = std::strlen(text);
  std::memcpy(out, text, length);
  return length;
}

RowFormatter::RowFormatter(std::vector<CellLayout> cells, std::string row_begin, std::string row_end,
                           std::string null_text)
    : cells_(std::move(cells)),
      row_begin_(std::move(row_begin)),
      row_end_(std::move(row_end)),
      null_text_(std::move(null_text)),
      tables_(cells_.size()),
      longest_(cells_.size(), 0),
      table_of_(cells_.size()) {
  std::iota(table_of_.begin(), table_of_.end(), size_t{0});
}

void RowFormatter::check_text_column(size_t column) const {
  if (column >= cells_.size() || cells_[column].kind != CellKind::text) throw ModelError("this column holds no text");
}

void RowFormatter::add_texts(size_t column, const std::vector<std::string>& pieces) {
  check_text_column(column);
  for (const std::string& piece : pieces) {
    longest_[column] = std::max(longest_[column], piece.size());
    tables_[column].push_back(piece);
  }
}

void RowFormatter::clear_texts(size_t column) {
  check_text_column(column);
  tables_[column].clear();
  longest_[column] = 0;
  table_of_[column] = column;
}

void RowFormatter::share_texts(size_t column, size_t owner) {
  check_text_column(column);
  check_text_column(owner);
  if (table_of_[owner] != owner) throw ModelError("this column has no table of its own to share");
  table_of_[column] = owner;
}

void RowFormatter::append(const std::vector<CellColumn>& columns, size_t n, std::string& out) const {
  if (columns.size() != cells_.size()) throw ModelError("the columns do not fit the layout of the rows");
  size_t longest_row = row_begin_.size() + row_end_.size();
  for (size_t c = 0; c < cells_.size(); ++c) {
    const size_t value = cells_[c].kind == CellKind::number    ? kMaxNumberText
                         : cells_[c].kind == CellKind::address ? kMaxAddressText + 2
                                                               : longest_[table_of_[c]];
    longest_row += cells_[c].prefix.size() + std::max(value, null_text_.size());
    if (cells_[c].kind != CellKind::text) continue;
    const auto known = static_cast<int32_t>(tables_[table_of_[c]].size());
    for (size_t i = 0; i < n; ++i) {
      const int32_t code = value_at<int32_t>(columns[c].data, i);
      if (code < -1 || code >= known) throw ModelError("a text code has no text");
    }
  }

  size_t length = out.size();
  for (size_t i = 0; i < n; ++i) {
    if (out.size() - length < longest_row) out.resize(std::max(out.size() * 2, length + longest_row * 64));
    char* at = put(out.data() + length, row_begin_);
    for (size_t c = 0; c < cells_.size(); ++c) {
      const CellLayout& cell = cells_[c];
      const CellColumn& column = columns[c];
      at = put(at, cell.prefix);
      if (column.valid != nullptr && column.valid[i] == 0) {
        at = put(at, null_text_);
        continue;
      }
      switch (cell.kind) {
        case CellKind::number: at = put_number(at, column, i); break;
        case CellKind::address:
          if (cell.quoted) *at++ = '"';
          at += format_address(value_at<U128>(column.data, i), column.version[i], at);
          if (cell.quoted) *at++ = '"';
          break;
        case CellKind::text: {
          const int32_t code = value_at<int32_t>(column.data, i);
          at = put(at, code < 0 ? null_text_ : tables_[table_of_[c]][static_cast<size_t>(code)]);
          break;
        }
      }
    }
    at = put(at, row_end_);
    length = static_cast<size_t>(at - out.data());
  }
  out.resize(length);
}

}  // namespace meshsieve
