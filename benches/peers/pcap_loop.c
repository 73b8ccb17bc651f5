// libpcap as a peer: an empty loop over a capture that only counts, with a filter if BENCH_FILTER holds one.
//
//   pcap_loop FOLDER      FOLDER/capture.pcap; the protocol of peer.h, a packet in place of a header
#include <pcap/pcap.h>

#include "peer.h"

static long expected_count(void) { return getenv("BENCH_EXPECTED") ? atol(getenv("BENCH_EXPECTED")) : -1; }

static void count_one(u_char *count, const struct pcap_pkthdr *header, const u_char *data) {
  (void)header, (void)data;
  ++*(long *)count;
}

static long count_packets(const char *path) {
  char error[PCAP_ERRBUF_SIZE];
  pcap_t *capture = pcap_open_offline(path, error);
  if (!capture) give_up("libpcap cannot open the capture");
  const char *filter = getenv("BENCH_FILTER");
  struct bpf_program program;
  if (filter) {
    if (pcap_compile(capture, &program, filter, 1, PCAP_NETMASK_UNKNOWN) || pcap_setfilter(capture, &program))
      give_up("libpcap refuses the filter");
    pcap_freecode(&program);
  }
  long count = 0;
  pcap_loop(capture, -1, count_one, (u_char *)&count);
  pcap_close(capture);
  return count;
}

int main(int argc, char **argv) {
  answers = fdopen(dup(STDOUT_FILENO), "w");
  dup2(STDERR_FILENO, STDOUT_FILENO);
  char path[4096], command[64];
  snprintf(path, sizeof path, "%s/capture.pcap", argc == 2 ? argv[1] : ".");
  const long packets = atol(getenv("BENCH_PACKETS"));
  count_packets(path);
  fprintf(answers, "{\"headers\":%ld,\"note\":\"%s\"}\n", packets, pcap_lib_version());
  fflush(answers);
  while (fgets(command, sizeof command, stdin)) {
    if (!strncmp(command, "pass ", 5)) {
      fputs("{\"ns\":[", answers);
      for (int pass = 0, passes = atoi(command + 5); pass < passes; ++pass) {
        const double start = cpu_seconds();
        count_packets(path);
        fprintf(answers, "%s%.3f", pass ? "," : "", (cpu_seconds() - start) / packets * 1e9);
      }
      fputs("]}\n", answers);
    } else {
      const long counted = count_packets(path), expected = expected_count();
      fprintf(answers, "{\"wrong\":%ld,\"checked\":%ld}\n", labs(counted - expected), packets);
    }
    fflush(answers);
  }
  return 0;
}
