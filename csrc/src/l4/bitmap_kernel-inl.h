// Kernel of the bitmap engine: AND of one row a dimension, first set bit. Included once a backend (simd/).
//
// kParts is 2 where dimensions have wide and narrow parts: a row is then the OR of two.

// Where packet i's rows start, at word `at`.
template <uint32_t kParts>
struct RowsOfPacket {
  const uint64_t* wide[kMaxBitmapDims];
  const uint64_t* narrow[kMaxBitmapDims];

  RowsOfPacket(const BitmapView& view, uint32_t n_dims, const uint32_t* const* ids, size_t i, size_t at) {
    uint32_t d = 0;
    do {  // there is at least one dimension
      const BitmapRows& rows = view.rows[d];
      const uint32_t id = ids[d][i];
      if (kParts == 1) {
        wide[d] = rows.wide + size_t{id} * view.words + at;
      } else {
        wide[d] = rows.wide + size_t{id >> rows.narrow_bits} * view.words + at;
        narrow[d] = rows.narrow + size_t{id & ((1u << rows.narrow_bits) - 1)} * view.words + at;
      }
    } while (++d < n_dims);
  }

  // Asks for two lines, `words` further on. Inlined by force: the compiler drops calls of what it takes for a function
  // without effect.
  [[gnu::always_inline]] void fetch(uint32_t n_dims, uint32_t words) const {
    for (uint32_t d = 0; d < n_dims; ++d)
      for (uint32_t w = words; w < words + 16; w += 8) {
        __builtin_prefetch(wide[d] + w);
        if (kParts == 2) __builtin_prefetch(narrow[d] + w);
      }
  }
};

#if MESHSIEVE_LANES == 512
template <uint32_t kParts>
static inline __m512i common_bits(const RowsOfPacket<kParts>& row, uint32_t n_dims, uint32_t at) {
  const auto dimension = [&](uint32_t d) {
    const __m512i wide = _mm512_load_si512(row.wide[d] + at);
    return kParts == 1 ? wide : _mm512_or_si512(wide, _mm512_load_si512(row.narrow[d] + at));
  };
  __m512i bits = dimension(0);
  for (uint32_t d = 1; d < n_dims; ++d) bits = _mm512_and_si512(bits, dimension(d));
  return bits;
}
#elif MESHSIEVE_LANES == 256
template <uint32_t kParts>
static inline __m256i common_bits(const RowsOfPacket<kParts>& row, uint32_t n_dims, uint32_t at) {
  const auto dimension = [&](uint32_t d) {
    const __m256i wide = _mm256_load_si256(reinterpret_cast<const __m256i*>(row.wide[d] + at));
    return kParts == 1
               ? wide
               : _mm256_or_si256(wide, _mm256_load_si256(reinterpret_cast<const __m256i*>(row.narrow[d] + at)));
  };
  __m256i bits = dimension(0);
  for (uint32_t d = 1; d < n_dims; ++d) bits = _mm256_and_si256(bits, dimension(d));
  return bits;
}
#endif

template <uint32_t kParts>
static inline uint64_t common_word(const RowsOfPacket<kParts>& row, uint32_t n_dims, uint32_t at) {
  uint64_t bits = ~uint64_t{0};
  for (uint32_t d = 0; d < n_dims; ++d) bits &= kParts == 1 ? row.wide[d][at] : row.wide[d][at] | row.narrow[d][at];
  return bits;
}

// Mask of the non-zero words of the eight common words at offset `at`.
template <uint32_t kParts>
static inline uint32_t nonzero_words(const RowsOfPacket<kParts>& row, uint32_t n_dims, uint32_t at) {
#if MESHSIEVE_LANES == 512
  const __m512i bits = common_bits(row, n_dims, at);
  return _mm512_test_epi64_mask(bits, bits);
#elif MESHSIEVE_LANES == 256
  const __m256i zero = _mm256_setzero_si256();
  const auto zeros = [&](uint32_t from) {
    const __m256i is_zero = _mm256_cmpeq_epi64(common_bits(row, n_dims, from), zero);
    return static_cast<unsigned>(_mm256_movemask_pd(_mm256_castsi256_pd(is_zero)));
  };
  return (zeros(at) | zeros(at + 4) << 4) ^ 0xff;
#else
  uint32_t mask = 0;
  for (uint32_t w = 0; w < 8; ++w) mask |= static_cast<uint32_t>(common_word(row, n_dims, at + w) != 0) << w;
  return mask;
#endif
}

template <uint32_t kParts>
static inline int32_t bit_in_word(const RowsOfPacket<kParts>& row, uint32_t n_dims, uint32_t word) {
  const uint64_t bits = common_word(row, n_dims, word);
  return static_cast<int32_t>(word * 64 + static_cast<uint32_t>(__builtin_ctzll(bits | uint64_t{1} << 63)));
}

// The first common bit of the line at word `at`, counted from there; negative where there is none. No branches.
template <uint32_t kParts>
static inline int32_t first_bit_of_line(const RowsOfPacket<kParts>& row, uint32_t n_dims, uint32_t at) {
#if MESHSIEVE_LANES == 512
  const __m512i bits = common_bits(row, n_dims, at);
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

// At most 32 words: all of them, without a branch on the data. A packet that no rule matches reads a word behind the row,
// of which nothing is kept.
template <uint32_t kDims, uint32_t kParts, uint32_t kWords>
static void first_bit_all(const BitmapView& given, const uint32_t* const* ids, size_t n, int32_t* __restrict out) {
  BitmapView view = given;  // a copy, which `out` cannot change
  view.words = kWords;
  const uint32_t n_dims = kDims ? kDims : view.n_dims;
#pragma GCC unroll 2
  for (size_t i = 0; i < n; ++i) {
    const RowsOfPacket<kParts> row(view, n_dims, ids, i, 0);
    uint32_t mask = 0;
    for (uint32_t w = 0; w < kWords; w += 8) mask |= nonzero_words(row, n_dims, w) << w;
    const auto word = static_cast<uint32_t>(__builtin_ctzll(mask | uint64_t{1} << kWords));
    const uint64_t bits = common_word(row, n_dims, word);
    const auto bit = static_cast<int32_t>(word * 64 + static_cast<uint32_t>(__builtin_ctzll(bits | uint64_t{1} << 63)));
    out[i] = bit | -static_cast<int32_t>(mask == 0);  // arithmetic, where a conditional would become a branch
  }
}

// Packets of long rows that are walked together: the lines fetched for them must stay in the first-level cache until they
// are read.
constexpr size_t kFetchedTogether = 64;

// One step over packets left[0..n_left): words [at, at + n_words) of their rows, all of them, without a branch on the data.
// Those that find nothing are kept in left[]; returns how many. kWords: n_words where it is known, else 0.
template <uint32_t kDims, uint32_t kParts, uint32_t kWords>
static size_t step(const BitmapView& view, const uint32_t* const* ids, uint32_t at, uint32_t n_words, uint32_t* left,
                   size_t n_left, int32_t* out) {
  const uint32_t n_dims = kDims ? kDims : view.n_dims;
  if (kWords != 0) n_words = kWords;
  const uint32_t next = at + n_words < view.words ? n_words : 0;
  size_t kept = 0;
  for (size_t j = 0; j < n_left; ++j) {
    const uint32_t i = left[j];
    const RowsOfPacket<kParts> row(view, n_dims, ids, i, at);
    uint64_t mask = 0;
    for (uint32_t w = 0; w < n_words; w += 8) mask |= uint64_t{nonzero_words(row, n_dims, w)} << w;
    const auto word = static_cast<uint32_t>(__builtin_ctzll(mask | uint64_t{1} << (n_words - 1)));
    const int32_t rule = static_cast<int32_t>(at * 64) + bit_in_word(row, n_dims, word);
    out[i] = rule | -static_cast<int32_t>(mask == 0);  // arithmetic, where a conditional would become a branch
    left[kept] = i;
    kept += mask == 0;
    row.fetch(n_dims, next);
  }
  return kept;
}

// Any number of words, in steps that the packets which have not found a rule take together: most find one early.
template <uint32_t kDims, uint32_t kParts>
static void first_bit_in_steps(const BitmapView& view, const uint32_t* const* ids, size_t n, int32_t* out) {
  constexpr uint32_t kFirst = 16, kMost = 32;  // words of a step
  uint32_t left[kFetchedTogether];
  for (uint32_t i = 0; i < n; ++i) left[i] = i;
  size_t n_left = step<kDims, kParts, kFirst>(view, ids, 0, kFirst, left, n, out);
  for (uint32_t at = kFirst; at < view.words && n_left != 0; at += kMost) {
    const uint32_t n_words = view.words - at < kMost ? view.words - at : kMost;
    n_left = step<kDims, kParts, 0>(view, ids, at, n_words, left, n_left, out);
  }
}

// The first common bit of `words` words, negative where there is none.
template <uint32_t kParts>
static inline int32_t first_bit_of_chunk(const RowsOfPacket<kParts>& row, uint32_t n_dims, uint32_t words) {
  int32_t bit = first_bit_of_line(row, n_dims, 0);
  for (uint32_t at = 8; at < words && bit < 0; at += 8) bit = first_bit_of_line(row, n_dims, at);
  return bit;
}

static inline uint64_t chunks_of_class(const BitmapRows& rows, uint32_t id) {
  if (rows.wide_summary == nullptr) return ~uint64_t{0};
  return rows.wide_summary[id >> rows.narrow_bits] | rows.narrow_summary[id & ((1u << rows.narrow_bits) - 1)];
}

static inline uint32_t first_chunk(uint64_t chunks) {  // the last of 64 where there is none
  return static_cast<uint32_t>(__builtin_ctzll(chunks | uint64_t{1} << 63));
}

// Rows with gaps, a chunk at a time as summaries say: the packets that have not found a rule go on to their next chunk
// together, so that no branch depends on one packet and the lines of all of them are fetched meanwhile.
template <uint32_t kDims, uint32_t kParts>
static void first_bit_by_chunk(const BitmapView& view, const uint32_t* const* ids, size_t n, int32_t* out) {
  const uint32_t n_dims = kDims ? kDims : view.n_dims;
  uint64_t chunks[kFetchedTogether];
  uint32_t left[kFetchedTogether];  // packets that go on
  size_t n_left = 0;
  for (uint32_t i = 0; i < n; ++i) {
    chunks[i] = view.all_chunks;
    for (uint32_t d = 0; d < n_dims; ++d) chunks[i] &= chunks_of_class(view.rows[d], ids[d][i]);
    RowsOfPacket<kParts>(view, n_dims, ids, i, first_chunk(chunks[i]) * view.chunk_words).fetch(n_dims, 0);
    out[i] = kNoMatch;
    left[n_left] = i;
    n_left += chunks[i] != 0;
  }
  while (n_left != 0) {
    size_t kept = 0;
    for (size_t j = 0; j < n_left; ++j) {
      const uint32_t i = left[j];
      const uint32_t at = first_chunk(chunks[i]) * view.chunk_words;
      chunks[i] &= chunks[i] - 1;
      RowsOfPacket<kParts>(view, n_dims, ids, i, first_chunk(chunks[i]) * view.chunk_words).fetch(n_dims, 0);
      const RowsOfPacket<kParts> row(view, n_dims, ids, i, at);
      const int32_t bit = first_bit_of_chunk(row, n_dims, view.chunk_words);
      out[i] = bit < 0 ? kNoMatch : static_cast<int32_t>(at * 64) + bit;
      left[kept] = i;
      kept += static_cast<size_t>(bit < 0) & static_cast<size_t>(chunks[i] != 0);
    }
    n_left = kept;
  }
}

template <uint32_t kDims, uint32_t kParts>
static void first_bit(const BitmapView& view, const uint32_t* const* ids, size_t n, int32_t* out) {
  if (view.chunk_words != 0) {
    const uint32_t* from[kMaxBitmapDims];
    for (size_t first = 0; first < n; first += kFetchedTogether) {
      const size_t together = n - first < kFetchedTogether ? n - first : kFetchedTogether;
      for (uint32_t d = 0; d < view.n_dims; ++d) from[d] = ids[d] + first;
      if (view.has_summary) first_bit_by_chunk<kDims, kParts>(view, from, together, out + first);
      else first_bit_in_steps<kDims, kParts>(view, from, together, out + first);
    }
    return;
  }
  switch (view.words) {
    case 8: return first_bit_all<kDims, kParts, 8>(view, ids, n, out);
    case 16: return first_bit_all<kDims, kParts, 16>(view, ids, n, out);
    case 24: return first_bit_all<kDims, kParts, 24>(view, ids, n, out);
    default: return first_bit_all<kDims, kParts, 32>(view, ids, n, out);
  }
}

static void first_common_bit(const BitmapView& view, const uint32_t* const* ids, size_t n, int32_t* out) {
  if (view.in_parts) return view.n_dims == 3 ? first_bit<3, 2>(view, ids, n, out) : first_bit<0, 2>(view, ids, n, out);
  if (view.n_dims == 3) return first_bit<3, 1>(view, ids, n, out);
  first_bit<0, 1>(view, ids, n, out);
}
