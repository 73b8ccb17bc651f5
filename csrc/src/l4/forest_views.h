// What the forest kernels read: plain views into a ForestTable (forest_table.h owns them).
//
// Node   | first : 32 | mask : 16 | shift : 8 | dim : 8 |
//        inner: the child is nodes[first + (value[dim] >> shift & mask)], mask > 0
//        leaf:  mask = 0; first is the number of a block, which `last` of the blocks ends
// Block  eight rule entries, a lane each, as structure of arrays, whole cache lines:
//          for each 32-bit dimension  low[8], width[8]  uint32     a value fits where value - low <= width, unsigned
//          for each 16-bit dimension  low[8], width[8]  uint16
//          for each  8-bit dimension  low[8], width[8]  uint8
//          BlockTail
//        Lanes are in rule order. Dimensions are numbered in this order.
#pragma once

#include <cstddef>
#include <cstdint>

namespace meshsieve::forest {

inline constexpr int kLanes = 8;
inline constexpr int kMaxDims = 32;
inline constexpr int kMaxTrees = 4;
// Packets that walk together: enough to hide memory latency, few enough that their state stays in L1.
inline constexpr size_t kChunk = 64;
inline constexpr int32_t kNoRule = 0x7fffffff;

struct Node {
  uint32_t first;
  uint16_t mask;
  uint8_t shift;
  uint8_t dim;
};
static_assert(sizeof(Node) == 8, "eight nodes a cache line");

struct BlockTail {
  int32_t rule[kLanes];
  uint8_t constrains[4];  // bit i: lane i names a field of this absence group (table.h)
  uint8_t valid;          // bit i: lane i is used
  uint8_t verify;         // bit i: lane i is a bounding box; the rule must be checked exactly
  uint8_t last;
  uint8_t unused[9];
};
static_assert(sizeof(BlockTail) == 48, "with the 5-tuple of IPv4 a block is 256 bytes, four cache lines");

// Checks `rule` exactly on packet number `packet` of the chunk: does it not fail?
using Verify = bool (*)(void* context, size_t packet, int32_t rule);

struct View {
  const Node* nodes;
  const uint8_t* blocks;
  uint32_t block_bytes;
  uint32_t tail_offset;
  uint8_t n32, n16, n8;
  uint8_t n_trees;
  uint32_t root[kMaxTrees];
  int32_t first_rule[kMaxTrees];  // ascending: no entry of the tree comes before it
};

// One chunk of packets. value[dim * kChunk + i]; absent[i] has byte g = 0xff where packet i cannot have the fields of
// group g, nullptr = all packets have all fields.
struct Packets {
  const uint32_t* value;
  const uint32_t* absent;
  size_t n;
  Verify verify;
  void* context;
};

}  // namespace meshsieve::forest
