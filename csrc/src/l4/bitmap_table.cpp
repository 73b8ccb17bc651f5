#include "l4/bitmap_table.h"

#include <algorithm>
#include <string>

#include "l4/budget.h"
#include "meshsieve/errors.h"

namespace meshsieve {
namespace {

constexpr uint32_t kWordsWithoutSummary = 32;  // 2,048 rules
constexpr double kMostFull = 0.9;               // share of chunks with bits from which on a summary does not pay
static_assert(kFieldCount <= kMaxBitmapDims, "at most one dimension a field");

uint32_t words_of(int32_t begin, int32_t end) {
  const uint32_t lines = std::max(1u, (static_cast<uint32_t>(end - begin) + 511) / 512);
  return 8 * lines;
}

// How many bytes the rows of an address axis may take before they are cut into two parts. Where all words are read, two
// parts cost little and keep rows in the caches; where chunks are walked, they cost about a quarter more time.
size_t most_whole_bytes(int32_t begin, int32_t end) {
  return words_of(begin, end) <= kWordsWithoutSummary ? size_t{1} << 20 : size_t{64} << 20;
}

}  // namespace

BitmapTable::BitmapTable(std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end,
                         const CompileOptions& options)
    : backend_(simd::backend_named(options.backend)),
      front_(*rules, begin, end, backend_, most_whole_bytes(begin, end) / (words_of(begin, end) * sizeof(uint64_t))),
      verdicts_(rules, begin, end) {
  const auto n_rules = static_cast<uint32_t>(end - begin);
  view_.words = words_of(begin, end);
  view_.n_dims = static_cast<uint32_t>(front_.dimensions().size());

  size_t n_rows = 0;
  for (const classes::Dimension& dimension : front_.dimensions()) n_rows += dimension.n_classes + dimension.n_narrow;
  const size_t bytes = n_rows * view_.words * sizeof(uint64_t) + front_.bytes();
  if (bytes > most_bytes(options, *rules, n_rules))
    throw CompileError("bitmaps of " + std::to_string(n_rows) + " classes x " + std::to_string(n_rules) +
                       " rules take " + std::to_string(bytes) + " bytes, the budget is " +
                       std::to_string(most_bytes(options, *rules, n_rules)));

  if (view_.words > kWordsWithoutSummary) {
    view_.chunk_words = (view_.words / 8 + 63) / 64 * 8;  // at most 64 chunks
    view_.all_chunks = ~uint64_t{0} >> (64 - (view_.words + view_.chunk_words - 1) / view_.chunk_words);
  }
  for (uint32_t d = 0; d < view_.n_dims; ++d) {
    const classes::Dimension& dimension = front_.dimensions()[d];
    Rows rows{TableArray<uint64_t>(size_t{dimension.n_classes} * view_.words),
              TableArray<uint64_t>(size_t{dimension.n_narrow} * view_.words), {}, {}};
    classes::fill_rule_bits(dimension, dimension.rows, view_.words, rows.wide.data());
    if (dimension.n_narrow > 1)
      classes::fill_rule_bits(dimension, dimension.narrow_rows, view_.words, rows.narrow.data());
    if (view_.chunk_words != 0) summarize(rows);
    view_.rows[d] = {rows.wide.data(), rows.narrow.data(), dimension.narrow_bits, rows.wide_summary.data(),
                     rows.narrow_summary.data()};
    view_.in_parts |= dimension.narrow_bits != 0;
    rows_.push_back(std::move(rows));
  }
  front_.forget_lists();
}

// Fills the summaries in, unless nearly all chunks of the wide part have bits.
void BitmapTable::summarize(Rows& rows) const {
  const auto summary_of = [&](const TableArray<uint64_t>& bits) {
    TableArray<uint64_t> summary(bits.size() / view_.words);
    for (size_t row = 0; row < summary.size(); ++row)
      for (uint32_t w = 0; w < view_.words; ++w)
        if (bits[row * view_.words + w] != 0) summary[row] |= uint64_t{1} << w / view_.chunk_words;
    return summary;
  };
  rows.wide_summary = summary_of(rows.wide);
  size_t full = 0;
  for (size_t row = 0; row < rows.wide_summary.size(); ++row)
    full += static_cast<size_t>(__builtin_popcountll(rows.wide_summary[row]));
  const size_t chunks = rows.wide_summary.size() * static_cast<size_t>(__builtin_popcountll(view_.all_chunks));
  const bool pays = static_cast<double>(full) < kMostFull * static_cast<double>(chunks);
  if (pays) rows.narrow_summary = summary_of(rows.narrow);
  else rows.wide_summary = {};
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
  for (const Rows& rows : rows_)
    stats.bytes += rows.wide.bytes() + rows.narrow.bytes() + rows.wide_summary.bytes() + rows.narrow_summary.bytes();
  const uint64_t parts = view_.in_parts ? 2 : 1;
  stats.worst_case_steps += parts * view_.n_dims * (view_.words / 8 + (view_.chunk_words != 0)) + 1;
  return stats;
}

std::unique_ptr<EngineTable> build_bitmap(std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end,
                                          const CompileOptions& options) {
  return std::make_unique<BitmapTable>(std::move(rules), begin, end, options);
}

}  // namespace meshsieve
