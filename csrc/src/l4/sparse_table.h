// The sparse engine: bitmaps of rules of which only the parts with bits are kept.
//
// What    As in the bitmap engine, each class of a dimension (classes_table.h) has a row with a bit a rule. A row is
//         stored as leaves of 8 rules; which leaves it has is said by a bit each, its top. A look-up ANDs the tops of its
//         rows, then the few leaves that all of them have, and the first bit left is the first rule that matches.
// Order   Rules that do not look at a dimension would give every row of it a bit, and so fill every leaf. Bits therefore
//         have an order of their own: rules are put together that leave the same dimensions free, in blocks; what a block
//         leaves free is kept once and not in the rows. Within a block rules stay in order, and `least` says which rules
//         can still come, so that a look-up stops when none of them comes before the one it has.
// Why     Policies of many groups: an address is in a few of thousands, so its row has a bit in a hundred. Rows of the
//         bitmap engine grow with groups x rules, these with the rules that name the groups of an address: a third to a
//         quarter of the memory, at up to twice the time. It serves where whole bitmaps exceed the budget.
// Cost    Look-up: rules / 512 words a row, then about thirty steps a leaf; expected leaves are known from samples of
//         the classes. Memory: a byte a leaf of a row, and rules / 51 bytes a row. Build: a pass over all bits.
// Limits  524,280 rules (a count of leaves has 16 bits); more leaves to look at than kMostLeaves are a CompileError, and
//         so are tables beyond the budget (budget.h).
// Example rules {0: A -> B, 1: any -> C, 2: D -> E} in blocks {1} and {0, 2}. A packet A -> C: the row of A has the leaf of
//         {0, 2}, and {1} is free; the row of C has the leaf of {1} only, and in it the bit of rule 1.
// Source  Hierarchical bitmaps with counts: Jacobson, Space-efficient static trees and graphs, FOCS 1989.
#pragma once

#include <memory>
#include <vector>

#include "l4/classes_table.h"
#include "l4/sparse_views.h"
#include "meshsieve/classifier.h"

namespace meshsieve {

class SparseTable final : public EngineTable {
 public:
  SparseTable(std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end, const CompileOptions& options);
  SparseTable(saved::Reader& reader, std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end,
              const simd::Backend& backend);
  RuleResult first_match(const PacketKey& key) const override;
  void first_match_batch(const KeyColumns& keys, RuleResult* out) const override;
  EngineStats stats() const override;
  const char* engine() const override { return "sparse"; }
  void save(saved::Writer& writer) const override;

 private:
  struct Rows {  // of one dimension
    TableArray<uint64_t> words, free_top;
    TableArray<uint32_t> wide_at, narrow_at;
    TableArray<uint8_t> free;
    size_t bytes() const {
      return words.bytes() + free_top.bytes() + wide_at.bytes() + narrow_at.bytes() + free.bytes();
    }

    template <class Archive>
    void visit(Archive& a) {
      a("words", words)("free_top", free_top)("wide_at", wide_at)("narrow_at", narrow_at)("free", free);
    }
  };
  template <class Archive>
  void visit(Archive& a) {
    a("front", front_)("rule_of", rule_of_)("least", least_)("rows", rows_);
  }
  void point_at_rows();
  void check() const;

  const simd::Backend& backend_;
  classes::ClassFront front_;
  classes::Verdicts verdicts_;
  TableArray<int32_t> rule_of_, least_;
  std::vector<Rows> rows_;  // one a dimension
  SparseView view_{};
};

std::unique_ptr<EngineTable> build_sparse(std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end,
                                          const CompileOptions& options);
std::unique_ptr<EngineTable> load_sparse(saved::Reader& reader, std::shared_ptr<const RuleSet> rules, int32_t begin,
                                         int32_t end, const simd::Backend& backend);

}  // namespace meshsieve
