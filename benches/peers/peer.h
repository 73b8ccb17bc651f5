// What every peer written in C shares: reading the case, the commands, the clock.
//
// A peer is a process. It is started as `PEER FOLDER`, loads the case, builds its table, writes one JSON line about
// itself to stdout and then answers commands, one a line on stdin:
//   pass N   look up all headers N times; answer {"ns":[a pass's CPU nanoseconds per header, ...]}
//   wrong    look up all headers once more; answer {"wrong":how many differ from the expected verdict,"checked":headers}
// At the end of stdin it exits. What cannot run answers {"unavailable":"why"} instead of its first line. Everything else
// a library prints goes to stderr. benches/process.py is the other end.
//
// FOLDER   rules.u32     uint32 (n, 10), benches/boxes.py
//          headers.u32   uint32 (m, 5)
//          expected.i32  int32 (m)
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SRC, DST, SPORT, DPORT, PROTO, FIELD_COUNT };

struct bench_case {
  long rule_count, header_count;
  uint32_t (*rules)[2 * FIELD_COUNT];  // lo, hi per field
  uint32_t (*headers)[FIELD_COUNT];
  int32_t *expected;
};

static FILE *answers;  // the process's first stdout

// Looks up headers [0, count) and writes a number for each (see serve).
typedef void look_up_fn(void *table, const struct bench_case *c, long count, int32_t *out);

static void give_up(const char *why) {
  fprintf(answers, "{\"unavailable\":\"%s\"}\n", why);
  fflush(answers);
  exit(0);
}

static void *read_rows(const char *folder, const char *name, size_t row_bytes, long *rows) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "rb");
  if (!file) give_up("the case's files cannot be read");
  fseek(file, 0, SEEK_END);
  const long bytes = ftell(file);
  rewind(file);
  void *data = malloc(bytes + 1);
  if (!data || fread(data, 1, bytes, file) != (size_t)bytes) give_up("the case's files cannot be read");
  fclose(file);
  *rows = bytes / row_bytes;
  return data;
}

// Call first: keeps stdout for answers alone.
static struct bench_case load_case(int argc, char **argv) {
  answers = fdopen(dup(STDOUT_FILENO), "w");
  dup2(STDERR_FILENO, STDOUT_FILENO);
  if (argc != 2) give_up("usage: PEER FOLDER");
  struct bench_case c;
  c.rules = read_rows(argv[1], "rules.u32", sizeof *c.rules, &c.rule_count);
  c.headers = read_rows(argv[1], "headers.u32", sizeof *c.headers, &c.header_count);
  c.expected = read_rows(argv[1], "expected.i32", sizeof *c.expected, &c.header_count);
  return c;
}

static double cpu_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

// A pass takes at most about this long: slow peers look up fewer headers, and say how many.
static const double kLongestPassSeconds = 0.4;

static long headers_a_pass(look_up_fn *look_up, void *table, const struct bench_case *c, int32_t *out) {
  const long probe = c->header_count < 256 ? c->header_count : 256;
  const double start = cpu_seconds();
  look_up(table, c, probe, out);
  const double affordable = kLongestPassSeconds / ((cpu_seconds() - start) / probe + 1e-12);
  return affordable < c->header_count ? (long)affordable + 1 : c->header_count;
}

// `rule_0` is what the table answers where rule 0 matches; the other rules follow, no rule is rule_0 - 1.
static void serve(look_up_fn *look_up, void *table, const struct bench_case *c, long count, int32_t rule_0) {
  int32_t *out = malloc(c->header_count * sizeof *out);
  char command[64];
  fflush(answers);
  while (fgets(command, sizeof command, stdin)) {
    if (!strncmp(command, "pass ", 5)) {
      const int passes = atoi(command + 5);
      fputs("{\"ns\":[", answers);
      for (int p = 0; p < passes; ++p) {
        const double start = cpu_seconds();
        look_up(table, c, count, out);
        fprintf(answers, "%s%.3f", p ? "," : "", (cpu_seconds() - start) / count * 1e9);
      }
      fputs("]}\n", answers);
    } else {
      memset(out, 0xa5, c->header_count * sizeof *out);
      look_up(table, c, count, out);
      long wrong = 0;
      for (long i = 0; i < count; ++i) wrong += out[i] != c->expected[i] + rule_0;
      fprintf(answers, "{\"wrong\":%ld,\"checked\":%ld}\n", wrong, count);
    }
    fflush(answers);
  }
}
