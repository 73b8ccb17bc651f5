// What the forest kernels read: plain views into a ForestTable (forest_table.h owns them).
//
// Node   | first : 32 | mask : 16 | shift : 8 | dim : 8 |
//        inner: the child is nodes[first + (value[dim] >> shift & mask)], mask > 0
//        leaf:  mask = 0; first is the number of a block, which `last` of the blocks ends; shift is the leaf's *bound*:
//               no rule of it comes before bound << View::bound_shift, kNoBound where it has none; dim is 1 if a
//               second block is worth fetching, else 0
// Block  four rule entries, a lane each, as structure of arrays, whole cache lines:
//          for each 32-bit dimension  low[4], width[4]  uint32     a value fits where value - low <= width, unsigned
//          for each 16-bit dimension  low[4], width[4]  uint16
//          for each  8-bit dimension  low[4], width[4]  uint8
//          BlockTail
//        Lanes are in rule order. Dimensions are numbered in this order.
#pragma once

#include <cstddef>
#include <cstdint>

namespace meshsieve::forest {

inline constexpr int kLanes = 4;
inline constexpr int kMaxDims = 32;
inline constexpr int kMaxTrees = 4;
// Packets that walk together: enough to hide memory latency, few enough that their state stays in L1.
inline constexpr size_t kChunk = 128;
inline constexpr int32_t kNoRule = 0x7fffffff;
inline constexpr uint8_t kNoBound = 255;
inline constexpr uint8_t kMostBoundShift = 23;  // with which every number of a rule has a bound

struct Node {
  uint32_t first;
  uint16_t mask;
  uint8_t shift;
  uint8_t dim;
};
static_assert(sizeof(Node) == 8, "eight nodes a cache line");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "kernels read a node as one number");

struct BlockTail {
  int32_t rule[kLanes];
  uint8_t constrains[4];  // bit i: lane i names a field of this absence group (table.h)
  uint8_t valid;          // bit i: lane i is used
  uint8_t verify;         // bit i: lane i is a bounding box; the rule must be checked exactly
  uint8_t last;
  uint8_t unused;
};
static_assert(sizeof(BlockTail) == 24);
inline constexpr size_t kFiveTupleBlock = 2 * 32 + 2 * 16 + 8 + sizeof(BlockTail);
static_assert(kFiveTupleBlock == 128, "with the 5-tuple of IPv4 a block is two cache lines");

// Of a leaf whose first rule is `rule`.
constexpr uint8_t bound_of(int32_t rule, uint8_t bound_shift) {
  const auto bound = static_cast<uint32_t>(rule) >> bound_shift;
  return rule == kNoRule ? kNoBound : static_cast<uint8_t>(bound < kNoBound ? bound : kNoBound - 1);
}

// Checks `rule` exactly on packet number `packet` of the chunk: does it not fail?
using Verify = bool (*)(void* context, size_t packet, int32_t rule);

struct View {
  const Node* nodes;
  const uint8_t* blocks;
  uint32_t block_bytes;
  uint32_t tail_offset;
  uint8_t n32, n16, n8;
  uint8_t n_trees;
  uint8_t bound_shift;
  uint32_t root[kMaxTrees];
  int32_t first_rule[kMaxTrees];  // no entry of the tree comes before it
};

// One chunk of packets. value[dim * kChunk + i], which holds kMaxDims dimensions, set or not; absent[i] has byte g = 0xff where packet i cannot have the fields of
// group g, nullptr = all packets have all fields.
struct Packets {
  const uint32_t* value;
  const uint32_t* absent;
  size_t n;
  Verify verify;
  void* context;
};

}  // namespace meshsieve::forest
