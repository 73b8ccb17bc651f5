// Kernel of the sparse engine: leaves that every dimension has, then the bits in them. Included once a backend (simd/),
// for the bit instructions of each.

// A row in memory (sparse_views.h).
struct SparseRow {
  const uint64_t* top;

  // Bits of leaf `bit` of top word t, 0 where it is not stored. No branch: an unused byte follows the last leaf.
  uint32_t leaf(uint32_t top_words, uint32_t t, uint32_t bit) const {
    const auto* before = reinterpret_cast<const uint16_t*>(top + top_words);
    const auto* leaves = reinterpret_cast<const uint8_t*>(top + top_words + top_words / 4);
    const auto below = static_cast<uint32_t>(__builtin_popcountll(top[t] & ((uint64_t{1} << bit) - 1)));
    return leaves[before[t] + below] & -static_cast<uint32_t>(top[t] >> bit & 1);
  }
};

struct SparseRowsOfPacket {
  SparseRow wide[kMaxBitmapDims], narrow[kMaxBitmapDims];
};

// The leaves that every dimension has, of kTopBlock words from t on; a bit for each word that is not 0.
static inline uint32_t common_leaves(const SparseView& view, uint32_t n_dims, const SparseRowsOfPacket& of, uint32_t t,
                                     uint64_t* out) {
#if MESHSIEVE_LANES == 512
  __m512i all = _mm512_set1_epi64(-1);
  for (uint32_t d = 0; d < n_dims; ++d) {
    const SparseRows& rows = view.rows[d];
    __m512i has = _mm512_or_si512(_mm512_loadu_si512(of.wide[d].top + t), _mm512_loadu_si512(rows.free_top + t));
    if (rows.narrow_bits != 0) has = _mm512_or_si512(has, _mm512_loadu_si512(of.narrow[d].top + t));
    all = _mm512_and_si512(all, has);
  }
  _mm512_storeu_si512(out, all);
  return _mm512_test_epi64_mask(all, all);
#elif MESHSIEVE_LANES == 256
  uint32_t words = 0;
  for (uint32_t half = 0; half < kTopBlock; half += 4) {
    const auto load = [&](const uint64_t* from) {
      return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + t + half));
    };
    __m256i all = _mm256_set1_epi64x(-1);
    for (uint32_t d = 0; d < n_dims; ++d) {
      const SparseRows& rows = view.rows[d];
      __m256i has = _mm256_or_si256(load(of.wide[d].top), load(rows.free_top));
      if (rows.narrow_bits != 0) has = _mm256_or_si256(has, load(of.narrow[d].top));
      all = _mm256_and_si256(all, has);
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + half), all);
    const __m256i is_zero = _mm256_cmpeq_epi64(all, _mm256_setzero_si256());
    words |= (static_cast<uint32_t>(_mm256_movemask_pd(_mm256_castsi256_pd(is_zero))) ^ 15) << half;
  }
  return words;
#else
  uint32_t words = 0;
  for (uint32_t w = 0; w < kTopBlock; ++w) {
    uint64_t all = ~uint64_t{0};
    for (uint32_t d = 0; d < n_dims; ++d) {
      const SparseRows& rows = view.rows[d];
      const uint64_t narrow = rows.narrow_bits != 0 ? of.narrow[d].top[t + w] : 0;
      all &= of.wide[d].top[t + w] | narrow | rows.free_top[t + w];
    }
    out[w] = all;
    words |= static_cast<uint32_t>(all != 0) << w;
  }
  return words;
#endif
}

static inline int32_t first_sparse_bit_of(const SparseView& view, uint32_t n_dims, const SparseRowsOfPacket& of) {
  int32_t best = kNoMatch;
  auto limit = ~uint32_t{0};  // best, or more than any rule
  uint64_t common[kTopBlock];
  for (uint32_t at = 0; at < view.top_words; at += kTopBlock)
    for (uint32_t words = common_leaves(view, n_dims, of, at, common); words != 0; words &= words - 1) {
      const uint32_t t = at + static_cast<uint32_t>(__builtin_ctz(words));
      for (uint64_t leaves = common[t - at]; leaves != 0; leaves &= leaves - 1) {
        const auto bit = static_cast<uint32_t>(__builtin_ctzll(leaves));
        const uint32_t leaf = t * 64 + bit;
        if (static_cast<uint32_t>(view.least[leaf]) >= limit) return best;
        uint32_t bits = (1u << kLeafBits) - 1;
        for (uint32_t d = 0; d < n_dims; ++d) {
          const SparseRows& rows = view.rows[d];
          uint32_t here = of.wide[d].leaf(view.top_words, t, bit) | rows.free[leaf];
          if (rows.narrow_bits != 0) here |= of.narrow[d].leaf(view.top_words, t, bit);
          bits &= here;
        }
        const int32_t rule = view.rule_of[leaf * kLeafBits + static_cast<uint32_t>(__builtin_ctz(bits | 128)) % kLeafBits];
        const bool better = (bits != 0) & (static_cast<uint32_t>(rule) < limit);
        best = better ? rule : best;
        limit = better ? static_cast<uint32_t>(rule) : limit;
      }
    }
  return best;
}

// Rows of a few packets are asked for before the first of them is looked at.
template <uint32_t kDims>
static void first_sparse_bits(const SparseView& view, const uint32_t* const* ids, size_t n, int32_t* out) {
  constexpr size_t kInFlight = 16;
  const uint32_t n_dims = kDims ? kDims : view.n_dims;
  SparseRowsOfPacket of[kInFlight];
  for (size_t first = 0; first < n; first += kInFlight) {
    const size_t count = n - first < kInFlight ? n - first : kInFlight;
    for (size_t i = 0; i < count; ++i)
      for (uint32_t d = 0; d < n_dims; ++d) {
        const SparseRows& rows = view.rows[d];
        const uint32_t id = ids[d][first + i];
        of[i].wide[d].top = rows.words + rows.wide_at[id >> rows.narrow_bits];
        of[i].narrow[d].top = rows.words + rows.narrow_at[id & ((1u << rows.narrow_bits) - 1)];
        for (uint32_t line = 0; line < 40; line += 8) __builtin_prefetch(of[i].wide[d].top + line);
        if (rows.narrow_bits != 0)
          for (uint32_t line = 0; line < 32; line += 8) __builtin_prefetch(of[i].narrow[d].top + line);
      }
    for (size_t i = 0; i < count; ++i) out[first + i] = first_sparse_bit_of(view, n_dims, of[i]);
  }
}

static void first_sparse_bit(const SparseView& view, const uint32_t* const* ids, size_t n, int32_t* out) {
  if (view.n_dims == 3) return first_sparse_bits<3>(view, ids, n, out);
  first_sparse_bits<0>(view, ids, n, out);
}
