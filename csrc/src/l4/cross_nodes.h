// Nodes, maps and winners of cross-product tables while they are built.
//
// What    A cell's rules name a few sets of P classes and a few of Q classes. Classes that the same of these sets contain
//         are one local class; the winner of each pair of local classes is found by placing the services in order.
// Why     What a cell costs depends on its own list, not on how many classes all rules tell apart.
// Cost    About a microsecond a different list. What does not depend on which rules have the services (*shape*: both maps
//         and the order of winners) is made once a sequence of services, a map once a set of sets.
// Limits  65,534 services in one cell, 2^14 local classes and 2^18 patterns of an axis; work and bytes as the caller says:
//         else CompileError.
#pragma once

#include <cstdint>
#include <vector>

#include "l4/cross_table.h"
#include "l4/flat_map.h"
#include "l4/signature.h"

namespace meshsieve::cross {

// What building may still cost, in units of about a nanosecond.
class Work {
 public:
  explicit Work(uint64_t units) : left_(units) {}
  void spend(uint64_t units);  // throws CompileError where there is not that much left

 private:
  uint64_t left_;
};

// Maps class -> local class of one axis, one a collection of sets.
//
// A cell names few sets, most of them of one class, so nearly all of a map is one local class. On an axis of many classes
// a map is therefore a row of entries, one a block of classes: the number of a pattern, and what to add to the local
// classes in it. Patterns number from 0, so few are different; classes of two blocks are not one local class unless both
// blocks are of one class. On an axis of few classes all are one block, and the pattern is the map.
class LocalMaps {
 public:
  struct Map {
    uint32_t at;                  // offset into entries(), or patterns() where the axis is one block
    uint32_t n_local, words;      // of a bitmap of local classes
    size_t sets, n_sets, bits;    // which sets it tells apart, and a bitmap each
  };

  LocalMaps(const ClassSets& sets, bool in_blocks, Work& work);
  // The map that tells these sets apart; they may repeat. Valid until the next call.
  const Map& of(const std::vector<uint32_t>& sets);
  // The local classes in one of the sets of the map that `of` returned last, or in set 0: all.
  const uint64_t* within(const Map& map, uint32_t set) const {
    return set == 0 ? all_.data() : &bits_[map.bits + position_[set] * map.words];
  }
  const std::vector<uint32_t>& entries() const { return entries_; }  // none where the axis is one block
  const std::vector<uint16_t>& patterns() const { return patterns_; }

 private:
  uint32_t make();
  void split(uint32_t set, uint32_t& n_parts);
  uint32_t entry_of(uint32_t begin, uint32_t end, uint32_t& n_local);
  void add_bits(uint32_t set, const Map& map);

  const ClassSets& sets_;
  const bool in_blocks_;
  const uint32_t block_;
  Work& work_;
  std::vector<std::vector<uint32_t>> members_;  // of each set, or of its complement where that is smaller
  std::vector<bool> complemented_;
  std::vector<uint32_t> distinct_, noted_;      // noted_: by set, the call that saw it last
  uint32_t call_ = 0;
  // While a map is made, by class: which part it is in (0: in no member list) and its local class, where its block is
  // touched. By part: the part that leaves it; the local class of blocks that are this part alone.
  std::vector<uint32_t> part_, local_, half_, halved_, whole_block_, touched_, row_;
  std::vector<uint8_t> is_touched_;  // by block
  std::vector<uint16_t> pattern_;
  FlatMap by_sets_, by_pattern_;
  std::vector<Map> maps_;
  std::vector<uint32_t> map_sets_, position_;  // position_: by set, in the map that was returned last
  std::vector<uint64_t> bits_, all_;
  std::vector<uint32_t> entries_;
  std::vector<uint16_t> patterns_;
};

class NodePool {
 public:
  NodePool(const Problem& problem, size_t most_bytes, Work& work);

  // Node of a cell that leaves these rules (sorted).
  uint32_t node_of(const std::vector<uint32_t>& rules);
  bool leaves_nothing(uint32_t rule) const { return whole_[problem_.service_of_rule[rule]]; }  // to later rules

  const std::vector<Node>& nodes() const { return nodes_; }
  const LocalMaps& p_maps() const { return p_maps_; }
  const LocalMaps& q_maps() const { return q_maps_; }
  const std::vector<uint32_t>& winners() const { return winners_; }
  bool wide_winners() const { return problem_.n_rules >= kNarrowNone; }

 private:
  // What a sequence of services makes of the P and Q classes, whichever the rules are.
  struct Shape {
    uint32_t p_map, q_map, width;
    size_t places, n_places;    // by pair of local classes: which of `winning` wins, counted from 1; 0: none
    size_t winning, n_winning;  // places in the sequence, ascending
  };

  uint32_t shape_of(const std::vector<uint32_t>& services);
  void place(const std::vector<uint32_t>& services, const LocalMaps::Map& p, const LocalMaps::Map& q, uint16_t* places);
  void keep_winning(const std::vector<uint32_t>& services, Shape& shape);
  size_t bytes() const;

  const Problem& problem_;
  size_t most_bytes_;
  Work& work_;
  LocalMaps p_maps_, q_maps_;
  size_t words_;                  // of a bitmap of services
  std::vector<uint64_t> inside_;  // by service: those that are contained in it
  std::vector<bool> whole_;       // by service: it is all of P x Q
  std::vector<uint64_t> covered_;
  std::vector<uint32_t> services_, kept_, p_sets_, q_sets_;
  std::vector<uint64_t> left_;
  std::vector<uint16_t> rank_;
  FlatMap shape_ids_, node_ids_;
  std::vector<Shape> shapes_;
  std::vector<uint16_t> places_, winning_;
  std::vector<Node> nodes_;
  std::vector<uint32_t> winners_;
};

}  // namespace meshsieve::cross
