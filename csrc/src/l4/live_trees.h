// Changing trees in place: entries are put into and taken out of the leaves that they reach.
//
// What    The writer's knowledge of one family's trees beyond what look-ups read: how many nodes name a leaf, which
//         blocks are free, which tree takes which entries. A TreeEditor changes a copy of the table that nobody reads,
//         and notes what it touched, so that other copies follow by copying that.
// How     An entry goes to the leaf of every child that `value >> shift & mask` of one of its values names, whatever
//         the builder knew of regions: a look-up takes the same step. A leaf that several nodes share may hold entries
//         that some of them cannot meet; they never fit there. A full leaf moves to a longer run of blocks; one that is
//         shared is copied for the nodes that the entry reaches.
// Cost    A walk of a few nodes, then one write of a leaf for each leaf reached; no tree is ever split. Wide entries
//         reach many leaves, and are in the tree of wide entries for that reason.
#pragma once

#include <array>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "l4/forest_lookup.h"

namespace meshsieve::live {

// What a change wrote: places in Table::nodes, and numbers of blocks.
struct Touched {
  std::vector<uint32_t> nodes, blocks;
  size_t size() const { return nodes.size() + blocks.size(); }
};

class TreeEditor {
 public:
  // `tree_of` as in forest::Trees; `spare` is what stands free at the end of nodes and blocks.
  TreeEditor(forest::Table& table, std::array<int8_t, forest::kMaxTrees> tree_of);

  // Puts entry e of `boxes`, labelled, where it belongs. Returns the bit of its tree.
  uint8_t insert(forest::Table& table, const forest::Boxes& boxes, size_t e, int32_t label, Touched& touched);
  // Takes every entry with the label out of the trees. boxes: one entry that holds them all.
  void remove(forest::Table& table, const forest::Boxes& boxes, int32_t label, uint8_t trees, Touched& touched);
  void relabel(forest::Table& table, const forest::Boxes& boxes, int32_t from, int32_t to, uint8_t trees,
               Touched& touched);

  // Makes `copy`, which was like `table` before the touched changes, like it again.
  static void follow(const forest::Table& table, forest::Table& copy, const std::vector<const Touched*>& touched);
  // Makes `copy` like `table`, in the memory that it has where that fits.
  static void copy(const forest::Table& table, forest::Table& copy);

  size_t used_blocks() const { return used_blocks_ - free_blocks_; }
  size_t unsure_lanes() const { return unsure_lanes_; }  // inserted so far that need the exact check

 private:
  struct Lane;
  uint8_t* block(forest::Table& table, uint32_t number) const {
    return table.blocks.data() + size_t{number} * table.view.block_bytes;
  }
  uint32_t blocks_of(const forest::Table& table, uint32_t first) const;
  size_t tree_for(forest::Table& table, const forest::Boxes& boxes, size_t e, int32_t label, Touched& touched);
  void insert_at(forest::Table& table, uint32_t place, const Lane& lane, Touched& touched);
  void remove_at(forest::Table& table, uint32_t place, int32_t label, Touched& touched);
  void point(forest::Table& table, uint32_t place, uint32_t first, Touched& touched);
  uint32_t take_blocks(forest::Table& table, uint32_t n);
  void give_back(uint32_t first, uint32_t n);

  std::array<int8_t, forest::kMaxTrees> tree_of_;
  uint32_t used_nodes_, used_blocks_;
  size_t free_blocks_ = 0, unsure_lanes_ = 0;
  std::vector<uint32_t> refs_;  // by a leaf's first block: nodes that name it
  std::unordered_map<uint32_t, std::vector<uint32_t>> free_;  // length -> first blocks of free runs
  std::unordered_map<uint32_t, uint32_t> copied_;  // of the insertion under way: shared leaf -> its copy with the entry
};

}  // namespace meshsieve::live
