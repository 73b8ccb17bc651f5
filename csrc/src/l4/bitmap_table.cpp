#include "l4/bitmap_table.h"

#include <algorithm>
#include <string>

#include "l4/budget.h"
#include "meshsieve/errors.h"

namespace meshsieve {
namespace {

constexpr uint32_t kWordsWithoutSummary = 32;  // 2,048 rules
constexpr double kMostFull = 0.9;               // share of chunks with bits from which on a summary is not worth its line
static_assert(kFieldCount <= kMaxBitmapDims, "at most one dimension a field");

}  // namespace

BitmapTable::BitmapTable(std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end,
                         const CompileOptions& options)
    : backend_(simd::backend_named(options.backend)),
      front_(*rules, begin, end, backend_),
      verdicts_(rules, begin, end) {
  const auto n_rules = static_cast<uint32_t>(end - begin);
  view_.words = std::max(1u, (n_rules + 511) / 512) * 8;
  view_.n_dims = static_cast<uint32_t>(front_.dimensions().size());

  size_t n_classes = 0;
  for (const classes::Dimension& dimension : front_.dimensions()) n_classes += dimension.n_classes;
  const size_t bytes = n_classes * view_.words * sizeof(uint64_t) + front_.bytes();
  if (bytes > most_bytes(options, *rules, n_rules))
    throw CompileError("bitmaps of " + std::to_string(n_classes) + " classes x " + std::to_string(n_rules) +
                       " rules take " + std::to_string(bytes) + " bytes, the budget is " +
                       std::to_string(most_bytes(options, *rules, n_rules)));

  for (uint32_t d = 0; d < view_.n_dims; ++d) {
    const classes::Dimension& dimension = front_.dimensions()[d];
    rows_.emplace_back(size_t{dimension.n_classes} * view_.words);
    classes::fill_rule_bits(dimension, view_.words, rows_[d].data());
    view_.rows[d] = rows_[d].data();
  }
  if (view_.words > kWordsWithoutSummary) summarize();
  front_.forget_lists();
}

void BitmapTable::summarize() {
  view_.chunk_words = (view_.words / 8 + 63) / 64 * 8;  // at most 64 chunks
  const uint32_t n_chunks = (view_.words + view_.chunk_words - 1) / view_.chunk_words;
  view_.all_chunks = ~uint64_t{0} >> (64 - n_chunks);
  for (uint32_t d = 0; d < view_.n_dims; ++d) {
    const uint32_t n_classes = front_.dimensions()[d].n_classes;
    TableArray<uint64_t> summary(n_classes);
    size_t full = 0;
    for (uint32_t c = 0; c < n_classes; ++c) {
      for (uint32_t w = 0; w < view_.words; ++w)
        if (rows_[d][size_t{c} * view_.words + w] != 0) summary[c] |= uint64_t{1} << w / view_.chunk_words;
      full += static_cast<size_t>(__builtin_popcountll(summary[c]));
    }
    const bool tells = static_cast<double>(full) < kMostFull * n_chunks * n_classes;
    summary_.push_back(tells ? std::move(summary) : TableArray<uint64_t>());
    view_.summary[d] = tells ? summary_[d].data() : nullptr;
  }
}

RuleResult BitmapTable::first_match(const PacketKey& key) const {
  RuleResult result;
  first_match_batch(classes::columns_of(key), &result);
  return result;
}

void BitmapTable::first_match_batch(const KeyColumns& keys, RuleResult* out) const {
  classes::ClassChunk chunk;
  for (size_t first = 0; first < keys.n; first += classes::kChunk) {
    const size_t n = std::min(classes::kChunk, keys.n - first);
    front_.classify(keys, first, n, chunk);
    if (view_.n_dims != 0) {
      backend_.first_common_bit(view_, chunk.dimension, n, out + first);
    } else {  // no rule constrains anything
      std::fill(out + first, out + first + n, verdicts_.n_rules() != 0 ? 0 : kNoMatch);
    }
    verdicts_.finish(keys, first, n, chunk.unknown, out + first);
  }
}

EngineStats BitmapTable::stats() const {
  EngineStats stats{front_.bytes() + verdicts_.bytes(), front_.worst_case_steps()};
  for (const auto& rows : rows_) stats.bytes += rows.bytes();
  for (const auto& summary : summary_) stats.bytes += summary.bytes();
  stats.worst_case_steps += uint64_t{view_.n_dims} * (view_.words / 8 + (view_.chunk_words != 0)) + 1;
  return stats;
}

std::unique_ptr<EngineTable> build_bitmap(std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end,
                                          const CompileOptions& options) {
  return std::make_unique<BitmapTable>(std::move(rules), begin, end, options);
}

}  // namespace meshsieve
