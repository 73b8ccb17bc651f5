// Kernels of the decision forest. Included once a backend (simd/), inside its namespace and target region.
//
// All packets of a chunk take their next step in turn, and the line that a packet needs next is fetched while the
// others step: a lookup costs bandwidth, not latency. Packets that arrived at a leaf drop out of the list without a
// branch. A tree, and a block, whose first rule comes after what a packet has found is left out.

// Bit i set: lane i fits the packet in every dimension.
template <int kN32, int kN16, int kN8>
static inline uint32_t fitting_lanes(const forest::View& view, const uint8_t* block, const uint32_t* value) {
  const int n32 = kN32 >= 0 ? kN32 : view.n32;
  const int n16 = kN16 >= 0 ? kN16 : view.n16;
  const int n8 = kN8 >= 0 ? kN8 : view.n8;
#if MESHSIEVE_LANES == 512
  __mmask8 fit = 0xff;
  for (int d = 0; d < n32; ++d, block += 64, value += forest::kChunk) {
    const __m256i low = _mm256_load_si256(reinterpret_cast<const __m256i*>(block));
    const __m256i width = _mm256_load_si256(reinterpret_cast<const __m256i*>(block + 32));
    fit = _mm256_mask_cmple_epu32_mask(fit, _mm256_sub_epi32(_mm256_set1_epi32(static_cast<int>(*value)), low), width);
  }
  for (int d = 0; d < n16; ++d, block += 32, value += forest::kChunk) {
    const __m128i low = _mm_load_si128(reinterpret_cast<const __m128i*>(block));
    const __m128i width = _mm_load_si128(reinterpret_cast<const __m128i*>(block + 16));
    fit = _mm_mask_cmple_epu16_mask(fit, _mm_sub_epi16(_mm_set1_epi16(static_cast<short>(*value)), low), width);
  }
  for (int d = 0; d < n8; ++d, block += 16, value += forest::kChunk) {
    const __m128i both = _mm_load_si128(reinterpret_cast<const __m128i*>(block));
    const __m128i offset = _mm_sub_epi8(_mm_set1_epi8(static_cast<char>(*value)), both);
    fit = static_cast<__mmask8>(_mm_mask_cmple_epu8_mask(fit, offset, _mm_unpackhi_epi64(both, both)));
  }
  return fit;
#elif MESHSIEVE_LANES == 256
  __m256i fit32 = _mm256_set1_epi32(-1);
  for (int d = 0; d < n32; ++d, block += 64, value += forest::kChunk) {
    const __m256i low = _mm256_load_si256(reinterpret_cast<const __m256i*>(block));
    const __m256i width = _mm256_load_si256(reinterpret_cast<const __m256i*>(block + 32));
    const __m256i offset = _mm256_sub_epi32(_mm256_set1_epi32(static_cast<int>(*value)), low);
    fit32 = _mm256_and_si256(fit32, _mm256_cmpeq_epi32(_mm256_min_epu32(offset, width), offset));
  }
  __m128i fit16 = _mm_set1_epi16(-1);
  for (int d = 0; d < n16; ++d, block += 32, value += forest::kChunk) {
    const __m128i low = _mm_load_si128(reinterpret_cast<const __m128i*>(block));
    const __m128i width = _mm_load_si128(reinterpret_cast<const __m128i*>(block + 16));
    const __m128i offset = _mm_sub_epi16(_mm_set1_epi16(static_cast<short>(*value)), low);
    fit16 = _mm_and_si128(fit16, _mm_cmpeq_epi16(_mm_min_epu16(offset, width), offset));
  }
  __m128i fit8 = _mm_packs_epi16(fit16, fit16);
  for (int d = 0; d < n8; ++d, block += 16, value += forest::kChunk) {
    const __m128i both = _mm_load_si128(reinterpret_cast<const __m128i*>(block));
    const __m128i offset = _mm_sub_epi8(_mm_set1_epi8(static_cast<char>(*value)), both);
    const __m128i width = _mm_unpackhi_epi64(both, both);
    fit8 = _mm_and_si128(fit8, _mm_cmpeq_epi8(_mm_min_epu8(offset, width), offset));
  }
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(fit32))) &
         static_cast<uint32_t>(_mm_movemask_epi8(fit8)) & 0xff;
#else
  uint32_t fit = 0xff;
  for (int d = 0; d < n32; ++d, block += 64, value += forest::kChunk) {
    const auto* low = reinterpret_cast<const uint32_t*>(block);
    for (int i = 0; i < forest::kLanes; ++i)
      fit &= ~(static_cast<uint32_t>(*value - low[i] > low[forest::kLanes + i]) << i);
  }
  for (int d = 0; d < n16; ++d, block += 32, value += forest::kChunk) {
    const auto* low = reinterpret_cast<const uint16_t*>(block);
    for (int i = 0; i < forest::kLanes; ++i)
      fit &= ~(static_cast<uint32_t>(static_cast<uint16_t>(*value - low[i]) > low[forest::kLanes + i]) << i);
  }
  for (int d = 0; d < n8; ++d, block += 16, value += forest::kChunk)
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

template <int kN32, int kN16, int kN8>
static inline int32_t first_in_leaf(const forest::View& view, const forest::Packets& packets, size_t i,
                                    const uint8_t* block, int32_t best) {
  for (;; block += view.block_bytes) {
    const auto& tail = *reinterpret_cast<const forest::BlockTail*>(block + view.tail_offset);
    if (tail.rule[0] >= best) return best;
    uint32_t fit = fitting_lanes<kN32, kN16, kN8>(view, block, packets.value + i) & tail.valid;
    if (packets.absent != nullptr && packets.absent[i] != 0) fit &= without_absent(tail, packets.absent[i]);
    for (; fit != 0; fit &= fit - 1) {
      const int lane = __builtin_ctz(fit);
      if (tail.rule[lane] >= best) return best;
      if ((tail.verify >> lane & 1) == 0 || packets.verify(packets.context, i, tail.rule[lane]))
        return tail.rule[lane];
    }
    if (tail.last) return best;
  }
}

template <int kN32, int kN16, int kN8>
static void forest_walk(const forest::View& view, const forest::Packets& packets, int32_t* best) {
  uint32_t at[forest::kChunk];
  uint32_t active[forest::kChunk];
  uint32_t walking[forest::kChunk];
  for (uint32_t t = 0; t < view.n_trees; ++t) {
    size_t n_active = 0;
    for (uint32_t i = 0; i < packets.n; ++i) {
      at[i] = view.root[t];
      active[n_active] = walking[n_active] = i;
      n_active += best[i] > view.first_rule[t];
    }
    for (size_t n_walking = n_active; n_walking != 0;) {
      size_t still = 0;
      for (size_t j = 0; j < n_walking; ++j) {
        const uint32_t i = walking[j];
        const forest::Node node = view.nodes[at[i]];
        const uint32_t next = node.first + (packets.value[node.dim * forest::kChunk + i] >> node.shift & node.mask);
        const bool leaf = node.mask == 0;
        const uint8_t* line = leaf ? view.blocks + size_t{next} * view.block_bytes
                                   : reinterpret_cast<const uint8_t*>(view.nodes + next);
        __builtin_prefetch(line);
        __builtin_prefetch(line + (leaf ? 64 : 0));
        __builtin_prefetch(line + (leaf ? 128 : 0));
        __builtin_prefetch(line + (leaf ? 192 : 0));
        at[i] = next;
        walking[still] = i;
        still += !leaf;
      }
      n_walking = still;
    }
    for (size_t j = 0; j < n_active; ++j) {
      const uint32_t i = active[j];
      const uint8_t* block = view.blocks + size_t{at[i]} * view.block_bytes;
      best[i] = first_in_leaf<kN32, kN16, kN8>(view, packets, i, block, best[i]);
    }
  }
}

// best[i]: the first rule known to match before this call, kNoRule if none; on return the first of both.
static void forest_first_match(const forest::View& view, const forest::Packets& packets, int32_t* best) {
  if (view.n32 == 2 && view.n16 == 2 && view.n8 == 1) return forest_walk<2, 2, 1>(view, packets, best);
  forest_walk<-1, -1, -1>(view, packets, best);
}
