#include "l4/sparse_table.h"

#include <algorithm>
#include <limits>
#include <map>
#include <string>

#include "l4/budget.h"
#include "meshsieve/errors.h"
#include "saved/archive.h"

namespace meshsieve {
namespace {

using classes::Dimension;
using classes::Lists;
using classes::RuleBits;

constexpr size_t kWholeClasses = 8192;     // classes from which an address axis is cut into two parts
constexpr size_t kBlockRules = 64;         // rules that leave the same dimensions free, from which they are a block
constexpr size_t kMaxLeaves = 65'535;      // counts of leaves have 16 bits
constexpr uint32_t kSampledRows = 512;     // of each part of a dimension
constexpr double kMostLeaves = 500;        // expected of a look-up that finds nothing: some microseconds
constexpr size_t kLeavesAWord = 64 / kLeafBits;

uint32_t rank_words_of(uint32_t top_words) { return top_words / 4; }

// Bits in blocks of rules that leave the same dimensions free, the largest block last; blocks are whole leaves.
struct Order {
  std::vector<uint32_t> place;          // rule -> bit
  std::vector<int32_t> rule_of, least;  // sparse_views.h
  uint32_t top_words = 0;

  explicit Order(const std::vector<uint32_t>& free_dimensions) : place(free_dimensions.size()) {
    std::map<uint32_t, std::vector<uint32_t>> by_mask;
    for (uint32_t r = 0; r < free_dimensions.size(); ++r) by_mask[free_dimensions[r]].push_back(r);
    std::vector<std::vector<uint32_t>> blocks(1);
    for (auto& [mask, rules] : by_mask) {
      if (rules.size() >= kBlockRules) blocks.push_back(std::move(rules));
      else blocks.front().insert(blocks.front().end(), rules.begin(), rules.end());
    }
    std::sort(blocks.front().begin(), blocks.front().end());
    std::sort(blocks.begin(), blocks.end(), [](const auto& x, const auto& y) { return x.size() < y.size(); });
    for (const std::vector<uint32_t>& rules : blocks) {
      for (const uint32_t r : rules) {
        place[r] = static_cast<uint32_t>(rule_of.size());
        rule_of.push_back(static_cast<int32_t>(r));
      }
      rule_of.resize((rule_of.size() + kLeafBits - 1) / kLeafBits * kLeafBits, kNoRule);
    }
    const size_t leaves = rule_of.size() / kLeafBits;
    if (leaves > kMaxLeaves)
      throw CompileError("sparse rows hold " + std::to_string(kMaxLeaves * kLeafBits) + " rules, not " +
                         std::to_string(place.size()));
    top_words = static_cast<uint32_t>((leaves + 64 * kTopBlock - 1) / (64 * kTopBlock)) * kTopBlock;
    rule_of.resize(size_t{top_words} * 64 * kLeafBits, kNoRule);
    least.resize(size_t{top_words} * 64, kNoRule);
    int32_t so_far = kNoRule;
    for (size_t leaf = least.size(); leaf-- > 0;) {
      for (uint32_t b = 0; b < kLeafBits; ++b) so_far = std::min(so_far, rule_of[leaf * kLeafBits + b]);
      least[leaf] = so_far;
    }
    std::replace(rule_of.begin(), rule_of.end(), kNoRule, 0);  // bits that no row has
  }

 private:
  static constexpr int32_t kNoRule = std::numeric_limits<int32_t>::max();
};

// Rule -> dimensions that it leaves free, a bit each: what class 0 matches, which is in no set.
std::vector<uint32_t> free_dimensions_of(const std::vector<Dimension>& dimensions, size_t n_rules) {
  std::vector<uint32_t> free(n_rules);
  std::vector<uint64_t> bits((n_rules + 63) / 64);
  for (size_t d = 0; d < dimensions.size(); ++d) {
    std::fill(bits.begin(), bits.end(), 0);
    RuleBits(dimensions[d], static_cast<uint32_t>(bits.size())).fill(dimensions[d].rows, classes::kNoSet, bits.data());
    for (size_t r = 0; r < n_rules; ++r) free[r] |= static_cast<uint32_t>(bits[r / 64] >> r % 64 & 1) << d;
  }
  return free;
}

// The rows of one dimension, one at a time.
class DimensionRows {
 public:
  DimensionRows(const Dimension& dimension, const Order& order)
      : dimension_(dimension),
        top_words_(order.top_words),
        n_words_(order.top_words * kLeafBits),
        bits_(dimension, n_words_, &order.place),
        free_(n_words_),
        row_(n_words_) {
    bits_.fill(dimension.rows, classes::kNoSet, free_.data());
  }

  // Calls on_leaf(leaf, bits) for each leaf of a row that has more than the free rules.
  template <class OnLeaf>
  void leaves(const Lists& rows, uint32_t list, const OnLeaf& on_leaf) {
    std::fill(row_.begin(), row_.end(), 0);
    bits_.fill(rows, list, row_.data());
    for (size_t w = 0; w < n_words_; ++w) {
      const uint64_t more = row_[w] & ~free_[w];
      if (more == 0) continue;
      for (size_t q = 0; q < kLeavesAWord; ++q)
        if (static_cast<uint8_t>(more >> q * kLeafBits) != 0)
          on_leaf(w * kLeavesAWord + q, static_cast<uint8_t>(row_[w] >> q * kLeafBits));
    }
  }

  // Leaf -> how probable it is that a class has it; adds to *bytes what all rows take, both from a sample of rows.
  std::vector<double> sampled(double* bytes) {
    std::vector<double> absent(size_t{top_words_} * 64, 1.0);
    for (const Lists* rows : {&dimension_.rows, &dimension_.narrow_rows}) {
      std::vector<uint32_t> seen(absent.size());
      size_t stored = 0;
      const uint32_t n = std::min(rows->size(), kSampledRows);
      for (uint32_t i = 0; i < n; ++i)
        leaves(*rows, static_cast<uint32_t>(uint64_t{rows->size()} * i / n), [&](size_t leaf, uint8_t) {
          ++seen[leaf];
          ++stored;
        });
      if (n == 0) continue;
      for (size_t leaf = 0; leaf < seen.size(); ++leaf) absent[leaf] *= 1.0 - static_cast<double>(seen[leaf]) / n;
      const double a_row = 8.0 * (top_words_ + rank_words_of(top_words_) + 0.5) + static_cast<double>(stored) / n;
      *bytes += a_row * rows->size();
    }
    for (size_t leaf = 0; leaf < absent.size(); ++leaf)
      absent[leaf] = free_leaf(leaf) != 0 ? 1.0 : 1.0 - absent[leaf];
    return absent;
  }

  // Appends the rows of all lists to `words`, and tells where each begins.
  TableArray<uint32_t> store(const Lists& rows, std::vector<uint64_t>& words, size_t most_words) {
    TableArray<uint32_t> at(rows.size());
    std::vector<uint16_t> before(top_words_);
    std::vector<uint8_t> stored;
    for (uint32_t list = 0; list < rows.size(); ++list) {
      const size_t begin = words.size(), leaves_at = begin + top_words_ + rank_words_of(top_words_);
      at[list] = static_cast<uint32_t>(begin);
      words.resize(leaves_at);
      stored.clear();
      leaves(rows, list, [&](size_t leaf, uint8_t bits) {
        words[begin + leaf / 64] |= uint64_t{1} << leaf % 64;
        stored.push_back(bits);
      });
      uint16_t so_far = 0;
      for (uint32_t t = 0; t < top_words_; ++t) {
        before[t] = so_far;
        so_far = static_cast<uint16_t>(so_far + __builtin_popcountll(words[begin + t]));
      }
      std::memcpy(&words[begin + top_words_], before.data(), before.size() * sizeof(uint16_t));
      words.resize(leaves_at + stored.size() / kLeavesAWord + 1);
      if (words.size() > most_words)
        throw CompileError("sparse rows exceed the budget of " + std::to_string(8 * most_words) + " bytes");
      std::copy(stored.begin(), stored.end(), reinterpret_cast<uint8_t*>(&words[leaves_at]));
    }
    return at;
  }

  uint8_t free_leaf(size_t leaf) const {
    return static_cast<uint8_t>(free_[leaf / kLeavesAWord] >> leaf % kLeavesAWord * kLeafBits);
  }

 private:
  const Dimension& dimension_;
  const uint32_t top_words_, n_words_;
  RuleBits bits_;
  std::vector<uint64_t> free_, row_;
};

}  // namespace

SparseTable::SparseTable(std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end,
                         const CompileOptions& options)
    : backend_(simd::backend_named(options.backend)),
      front_(*rules, begin, end, backend_, kWholeClasses),
      verdicts_(rules, begin, end) {
  const std::vector<Dimension>& dimensions = front_.dimensions();
  const size_t n_rules = verdicts_.n_rules(), budget = most_bytes(options, *rules, n_rules);
  const Order order(free_dimensions_of(dimensions, n_rules));
  rule_of_ = TableArray<int32_t>::copy_of(order.rule_of);
  least_ = TableArray<int32_t>::copy_of(order.least);

  std::vector<DimensionRows> every;
  every.reserve(dimensions.size());
  for (const Dimension& dimension : dimensions) every.emplace_back(dimension, order);
  double bytes = static_cast<double>(front_.bytes() + rule_of_.bytes() + least_.bytes());
  std::vector<double> together(order.least.size(), 1.0);
  for (DimensionRows& rows : every) {
    const std::vector<double> present = rows.sampled(&bytes);
    for (size_t leaf = 0; leaf < present.size(); ++leaf) together[leaf] *= present[leaf];
  }
  double expected = 0;
  for (const double p : together) expected += p;
  if (expected > kMostLeaves)
    throw CompileError("a look-up would compare " + std::to_string(static_cast<int>(expected)) +
                       " groups of 8 rules: too few of them are empty");
  if (bytes > static_cast<double>(budget))
    throw CompileError("sparse rows of " + std::to_string(n_rules) + " rules take about " +
                       std::to_string(static_cast<size_t>(bytes)) + " bytes, the budget is " + std::to_string(budget));

  for (size_t d = 0; d < dimensions.size(); ++d) {
    std::vector<uint64_t> words;
    const size_t most_words = std::min<size_t>(budget / 8, std::numeric_limits<uint32_t>::max());
    Rows rows;
    rows.wide_at = every[d].store(dimensions[d].rows, words, most_words);
    if (dimensions[d].narrow_rows.size() != 0)
      rows.narrow_at = every[d].store(dimensions[d].narrow_rows, words, most_words);
    else
      rows.narrow_at = TableArray<uint32_t>(1);  // never looked at
    rows.words = TableArray<uint64_t>::copy_of(words);
    rows.free = TableArray<uint8_t>(least_.size());
    rows.free_top = TableArray<uint64_t>(order.top_words);
    for (size_t leaf = 0; leaf < rows.free.size(); ++leaf) {
      rows.free[leaf] = every[d].free_leaf(leaf);
      rows.free_top[leaf / 64] |= uint64_t{rows.free[leaf] != 0} << leaf % 64;
    }
    rows_.push_back(std::move(rows));
  }
  front_.forget_lists();
  point_at_rows();
  if (const size_t taken = stats().bytes; taken > budget)
    throw CompileError("sparse rows take " + std::to_string(taken) + " bytes, the budget is " + std::to_string(budget));
}

SparseTable::SparseTable(saved::Reader& reader, std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end,
                         const simd::Backend& backend)
    : backend_(backend), front_(backend), verdicts_(std::move(rules), begin, end) {
  visit(reader);
  front_.check();
  check();
  point_at_rows();
}

void SparseTable::save(saved::Writer& writer) const { const_cast<SparseTable*>(this)->visit(writer); }

void SparseTable::point_at_rows() {
  view_.n_dims = static_cast<uint32_t>(rows_.size());
  view_.top_words = static_cast<uint32_t>(least_.size() / 64);
  view_.rule_of = rule_of_.data();
  view_.least = least_.data();
  for (size_t d = 0; d < rows_.size(); ++d) {
    const Rows& rows = rows_[d];
    view_.rows[d] = {rows.words.data(),           rows.wide_at.data(), rows.narrow_at.data(),
                     front_.dimensions()[d].narrow_bits, rows.free.data(), rows.free_top.data()};
  }
}

// A loaded table: every class has its rows, every row lies within the words and counts its leaves, and every bit that may
// be set is one of a rule.
void SparseTable::check() const {
  using saved::require;
  const size_t n_leaves = least_.size(), top_words = n_leaves / 64;
  require(n_leaves % (64 * kTopBlock) == 0 && n_leaves <= kMaxLeaves + 1, "another number of leaves");
  require(rule_of_.size() == n_leaves * kLeafBits, "bits of other leaves");
  for (size_t b = 0; b < rule_of_.size(); ++b)
    require(rule_of_[b] >= 0 && static_cast<size_t>(rule_of_[b]) < verdicts_.n_rules(), "a rule that is not there");
  require(rows_.size() == front_.dimensions().size(), "sparse rows of other dimensions");
  const size_t rank_words = rank_words_of(static_cast<uint32_t>(top_words));
  const auto check_rows = [&](const Rows& rows, const TableArray<uint32_t>& at, size_t n_rows) {
    require(at.size() == n_rows, "sparse rows of other classes");
    for (size_t r = 0; r < n_rows; ++r) {
      require(at[r] <= rows.words.size() && top_words + rank_words <= rows.words.size() - at[r],
              "a sparse row that is not there");
      const uint64_t* row = rows.words.data() + at[r];
      size_t leaves = 0;
      for (size_t t = 0; t < top_words; ++t) {
        uint16_t before;
        std::memcpy(&before, reinterpret_cast<const uint16_t*>(row + top_words) + t, sizeof before);
        require(before == leaves, "leaves of a sparse row counted wrongly");
        leaves += static_cast<size_t>(__builtin_popcountll(row[t]));
      }
      const size_t left = rows.words.size() - at[r] - top_words - rank_words;
      require(leaves / kLeavesAWord < left, "leaves of a sparse row that are not there");
    }
  };
  for (size_t d = 0; d < rows_.size(); ++d) {
    require(rows_[d].free.size() == n_leaves && rows_[d].free_top.size() == top_words, "free rules of other leaves");
    check_rows(rows_[d], rows_[d].wide_at, front_.dimensions()[d].n_classes);
    check_rows(rows_[d], rows_[d].narrow_at, front_.dimensions()[d].n_narrow);
  }
}

RuleResult SparseTable::first_match(const PacketKey& key) const {
  RuleResult result;
  first_match_batch(classes::columns_of(key), &result);
  return result;
}

void SparseTable::first_match_batch(const KeyColumns& keys, RuleResult* out) const {
  classes::look_up(front_, verdicts_, keys, out, [&](const classes::ClassChunk& chunk, size_t n, RuleResult* results) {
    backend_.first_sparse_bit(view_, chunk.dimension, n, results);
  });
}

EngineStats SparseTable::stats() const {
  EngineStats stats{front_.bytes() + verdicts_.bytes() + rule_of_.bytes() + least_.bytes(), front_.worst_case_steps()};
  for (size_t d = 0; d < rows_.size(); ++d) {
    stats.bytes += rows_[d].bytes();
    const uint64_t parts = view_.rows[d].narrow_bits != 0 ? 2 : 1;
    stats.worst_case_steps += parts * (view_.top_words + least_.size()) + 1;
  }
  return stats;
}

std::unique_ptr<EngineTable> build_sparse(std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end,
                                          const CompileOptions& options) {
  return std::make_unique<SparseTable>(std::move(rules), begin, end, options);
}

std::unique_ptr<EngineTable> load_sparse(saved::Reader& reader, std::shared_ptr<const RuleSet> rules, int32_t begin,
                                         int32_t end, const simd::Backend& backend) {
  return std::make_unique<SparseTable>(reader, std::move(rules), begin, end, backend);
}

}  // namespace meshsieve
