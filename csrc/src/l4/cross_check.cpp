// A cross-product table as it was loaded: from every class to a winner, each index in range.
#include <algorithm>

#include "l4/cross_table.h"
#include "saved/archive.h"

namespace meshsieve::cross {
namespace {

using saved::require;

void check_cells(const Cells& cells, size_t n_sources, size_t n_destinations, size_t n_nodes) {
  require(cells.row.size() == n_sources && cells.column.size() == n_destinations, "rows or columns of other classes");
  uint64_t row = 0, column = 0;
  for (size_t c = 0; c < n_sources; ++c) row = std::max<uint64_t>(row, cells.row[c]);
  for (size_t c = 0; c < n_destinations; ++c) column = std::max<uint64_t>(column, cells.column[c]);
  const uint64_t largest_position = row + column;
  const auto each_below = [n_nodes](const auto& array) {
    for (size_t i = 0; i < array.size(); ++i) require(array[i] < n_nodes, "a node that is not there");
  };
  const size_t dense = std::max(cells.narrow.size(), cells.wide.size());
  require((cells.narrow.size() != 0) + (cells.wide.size() != 0) + (cells.slots.size() != 0) == 1, "cells of two kinds");
  if (dense != 0) {
    require(largest_position < dense, "a cell that is not there");
    each_below(cells.narrow);
    each_below(cells.wide);
  } else {
    require(largest_position <= 0xffffffff, "a cell beyond 32 bits");
    require(cells.slots.size() == size_t{2} * cells.hash.n_half, "slots of another number");
    for (size_t i = 0; i < cells.slots.size(); ++i)
      require(cells.slots[i].node < n_nodes, "a node that is not there");
  }
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
  const size_t n_services = classes_of(axes_.service);
  for (const Cells& cells : cells_) check_cells(cells, n_sources, n_destinations, nodes_.size());
  require(blocks_.size() == 0 || wide_blocks_.size() == 0, "blocks of two widths");

  // The largest position that each block, then each pattern, then each node leads to.
  const bool wide = wide_blocks_.size() != 0;
  const size_t n_blocks = (wide ? wide_blocks_.size() : blocks_.size()) / kPatternBlock;
  std::vector<uint16_t> most_of_block(n_blocks, 0);
  for (size_t i = 0; i < n_blocks * kPatternBlock; ++i)
    most_of_block[i / kPatternBlock] =
        std::max<uint16_t>(most_of_block[i / kPatternBlock], wide ? wide_blocks_[i] : blocks_[i]);
  const size_t length = (n_services + kPatternBlock - 1) / kPatternBlock;
  std::vector<uint16_t> most_of_pattern(patterns_.size() / length, 0);
  for (size_t i = 0; i < most_of_pattern.size() * length; ++i) {
    require(patterns_[i] % kPatternBlock == 0 && patterns_[i] / kPatternBlock < most_of_block.size(),
            "a block of a pattern that is not there");
    most_of_pattern[i / length] = std::max(most_of_pattern[i / length], most_of_block[patterns_[i] / kPatternBlock]);
  }
  const auto n_rules = static_cast<uint32_t>(verdicts_.n_rules());
  for (size_t i = 0; i < winners_.size(); ++i)
    require(winners_[i] < n_rules || winners_[i] == kNoRule, "a rule that is not there");
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const Node node = nodes_[i];
    require(node.pattern % length == 0 && node.pattern / length < most_of_pattern.size(), "a pattern that is not there");
    require(node.base + uint64_t{most_of_pattern[node.pattern / length]} < winners_.size(), "a winner that is not there");
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
