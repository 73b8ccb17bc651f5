// What the bitmap kernel reads: plain views into a BitmapTable.
#pragma once

#include <cstdint>

namespace meshsieve {

inline constexpr int kMaxBitmapDims = 32;

// Row c of dimension d: `words` uint64, bit r set where rule r does not fail on class c. Rows start on cache lines.
struct BitmapView {
  uint32_t n_dims;
  uint32_t words;        // a multiple of 8
  uint32_t chunk_words;  // a multiple of 8; 0: no summary, at most 32 words
  const uint64_t* rows[kMaxBitmapDims];
  uint64_t all_chunks;   // a bit a chunk
  // One word a class: bit k set where any bit of chunk k is. Null where nearly all would be set.
  const uint64_t* summary[kMaxBitmapDims];
};

}  // namespace meshsieve
