// DPDK librte_acl (https://doc.dpdk.org/guides/prog_guide/packet_classif_access_ctrl.html) as a peer (peer.h).
//
// Favours the peer wherever there is a choice: headers are laid out for it beforehand, every kernel it is allowed and
// batches of 64 and 256 are tried, and the fastest combination is the one that is timed.
//
// Environment  BENCH_KERNELS     kernels to try, of kKernels
//              BENCH_MAX_SIZE    rte_acl_config.max_size; 0 is the library's default: tries of at most 2,048 nodes before
//                                a split; a large value gives fewer and far larger tries
//              BENCH_CORE        the core to run on (EAL wants to pin threads itself)
//              BENCH_HUGE        1: 2 MiB pages; 0: EAL runs with --no-huge
//              BENCH_LIMIT_GB    memory that a build may take
#include <arpa/inet.h>
#include <rte_acl.h>
#include <rte_eal.h>
#include <rte_log.h>
#include <rte_version.h>
#include <sys/resource.h>

#include "peer.h"

// The layout that rte_acl wants: one byte first, all else in groups of four bytes, network order.
struct key {
  uint8_t proto, unused[3];
  uint32_t src, dst;
  uint16_t sport, dport;
} __attribute__((packed));

enum { K_PROTO, K_SRC, K_DST, K_SPORT, K_DPORT, K_COUNT };

static const struct rte_acl_field_def kFields[K_COUNT] = {
    {.type = RTE_ACL_FIELD_TYPE_BITMASK, .size = 1, .field_index = K_PROTO, .input_index = 0, .offset = 0},
    {.type = RTE_ACL_FIELD_TYPE_MASK, .size = 4, .field_index = K_SRC, .input_index = 1, .offset = 4},
    {.type = RTE_ACL_FIELD_TYPE_MASK, .size = 4, .field_index = K_DST, .input_index = 2, .offset = 8},
    {.type = RTE_ACL_FIELD_TYPE_RANGE, .size = 2, .field_index = K_SPORT, .input_index = 3, .offset = 12},
    {.type = RTE_ACL_FIELD_TYPE_RANGE, .size = 2, .field_index = K_DPORT, .input_index = 3, .offset = 14},
};
RTE_ACL_RULE_DEF(five_tuple_rule, K_COUNT);

static const struct {
  const char *name;
  enum rte_acl_classify_alg alg;
} kKernels[] = {{"scalar", RTE_ACL_CLASSIFY_SCALAR},
                {"sse", RTE_ACL_CLASSIFY_SSE},
                {"avx2", RTE_ACL_CLASSIFY_AVX2},
                {"avx512x16", RTE_ACL_CLASSIFY_AVX512X16},
                {"avx512x32", RTE_ACL_CLASSIFY_AVX512X32}};
static const int kBatches[] = {64, 256};
static const int kTuningPasses = 5;

struct table {
  struct rte_acl_ctx *ctx;
  const uint8_t **keys;
  int kernel, batch;
  size_t bytes, build_bytes;
  double build_seconds;
};

static void look_up(void *opaque, const struct bench_case *c, long count, int32_t *out) {
  (void)c;
  const struct table *t = opaque;
  for (long i = 0; i < count; i += t->batch) {
    const long n = count - i < t->batch ? count - i : t->batch;
    rte_acl_classify_alg(t->ctx, t->keys + i, (uint32_t *)out + i, n, 1, kKernels[t->kernel].alg);
  }
}

static int prefix_length(uint32_t low, uint32_t high) {
  return high - low == UINT32_MAX ? 0 : 32 - __builtin_popcount(high - low);
}

static struct rte_acl_ctx *context_of(const struct bench_case *c) {
  const struct rte_acl_param param = {
      .name = "bench", .socket_id = 0, .rule_size = RTE_ACL_RULE_SZ(K_COUNT), .max_rule_num = c->rule_count};
  struct rte_acl_ctx *ctx = rte_acl_create(&param);
  if (!ctx) give_up("rte_acl_create failed: not enough memory for the rules");
  for (long i = 0; i < c->rule_count; ++i) {
    const uint32_t *box = c->rules[i];
    struct five_tuple_rule rule;
    memset(&rule, 0, sizeof rule);
    rule.data = (struct rte_acl_rule_data){1, RTE_ACL_MAX_PRIORITY - (int32_t)i, (uint32_t)i + 1};
    rule.field[K_PROTO].value.u8 = box[8];
    rule.field[K_PROTO].mask_range.u8 = box[8] == box[9] ? 0xff : 0;
    for (int side = 0; side < 2; ++side) {
      rule.field[K_SRC + side].value.u32 = box[2 * side];
      rule.field[K_SRC + side].mask_range.u32 = prefix_length(box[2 * side], box[2 * side + 1]);
      rule.field[K_SPORT + side].value.u16 = box[4 + 2 * side];
      rule.field[K_SPORT + side].mask_range.u16 = box[5 + 2 * side];
    }
    if (rte_acl_add_rules(ctx, (const struct rte_acl_rule *)&rule, 1)) give_up("rte_acl_add_rules refused a rule");
  }
  return ctx;
}

// The library says what its tables take, and what building them took, only in its log.
static size_t size_in_log(const char *log, const char *format) {
  size_t bytes = 0;
  for (const char *line = log; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
    if (sscanf(line, format, &bytes) == 1) break;
  return bytes;
}

static int build(struct table *t, const struct bench_case *c, size_t max_size) {
  char *log = NULL;
  size_t length = 0;
  FILE *stream = open_memstream(&log, &length);
  rte_openlog_stream(stream);
  const double start = cpu_seconds();
  t->ctx = context_of(c);
  struct rte_acl_config config = {.num_categories = 1, .num_fields = K_COUNT, .max_size = max_size};
  memcpy(config.defs, kFields, sizeof kFields);
  const int failure = rte_acl_build(t->ctx, &config);
  t->build_seconds = cpu_seconds() - start;
  rte_openlog_stream(NULL);
  fclose(stream);
  t->bytes = size_in_log(log, "total: %zu bytes");
  t->build_bytes = size_in_log(log, "memory consumed: %zu");
  free(log);
  return failure;
}

// Whether `name` is in the comma-separated `list`; no list names all.
static int named(const char *list, const char *name) {
  const size_t length = strlen(name);
  for (const char *at = list; at && (at = strstr(at, name)); ++at)
    if ((at == list || at[-1] == ',') && (at[length] == ',' || !at[length])) return 1;
  return !list;
}

static void choose_kernel(struct table *t, const struct bench_case *c, long count, int32_t *out) {
  struct table tried = *t;
  double best = 1e9;
  for (tried.kernel = 0; tried.kernel < (int)(sizeof kKernels / sizeof *kKernels); ++tried.kernel) {
    if (!named(getenv("BENCH_KERNELS"), kKernels[tried.kernel].name)) continue;
    if (rte_acl_set_ctx_classify(t->ctx, kKernels[tried.kernel].alg)) continue;  // the CPU or the build lacks it
    for (size_t b = 0; b < sizeof kBatches / sizeof *kBatches; ++b) {
      tried.batch = kBatches[b];
      for (int pass = 0; pass < kTuningPasses; ++pass) {
        const double start = cpu_seconds();
        look_up(&tried, c, count, out);
        const double seconds = cpu_seconds() - start;
        if (seconds < best) best = seconds, t->kernel = tried.kernel, t->batch = tried.batch;
      }
    }
  }
  if (best == 1e9) give_up("neither the CPU nor this build of the library has a kernel of those asked for");
}

static void start_eal(int huge) {
  const char *core = getenv("BENCH_CORE") ? getenv("BENCH_CORE") : "0";
  const char *common[] = {"rte_acl", "--no-pci", "--no-telemetry", "--iova-mode=va", "-l", core,
                          "--log-level=lib.acl:8", "--force-max-simd-bitwidth=512"};
  const char *with_huge[] = {"--in-memory"};
  const char *without[] = {"--no-huge", "--no-shconf", "-m", "2048"};
  char *arguments[16];
  int count = 0;
  for (size_t i = 0; i < sizeof common / sizeof *common; ++i) arguments[count++] = (char *)common[i];
  if (huge) arguments[count++] = (char *)with_huge[0];
  for (size_t i = 0; !huge && i < sizeof without / sizeof *without; ++i) arguments[count++] = (char *)without[i];
  if (rte_eal_init(count, arguments) < 0) give_up(huge ? "EAL does not start with huge pages" : "EAL does not start");
}

int main(int argc, char **argv) {
  struct bench_case c = load_case(argc, argv);
  const int huge = getenv("BENCH_HUGE") && atoi(getenv("BENCH_HUGE"));
  if (c.rule_count > RTE_ACL_MAX_PRIORITY) give_up("more rules than rte_acl has priorities");
  start_eal(huge);
  if (getenv("BENCH_LIMIT_GB")) {
    const rlim_t bytes = (rlim_t)atol(getenv("BENCH_LIMIT_GB")) << 30;
    setrlimit(RLIMIT_DATA, &(struct rlimit){bytes, bytes});
  }
  struct key *keys = calloc(c.header_count, sizeof *keys);
  struct table table = {.keys = malloc(c.header_count * sizeof(uint8_t *))};
  for (long i = 0; i < c.header_count; ++i) {
    const uint32_t *h = c.headers[i];
    keys[i] = (struct key){.proto = h[PROTO], .src = htonl(h[SRC]), .dst = htonl(h[DST]),
                           .sport = htons(h[SPORT]), .dport = htons(h[DPORT])};
    table.keys[i] = (const uint8_t *)&keys[i];
  }
  int32_t *out = malloc(c.header_count * sizeof *out);

  const char *max_size = getenv("BENCH_MAX_SIZE") ? getenv("BENCH_MAX_SIZE") : "0";
  const int failure = build(&table, &c, strtoull(max_size, NULL, 10));
  if (failure) {
    char why[128];
    snprintf(why, sizeof why, "rte_acl_build failed with %d after %.1f s", failure, table.build_seconds);
    give_up(why);
  }
  table.batch = kBatches[0];
  const long count = headers_a_pass(look_up, &table, &c, out);
  choose_kernel(&table, &c, count, out);
  fprintf(answers,
          "{\"build_s\":%.6f,\"bytes\":%zu,\"peak_bytes\":%zu,\"headers\":%ld,"
          "\"note\":\"%s, kernel %s, batch %d, max_size %s, %s\"}\n",
          table.build_seconds, table.bytes, table.build_bytes, count, rte_version(), kKernels[table.kernel].name,
          table.batch, max_size, huge ? "2 MiB pages" : "4 KiB pages: no huge pages to be had");
  serve(look_up, &table, &c, count, 1);  // userdata is the rule's number + 1
  return 0;
}
