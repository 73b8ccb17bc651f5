// Look-ups in cross-product tables: table by table, each load of 64 packets before the next load of any.
#include <algorithm>
#include <cstring>
#include <type_traits>

#include "l4/cross_table.h"

namespace meshsieve::cross {
namespace {

using classes::kChunk;

// The loops over a chunk are unrolled and store only what the next stage needs: a look-up is bound by instructions while
// tables lie near, and by the misses that are in flight together where they do not.

// The positions of all tables at once: those of a class are neighbours. A vector of them is added as one.
template <size_t kStride>
struct Positions {
  using Vector [[gnu::vector_size(kStride * sizeof(uint32_t))]] = uint32_t;
};
template <size_t kStride>
void add_positions(const uint32_t* rows, const uint32_t* columns, const uint32_t* source, const uint32_t* destination,
                   size_t n, uint32_t* __restrict at) {
  using Vector = typename Positions<kStride>::Vector;
#pragma GCC unroll 4
  for (size_t i = 0; i < n; ++i) {
    Vector row, column;
    std::memcpy(&row, rows + size_t{source[i]} * kStride, sizeof(Vector));
    std::memcpy(&column, columns + size_t{destination[i]} * kStride, sizeof(Vector));
    row += column;
    std::memcpy(at + i * kStride, &row, sizeof(Vector));
  }
}

template <size_t kStride, class Id>
void find_nodes(const TableArray<Id>& blocks, const TableArray<Id>& cells, const uint32_t* at, size_t n,
                uint32_t* __restrict node) {
  const Id *block = blocks.data(), *cell = cells.data();
  if (blocks.size() == 0) {
#pragma GCC unroll 4
    for (size_t i = 0; i < n; ++i) node[i] = cell[at[i * kStride]];
    return;
  }
#pragma GCC unroll 4
  for (size_t i = 0; i < n; ++i) {
    const uint32_t position = at[i * kStride];
    node[i] = cell[uint32_t{block[position / kCellBlock]} * kCellBlock + position % kCellBlock];
  }
}

// The P classes of a chunk: where maps are in blocks, as block and place in it.
struct Chunk {
  const uint32_t *p, *p_block, *p_place, *q;
  size_t n;
};

struct Maps {
  const uint32_t* p_entries;
  const uint8_t* p_patterns;
  const uint16_t* q_maps;
};

// In passes, so that the misses of each are in flight for many packets at once.
template <bool kBlocks, bool kHasQ, class Winner>
void find_winners(const Node* nodes, const Maps& maps, const Winner* winners, const uint32_t* node, const Chunk& in,
                  Winner* __restrict winner) {
  uint32_t at[kChunk], entry[kChunk], width[kChunk];
#pragma GCC unroll 4
  for (size_t i = 0; i < in.n; ++i) {
    const Node& found = nodes[node[i]];
    at[i] = found.base + (kHasQ ? maps.q_maps[found.q_map + in.q[i]] : 0);
    if (kBlocks) {
      entry[i] = found.p_map + in.p_block[i];
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
      const uint32_t p = found % kMostLocal + maps.p_patterns[(found >> kLocalBits) * kBlock + in.p_place[i]];
      at[i] += kHasQ ? p * width[i] : p;
    }
  }
#pragma GCC unroll 4
  for (size_t i = 0; i < in.n; ++i) winner[i] = winners[at[i]];
}

// Calls use(std::true_type or std::false_type).
template <class Use>
void with(bool value, const Use& use) {
  if (value) use(std::true_type{});
  else use(std::false_type{});
}

}  // namespace

template <size_t kStride, class Winner>
void CrossTable::look_up_in(const TableArray<Winner>& winners, const classes::ClassChunk& chunk, size_t n,
                            RuleResult* out) const {
  static constexpr uint32_t kZero[kChunk] = {};
  const auto axis = [&](int d) { return d < 0 ? kZero : chunk.dimension[d]; };
  uint32_t p_block[kChunk], p_place[kChunk];
  const Chunk in{axis(axes_.p), p_block, p_place, axis(axes_.q), n};
  if (p_entries_.size() != 0) {
    for (size_t i = 0; i < n; ++i) p_block[i] = in.p[i] / kBlock;
    for (size_t i = 0; i < n; ++i) p_place[i] = in.p[i] % kBlock;
  }
  const Maps maps{p_entries_.data(), p_patterns_.data(), q_maps_.data()};
  uint32_t at[kChunk * kStride], node[kChunk];
  add_positions<kStride>(rows_.data(), columns_.data(), axis(axes_.source), axis(axes_.destination), n, at);
  Winner first[kChunk], other[kChunk];
  for (size_t t = 0; t < cells_.size(); ++t) {
    const Cells& cells = cells_[t];
    if (cells.narrow.size() != 0) find_nodes<kStride>(cells.narrow_blocks, cells.narrow, at + t, n, node);
    else find_nodes<kStride>(cells.wide_blocks, cells.wide, at + t, n, node);
    with(p_entries_.size() != 0, [&](auto blocks) {
      with(axes_.q >= 0, [&](auto has_q) {
        find_winners<blocks, has_q>(nodes_.data(), maps, winners.data(), node, in, t == 0 ? first : other);
      });
    });
    if (t != 0)
      for (size_t i = 0; i < n; ++i) first[i] = std::min(first[i], other[i]);
  }
  constexpr auto kNone = static_cast<Winner>(kNoRule);
  for (size_t i = 0; i < n; ++i) out[i] = first[i] == kNone ? kNoMatch : static_cast<RuleResult>(first[i]);
}

void CrossTable::look_up(const classes::ClassChunk& chunk, size_t n, RuleResult* out) const {
  const auto with_stride = [&](const auto& winners) {
    switch (stride(cells_.size())) {
      case 0: return static_cast<void>(std::fill(out, out + n, kNoMatch));
      case 1: return look_up_in<1>(winners, chunk, n, out);
      case 2: return look_up_in<2>(winners, chunk, n, out);
      default: return look_up_in<4>(winners, chunk, n, out);
    }
  };
  if (wide_winners_.size() != 0) with_stride(wide_winners_);
  else with_stride(winners_);
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
  stats.bytes += rows_.bytes() + columns_.bytes();
  for (const Cells& cells : cells_) stats.bytes += cells.bytes();
  stats.worst_case_steps += 9 * cells_.size();  // row, column, block, cell, node, entry, pattern, Q map, winner
  return stats;
}

}  // namespace meshsieve::cross
