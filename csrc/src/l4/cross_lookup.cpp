// Look-ups in cross-product tables: table by table, each load of 64 packets before the next load of any.
#include <algorithm>

#include "l4/cross_table.h"

namespace meshsieve::cross {
namespace {

using classes::kChunk;

// The loops over a chunk are unrolled and store only what the next stage needs: a look-up is bound by instructions while
// tables lie near, and by the misses that are in flight together where they do not.
template <class Id>
void nodes_dense(const Cells& table, const TableArray<Id>& cells, const uint32_t* source, const uint32_t* destination,
                 size_t n, uint32_t* __restrict node) {
  const uint32_t *row = table.row.data(), *column = table.column.data();
  const Id* cell = cells.data();
#pragma GCC unroll 4
  for (size_t i = 0; i < n; ++i) node[i] = cell[row[source[i]] + column[destination[i]]];
}

// Both slots are read; empty ones hold node 0, so the two candidates are combined without a branch.
void nodes_hashed(const Cells& table, const uint32_t* source, const uint32_t* destination, size_t n,
                  uint32_t* __restrict node) {
  const uint32_t *row = table.row.data(), *column = table.column.data();
  const Slot* slots = table.slots.data();
  const CellHash hash = table.hash;
#pragma GCC unroll 2
  for (size_t i = 0; i < n; ++i) {
    const uint32_t key = row[source[i]] + column[destination[i]];
    const Slot first = slots[hash.first(key)], second = slots[hash.second(key)];
    const auto mask = [key](const Slot& slot) { return 0u - static_cast<uint32_t>(slot.key == key); };
    node[i] = (first.node & mask(first)) | (second.node & mask(second));
  }
}

struct Winners {
  const Node* nodes;
  const uint32_t* patterns;
  const uint32_t* winners;
};

template <bool kFirst, class Position>
void keep_first(const Winners& in, const Position* blocks, const uint32_t* node, const uint32_t* service, size_t n,
                uint32_t* __restrict winner) {
#pragma GCC unroll 4
  for (size_t i = 0; i < n; ++i) {
    const Node found = in.nodes[node[i]];
    const uint32_t block = in.patterns[found.pattern + service[i] / kPatternBlock];
    const uint32_t rule = in.winners[found.base + blocks[block + service[i] % kPatternBlock]];
    winner[i] = kFirst ? rule : std::min(winner[i], rule);
  }
}

}  // namespace

void CrossTable::look_up(const classes::ClassChunk& chunk, size_t n, RuleResult* out) const {
  static constexpr uint32_t kZero[kChunk] = {};
  const auto axis = [&](int d) { return d < 0 ? kZero : chunk.dimension[d]; };
  const uint32_t* source = axis(axes_.source);
  const uint32_t* destination = axis(axes_.destination);
  const uint32_t* service = axis(axes_.service);
  const Winners in{nodes_.data(), patterns_.data(), winners_.data()};
  auto* winner = reinterpret_cast<uint32_t*>(out);
  if (cells_.empty()) std::fill(winner, winner + n, kNoRule);
  for (size_t t = 0; t < cells_.size(); ++t) {
    const Cells& cells = cells_[t];
    uint32_t node[kChunk];
    if (cells.narrow.size() != 0) {
      nodes_dense(cells, cells.narrow, source, destination, n, node);
    } else if (cells.wide.size() != 0) {
      nodes_dense(cells, cells.wide, source, destination, n, node);
    } else {
      nodes_hashed(cells, source, destination, n, node);
    }
    const auto keep = [&](const auto* blocks) {
      if (t == 0) {
        keep_first<true>(in, blocks, node, service, n, winner);
      } else {
        keep_first<false>(in, blocks, node, service, n, winner);
      }
    };
    if (wide_blocks_.size() != 0) {
      keep(wide_blocks_.data());
    } else {
      keep(blocks_.data());
    }
  }
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
  stats.bytes += nodes_.bytes() + patterns_.bytes() + winners_.bytes() + blocks_.bytes() + wide_blocks_.bytes();
  for (const Cells& cells : cells_) stats.bytes += cells.bytes();
  stats.worst_case_steps += 8 * cells_.size();  // row, column, two slots, node, pattern, block, winner
  return stats;
}

}  // namespace meshsieve::cross
