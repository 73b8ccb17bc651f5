// The class front end: turns the fields of a packet into a few small class ids, for the engines that index by class.
//
// What    Two values of a field are equivalent when the same sets of the policy contain them; a *class* is one such
//         equivalence. A FieldMap finds the class of a value. Fields whose rules need them together (protocol, ports,
//         whatever services name) are joined by tables: (class, class, ...) -> class. What is left is a few *dimensions*,
//         each with one class id a packet; per dimension and class the engine knows which rules do not fail there.
// Why     Classes depend on sets, not on rules: a group used by 500 rules is swept once, and nothing is multiplied out.
// Cost    Build: sort of the interval bounds of the distinct sets, plus one list a class. Look-up: one cache line a level
//         of an address tree (usually one or two levels), two loads a small field, one load a joint table; no branches.
// Unknown A field that a packet lacks is in class 0, where only rules match that leave the field free, if it is not
//         applicable; and in the class `unknown`, where no rule fails, if it is merely unseen. The latter packets are
//         marked, and the first rule that does not fail is then judged exactly by the reference (rejudge).
// Limits  65,535 classes a joint table and kMaxJointEntries entries; 2^30 nodes and classes elsewhere; membership lists
//         of kMaxMembers entries in all. More is a CompileError that names the figures.
// Source  Equivalence classes: Gupta and McKeown, Packet classification on multiple fields (RFC), SIGCOMM 1999.
//         One-line search nodes: Kim et al., FAST, SIGMOD 2010.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "l4/classes_views.h"
#include "l4/table_memory.h"
#include "meshsieve/fields.h"
#include "meshsieve/rule_set.h"
#include "simd/backends.h"

namespace meshsieve::classes {

// Class 0 of every field and dimension: no set contains the value, or the packet has no such field.
inline constexpr uint32_t kNoSet = 0;

// --- Building -------------------------------------------------------------------------------------------------------

// One boundary of a swept axis: values from `start` up to the next boundary have class `id`.
struct Boundary {
  U128 start;
  uint32_t id;
};

// Lists of numbers, one list a key, in two arrays.
struct Lists {
  std::vector<uint32_t> begin = {0};
  std::vector<uint32_t> items;

  uint32_t size() const { return static_cast<uint32_t>(begin.size() - 1); }
  const uint32_t* from(uint32_t key) const { return items.data() + begin[key]; }
  const uint32_t* to(uint32_t key) const { return items.data() + begin[key + 1]; }
  void close() { begin.push_back(static_cast<uint32_t>(items.size())); }
};

// A field's sweep: the axis of each family cut into classes, and which of the swept sets contain each class. Swept in two
// parts (classes_sweep.cpp), a class is wide part << narrow_bits | narrow part, and its sets are those of both.
struct FieldSweep {
  std::vector<Boundary> v4, v6;  // sorted; the first starts at 0. v6 only for addresses
  Lists members;                 // wide part -> positions in the swept list of sets; in one part: class -> positions
  Lists narrow_members;          // narrow part -> positions; in one part: one empty list
  uint32_t narrow_bits = 0;
  uint32_t unknown = 0;          // the class that is in every set
};
// An address axis of more than about `most_classes` classes is swept in two parts, if that makes far fewer rows.
inline constexpr size_t kAllClasses = ~size_t{0};
FieldSweep sweep(const std::vector<const ValueSet*>& sets, const FieldInfo& field, size_t most_classes);

// A class in two parts, as positions in lists of sets.
struct PartPair {
  uint32_t wide, narrow;
  friend bool operator==(const PartPair&, const PartPair&) = default;
};
// Makes narrow parts of the pairs equal where the sets of their classes stay the same (classes_absorb.cpp).
void absorb_narrow_parts(const Lists& wide, Lists& narrow, std::vector<PartPair>& parts);

// --- Look-up tables -------------------------------------------------------------------------------------------------

// Largest ids that a loaded map was found to give: whole, and their bits under `narrow_mask`.
struct LargestIds {
  uint32_t narrow_mask = 0;
  uint32_t whole = 0, narrow = 0;
  void meet(uint32_t id) {
    whole = std::max(whole, id);
    narrow = std::max(narrow, id & narrow_mask);
  }
};

// 32-bit values -> class: blocks by the top bits, each with as many slots as keep the trees below them shallow (policies
// crowd in a few prefixes), then nodes (classes_views.h).
class Map32 {
 public:
  Map32() = default;
  explicit Map32(const std::vector<Boundary>& boundaries);
  Search32View view() const {
    return {blocks_.data(), {narrow_slots_.data(), narrow_nodes_.data()}, {wide_slots_.data(), wide_nodes_.data()}, levels_};
  }
  size_t bytes() const {
    return blocks_.bytes() + narrow_slots_.bytes() + narrow_nodes_.bytes() + wide_slots_.bytes() + wide_nodes_.bytes();
  }
  uint32_t levels() const { return levels_; }

  template <class Archive>
  void visit(Archive& a) {
    a("blocks", blocks_)("narrow_slots", narrow_slots_)("narrow_nodes", narrow_nodes_);
    a("wide_slots", wide_slots_)("wide_nodes", wide_nodes_)("levels", levels_);
  }
  void check(LargestIds& ids) const;  // of a loaded map; throws TableError (classes_check.cpp)

 private:
  void store(const std::vector<uint32_t>& slots, const std::vector<Node32<uint32_t>>& nodes);

  TableArray<uint32_t> blocks_;
  TableArray<uint16_t> narrow_slots_;
  TableArray<Node32<uint16_t>> narrow_nodes_;
  TableArray<uint32_t> wide_slots_;
  TableArray<Node32<uint32_t>> wide_nodes_;
  uint32_t levels_ = 0;
};

// 128-bit values -> class: slots and nodes over the high word, then, where that does not decide, nodes over the low word.
class Map128 {
 public:
  Map128() : slots_(2) { slots_[0] = slots_[1] = kTerminal; }  // all is class 0
  explicit Map128(const std::vector<Boundary>& boundaries);
  Search128View view() const {
    return {nodes_.data(), slots_.data(), first_, slots_.size() - 1, shift_, high_levels_, low_levels_};
  }
  size_t bytes() const { return nodes_.bytes() + slots_.bytes(); }
  uint32_t levels() const { return high_levels_ + low_levels_; }

  template <class Archive>
  void visit(Archive& a) {
    a("nodes", nodes_)("slots", slots_)("first", first_)("shift", shift_);
    a("high_levels", high_levels_)("low_levels", low_levels_);
  }
  void check(LargestIds& ids) const;

 private:
  TableArray<Node64> nodes_;
  TableArray<uint32_t> slots_;
  uint64_t first_ = 0;
  uint32_t shift_ = 0, high_levels_ = 0, low_levels_ = 0;
};

// 16-bit values -> class: pages of 256 values, equal pages stored once.
class PagedMap {
 public:
  PagedMap() = default;
  explicit PagedMap(const std::vector<Boundary>& boundaries);
  uint32_t operator[](uint32_t value) const { return at(static_cast<uint8_t>(value >> 8), static_cast<uint8_t>(value)); }
  uint32_t at(uint8_t high, uint8_t low) const { return pages_[page_[high] + low]; }
  size_t bytes() const { return sizeof page_ + pages_.bytes(); }

  template <class Archive>
  void visit(Archive& a) {
    a("page", page_)("pages", pages_);
  }
  void check(LargestIds& ids) const;

 private:
  std::array<uint32_t, 256> page_{};  // offset into pages_
  TableArray<uint32_t> pages_;
};

// Its ids are class * scale, where scale is the stride of the join that the field is part of, else 1.
struct FieldMap {
  int field = 0;
  uint32_t scale = 1;
  uint32_t unknown = 0;  // scaled as well
  Map32 v4;  // addresses, and numbers of more than 16 bits
  Map128 v6;
  PagedMap small;  // numbers of at most 16 bits
  bool is_address() const { return kFields[field].kind == FieldKind::address; }
  bool is_small() const { return !is_address() && kFields[field].bits <= 16; }
  size_t bytes() const;
  uint32_t levels() const;  // table reads of the dearest value

  template <class Archive>
  void visit(Archive& a) {
    a("field", field)("scale", scale)("unknown", unknown)("v4", v4)("v6", v6)("small", small);
  }
  void check(LargestIds& ids) const;
};

// Joins classes: the sum of the inputs indexes `table`. The classes of joined fields come multiplied with their strides
// already (FieldMap::scale), that of the previous join is multiplied here.
struct Join {
  std::vector<int> maps;         // positions in ClassFront's field maps
  uint32_t previous_stride = 0;  // of the result of the previous join; 0: there is none
  TableArray<uint16_t> table;

  template <class Archive>
  void visit(Archive& a) {
    a("maps", maps)("previous_stride", previous_stride)("table", table);
  }
};

struct Dimension {
  std::vector<Join> joins;  // empty: the dimension is field map `map` alone
  int map = -1;
  bool is_joint = false;    // of the fields that are joined, though one field alone needs no table. While building
  uint32_t n_classes = 0;  // of two parts: of the wide one
  uint32_t n_narrow = 1, narrow_bits = 0;  // narrow parts; a class is wide part << narrow_bits | narrow part
  Lists rows;            // class -> rows (below) that do not fail in it; rows count from 0, row 0 constrains nothing
  Lists narrow_rows;     // narrow part -> further rows that do not fail
  Lists rules_by_common;  // row -> rules, relative to the segment, whose common part has this row
  Lists rules_by_alternative;  // row -> rules that have an alternative with this row; only where joins use alternatives
  std::vector<uint32_t> rules_with_alternatives;  // sorted
  std::vector<uint32_t> row_of_alternative;  // of the alternatives of all rules, in order; of a joint dimension

  template <class Archive>
  void visit(Archive& a) {  // without the lists, which only building needs
    a("joins", joins)("map", map)("n_classes", n_classes)("n_narrow", n_narrow)("narrow_bits", narrow_bits);
  }
};

// One bit a packet of a chunk.
struct PacketMask {
  std::array<uint64_t, kChunk / 64> word{};
  bool any() const {
    uint64_t bits = 0;
    for (const uint64_t w : word) bits |= w;
    return bits != 0;
  }
  void set(size_t i) { word[i / 64] |= uint64_t{1} << i % 64; }
  template <class Do>
  void for_each(Do&& todo) const {
    for (size_t w = 0; w < word.size(); ++w)
      for (uint64_t bits = word[w]; bits != 0; bits &= bits - 1) todo(w * 64 + static_cast<size_t>(__builtin_ctzll(bits)));
  }
};

// The classes of up to kChunk packets.
struct ClassChunk {
  alignas(64) uint32_t field[kFieldCount][kChunk];
  alignas(64) uint32_t joined[kFieldCount][kChunk];
  const uint32_t* dimension[kFieldCount];
  PacketMask unknown;  // packets that lack a field that they may have
};

// How fields that are joined become dimensions: one, or two where an engine can do with that: what services name first
// (protocol, destination port, ICMP type, ...), and the rest (source port, ...). Two are far fewer classes, and an
// alternative fails where it fails in either.
enum class Joint { whole, in_two };

class ClassFront {
 public:
  explicit ClassFront(const simd::Backend& backend) : backend_(&backend) {}  // for loading
  // Rules [begin, end). most_classes: for engines that can do with two parts a dimension (FieldSweep). Throws CompileError
  // where a limit above is met.
  ClassFront(const RuleSet& rules, int32_t begin, int32_t end, const simd::Backend& backend,
             size_t most_classes = kAllClasses, Joint joint = Joint::whole);

  const std::vector<Dimension>& dimensions() const { return dimensions_; }
  // Drops what only building needs (row and rule lists).
  void forget_lists();
  // Classes of packets [first, first + n), n <= kChunk.
  void classify(const KeyColumns& keys, size_t first, size_t n, ClassChunk& chunk) const;
  size_t bytes() const;
  uint64_t worst_case_steps() const;

  template <class Archive>
  void visit(Archive& a) {
    a("fields_used", fields_used_)("maps", maps_)("dimensions", dimensions_);
  }
  void check() const;  // of a loaded front: every class of a dimension is one of its classes; throws TableError

 private:
  void classify_field(const FieldMap& map, const KeyColumns& keys, size_t first, size_t n, uint32_t* out) const;
  bool join_small(const Join& join, const KeyColumns& keys, size_t first, size_t n, uint32_t* out) const;
  PacketMask packets_lacking(const KeyColumns& keys, size_t first, size_t n) const;
  void mark_missing(const KeyColumns& keys, size_t first, const PacketMask& lacking, ClassChunk& chunk) const;

  const simd::Backend* backend_;
  uint32_t fields_used_ = 0;
  std::vector<FieldMap> maps_;
  std::vector<Dimension> dimensions_;
};

// The rules that do not fail in a class, as bits.
class RuleBits {
 public:
  // place: rule -> its bit; the rules' own numbers where it is null. `dimension` must outlive this.
  RuleBits(const Dimension& dimension, uint32_t words, const std::vector<uint32_t>* place = nullptr);
  // Sets the bits of list `list` of `rows` (of dimension.rows or .narrow_rows), in words that are 0.
  void fill(const Lists& rows, uint32_t list, uint64_t* bits);

 private:
  struct Rules {  // row -> rules; as bits where there are many
    Lists lists;
    std::vector<std::vector<uint64_t>> dense;
    void add(uint32_t row, uint64_t* bits) const;
  };
  Rules rules_of(const Lists& rules, const std::vector<uint32_t>* place) const;

  uint32_t words_;
  Rules common_, alternative_;
  bool has_alternatives_;
  std::vector<uint64_t> unrestricted_, allowed_;  // rules without alternatives; scratch
};

// The key as columns of one packet, so that scalar and batch look-ups are one piece of code.
KeyColumns columns_of(const PacketKey& key);

// From the first rule that does not certainly fail on a packet to what the look-up answers.
class Verdicts {
 public:
  Verdicts(std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end);
  // results: n relative rule numbers or kNoMatch, of packets [first, first + n); rewritten in place.
  void finish(const KeyColumns& keys, size_t first, size_t n, const PacketMask& unknown, RuleResult* results) const;
  size_t n_rules() const { return result_.size() - 1; }
  size_t bytes() const { return result_.bytes(); }

 private:  // not saved: it follows from the rules
  std::shared_ptr<const RuleSet> rules_;
  TableArray<RuleResult> result_;  // by relative rule + 1: the rule, undecided where it is not certain; [0] is kNoMatch
  bool as_they_are_;  // results need no translation: every rule is certain, and numbers count from rule 0
};

// A batch, chunk by chunk: classes of the packets; find(chunk, n, results), which gives relative rule numbers or kNoMatch;
// then the answers. Where no rule constrains anything there are no dimensions, and nothing to find.
template <class Find>
void look_up(const ClassFront& front, const Verdicts& verdicts, const KeyColumns& keys, RuleResult* out, Find&& find) {
  ClassChunk chunk;
  for (size_t first = 0; first < keys.n; first += kChunk) {
    const size_t n = std::min(kChunk, keys.n - first);
    front.classify(keys, first, n, chunk);
    if (!front.dimensions().empty()) {
      find(chunk, n, out + first);
    } else {
      std::fill(out + first, out + first + n, verdicts.n_rules() != 0 ? 0 : kNoMatch);
    }
    verdicts.finish(keys, first, n, chunk.unknown, out + first);
  }
}

}  // namespace meshsieve::classes
