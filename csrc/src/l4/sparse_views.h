// What the kernel of the sparse engine reads: plain views into a SparseTable.
#pragma once

#include <cstdint>

#include "l4/bitmap_views.h"

namespace meshsieve {

inline constexpr uint32_t kLeafBits = 8;
inline constexpr uint32_t kTopBlock = 8;  // words of a top that are looked at together

// A row, in uint64 words: `top_words` of a bit a leaf, set where the leaf is stored; as many uint16, how many stored leaves
// come before each of those words; the stored leaves, a byte each, and one unused byte at least.
struct SparseRows {
  const uint64_t* words;
  const uint32_t* wide_at;    // part -> where its row starts in `words`
  const uint32_t* narrow_at;
  uint32_t narrow_bits;       // 0: no narrow parts
  const uint8_t* free;        // leaf -> rules that do not look at this dimension: set in every row without being stored
  const uint64_t* free_top;   // a bit a leaf that has any
};

struct SparseView {
  uint32_t n_dims;
  uint32_t top_words;      // a multiple of kTopBlock
  const int32_t* rule_of;  // bit -> rule
  const int32_t* least;    // leaf -> the first of the rules of this leaf and of all behind it
  SparseRows rows[kMaxBitmapDims];
};

}  // namespace meshsieve
