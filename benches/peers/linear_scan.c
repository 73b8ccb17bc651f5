// The floor: a linear first-match scan, eight rules a step with AVX2, without any index.
//
//   linear_scan FOLDER           a peer (peer.h)
//   linear_scan --judge FOLDER   writes FOLDER/expected.i32: the verdicts that every program of the bench is held to
//
// Columns of lows and highs a field; a step compares eight rules in one field after another and goes on as soon as no
// rule is left. The judge uses the plain loop below instead, so that the scan itself is judged too.
#include <immintrin.h>

#include "peer.h"

struct columns {
  long padded;  // rules rounded up to eight; the rest match nothing
  uint32_t *low[FIELD_COUNT], *high[FIELD_COUNT];
};

static struct columns columns_of(const struct bench_case *c) {
  struct columns t = {.padded = (c->rule_count + 7) / 8 * 8};
  for (int f = 0; f < FIELD_COUNT; ++f) {
    t.low[f] = aligned_alloc(64, (t.padded * 4 + 127) / 64 * 64);
    t.high[f] = aligned_alloc(64, (t.padded * 4 + 127) / 64 * 64);
    for (long i = 0; i < t.padded; ++i) {
      t.low[f][i] = i < c->rule_count ? c->rules[i][2 * f] : UINT32_MAX;
      t.high[f][i] = i < c->rule_count ? c->rules[i][2 * f + 1] : 0;
    }
  }
  return t;
}

__attribute__((target("avx2"))) static inline __m256i inside(const struct columns *t, int f, long i, __m256i value) {
  const __m256i low = _mm256_load_si256((const __m256i *)(t->low[f] + i));
  const __m256i high = _mm256_load_si256((const __m256i *)(t->high[f] + i));
  return _mm256_and_si256(_mm256_cmpeq_epi32(_mm256_max_epu32(low, value), value),
                          _mm256_cmpeq_epi32(_mm256_min_epu32(high, value), value));
}

__attribute__((target("avx2"))) static void scan(void *table, const struct bench_case *c, long count, int32_t *out) {
  const struct columns *t = table;
  for (long k = 0; k < count; ++k) {
    __m256i value[FIELD_COUNT];
    for (int f = 0; f < FIELD_COUNT; ++f) value[f] = _mm256_set1_epi32((int)c->headers[k][f]);
    out[k] = -1;
    for (long i = 0; i < t->padded; i += 8) {
      __m256i hit = _mm256_and_si256(inside(t, DST, i, value[DST]), inside(t, SRC, i, value[SRC]));
      if (_mm256_testz_si256(hit, hit)) continue;
      hit = _mm256_and_si256(hit, _mm256_and_si256(inside(t, DPORT, i, value[DPORT]),
                                                   _mm256_and_si256(inside(t, SPORT, i, value[SPORT]),
                                                                    inside(t, PROTO, i, value[PROTO]))));
      const int lanes = _mm256_movemask_ps(_mm256_castsi256_ps(hit));
      if (!lanes) continue;
      out[k] = (int32_t)(i + __builtin_ctz(lanes));
      break;
    }
  }
}

static int matches(const uint32_t *rule, const uint32_t *header) {
  for (int f = 0; f < FIELD_COUNT; ++f)
    if (header[f] < rule[2 * f] || header[f] > rule[2 * f + 1]) return 0;
  return 1;
}

static int judge(int argc, char **argv) {
  char path[4096];
  snprintf(path, sizeof path, "%s/expected.i32", argv[argc - 1]);
  FILE *file = fopen(path, "wb");
  if (argc != 3 || !file) return 1;
  struct bench_case c;
  answers = stderr;
  c.rules = read_rows(argv[2], "rules.u32", sizeof *c.rules, &c.rule_count);
  c.headers = read_rows(argv[2], "headers.u32", sizeof *c.headers, &c.header_count);
  for (long k = 0; k < c.header_count; ++k) {
    int32_t first = -1;
    for (long i = 0; i < c.rule_count && first < 0; ++i)
      if (matches(c.rules[i], c.headers[k])) first = (int32_t)i;
    fwrite(&first, sizeof first, 1, file);
  }
  return fclose(file) != 0;
}

int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "--judge")) return judge(argc, argv);
  struct bench_case c = load_case(argc, argv);
  if (!__builtin_cpu_supports("avx2")) give_up("this CPU has no AVX2");
  const double start = cpu_seconds();
  struct columns t = columns_of(&c);
  const double build = cpu_seconds() - start;
  int32_t *out = malloc(c.header_count * sizeof *out);
  const long count = headers_a_pass(scan, &t, &c, out);
  const long bytes = t.padded * 8 * FIELD_COUNT;
  fprintf(answers, "{\"build_s\":%.6f,\"bytes\":%ld,\"peak_bytes\":%ld,\"headers\":%ld,\"note\":\"AVX2\"}\n", build,
          bytes, bytes, count);
  serve(scan, &t, &c, count, 0);
  return 0;
}
