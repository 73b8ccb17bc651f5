// A cross-product table as it was loaded: from every class to a winner, each index in range.
#include <algorithm>

#include "l4/cross_table.h"
#include "saved/archive.h"

namespace meshsieve::cross {
namespace {

using saved::require;

template <class Id>
void check_nodes(const TableArray<Id>& blocks, const TableArray<Id>& cells, uint64_t last_row, uint64_t last_column,
                 size_t n_nodes) {
  for (size_t i = 0; i < cells.size(); ++i) require(cells[i] < n_nodes, "a node that is not there");
  if (blocks.size() == 0) return require(last_row + last_column < cells.size(), "a cell that is not there");
  require((last_row + last_column) / kCellBlock < blocks.size(), "a block of cells that is not there");
  for (size_t i = 0; i < blocks.size(); ++i)
    require((uint64_t{blocks[i]} + 1) * kCellBlock <= cells.size(), "a cell that is not there");
}

// The largest of the numbers t, t + stride, ...
uint64_t last_position(const TableArray<uint32_t>& positions, size_t t, size_t stride) {
  uint64_t last = 0;
  for (size_t i = t; i < positions.size(); i += stride) last = std::max<uint64_t>(last, positions[i]);
  return last;
}

void check_cells(const Cells& cells, uint64_t row, uint64_t column, size_t n_nodes) {
  const bool narrow = cells.narrow.size() != 0;
  require(narrow ? cells.wide.size() + cells.wide_blocks.size() == 0 : cells.narrow_blocks.size() == 0,
          "cells of two kinds");
  // As the look-up computes them, in 32 bits: positions must not wrap.
  require(row + column <= 0xffffffff && std::max(cells.narrow.size(), cells.wide.size()) <= uint64_t{1} << 32,
          "cells beyond 32 bits");
  if (narrow) check_nodes(cells.narrow_blocks, cells.narrow, row, column, n_nodes);
  else check_nodes(cells.wide_blocks, cells.wide, row, column, n_nodes);
}

// The largest of each `n` numbers.
template <class Number>
std::vector<uint32_t> largest(const TableArray<Number>& numbers, size_t n) {
  std::vector<uint32_t> most(numbers.size() / n, 0);
  for (size_t i = 0; i < most.size() * n; ++i) most[i / n] = std::max<uint32_t>(most[i / n], numbers[i]);
  return most;
}

}  // namespace

void CrossTable::check() const {
  front_.check();
  const auto classes_of = [&](int d) -> size_t {
    require(d >= -1 && d < static_cast<int>(front_.dimensions().size()), "an axis that is not there");
    if (d < 0) return 1;
    require(front_.dimensions()[static_cast<size_t>(d)].narrow_bits == 0, "an axis of two parts");
    return front_.dimensions()[static_cast<size_t>(d)].n_classes;
  };
  const size_t n_sources = classes_of(axes_.source), n_destinations = classes_of(axes_.destination);
  const size_t n_p = classes_of(axes_.p), n_q = classes_of(axes_.q);
  require(cells_.size() <= kMostTables, "too many tables");
  const size_t apart = stride(cells_.size());
  require(rows_.size() == n_sources * apart && columns_.size() == n_destinations * apart,
          "rows or columns of other classes");
  for (size_t t = 0; t < cells_.size(); ++t)
    check_cells(cells_[t], last_position(rows_, t, apart), last_position(columns_, t, apart), nodes_.size());
  require(winners_.size() == 0 || wide_winners_.size() == 0, "winners of two widths");

  const bool in_blocks = p_entries_.size() != 0;
  const std::vector<uint32_t> most_of_pattern = largest(p_patterns_, in_blocks ? kBlock : n_p);
  const std::vector<uint32_t> q_most = largest(q_maps_, n_q);
  const size_t row = in_blocks ? (n_p + kBlock - 1) / kBlock : n_p;  // what a P map takes where nodes count
  std::vector<uint32_t> p_most = most_of_pattern;
  if (in_blocks) {
    p_most.assign(p_entries_.size() / row, 0);
    for (size_t i = 0; i < p_most.size() * row; ++i) {
      const uint32_t pattern = p_entries_[i] >> kLocalBits;
      require(pattern < most_of_pattern.size(), "a pattern that is not there");
      p_most[i / row] = std::max(p_most[i / row], p_entries_[i] % kMostLocal + most_of_pattern[pattern]);
    }
  }
  const auto n_rules = static_cast<uint32_t>(verdicts_.n_rules());
  for (size_t i = 0; i < winners_.size(); ++i)
    require(winners_[i] < n_rules || winners_[i] == kNarrowNone, "a rule that is not there");
  for (size_t i = 0; i < wide_winners_.size(); ++i)
    require(wide_winners_[i] < n_rules || wide_winners_[i] == kNoRule, "a rule that is not there");
  const size_t n_winners = std::max(winners_.size(), wide_winners_.size());
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const Node node = nodes_[i];
    require(node.p_map % row == 0 && node.p_map / row < p_most.size(), "a map that is not there");
    require(node.q_map % n_q == 0 && node.q_map / n_q < q_most.size(), "a map that is not there");
    // As the look-up computes it, in 32 bits: it must not wrap.
    const uint64_t last = node.base + uint64_t{p_most[node.p_map / row]} * node.width + q_most[node.q_map / n_q];
    require(last < n_winners && last <= 0xffffffff, "a winner that is not there");
  }
}

CrossTable::CrossTable(saved::Reader& reader, std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end,
                       const simd::Backend& backend)
    : front_(backend), verdicts_(std::move(rules), begin, end) {
  visit(reader);
  check();
}

void CrossTable::save(saved::Writer& writer) const { const_cast<CrossTable*>(this)->visit(writer); }

std::unique_ptr<EngineTable> load_cross(saved::Reader& reader, std::shared_ptr<const RuleSet> rules, int32_t begin,
                                        int32_t end, const simd::Backend& backend) {
  return std::make_unique<CrossTable>(reader, std::move(rules), begin, end, backend);
}

}  // namespace meshsieve::cross
