// Kernels of the class front end: field value -> class, many values in flight. Included once a backend (simd/).
//
// Every value takes the same steps whatever it is, so there are no mispredicted branches, and the out-of-order core
// overlaps the independent values.

// How many of the 32 keys are below the value; both with the sign bit flipped.
static inline unsigned keys_below32(const int16_t* keys, int16_t biased) {
#if MESHSIEVE_LANES == 512
  return static_cast<unsigned>(
      __builtin_popcount(_mm512_cmpgt_epi16_mask(_mm512_set1_epi16(biased), _mm512_load_si512(keys))));
#elif MESHSIEVE_LANES == 256
  const __m256i wanted = _mm256_set1_epi16(biased);
  const __m256i first = _mm256_cmpgt_epi16(wanted, _mm256_load_si256(reinterpret_cast<const __m256i*>(keys)));
  const __m256i last = _mm256_cmpgt_epi16(wanted, _mm256_load_si256(reinterpret_cast<const __m256i*>(keys + 16)));
  return static_cast<unsigned>(
      __builtin_popcount(static_cast<unsigned>(_mm256_movemask_epi8(_mm256_packs_epi16(first, last)))));
#else
  unsigned n = 0;
  for (int k = 0; k < 32; ++k) n += biased > keys[k];
  return n;
#endif
}

static inline unsigned keys_below64(const classes::Node64& node, uint64_t value) {
  const int64_t biased = static_cast<int64_t>(value ^ (uint64_t{1} << 63));
#if MESHSIEVE_LANES == 512
  const __m512i keys = _mm512_load_si512(node.key);
  return static_cast<unsigned>(__builtin_popcount(_mm512_cmpgt_epi64_mask(_mm512_set1_epi64(biased), keys)));
#elif MESHSIEVE_LANES == 256
  const __m256i wanted = _mm256_set1_epi64x(biased);
  const __m256i first = _mm256_cmpgt_epi64(wanted, _mm256_load_si256(reinterpret_cast<const __m256i*>(node.key)));
  const __m256i last = _mm256_cmpgt_epi64(wanted, _mm256_load_si256(reinterpret_cast<const __m256i*>(node.key + 4)));
  const unsigned mask = static_cast<unsigned>(_mm256_movemask_pd(_mm256_castsi256_pd(first))) |
                        static_cast<unsigned>(_mm256_movemask_pd(_mm256_castsi256_pd(last))) << 4;
  return static_cast<unsigned>(__builtin_popcount(mask));
#else
  unsigned n = 0;
  for (int k = 0; k < 7; ++k) n += biased > node.key[k];
  return n;
#endif
}

// Step by step over all values: those of one step depend on nothing but the step before, so about twenty of them are in
// flight; value by value, the reorder buffer would hold only a few chains of dependent loads. Arithmetic is kept out of
// the loops that load, so that it is done for many values at once.
template <class Id>
static inline void search32_in(const classes::Trees32<Id>& trees, const classes::Search32View& map,
                               const uint32_t* values, size_t n, uint32_t* __restrict out) {
  int16_t biased[classes::kChunk];  // in memory, where a broadcast costs one load
  const uint32_t levels = map.levels, *blocks = map.blocks;
  for (size_t i = 0; i < n; ++i) biased[i] = static_cast<int16_t>(values[i] ^ 0x8000u);
  for (size_t i = 0; i < n; ++i) out[i] = values[i] >> (32 - classes::kBlockBits);
#pragma GCC unroll 8
  for (size_t i = 0; i < n; ++i) out[i] = blocks[out[i]];
  for (size_t i = 0; i < n; ++i) out[i] = (out[i] >> 5) + (values[i] << classes::kBlockBits >> (out[i] & 31));
  if (levels == 0) {
#pragma GCC unroll 8
    for (size_t i = 0; i < n; ++i) out[i] = trees.slots[out[i]];
    return;
  }
  const auto child_of = [&](uint32_t id, size_t i) {
    const classes::Node32<Id>& node = trees.nodes[id];
    return node.child[keys_below32(node.key, biased[i])];
  };
#pragma GCC unroll 4
  for (size_t i = 0; i < n; ++i) out[i] = child_of(trees.slots[out[i]], i);
  for (uint32_t level = 1; level < levels; ++level) {
#pragma GCC unroll 4
    for (size_t i = 0; i < n; ++i) out[i] = child_of(out[i], i);
  }
}

// A whole chunk has a loop of its own, whose length the compiler knows.
template <class Id>
static inline void search32_chunk(const classes::Trees32<Id>& trees, const classes::Search32View& map,
                                  const uint32_t* values, size_t n, uint32_t* __restrict out) {
  if (n == classes::kChunk) return search32_in(trees, map, values, classes::kChunk, out);
  search32_in(trees, map, values, n, out);
}

static void search32(const classes::Search32View& map, const uint32_t* values, size_t n, uint32_t* __restrict out) {
  if (map.narrow.slots != nullptr) return search32_chunk(map.narrow, map, values, n, out);
  search32_chunk(map.wide, map, values, n, out);
}

// `stop`: bits of an entry that end the walk over this word.
static inline uint32_t step64(const classes::Node64* nodes, uint32_t entry, uint64_t value, uint32_t stop) {
  const uint32_t keep = static_cast<uint32_t>(-static_cast<int32_t>((entry & stop) != 0));
  const classes::Node64& node = nodes[entry & ~keep];
  return node.child[keys_below64(node, value)] | (entry & keep);
}

static void search128(const classes::Search128View& map, const U128* values, size_t n, uint32_t* __restrict out) {
  for (size_t i = 0; i < n; ++i) out[i] = map.entry_of(values[i].hi);
  for (uint32_t level = 0; level < map.high_levels; ++level)
    for (size_t i = 0; i < n; ++i)
      out[i] = step64(map.nodes, out[i], values[i].hi, classes::kTerminal | classes::kLowWord);
  for (size_t i = 0; i < n; ++i) out[i] &= ~classes::kLowWord;
  for (uint32_t level = 0; level < map.low_levels; ++level)
    for (size_t i = 0; i < n; ++i) out[i] = step64(map.nodes, out[i], values[i].lo, classes::kTerminal);
  for (size_t i = 0; i < n; ++i) out[i] &= ~classes::kTerminal;
}
