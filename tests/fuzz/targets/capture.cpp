// The input is a capture file, also compressed. Oracle: the batch size changes neither packets, flows nor requests.
#include <sys/mman.h>
#include <unistd.h>

#include <string>

#include "fuzz.h"
#include "meshsieve/capture.h"
#include "meshsieve/errors.h"
#include "meshsieve/flow_table.h"
#include "meshsieve/http_requests.h"

using namespace meshsieve;

namespace {

struct Seen {
  uint64_t packets = 0, flows = 0, requests = 0, connections = 0;
  std::string problem;
  bool operator==(const Seen&) const = default;
};

Seen read(const std::string& path, uint32_t batch_size) {
  Seen seen;
  try {
    CaptureOptions options;
    options.paths = options.names = {path};
    CaptureReader reader(options);
    FlowTable flows(FlowOptions{});
    HttpRequests requests(HttpLimits{});
    PacketObserver* const observers[] = {&requests};
    PacketBatch batch(batch_size);
    while (reader.fill(batch, &flows, observers) != CaptureReader::Progress::end) {
      if (batch.full()) batch.clear();
    }
    flows.finish();
    requests.finish();
    seen = {reader.packets_read(), flows.take_finished()->size(), requests.take().size(),
            requests.counts().connections, {}};
    for (const auto& problem : reader.problems()) seen.problem += problem.text;
  } catch (const CaptureError& error) {
    seen.problem = error.what();
  }
  return seen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const int file = ::memfd_create("fuzz", 0);
  static const std::string path = "/proc/self/fd/" + std::to_string(file);
  if (::ftruncate(file, 0) != 0 || ::pwrite(file, data, size, 0) != static_cast<ssize_t>(size)) return 0;
  check(read(path, 1) == read(path, 4096), "the batch size changes what is read");
  return 0;
}
