// The run-time side of the decision forest: which table a packet goes to, what it lacks, and the walk.
//
// A forest's lanes hold numbers that say which rule comes first. What rule a number stands for, and what is answered
// for it, is the RuleBook's: for a compiled list the number is the rule's index, for one that changes it is a label.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "l4/forest_table.h"
#include "l4/reference.h"
#include "simd/backends.h"

namespace meshsieve::forest {

class RuleBook {
 public:
  virtual ~RuleBook() = default;
  virtual Truth truth(const PacketKey& key, int32_t number) const = 0;
  // numbers[i] becomes the answer of a packet that `numbers[i]` matches, or may match where the rule is not certain;
  // kNoRule becomes kNoMatch.
  virtual void answer(int32_t* numbers, size_t n) const = 0;
  // The answer of a packet that reaches `number` and cannot be decided there.
  virtual RuleResult undecided(int32_t number) const = 0;
  // Every rule in turn.
  virtual RuleResult scan(const PacketKey& key) const = 0;
};

// The trees of one family of packets.
struct Table {
  Boxes boxes;  // the dimensions; without entries
  TableArray<Node> nodes;
  TableArray<uint8_t> blocks;
  View view{};
  uint64_t worst_case_steps = 0;

  Table() = default;
  explicit Table(Trees trees);
  void point_view();  // after boxes, nodes or blocks have changed or moved
  size_t bytes() const;

  template <class Archive>
  void visit(Archive& a) {
    a("boxes", boxes)("nodes", nodes)("blocks", blocks)("worst_case_steps", worst_case_steps)("n_trees", view.n_trees);
    a("bound_shift", view.bound_shift);
    for (int t = 0; t < kMaxTrees; ++t) a("root", view.root[t])("first_rule", view.first_rule[t]);
  }
};

// The fields that any rule names, and what follows for packets that lack some.
struct FieldUse {
  uint32_t used = 0;  // ip_ver aside
  uint32_t needs_ip = 0;
  bool names_version = false;
  std::array<uint32_t, 4> group_fields{};

  void add(const Match& match);
};

class Forest {
 public:
  std::array<Table, kFamilies> tables;
  FieldUse fields;
  const simd::Backend* backend = nullptr;

  RuleResult first_match(const PacketKey& key, const RuleBook& book) const;
  void first_match_batch(const KeyColumns& keys, const RuleBook& book, RuleResult* out) const;
  EngineStats stats() const;

 private:
  // Where a packet is looked up.
  struct Route {
    Family family = kV4;
    bool scan = false;      // neither IPv4, nor IPv6, nor plainly without IP: every rule in turn
    uint32_t absent = 0;    // byte g = 0xff: it cannot have the fields of group g
    uint32_t unknown = 0;   // fields that it may have and that are not seen
  };
  Route route_of(uint32_t present, uint32_t version, uint32_t proto) const;
  void look_up(const Table& table, const KeyColumns& keys, const RuleBook& book, size_t first, const size_t* index,
               const uint32_t* absent, size_t n, RuleResult* out) const;
  RuleResult first_match_unknown(const Route& route, const PacketKey& key, const RuleBook& book) const;
};

}  // namespace meshsieve::forest
