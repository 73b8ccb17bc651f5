// The bitmap engine: one bit a rule, AND over the dimensions, first set bit.
//
// What    The class front end (classes_table.h) gives one class a dimension. Each class has a row of bits: bit r is
//         set where rule r does not fail on that dimension. The first bit set in all rows is the first that matches.
// Why     Nothing is multiplied, so it builds in about a millisecond a thousand rules and bears any overlap: the engine
//         for small sets, for groups (rows belong to classes of groups, not to rules), and for hard sets.
// Cost    Look-up: up to 2,048 rules every word of a row is read, without a data-dependent branch. Beyond, 64 packets
//         take steps of 1,024, then 2,048 rules together until each has found one; where rows have gaps, one summary word
//         a class names the chunks to read instead. Worst case all words: dimensions x rules / 64, twice with parts.
//         Memory: classes x rules / 8 bytes; of large groups, parts of classes (classes_sweep.cpp): two rows are ORed.
// Limits  The table must fit the budget (budget.h), which is known from class counts before it is built.
// Example rules {0: 10/8 -> any :80, 1: any -> any}; packet 10.1.2.3 :22: rows S = 11, D = 11, P = 10 (bit 1 left);
//         AND = bit 1, so rule 1.
// Source  Lakshman and Stiliadis, SIGCOMM 1998; summaries: Baboescu and Varghese, Aggregated bit vector, SIGCOMM 2001.
#pragma once

#include <memory>
#include <vector>

#include "l4/bitmap_views.h"
#include "l4/classes_table.h"
#include "meshsieve/classifier.h"

namespace meshsieve {

class BitmapTable final : public EngineTable {
 public:
  BitmapTable(std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end, const CompileOptions& options);
  BitmapTable(saved::Reader& reader, std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end,
              const simd::Backend& backend);
  RuleResult first_match(const PacketKey& key) const override;
  void first_match_batch(const KeyColumns& keys, RuleResult* out) const override;
  EngineStats stats() const override;
  const char* engine() const override { return "bitmap"; }
  void save(saved::Writer& writer) const override;

 private:
  struct Rows {  // of one dimension; the narrow part is one row of zeros where there is none
    TableArray<uint64_t> wide, narrow;
    TableArray<uint64_t> wide_summary, narrow_summary;

    template <class Archive>
    void visit(Archive& a) {
      a("wide", wide)("narrow", narrow)("wide_summary", wide_summary)("narrow_summary", narrow_summary);
    }
  };
  template <class Archive>
  void visit(Archive& a) {
    a("front", front_)("rows", rows_);
  }
  void shape_rows();
  void summarize(Rows& rows) const;
  void point_at_rows();
  void check() const;

  const simd::Backend& backend_;
  classes::ClassFront front_;
  classes::Verdicts verdicts_;
  std::vector<Rows> rows_;  // one a dimension
  BitmapView view_{};
};

std::unique_ptr<EngineTable> build_bitmap(std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end,
                                          const CompileOptions& options);
std::unique_ptr<EngineTable> load_bitmap(saved::Reader& reader, std::shared_ptr<const RuleSet> rules, int32_t begin,
                                         int32_t end, const simd::Backend& backend);

}  // namespace meshsieve
