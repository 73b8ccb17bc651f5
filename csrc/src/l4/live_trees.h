// Changing trees: entries are put into and taken out of the leaves that they reach.
//
// What    The writer's knowledge of one family's trees beyond what look-ups read: how many nodes name a leaf, which
//         blocks are free, which tree takes which entries. A TreeEditor changes a copy of the nodes that nobody reads, and
//         notes which, so that other copies follow by copying those. Blocks have no copies: all versions read them in one
//         *arena*, and none that a published version may read is written to. A leaf that changes moves to other blocks,
//         once an update; what it leaves is *retired*, and free again when no version from before is held.
// Why     Blocks are most of a table. Look-ups find those that did not change in their caches after every publication.
// How     An entry goes to the leaf of every child that `value >> shift & mask` of one of its values names, whatever
//         the builder knew of regions: a look-up takes the same step. A leaf that several nodes share moves for those
//         that the entry reaches. One that moved in this update may hold entries that some of its nodes cannot meet; they
//         never fit there.
// Held    Where a version is held for long and retired blocks fill the arena, the next version gets an arena of its own,
//         copied; the old one lives as long as versions that read it. So a held version costs one arena at most.
//         It keeps no block of the new arena from being used again.
// Free    Runs of free blocks are joined with their neighbours: leaves have many lengths, and pieces that are never joined
//         soon serve none of them.
// Cost    A walk of a few nodes, then one copy of each leaf reached; no tree is ever split. Wide entries reach many
//         leaves, and are in the tree of wide entries for that reason. All of it waits for memory, so entries are walked
//         and their leaves fetched some at a time (reach). At 100,000 rules an entry reaches 3 to 12 places and copies 2
//         to 5 leaves; in lists like ipc1, whose leaves are long, 36 blocks.
// Source  Driscoll, Sarnak, Sleator, Tarjan, Making data structures persistent, 1989.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "l4/forest_lookup.h"

namespace meshsieve::live {

using Touched = std::vector<uint32_t>;  // places in Table::nodes that a change wrote

class TreeEditor {
 public:
  // `tree_of` as in forest::Trees. The table's blocks become the first arena.
  TreeEditor(forest::Table& table, std::array<int8_t, forest::kMaxTrees> tree_of);

  // An update begins, the one with this number; versions with a lower one than `oldest_held` are gone.
  void begin(uint64_t update, uint64_t oldest_held);
  // What the table of the update reads: keep it as long as that.
  std::shared_ptr<const void> arena() const { return arena_; }

  // Entry e of `boxes`, and the places of the leaves that it leads to. A place may be there twice.
  struct Reached {
    const forest::Boxes* boxes = nullptr;
    size_t e = 0;
    uint8_t trees = 0;  // a bit each: where the entry is, or belongs
    std::vector<uint32_t> places;
  };
  // The tree that the entry, labelled, belongs to, as a bit; made where there is none yet.
  uint8_t tree_for(forest::Table& table, const forest::Boxes& boxes, size_t e, int32_t label, Touched& touched);
  // Finds the places of several entries, level by level, so that memory is fetched for all of them at once. They stay
  // right while entries are changed.
  void reach(const forest::Table& table, std::span<Reached> entries);
  void insert(forest::Table& table, const Reached& entry, int32_t label, Touched& touched);
  // Takes every entry with the label out of the leaves reached.
  void remove(forest::Table& table, const Reached& entry, int32_t label, Touched& touched);
  void relabel(forest::Table& table, const Reached& entry, int32_t from, int32_t to, Touched& touched);

  // Makes `copy`, which was like `table` before the touched changes, like it again.
  static void follow(const forest::Table& table, forest::Table& copy, const std::vector<const Touched*>& touched);
  // Makes `copy` like `table`, in the memory that it has where that fits.
  static void copy(const forest::Table& table, forest::Table& copy);

  size_t used_blocks() const { return used_blocks_ - free_blocks_ - retired_blocks_; }
  size_t arena_blocks() const { return used_blocks_; }
  size_t unsure_lanes() const { return unsure_lanes_; }  // inserted so far that need the exact check

 private:
  using Arena = TableArray<uint8_t>;
  struct Lane;
  // The blocks of a leaf, by the number of the first; or free ones, as many as there are side by side.
  struct Run {
    uint32_t is_new : 1 = 0;       // made in this update: no version reads it
    uint32_t is_free : 1 = 0;      // so is the last block of a free run marked
    uint32_t refs : 30 = 0;        // nodes that name it
    uint32_t moved_to = kNowhere;  // for the change under way
    uint32_t length = 0;           // blocks; at the last block of a free run, too
    uint32_t in_list = 0;          // of a free run: its place in free_[length]
  };
  struct Step {
    uint32_t place, entry;
  };
  struct Retired {
    uint64_t update;  // that no longer names it
    uint32_t first, n;
  };
  static constexpr uint32_t kNowhere = ~uint32_t{0};
  static constexpr uint32_t kLongRun = 63;  // blocks; longer free runs are in one list

  uint8_t* block(uint32_t number) const { return arena_->data() + size_t{number} * block_bytes_; }
  forest::BlockTail& tail(uint32_t number) const {
    return *reinterpret_cast<forest::BlockTail*>(block(number) + tail_offset_);
  }
  void prefetch_leaf(const forest::Node& leaf) const;
  void lower_bound(forest::Table& table, uint32_t place, int32_t label, Touched& touched);
  void insert_at(forest::Table& table, uint32_t place, const Lane& lane, Touched& touched);
  void remove_at(forest::Table& table, uint32_t place, int32_t label, Touched& touched);
  void relabel_at(forest::Table& table, uint32_t place, int32_t from, int32_t to, Touched& touched);
  bool follow_moved(forest::Table& table, uint32_t place, Touched& touched);
  uint32_t block_for(uint32_t first, int32_t label) const;
  bool holds(uint32_t first, int32_t label) const;
  uint32_t writable(forest::Table& table, uint32_t place, uint32_t longer, Touched& touched);
  void point(forest::Table& table, uint32_t place, uint32_t first, Touched& touched);
  void moved(uint32_t from, uint32_t to);
  void end_change();
  uint32_t take_blocks(forest::Table& table, uint32_t n);
  uint32_t take_free(uint32_t n);
  void give_back(uint32_t first, uint32_t n);
  void link_free(uint32_t first, uint32_t n);
  void unlink_free(uint32_t first);
  void renew_arena(forest::Table& table, uint32_t n);

  std::array<int8_t, forest::kMaxTrees> tree_of_;
  const size_t block_bytes_, tail_offset_;
  std::shared_ptr<Arena> arena_;
  uint32_t used_nodes_, used_blocks_;
  size_t free_blocks_ = 0, retired_blocks_ = 0, unsure_lanes_ = 0;
  uint64_t update_ = 0;
  std::vector<Run> runs_;
  std::vector<uint32_t> new_runs_;            // of this update; some of them are gone again
  std::vector<uint32_t> moving_;              // runs whose moved_to is set
  std::array<std::vector<uint32_t>, kLongRun + 1> free_;  // by length: first blocks
  uint64_t some_free_ = 0;                    // bit n: free_[n] is not empty
  std::deque<Retired> retired_;               // by update
  std::vector<Step> steps_, next_steps_;      // of reach
};

}  // namespace meshsieve::live
