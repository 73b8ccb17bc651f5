// Look-ups in cross-product tables: table by table, each load of 64 packets before the next load of any.
#include <algorithm>
#include <type_traits>

#include "l4/cross_table.h"

namespace meshsieve::cross {
namespace {

using classes::kChunk;

// The loops over a chunk are unrolled and store only what the next stage needs: a look-up is bound by instructions while
// tables lie near, and by the misses that are in flight together where they do not.
template <class Id>
void find_nodes(const Cells& table, const TableArray<Id>& blocks, const TableArray<Id>& cells, const uint32_t* source,
                const uint32_t* destination, size_t n, uint32_t* __restrict node) {
  const uint32_t *row = table.row.data(), *column = table.column.data();
  const Id *block = blocks.data(), *cell = cells.data();
  if (blocks.size() == 0) {
#pragma GCC unroll 4
    for (size_t i = 0; i < n; ++i) node[i] = cell[row[source[i]] + column[destination[i]]];
    return;
  }
#pragma GCC unroll 4
  for (size_t i = 0; i < n; ++i) {
    const uint32_t at = column[destination[i]];
    node[i] = cell[block[row[source[i]] + at / kCellBlock] * kCellBlock + at % kCellBlock];
  }
}

struct Chunk {
  const uint32_t *p, *q;  // classes
  size_t n;
};

struct Maps {
  const uint32_t* p_entries;
  const uint8_t* p_patterns;
  const uint16_t* q_maps;
};

// In passes, so that the misses of each are in flight for many packets at once.
template <bool kFirst, bool kBlocks, bool kHasQ, class Winner>
void keep_first(const Node* nodes, const Maps& maps, const Winner* winners, const uint32_t* node, const Chunk& in,
                uint32_t* __restrict winner) {
  uint32_t at[kChunk], entry[kChunk], width[kChunk];
#pragma GCC unroll 4
  for (size_t i = 0; i < in.n; ++i) {
    const Node found = nodes[node[i]];
    at[i] = found.base + (kHasQ ? maps.q_maps[found.q_map + in.q[i]] : 0);
    if (kBlocks) {
      entry[i] = found.p_map + in.p[i] / kBlock;
      __builtin_prefetch(&maps.p_entries[entry[i]]);
      if (kHasQ) width[i] = found.width;
    } else {
      const uint32_t p = maps.p_patterns[found.p_map + in.p[i]];
      at[i] += kHasQ ? p * found.width : p;
    }
  }
  if (kBlocks) {
#pragma GCC unroll 4
    for (size_t i = 0; i < in.n; ++i) {
      const uint32_t found = maps.p_entries[entry[i]];
      const uint32_t p = found % kMostLocal + maps.p_patterns[(found >> kLocalBits) * kBlock + in.p[i] % kBlock];
      at[i] += kHasQ ? p * width[i] : p;
      __builtin_prefetch(&winners[at[i]]);
    }
  }
#pragma GCC unroll 4
  for (size_t i = 0; i < in.n; ++i) {
    const uint32_t rule = winners[at[i]];
    winner[i] = kFirst ? rule : std::min(winner[i], rule);
  }
}

// Calls use(std::true_type or std::false_type).
template <class Use>
void with(bool value, const Use& use) {
  if (value) use(std::true_type{});
  else use(std::false_type{});
}

}  // namespace

void CrossTable::look_up(const classes::ClassChunk& chunk, size_t n, RuleResult* out) const {
  static constexpr uint32_t kZero[kChunk] = {};
  const auto axis = [&](int d) { return d < 0 ? kZero : chunk.dimension[d]; };
  const uint32_t* source = axis(axes_.source);
  const uint32_t* destination = axis(axes_.destination);
  const Chunk in{axis(axes_.p), axis(axes_.q), n};
  const Maps maps{p_entries_.data(), p_patterns_.data(), q_maps_.data()};
  auto* winner = reinterpret_cast<uint32_t*>(out);
  if (cells_.empty()) std::fill(winner, winner + n, kNoRule);
  for (size_t t = 0; t < cells_.size(); ++t) {
    const Cells& cells = cells_[t];
    uint32_t node[kChunk];
    if (cells.narrow.size() != 0) find_nodes(cells, cells.narrow_blocks, cells.narrow, source, destination, n, node);
    else find_nodes(cells, cells.wide_blocks, cells.wide, source, destination, n, node);
    const auto keep = [&](const auto* winners) {
      with(t == 0, [&](auto first) {
        with(p_entries_.size() != 0, [&](auto blocks) {
          with(axes_.q >= 0, [&](auto has_q) {
            keep_first<first, blocks, has_q>(nodes_.data(), maps, winners, node, in, winner);
          });
        });
      });
    };
    if (wide_winners_.size() != 0) {
      keep(wide_winners_.data());
    } else {
      keep(winners_.data());
    }
  }
  if (winners_.size() != 0)
    for (size_t i = 0; i < n; ++i) winner[i] = winner[i] == kNarrowNone ? kNoRule : winner[i];
}

RuleResult CrossTable::first_match(const PacketKey& key) const {
  RuleResult result;
  first_match_batch(classes::columns_of(key), &result);
  return result;
}

void CrossTable::first_match_batch(const KeyColumns& keys, RuleResult* out) const {
  classes::look_up(front_, verdicts_, keys, out, [&](const classes::ClassChunk& chunk, size_t n, RuleResult* results) {
    look_up(chunk, n, results);
  });
}

EngineStats CrossTable::stats() const {
  EngineStats stats{front_.bytes() + verdicts_.bytes(), front_.worst_case_steps() + 1};
  stats.bytes += nodes_.bytes() + winners_.bytes() + wide_winners_.bytes();
  stats.bytes += p_entries_.bytes() + p_patterns_.bytes() + q_maps_.bytes();
  for (const Cells& cells : cells_) stats.bytes += cells.bytes();
  stats.worst_case_steps += 9 * cells_.size();  // row, column, block, cell, node, entry, pattern, Q map, winner
  return stats;
}

}  // namespace meshsieve::cross
