// What the search kernels read: plain views into a FieldMap's tables (classes_table.h owns them).
//
// Entry   | terminal : 1 | low word : 1 | index : 30 |
//         terminal: index is a class. Else index is a node; "low word" (128-bit trees only): the node starts a tree over
//         the low 64 bits, because the high 64 bits alone did not decide.
// Node    seven sorted keys; child i holds the values that are greater than exactly i keys. A key is the first value of
//         child i + 1, minus one, with the sign bit flipped so that signed vector compares order it; unused keys are the
//         largest signed value, which nothing exceeds. One cache line (two for 64-bit keys), no width below 30 bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "meshsieve/types.h"

namespace meshsieve::classes {

// Packets that walk the tables together. 64: one bit each in a uint64 mask.
inline constexpr size_t kChunk = 64;

inline constexpr uint32_t kTerminal = uint32_t{1} << 31;
inline constexpr uint32_t kLowWord = uint32_t{1} << 30;

struct alignas(64) Node32 {
  int32_t key[8];
  uint32_t child[8];
};
static_assert(sizeof(Node32) == 64, "one cache line");

struct alignas(64) Node64 {
  int64_t key[8];
  uint32_t child[8];
};
static_assert(sizeof(Node64) == 128, "two cache lines");

// Block  | first slot : 27 | bits : 5 |   the block's slots are indexed by that many bits below the block's own
struct Search32View {
  const uint32_t* blocks;  // by the top kBlockBits of the value
  const uint32_t* slots;   // entries
  const Node32* nodes;     // nodes[0] leads to child 0, which is zero: read for finished entries
  uint32_t levels;         // node steps after which every value is terminal
};
inline constexpr uint32_t kBlockBits = 10;

struct Search128View {
  const Node64* nodes;
  uint32_t root;
  uint32_t high_levels;
  uint32_t low_levels;
};

}  // namespace meshsieve::classes
