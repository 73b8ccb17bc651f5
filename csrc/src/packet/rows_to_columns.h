// Neighbouring members of packets as columns: a transposition in registers.
//
// What    Of each packet the 16 bytes from one member on are loaded at once; 16 packets (members of one byte) or 8
//         (members of two) then make a square, whose transposition is one vector of 16 bytes for each column.
// Why     A load and a store for each value of so many narrow columns cost as much as decoding them.
// How     The transposition of an n x n square is log2(n) rounds of interleaving row i with row i + n/2.
// Limits  Whole blocks are written: behind the last row a column must have room for kRowsBlock - 1 rows more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace meshsieve {

inline constexpr size_t kRowsBlock = 16;

namespace rows {

typedef uint8_t Bytes __attribute__((vector_size(16)));
typedef uint16_t Halves __attribute__((vector_size(16)));

inline Bytes low(Bytes a, Bytes b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
inline Bytes high(Bytes a, Bytes b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
inline Halves low(Halves a, Halves b) { return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
inline Halves high(Halves a, Halves b) { return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }

template <class V>
inline void transpose(V* square) {
  constexpr size_t n = sizeof(V) / sizeof(square[0][0]);
  V other[n];
  for (size_t width = n; width > 1; width /= 2) {
    for (size_t i = 0; i < n / 2; ++i) {
      other[2 * i] = low(square[i], square[i + n / 2]);
      other[2 * i + 1] = high(square[i], square[i + n / 2]);
    }
    for (size_t i = 0; i < n; ++i) square[i] = other[i];
  }
}

}  // namespace rows

// Writes columns[c][i] for i < n: the c-th of `kColumns` members of type T (1 or 2 bytes) that stand one behind the
// other from `first` on, of the i-th of n structs that are `stride` bytes apart. 16 bytes from `first` on must be
// readable in each; n > 0.
template <size_t kColumns, class T>
inline void rows_to_columns(const T* first, size_t stride, size_t n, T* const (&columns)[kColumns]) {
  using Vector = std::conditional_t<sizeof(T) == 1, rows::Bytes, rows::Halves>;
  constexpr size_t kSide = sizeof(Vector) / sizeof(T);
  static_assert(kColumns <= kSide && kSide <= kRowsBlock);
  const char* const members = reinterpret_cast<const char*>(first);
  for (size_t at = 0; at < n; at += kSide) {
    Vector square[kSide];
    if (n - at >= kSide) {
      for (size_t i = 0; i < kSide; ++i) std::memcpy(&square[i], members + (at + i) * stride, sizeof(Vector));
    } else {  // rows behind the last one repeat it
      for (size_t i = 0; i < kSide; ++i) {
        std::memcpy(&square[i], members + (at + i < n ? at + i : n - 1) * stride, sizeof(Vector));
      }
    }
    rows::transpose(square);
    for (size_t c = 0; c < kColumns; ++c) std::memcpy(columns[c] + at, &square[c], sizeof(Vector));
  }
}

}  // namespace meshsieve
