// What the bitmap kernel reads: plain views into a BitmapTable.
#pragma once

#include <cstdint>

namespace meshsieve {

inline constexpr int kMaxBitmapDims = 32;

// The rows of a dimension: `words` uint64 each, bit r set where rule r does not fail. Rows start on cache lines. A
// class is wide part << narrow_bits | narrow part; its bits are those of both parts' rows.
struct BitmapRows {
  const uint64_t* wide;
  const uint64_t* narrow;   // one row of zeros where narrow_bits is 0
  uint32_t narrow_bits;
  // One word a row: bit k set where any bit of chunk k is. Null where nearly all would be set.
  const uint64_t* wide_summary;
  const uint64_t* narrow_summary;
};

struct BitmapView {
  uint32_t n_dims;
  uint32_t words;        // a multiple of 8; of chunk_words, if that is not 0
  uint32_t chunk_words;  // a multiple of 8; 0: no chunks, at most 32 words
  bool in_parts;         // whether any dimension has narrow parts
  bool has_summary;      // whether any dimension has summaries
  uint64_t all_chunks;   // a bit a chunk
  BitmapRows rows[kMaxBitmapDims];
};

}  // namespace meshsieve
