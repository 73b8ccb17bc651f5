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

// The first common bit of the line at word `at`, counted from there; negative where there is none.
static inline int32_t first_bit_of_line(const uint64_t* const* row, uint32_t n_dims, uint32_t at) {
#if MESHSIEVE_LANES == 512
  __m512i bits = _mm512_load_si512(row[0] + at);
  for (uint32_t d = 1; d < n_dims; ++d) bits = _mm512_and_si512(bits, _mm512_load_si512(row[d] + at));
  const uint32_t words = _mm512_test_epi64_mask(bits, bits);
  const __m512i packed = _mm512_maskz_compress_epi64(static_cast<__mmask8>(words), bits);
  const auto word = static_cast<uint64_t>(_mm_cvtsi128_si64(_mm512_castsi512_si128(packed)));
  const auto bit = static_cast<int32_t>((at + _tzcnt_u32(words)) * 64 + _tzcnt_u64(word));
#else
  const uint32_t words = nonzero_words(row, n_dims, at);
  const int32_t bit = bit_in_word(row, n_dims, at + static_cast<uint32_t>(__builtin_ctz(words | 1u << 31)) % 8);
#endif
  return bit | -static_cast<int32_t>(words == 0);  // arithmetic, where a conditional would become a branch
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

// The first common bit of `words` words, negative where there is none.
static inline int32_t first_bit_of_chunk(const uint64_t* const* row, uint32_t n_dims, uint32_t words) {
  int32_t bit = first_bit_of_line(row, n_dims, 0);
  for (uint32_t at = 8; at < words && bit < 0; at += 8) bit = first_bit_of_line(row, n_dims, at);
  return bit;
}

// Asks for packet i's lines of its next chunk. Inlined by force: the compiler drops calls of what it takes for a function
// without effect.
[[gnu::always_inline]] static inline void fetch_lines(const BitmapView& view, const uint32_t* const* ids, uint32_t n_dims,
                                                      size_t i, uint64_t chunks) {
  const size_t at = static_cast<size_t>(__builtin_ctzll(chunks | uint64_t{1} << 63)) * view.chunk_words;
  for (uint32_t d = 0; d < n_dims; ++d) __builtin_prefetch(view.rows[d] + size_t{ids[d][i]} * view.words + at);
}

// Any number of words, a chunk at a time: the packets that have not found a rule go on to their next chunk together, so
// that no branch depends on one packet and the lines of all of them are fetched meanwhile.
template <uint32_t kDims>
static void first_bit_by_chunk(const BitmapView& view, const uint32_t* const* ids, size_t n, int32_t* out) {
  const uint32_t n_dims = kDims ? kDims : view.n_dims;
  uint64_t chunks[classes::kChunk];
  uint32_t left[classes::kChunk];  // packets that go on
  size_t n_left = 0;
  for (uint32_t i = 0; i < n; ++i) {
    chunks[i] = view.all_chunks;
    for (uint32_t d = 0; d < n_dims; ++d)
      if (view.summary[d] != nullptr) chunks[i] &= view.summary[d][ids[d][i]];
    fetch_lines(view, ids, n_dims, i, chunks[i]);
    out[i] = kNoMatch;
    left[n_left] = i;
    n_left += chunks[i] != 0;
  }
  while (n_left != 0) {
    size_t kept = 0;
    for (size_t j = 0; j < n_left; ++j) {
      const uint32_t i = left[j];
      const uint32_t at = static_cast<uint32_t>(__builtin_ctzll(chunks[i])) * view.chunk_words;
      chunks[i] &= chunks[i] - 1;
      fetch_lines(view, ids, n_dims, i, chunks[i]);
      const uint64_t* row[kMaxBitmapDims];
      for (uint32_t d = 0; d < n_dims; ++d) row[d] = view.rows[d] + size_t{ids[d][i]} * view.words + at;
      const int32_t bit = first_bit_of_chunk(row, n_dims, view.chunk_words);
      out[i] = bit < 0 ? kNoMatch : static_cast<int32_t>(at * 64) + bit;
      left[kept] = i;
      kept += static_cast<size_t>(bit < 0) & static_cast<size_t>(chunks[i] != 0);
    }
    n_left = kept;
  }
}

template <uint32_t kDims>
static void first_bit(const BitmapView& view, const uint32_t* const* ids, size_t n, int32_t* out) {
  if (view.chunk_words != 0) return first_bit_by_chunk<kDims>(view, ids, n, out);
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
