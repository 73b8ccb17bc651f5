// Where a capture file can be cut. Neither pcap nor pcapng marks the beginning of a record, so the only exact way is to
// walk them all: one pass that looks at headers only, at several GB/s. Guessing from a place in the middle would be
// faster and could be led astray by payload that looks like records.
#include <sys/stat.h>

#include <algorithm>

#include "meshsieve/capture.h"
#include "meshsieve/errors.h"
#include "packet/record_reader.h"

namespace meshsieve {

namespace {

constexpr size_t kBlockBytes = 512 << 10;
constexpr size_t kMaxShards = 4096;
constexpr uint64_t kSignalsEvery = 4 << 20;  // bytes

}  // namespace

std::vector<CaptureShard> scan_shards(const std::string& path, size_t n, const std::function<void()>& interrupted) {
  if (n == 0 || n > kMaxShards) throw CaptureError("a capture is split into 1 to " + std::to_string(kMaxShards) + " shards");
  std::vector<CaptureShard> shards(1);
  struct stat status;
  const bool regular = path != "-" && ::stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode);
  if (!regular) return shards;
  OpenedSource opened = open_source(path, interrupted, false);
  if (opened.compressed) return shards;
  const uint64_t size = opened.file_size;
  const std::unique_ptr<RecordReader> reader = make_record_reader(std::move(opened.source), kBlockBytes);
  reader->keep_prologue();
  shards[0].file_size = size;
  Record records[kMaxRun];
  uint64_t looked = 0;
  while (shards.size() < n && reader->next_run(records) != 0) {
    const uint64_t at = reader->offset();
    if (at - looked >= kSignalsEvery) {
      looked = at;
      if (interrupted) interrupted();
    }
    if (at < size / n * shards.size() || at >= size) continue;
    if (!reader->can_be_split()) break;
    shards.back().end = at;
    shards.push_back({at, 0, size, reader->packets_read(), reader->last_time_ns(), reader->prologue()});
  }
  if (shards.size() == 1) return {CaptureShard{}};
  shards.back().end = size;
  return shards;
}

}  // namespace meshsieve
