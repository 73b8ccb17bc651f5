// Look-ups in cross-product tables: table by table, each load of 64 packets before the next load of any.
#include <algorithm>

#include "l4/cross_table.h"

namespace meshsieve::cross {
namespace {

using classes::kChunk;

struct Positions {
  uint32_t cell[kChunk];
};

template <class Id>
void nodes_dense(const TableArray<Id>& cells, const Positions& at, size_t n, uint32_t* node) {
  for (size_t i = 0; i < n; ++i) node[i] = cells[at.cell[i]];
}

void nodes_hashed(const Cells& cells, const Positions& at, size_t n, uint32_t* node) {
  const CellHash hash = cells.hash;
  for (size_t i = 0; i < n; ++i) {
    const uint32_t key = at.cell[i];
    const Slot first = cells.slots[hash.first(key)], second = cells.slots[hash.second(key)];
    const uint32_t is_first = -static_cast<uint32_t>(first.key == key);
    const uint32_t is_second = -static_cast<uint32_t>(second.key == key);
    node[i] = (first.node & is_first) | (second.node & is_second);
  }
}

}  // namespace

void CrossTable::look_up(const classes::ClassChunk& chunk, size_t n, RuleResult* out) const {
  static constexpr uint32_t kZero[kChunk] = {};
  const auto axis = [&](int d) { return d < 0 ? kZero : chunk.dimension[d]; };
  const uint32_t* source = axis(axes_.source);
  const uint32_t* destination = axis(axes_.destination);
  const uint32_t* service = axis(axes_.service);
  const size_t n_tables = cells_.size();
  uint32_t winner[kChunk];
  std::fill(winner, winner + n, kNoRule);
  for (size_t t = 0; t < n_tables; ++t) {
    Positions at;
    for (size_t i = 0; i < n; ++i) {
      at.cell[i] = row_[source[i] * n_tables + t] + column_[destination[i] * n_tables + t];
    }
    uint32_t node[kChunk];
    const Cells& cells = cells_[t];
    if (cells.narrow.size() != 0) {
      nodes_dense(cells.narrow, at, n, node);
    } else if (cells.wide.size() != 0) {
      nodes_dense(cells.wide, at, n, node);
    } else {
      nodes_hashed(cells, at, n, node);
    }
    for (size_t i = 0; i < n; ++i) {
      const Node found = nodes_[node[i]];
      const uint32_t block = patterns_[found.pattern + service[i] / kPatternBlock];
      const uint32_t rule = winners_[found.base + blocks_[block + service[i] % kPatternBlock]];
      winner[i] = std::min(winner[i], rule);
    }
  }
  for (size_t i = 0; i < n; ++i) out[i] = winner[i] == kNoRule ? kNoMatch : static_cast<RuleResult>(winner[i]);
}

RuleResult CrossTable::first_match(const PacketKey& key) const {
  RuleResult result;
  first_match_batch(classes::columns_of(key), &result);
  return result;
}

void CrossTable::first_match_batch(const KeyColumns& keys, RuleResult* out) const {
  classes::ClassChunk chunk;
  for (size_t first = 0; first < keys.n; first += kChunk) {
    const size_t n = std::min(kChunk, keys.n - first);
    front_.classify(keys, first, n, chunk);
    look_up(chunk, n, out + first);
    verdicts_.finish(keys, first, n, chunk.unknown, out + first);
  }
}

EngineStats CrossTable::stats() const {
  EngineStats stats{front_.bytes() + verdicts_.bytes(), front_.worst_case_steps() + 1};
  stats.bytes += row_.bytes() + column_.bytes() + nodes_.bytes() + patterns_.bytes() + winners_.bytes() + blocks_.bytes();
  for (const Cells& cells : cells_) stats.bytes += cells.bytes();
  stats.worst_case_steps += 8 * cells_.size();  // row, column, two slots, node, pattern, block, winner
  return stats;
}

}  // namespace meshsieve::cross
