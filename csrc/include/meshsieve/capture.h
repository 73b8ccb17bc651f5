// Reading captures: files to batches of decoded packets.
//
// What    CaptureReader opens pcap and pcapng files (also compressed, also standard input), merges several by time or
//         reads them one after another, applies a filter, a time range and a limit, decodes, and fills batches.
// Errors  What a file contains never throws. A file that cannot be opened or is no capture throws CaptureError when
//         the reader is made; a record that breaks ends its file, and `problem` says so in words.
// Memory  one buffer a file and the batch, whatever the length of the capture.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "meshsieve/packet_batch.h"
#include "meshsieve/packet_observer.h"

namespace meshsieve {

class Filter;
class FlowTable;
class RecordReader;

// A part of a capture file that can be read by itself: whole records, and what must be known before them.
struct CaptureShard {
  uint64_t begin = 0, end = 0;    // bytes of the file; end 0 = all of it, also of a compressed file or a pipe
  uint64_t file_size = 0;         // when it was scanned: another size is refused
  uint64_t packets_before = 0;
  int64_t time_ns = 0;            // of the packet before, which a pcapng packet without time takes
  std::string prologue;           // the file's header, or the section's header and interfaces
};

// At most `n` shards of about equal size, in order, which together hold every record of the file once. One shard for what
// cannot be split: compressed files, pipes, files without two records. Reads the file once (record headers only are
// looked at). A file that breaks off ends in its last shard as it would end alone. Throws CaptureError as CaptureReader.
std::vector<CaptureShard> scan_shards(const std::string& path, size_t n, const std::function<void()>& interrupted);

struct CaptureOptions {
  std::vector<std::string> paths;  // "-" = standard input; any bytes
  std::vector<std::string> names;  // the same for messages, in UTF-8
  std::vector<CaptureShard> shards;  // one a path, or none: whole files
  bool merge = true;               // by time; otherwise one after another
  std::string filter;              // empty = everything
  uint64_t count = std::numeric_limits<uint64_t>::max();      // packets that pass the filter
  int64_t start_ns = std::numeric_limits<int64_t>::min();     // first instant that is wanted
  int64_t end_ns = std::numeric_limits<int64_t>::max();       // first instant after it; max = no end
  std::function<void()> interrupted;                          // see Source
};

class CaptureReader {
 public:
  explicit CaptureReader(CaptureOptions options);
  ~CaptureReader();

  // `more`: the batch has room and the capture goes on, but a bounded amount of work (about 4 MiB of records) is done,
  // so that the caller can look for signals.
  enum class Progress : uint8_t { more, full, end };
  // With `flows`, the packets also go through the flow table, which fills the flow columns, and then to the observers.
  Progress fill(PacketBatch& batch, FlowTable* flows = nullptr, std::span<PacketObserver* const> observers = {});
  // The same way for packets of which nobody wants columns, a tenth faster. Never `full`.
  Progress follow(FlowTable& flows, std::span<PacketObserver* const> observers = {});

  // Closes the files. Counts and problems stay; fill() then answers `end`.
  void close();

  uint64_t packets_read() const { return packets_read_; }      // records taken from the files
  uint64_t packets_delivered() const { return delivered_; }    // of these, what filter, times and count let through
  uint64_t file_bytes_read() const;
  uint64_t file_bytes() const { return file_bytes_; }          // 0 if one of the sizes is not known
  const std::array<uint64_t, kDecodeStatusCount>& status_counts() const { return status_counts_; }

  // A file that could not be read to its end.
  struct Problem {
    std::string name;       // of the file
    std::string text;       // "N packets read, then REASON at byte B"
    uint64_t packets_read;  // of this file
    uint64_t offset;        // in the decompressed stream
  };
  const std::vector<Problem>& problems() const { return problems_; }

 private:
  struct Run;
  struct Decoded;
  struct File;
  bool decode_run(uint64_t room, Decoded& run);
  static void show(const Decoded& run, FlowTable& flows, std::span<PacketObserver* const> observers, PacketBatch& batch,
                   uint32_t row);
  bool is_wanted(const Record& record);
  void next_run(Run& run);
  void merged_run(Run& run);
  void concatenated_run(Run& run);
  bool refill(File& file);

  CaptureOptions options_;
  std::unique_ptr<Filter> filter_;
  bool takes_all_;              // neither filter nor times
  std::vector<std::unique_ptr<File>> files_;
  size_t current_file_ = 0;     // when read one after another
  std::vector<File*> heap_;     // when merged: by time, then by position on the command line
  bool heap_ready_ = false;
  File* drained_ = nullptr;     // merged: used up by the last run
  std::unique_ptr<Run> run_;    // records that are not delivered yet
  std::unique_ptr<PacketBatch> followed_;  // where the flow table writes in follow(); its other columns are not filled
  uint64_t packets_read_ = 0;
  uint64_t delivered_ = 0;
  uint64_t file_bytes_ = 0;
  uint64_t closed_file_bytes_read_ = 0;
  std::array<uint64_t, kDecodeStatusCount> status_counts_{};
  std::vector<Problem> problems_;
};

}  // namespace meshsieve
