#include "l4/bitmap_table.h"

#include <algorithm>
#include <string>

#include "l4/budget.h"
#include "meshsieve/errors.h"
#include "saved/archive.h"

namespace meshsieve {
namespace {

constexpr uint32_t kWordsWithoutSummary = 32;  // 2,048 rules
constexpr double kMostFull = 0.9;               // share of chunks with bits from which on a summary does not pay
static_assert(kFieldCount <= kMaxBitmapDims, "at most one dimension a field");

// Lines of a chunk, of which there are at most 64; a row is whole lines and whole chunks.
uint32_t chunk_lines_of(uint32_t lines) { return 8 * lines <= kWordsWithoutSummary ? 1 : (lines + 63) / 64; }
uint32_t words_of(int32_t begin, int32_t end) {
  const uint32_t lines = std::max(1u, (static_cast<uint32_t>(end - begin) + 511) / 512);
  const uint32_t chunk = chunk_lines_of(lines);
  return 8 * ((lines + chunk - 1) / chunk * chunk);
}

// How many bytes the rows of an address axis may take before they are cut into two parts: beyond, they would leave the
// near caches in any case.
constexpr size_t kMostWholeBytes = size_t{1} << 20;

}  // namespace

BitmapTable::BitmapTable(std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end,
                         const CompileOptions& options)
    : backend_(simd::backend_named(options.backend)),
      front_(*rules, begin, end, backend_, kMostWholeBytes / (words_of(begin, end) * sizeof(uint64_t))),
      verdicts_(rules, begin, end) {
  const auto n_rules = static_cast<uint32_t>(end - begin);
  shape_rows();

  size_t n_rows = 0;
  for (const classes::Dimension& dimension : front_.dimensions()) n_rows += dimension.n_classes + dimension.n_narrow;
  const size_t bytes = n_rows * view_.words * sizeof(uint64_t) + front_.bytes();
  if (bytes > most_bytes(options, *rules, n_rules))
    throw CompileError("bitmaps of " + std::to_string(n_rows) + " classes x " + std::to_string(n_rules) +
                       " rules take " + std::to_string(bytes) + " bytes, the budget is " +
                       std::to_string(most_bytes(options, *rules, n_rules)));

  for (uint32_t d = 0; d < view_.n_dims; ++d) {
    const classes::Dimension& dimension = front_.dimensions()[d];
    Rows rows{TableArray<uint64_t>(size_t{dimension.n_classes} * view_.words),
              TableArray<uint64_t>(size_t{dimension.n_narrow} * view_.words), {}, {}};
    classes::RuleBits bits(dimension, view_.words);
    for (uint32_t c = 0; c < dimension.n_classes; ++c)
      bits.fill(dimension.rows, c, rows.wide.data() + size_t{c} * view_.words);
    if (dimension.n_narrow > 1)
      for (uint32_t c = 0; c < dimension.n_narrow; ++c)
        bits.fill(dimension.narrow_rows, c, rows.narrow.data() + size_t{c} * view_.words);
    if (view_.chunk_words != 0) summarize(rows);
    rows_.push_back(std::move(rows));
  }
  front_.forget_lists();
  point_at_rows();
}

BitmapTable::BitmapTable(saved::Reader& reader, std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end,
                         const simd::Backend& backend)
    : backend_(backend), front_(backend), verdicts_(std::move(rules), begin, end) {
  visit(reader);
  front_.check();
  shape_rows();
  check();
  point_at_rows();
}

void BitmapTable::save(saved::Writer& writer) const { const_cast<BitmapTable*>(this)->visit(writer); }

void BitmapTable::shape_rows() {
  view_.n_dims = static_cast<uint32_t>(front_.dimensions().size());
  view_.words = words_of(0, static_cast<int32_t>(verdicts_.n_rules()));
  if (view_.words <= kWordsWithoutSummary) return;
  view_.chunk_words = 8 * chunk_lines_of(view_.words / 8);
  view_.all_chunks = ~uint64_t{0} >> (64 - view_.words / view_.chunk_words);
}

void BitmapTable::point_at_rows() {
  for (size_t d = 0; d < rows_.size(); ++d) {
    const Rows& rows = rows_[d];
    const uint32_t narrow_bits = front_.dimensions()[d].narrow_bits;
    view_.rows[d] = {rows.wide.data(), rows.narrow.data(), narrow_bits, rows.wide_summary.data(),
                     rows.narrow_summary.data()};
    view_.in_parts |= narrow_bits != 0;
    view_.has_summary |= rows.wide_summary.size() != 0;
  }
}

// A loaded table: every class has its rows, and no bit stands for a rule that is not there.
void BitmapTable::check() const {
  using saved::require;
  const size_t words = view_.words, n_rules = verdicts_.n_rules();
  const auto check_rows = [&](const TableArray<uint64_t>& rows, const TableArray<uint64_t>& summary, size_t n_rows) {
    require(rows.size() == n_rows * words, "bitmaps of other classes");
    require(summary.size() == 0 || summary.size() == n_rows, "bitmap summaries of other classes");
    for (size_t r = 0; r < n_rows; ++r) {
      const uint64_t* row = rows.data() + r * words;
      uint64_t behind = n_rules % 64 != 0 ? row[n_rules / 64] >> n_rules % 64 : 0;
      for (size_t w = (n_rules + 63) / 64; w < words; ++w) behind |= row[w];
      require(behind == 0, "a bit of a rule that is not there");
    }
  };
  require(rows_.size() == view_.n_dims, "bitmaps of other dimensions");
  for (size_t d = 0; d < rows_.size(); ++d) {
    const classes::Dimension& dimension = front_.dimensions()[d];
    require((rows_[d].wide_summary.size() == 0) == (rows_[d].narrow_summary.size() == 0), "half a bitmap summary");
    check_rows(rows_[d].wide, rows_[d].wide_summary, dimension.n_classes);
    check_rows(rows_[d].narrow, rows_[d].narrow_summary, dimension.n_narrow);
  }
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
  classes::look_up(front_, verdicts_, keys, out, [&](const classes::ClassChunk& chunk, size_t n, RuleResult* results) {
    backend_.first_common_bit(view_, chunk.dimension, n, results);
  });
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

std::unique_ptr<EngineTable> load_bitmap(saved::Reader& reader, std::shared_ptr<const RuleSet> rules, int32_t begin,
                                         int32_t end, const simd::Backend& backend) {
  return std::make_unique<BitmapTable>(reader, std::move(rules), begin, end, backend);
}

}  // namespace meshsieve
