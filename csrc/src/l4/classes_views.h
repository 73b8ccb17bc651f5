// What the search kernels read: plain views into a FieldMap's tables (classes_table.h owns them).
//
// IPv4   block -> slots -> nodes. A block is the top kBlockBits of the value and says how many bits below index its
//        slots; a slot holds the number of a node (a class where there are no levels), a node's child that of a node one
//        level down, a child of the last level a class. Every value takes every level, so nothing is terminal early.
// Node32 31 sorted keys of 16 bits, since all bits above are decided by then; child i holds the values that are greater
//        than exactly i keys. A key is the first value of child i + 1, minus one, with the sign bit flipped so that
//        signed vector compares order it; unused keys are the largest signed value, which nothing exceeds.
// IPv6   slots -> nodes. Networks are crowded in one prefix of all, so a window of the high word is cut into slots, whose
//        entries begin trees; those of all other values share one.
//        | terminal : 1 | low word : 1 | index : 30 |  is an entry of the trees over 64-bit words.
//        terminal: index is a class. Else index is a node; "low word": the node starts a tree over the low 64 bits,
//        because the high 64 bits alone did not decide.
// Node64 seven sorted keys, as above.
#pragma once

#include <cstddef>
#include <cstdint>

#include "meshsieve/types.h"

namespace meshsieve::classes {

// Packets that walk the tables together, each step for all of them before the next: a multiple of 64, so that 64-bit
// words hold a bit each. A step starts and ends with few loads in flight, which 64 packets feel and 256 do not: look-ups
// among 1,000 rules take a fifth less; 512 would gain nothing more and not leave a small stack enough.
inline constexpr size_t kChunk = 256;

inline constexpr uint32_t kTerminal = uint32_t{1} << 31;
inline constexpr uint32_t kLowWord = uint32_t{1} << 30;

// Id: uint16_t where node numbers and classes fit, which is half the memory, else uint32_t.
template <class Id>
struct alignas(64) Node32 {
  int16_t key[32];
  Id child[32];
};
static_assert(sizeof(Node32<uint16_t>) == 128 && sizeof(Node32<uint32_t>) == 192, "whole cache lines");

struct alignas(64) Node64 {
  int64_t key[8];
  uint32_t child[8];
};
static_assert(sizeof(Node64) == 128, "two cache lines");

template <class Id>
struct Trees32 {
  const Id* slots = nullptr;
  const Node32<Id>* nodes = nullptr;
};

// Block  | first slot : 27 | 32 - bits : 5 |   `bits` bits of the value, below the block's own, index the block's slots
struct Search32View {
  const uint32_t* blocks;  // by the top kBlockBits of the value
  Trees32<uint16_t> narrow;
  Trees32<uint32_t> wide;  // used where narrow.slots is nullptr
  uint32_t levels;
};
inline constexpr uint32_t kBlockBits = 12;

// Entries by high word: slot i of the window that begins at `first` holds 2^shift values; the last entry is for all others.
struct Search128View {
  const Node64* nodes;
  const uint32_t* slots;
  uint64_t first, n_inside;
  uint32_t shift;
  uint32_t high_levels;
  uint32_t low_levels;

  // What lies before the window wraps around, and so is not inside either.
  uint32_t entry_of(uint64_t high) const {
    const uint64_t slot = (high - first) >> shift;
    return slots[slot < n_inside ? slot : n_inside];
  }
};

}  // namespace meshsieve::classes
