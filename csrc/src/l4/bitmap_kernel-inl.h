// Kernel of the bitmap engine: AND of one row a dimension, first set bit. Included once a backend (simd/).

// Mask of the non-zero words of the AND of eight words at offset `at` of the given rows.
static inline uint32_t nonzero_words(const uint64_t* const* row, uint32_t n_dims, uint32_t at) {
#if MESHSIEVE_LANES == 512
  __m512i bits = _mm512_load_si512(row[0] + at);
  for (uint32_t d = 1; d < n_dims; ++d) bits = _mm512_and_si512(bits, _mm512_load_si512(row[d] + at));
  return _mm512_test_epi64_mask(bits, bits);
#elif MESHSIEVE_LANES == 256
  __m256i first = _mm256_load_si256(reinterpret_cast<const __m256i*>(row[0] + at));
  __m256i last = _mm256_load_si256(reinterpret_cast<const __m256i*>(row[0] + at + 4));
  for (uint32_t d = 1; d < n_dims; ++d) {
    first = _mm256_and_si256(first, _mm256_load_si256(reinterpret_cast<const __m256i*>(row[d] + at)));
    last = _mm256_and_si256(last, _mm256_load_si256(reinterpret_cast<const __m256i*>(row[d] + at + 4)));
  }
  const __m256i zero = _mm256_setzero_si256();
  const unsigned zeros =
      static_cast<unsigned>(_mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(first, zero)))) |
      static_cast<unsigned>(_mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(last, zero)))) << 4;
  return zeros ^ 0xff;
#else
  uint32_t mask = 0;
  for (uint32_t w = 0; w < 8; ++w) {
    uint64_t bits = row[0][at + w];
    for (uint32_t d = 1; d < n_dims; ++d) bits &= row[d][at + w];
    mask |= static_cast<uint32_t>(bits != 0) << w;
  }
  return mask;
#endif
}

static inline int32_t bit_in_word(const uint64_t* const* row, uint32_t n_dims, uint32_t word) {
  uint64_t bits = row[0][word];
  for (uint32_t d = 1; d < n_dims; ++d) bits &= row[d][word];
  return static_cast<int32_t>(word * 64 + static_cast<uint32_t>(__builtin_ctzll(bits | uint64_t{1} << 63)));
}

// At most 32 words: all of them, without a branch on the data.
template <uint32_t kDims, uint32_t kWords>
static void first_bit_all(const BitmapView& view, const uint32_t* const* ids, size_t n, int32_t* out) {
  const uint32_t n_dims = kDims ? kDims : view.n_dims;
  const uint64_t* row[kMaxBitmapDims];
  for (size_t i = 0; i < n; ++i) {
    for (uint32_t d = 0; d < n_dims; ++d) row[d] = view.rows[d] + size_t{ids[d][i]} * kWords;
    uint32_t mask = 0;
    for (uint32_t w = 0; w < kWords; w += 8) mask |= nonzero_words(row, n_dims, w) << w;
    const int32_t rule = bit_in_word(row, n_dims, static_cast<uint32_t>(__builtin_ctz(mask | 1u << 31)) % kWords);
    out[i] = mask != 0 ? rule : kNoMatch;
  }
}

// Any number of words: only chunks whose summary bit is set in every dimension.
static void first_bit_by_chunk(const BitmapView& view, const uint32_t* const* ids, size_t n, int32_t* out) {
  const uint64_t* row[kMaxBitmapDims];
  uint64_t chunks[classes::kChunk];
  for (size_t i = 0; i < n; ++i) {
    chunks[i] = view.summary[0][ids[0][i]];
    for (uint32_t d = 1; d < view.n_dims; ++d) chunks[i] &= view.summary[d][ids[d][i]];
    if (chunks[i] == 0) continue;
    const size_t at = static_cast<size_t>(__builtin_ctzll(chunks[i])) * view.chunk_words;
    for (uint32_t d = 0; d < view.n_dims; ++d)
      __builtin_prefetch(view.rows[d] + size_t{ids[d][i]} * view.words + at);
  }
  for (size_t i = 0; i < n; ++i) {
    for (uint32_t d = 0; d < view.n_dims; ++d) row[d] = view.rows[d] + size_t{ids[d][i]} * view.words;
    out[i] = kNoMatch;
    for (uint64_t left = chunks[i]; left != 0 && out[i] == kNoMatch; left &= left - 1) {
      const uint32_t begin = static_cast<uint32_t>(__builtin_ctzll(left)) * view.chunk_words;
      const uint32_t end = begin + view.chunk_words < view.words ? begin + view.chunk_words : view.words;
      for (uint32_t at = begin; at < end; at += 8) {
        const uint32_t mask = nonzero_words(row, view.n_dims, at);
        if (mask == 0) continue;
        out[i] = bit_in_word(row, view.n_dims, at + static_cast<uint32_t>(__builtin_ctz(mask)));
        break;
      }
    }
  }
}

template <uint32_t kDims>
static void first_bit(const BitmapView& view, const uint32_t* const* ids, size_t n, int32_t* out) {
  if (view.chunk_words != 0) return first_bit_by_chunk(view, ids, n, out);
  switch (view.words) {
    case 8: return first_bit_all<kDims, 8>(view, ids, n, out);
    case 16: return first_bit_all<kDims, 16>(view, ids, n, out);
    case 24: return first_bit_all<kDims, 24>(view, ids, n, out);
    default: return first_bit_all<kDims, 32>(view, ids, n, out);
  }
}

static void first_common_bit(const BitmapView& view, const uint32_t* const* ids, size_t n, int32_t* out) {
  if (view.n_dims == 3) return first_bit<3>(view, ids, n, out);
  first_bit<0>(view, ids, n, out);
}
