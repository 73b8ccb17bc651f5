// Longest-prefix match for one address family, made for change: a burst trie.
//
// What    The root is indexed by the first 16 bits of an address, every other node by the next 8. A slot names the
//         longest prefix that ends within its node and holds the slot, and a child: nothing, a *bucket*, or a node. A
//         bucket holds up to kMostInBucket longer prefixes, flattened into disjoint intervals; one more, and it bursts
//         into a node. A look-up remembers the longest prefix on its way down and ends in a bucket or at nothing.
// Why     A change touches one bucket, or the slots of one node, and moves nothing else; a plain multi-bit trie has a node
//         of 256 slots for every few prefixes, a sorted list of intervals moves them all.
// Cost    Look-up: the root and a bucket for most of IPv4; one line more a node passed. Change: a bucket is flattened
//         again (tens of ns), or up to 2^8 slots (2^16 in the root, for prefixes of up to 16 bits) are written. Memory:
//         1 MB for the root; 8 bytes and a share of the line a boundary; 4 KB a node, of which there is at most one for
//         every kMostInBucket prefixes and 8 bits that they share.
// Limits  2^31 prefixes a family.
// Example 10/8 and 10.1/16 are in the root: 256 slots, then one of them, say 10/8 and 10.1/16. 10.1.2.0/24 goes to the
//         bucket below slot 10.1: {10.1.0.0: nothing better, 10.1.2.0: the /24, 10.1.3.0: nothing better}.
// Source  Burst tries: Heinz, Zobel, Williams, 2002. Controlled prefix expansion: Srinivasan and Varghese, 1998.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "l4/table_memory.h"
#include "meshsieve/types.h"

namespace meshsieve::prefix {

// uint32_t or U128; the first bits are the high ones.
template <class Address>
class Trie {
 public:
  static constexpr int kBits = sizeof(Address) * 8;
  static constexpr size_t kTogether = 64;

  struct Item {
    Address address;  // host bits are 0
    int bits;
    uint32_t id;
  };

  Trie();

  // The id of exactly this prefix, 0 for none.
  uint32_t find(Address address, int bits) const;
  // id > 0, and the prefix is not there.
  void insert(Address address, int bits, uint32_t id);
  // The prefix is there.
  void erase(Address address, int bits);

  // The id of the longest prefix that holds the address, 0 for none.
  uint32_t lookup(Address address) const;
  void lookup(const Address* addresses, size_t n, uint32_t* ids) const;  // n <= kTogether

  void items(std::vector<Item>& out) const;  // in no order
  size_t bytes() const;

 private:
  static constexpr int kRootBits = 16, kNodeBits = 8;
  static constexpr uint32_t kRootSlots = 1u << kRootBits, kNodeSlots = 1u << kNodeBits;
  static constexpr size_t kMostInBucket = 16;
  static constexpr uint32_t kBucket = uint32_t{1} << 31;  // of a child: the rest is the number of a bucket's first line

  struct Slot {
    uint32_t child = 0;  // 0: nothing
    uint32_t owner = 0;  // id of the longest prefix of the node that holds the slot
  };
  // A bucket in memory: head, then starts[n], then ids[n]. starts[0] is the first address of the slot.
  struct Head {
    uint32_t n;
    uint32_t of;  // its place in contents_
  };
  struct alignas(64) Line {
    uint8_t bytes[64];
  };
  struct Place {
    uint32_t node, slot;
    int depth;  // bits that lead to the node
  };


  uint32_t first_slot(uint32_t node) const { return node == 0 ? 0 : kRootSlots + (node - 1) * kNodeSlots; }
  uint32_t first_heap(uint32_t node) const { return 2 * first_slot(node); }
  int stride(uint32_t node) const { return node == 0 ? kRootBits : kNodeBits; }
  Place place_of(Address address, int bits) const;
  uint32_t& heap_of(const Place& place, Address address, int bits);
  const Head& head_of(uint32_t child) const {
    return *reinterpret_cast<const Head*>(&lines_[child & ~kBucket]);
  }
  static size_t starts_at() { return sizeof(Address) == 4 ? sizeof(Head) : 16; }
  uint32_t search(uint32_t child, Address address) const;

  void cover(const Place& place, Address address, int bits, uint32_t id);
  void uncover(const Place& place, Address address, int bits, uint32_t id);
  uint32_t new_node();
  void burst(const Place& place);
  void flatten(Slot& slot, uint32_t of);
  uint32_t take_lines(uint32_t n);
  void give_lines(uint32_t first, uint32_t n);
  static uint32_t lines_for(size_t n) {
    return static_cast<uint32_t>((starts_at() + n * (sizeof(Address) + 4) + sizeof(Line) - 1) / sizeof(Line));
  }

  std::vector<Slot> slots_;
  std::vector<Line> lines_;
  // The writer's: which prefixes there are.
  std::vector<uint32_t> heap_;  // by node: id of the prefix of n bits b at 2^n + b
  std::vector<uint8_t> bits_;   // by id
  std::vector<std::vector<Item>> contents_;  // of buckets, by address, then from short to long
  std::vector<uint32_t> free_contents_;
  std::array<std::vector<uint32_t>, 16> free_lines_;  // by length
};

extern template class Trie<uint32_t>;
extern template class Trie<U128>;

}  // namespace meshsieve::prefix
