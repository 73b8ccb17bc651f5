// Kernels of the decision forest. Included once a backend (simd/), inside its namespace and target region.
//
// All packets of a chunk take their next step in turn, and the line that a packet needs next is fetched while the
// others step: a lookup costs bandwidth, not latency. Whether a packet goes on, has arrived at a leaf, or need not look
// into it, is told without branches, which nobody could predict: it stays in a list or drops out of it. Left out are
// trees and leaves that begin after the rule found already. A leaf of one block, as nearly all are, is compared and
// its first rule taken without a branch that depends on the packet.

// Bit i set: lane i fits the packet in every dimension.
template <int kN32, int kN16, int kN8>
static inline uint32_t fitting_lanes(const forest::View& view, const uint8_t* block, const uint32_t* value) {
  const int n32 = kN32 >= 0 ? kN32 : view.n32;
  const int n16 = kN16 >= 0 ? kN16 : view.n16;
  const int n8 = kN8 >= 0 ? kN8 : view.n8;
#if MESHSIEVE_LANES == 512
  __mmask8 fit = 0xf;
  for (int d = 0; d < n32; ++d, block += 32, value += forest::kChunk) {
    const __m128i low = _mm_load_si128(reinterpret_cast<const __m128i*>(block));
    const __m128i width = _mm_load_si128(reinterpret_cast<const __m128i*>(block + 16));
    fit = _mm_mask_cmple_epu32_mask(fit, _mm_sub_epi32(_mm_set1_epi32(static_cast<int>(*value)), low), width);
  }
  for (int d = 0; d < n16; ++d, block += 16, value += forest::kChunk) {
    const __m128i both = _mm_load_si128(reinterpret_cast<const __m128i*>(block));
    const __m128i offset = _mm_sub_epi16(_mm_set1_epi16(static_cast<short>(*value)), both);
    fit = _mm_mask_cmple_epu16_mask(fit, offset, _mm_unpackhi_epi64(both, both));
  }
  for (int d = 0; d < n8; ++d, block += 8, value += forest::kChunk) {
    const __m128i both = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(block));
    const __m128i offset = _mm_sub_epi8(_mm_set1_epi8(static_cast<char>(*value)), both);
    fit = static_cast<__mmask8>(_mm_mask_cmple_epu8_mask(fit, offset, _mm_srli_epi64(both, 32)));
  }
  return fit;
#elif MESHSIEVE_LANES == 256
  __m128i fit32 = _mm_set1_epi32(-1);
  for (int d = 0; d < n32; ++d, block += 32, value += forest::kChunk) {
    const __m128i low = _mm_load_si128(reinterpret_cast<const __m128i*>(block));
    const __m128i width = _mm_load_si128(reinterpret_cast<const __m128i*>(block + 16));
    const __m128i offset = _mm_sub_epi32(_mm_set1_epi32(static_cast<int>(*value)), low);
    fit32 = _mm_and_si128(fit32, _mm_cmpeq_epi32(_mm_min_epu32(offset, width), offset));
  }
  __m128i fit16 = _mm_packs_epi32(fit32, fit32);
  for (int d = 0; d < n16; ++d, block += 16, value += forest::kChunk) {
    const __m128i both = _mm_load_si128(reinterpret_cast<const __m128i*>(block));
    const __m128i offset = _mm_sub_epi16(_mm_set1_epi16(static_cast<short>(*value)), both);
    const __m128i width = _mm_unpackhi_epi64(both, both);
    fit16 = _mm_and_si128(fit16, _mm_cmpeq_epi16(_mm_min_epu16(offset, width), offset));
  }
  __m128i fit8 = _mm_packs_epi16(fit16, fit16);
  for (int d = 0; d < n8; ++d, block += 8, value += forest::kChunk) {
    const __m128i both = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(block));
    const __m128i offset = _mm_sub_epi8(_mm_set1_epi8(static_cast<char>(*value)), both);
    const __m128i width = _mm_srli_epi64(both, 32);
    fit8 = _mm_and_si128(fit8, _mm_cmpeq_epi8(_mm_min_epu8(offset, width), offset));
  }
  return static_cast<uint32_t>(_mm_movemask_epi8(fit8)) & 0xf;
#else
  uint32_t fit = 0xf;
  for (int d = 0; d < n32; ++d, block += 32, value += forest::kChunk) {
    const auto* low = reinterpret_cast<const uint32_t*>(block);
    for (int i = 0; i < forest::kLanes; ++i)
      fit &= ~(static_cast<uint32_t>(*value - low[i] > low[forest::kLanes + i]) << i);
  }
  for (int d = 0; d < n16; ++d, block += 16, value += forest::kChunk) {
    const auto* low = reinterpret_cast<const uint16_t*>(block);
    for (int i = 0; i < forest::kLanes; ++i)
      fit &= ~(static_cast<uint32_t>(static_cast<uint16_t>(*value - low[i]) > low[forest::kLanes + i]) << i);
  }
  for (int d = 0; d < n8; ++d, block += 8, value += forest::kChunk)
    for (int i = 0; i < forest::kLanes; ++i)
      fit &= ~(static_cast<uint32_t>(static_cast<uint8_t>(*value - block[i]) > block[forest::kLanes + i]) << i);
  return fit;
#endif
}

// Lanes that name no field which the packet cannot have.
static inline uint32_t without_absent(const forest::BlockTail& tail, uint32_t absent) {
  uint32_t constrained;
  __builtin_memcpy(&constrained, tail.constrains, 4);
  constrained &= absent;
  constrained |= constrained >> 16;
  return ~(constrained | constrained >> 8);
}

// The first of `fit` that the exact check does not refute, kNoRule if none comes before `best`.
static inline int32_t first_verified(const forest::Packets& packets, size_t i, const forest::BlockTail& tail,
                                     uint32_t fit, int32_t best) {
  for (; fit != 0; fit &= fit - 1) {
    const int lane = __builtin_ctz(fit);
    if (tail.rule[lane] >= best) break;
    if ((tail.verify >> lane & 1) == 0 || packets.verify(packets.context, i, tail.rule[lane])) return tail.rule[lane];
  }
  return forest::kNoRule;
}

template <int kN32, int kN16, int kN8>
static inline int32_t first_in_leaf(const forest::View& view, const forest::Packets& packets, size_t i,
                                    const uint8_t* block, int32_t best) {
  for (;; block += view.block_bytes) {
    const auto& tail = *reinterpret_cast<const forest::BlockTail*>(block + view.tail_offset);
    uint32_t fit = fitting_lanes<kN32, kN16, kN8>(view, block, packets.value + i) & tail.valid;
    if (packets.absent != nullptr) fit &= without_absent(tail, packets.absent[i]);
    int32_t found;
    if ((fit & tail.verify) != 0) [[unlikely]] {
      found = first_verified(packets, i, tail, fit, best);
    } else {
      const int32_t rule = tail.rule[__builtin_ctz(fit | 1u << (forest::kLanes - 1))];
      found = fit != 0 ? rule : forest::kNoRule;
    }
    best = found < best ? found : best;
    if (tail.last != 0 || tail.rule[forest::kLanes - 1] >= best) return best;
  }
}

template <int kN32, int kN16, int kN8>
static void walk_tree(const forest::View& view, const forest::Packets& packets, uint32_t tree, int32_t* best) {
  uint32_t at[forest::kChunk];       // by packet: its node, in the end the first block of its leaf
  uint32_t of_leaf[forest::kChunk];  // by packet: shift and dim of the node that it left last
  uint32_t active[forest::kChunk];
  uint32_t walking[forest::kChunk];
  const auto* const nodes = reinterpret_cast<const uint8_t*>(view.nodes);
  const uint8_t* const blocks = view.blocks;
  const size_t block_bytes = kN32 == 2 && kN16 == 2 && kN8 == 1 ? forest::kFiveTupleBlock : view.block_bytes;
  const uint32_t* const values = packets.value;
  const int32_t first_rule = view.first_rule[tree];
  size_t n_active = 0;
  for (uint32_t i = 0; i < packets.n; ++i) {
    active[n_active] = i;
    n_active += best[i] > first_rule;
  }
  const forest::Node root = view.nodes[view.root[tree]];
  const uint32_t* const root_values = values + root.dim * forest::kChunk;
  for (size_t j = 0; j < n_active; ++j) {
    const uint32_t i = active[j];
    at[i] = root.first + (root_values[i] >> (root.shift & 31) & root.mask);
    of_leaf[i] = root.shift;
    __builtin_prefetch(nodes + size_t{at[i]} * sizeof(forest::Node));
    walking[j] = i;
  }
  for (size_t n_walking = root.mask != 0 ? n_active : 0; n_walking != 0;) {
    size_t still = 0;
    for (size_t j = 0; j < n_walking; ++j) {
      const uint32_t i = walking[j];
      uint64_t node;  // first, mask, shift, dim from the low end
      __builtin_memcpy(&node, nodes + size_t{at[i]} * sizeof node, sizeof node);
      const uint32_t mask = static_cast<uint16_t>(node >> 32);
      const uint32_t value = values[(node >> 56) * forest::kChunk + i];
      const uint32_t next = static_cast<uint32_t>(node) + (value >> (node >> 48 & 31) & mask);
      at[i] = next;
      of_leaf[i] = static_cast<uint32_t>(node >> 48);
      const uint8_t* line = (mask != 0 ? nodes : blocks) + next * (mask != 0 ? sizeof node : block_bytes);
      __builtin_prefetch(line);
      __builtin_prefetch(line + (mask != 0 ? 0 : 64));
      walking[still] = i;
      still += mask != 0;
    }
    n_walking = still;
  }
  size_t n_wanted = 0;
  for (size_t j = 0; j < n_active; ++j) {
    const uint32_t i = active[j];
    const uint8_t* second = blocks + (size_t{at[i]} + (of_leaf[i] >> 8)) * block_bytes;
    __builtin_prefetch(second);
    __builtin_prefetch(second + 64);
    const uint32_t bound = of_leaf[i] & 0xff;
    active[n_wanted] = i;
    n_wanted += (bound <= static_cast<uint32_t>(best[i]) >> view.bound_shift) & (bound != forest::kNoBound);
  }
  for (size_t j = 0; j < n_wanted; ++j) {
    const uint32_t i = active[j];
    best[i] = first_in_leaf<kN32, kN16, kN8>(view, packets, i, blocks + at[i] * block_bytes, best[i]);
  }
}

template <int kN32, int kN16, int kN8>
static void forest_walk(const forest::View& view, const forest::Packets& packets, int32_t* best) {
  for (uint32_t t = 0; t < view.n_trees; ++t) walk_tree<kN32, kN16, kN8>(view, packets, t, best);
}

// best[i]: the first rule known to match before this call, kNoRule if none; on return the first of both.
static void forest_first_match(const forest::View& view, const forest::Packets& packets, int32_t* best) {
  if (view.n32 == 2 && view.n16 == 2 && view.n8 == 1) return forest_walk<2, 2, 1>(view, packets, best);
  forest_walk<-1, -1, -1>(view, packets, best);
}
