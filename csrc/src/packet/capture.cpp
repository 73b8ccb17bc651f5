#include "meshsieve/capture.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "meshsieve/errors.h"
#include "meshsieve/flow_table.h"
#include "packet/filter.h"
#include "packet/record_reader.h"

namespace meshsieve {

namespace {

static_assert(kMaxRun <= FlowTable::kMaxFlowRun);

constexpr size_t kBlockBytes = 256 << 10;     // beside the columns in the second level of cache
constexpr size_t kLeastBlockBytes = 64 << 10;
constexpr size_t kAllBlocksBytes = 16 << 20;  // of many files together
constexpr size_t kMaxThreads = 8;             // files that are decompressed beside the reader
constexpr uint64_t kSliceBytes = 4 << 20;
constexpr uint64_t kFollowedBytes = 1 << 20;  // so that records of flows that end meanwhile stay few
constexpr size_t kMaxFiles = 65535;           // the column `file` is 16 bits wide

}  // namespace

struct CaptureReader::Run {
  const Record* records = nullptr;  // of one file, or those in `merged`
  size_t at = 0;
  size_t n = 0;
  Record merged[kMaxRun];
};

struct CaptureReader::Decoded {
  Packet packets[kMaxRun];
  Record wanted[kMaxRun];
  const Record* records = nullptr;
  size_t n = 0;
  uint64_t bytes = 0;  // of all records so far
};

struct CaptureReader::File {
  std::string name;
  uint16_t index;
  std::unique_ptr<RecordReader> reader;
  Record records[kMaxRun];  // their member `file` is set once: readers leave it alone
  size_t at = 0;
  size_t n = 0;

  const Record& head() const { return records[at]; }
};

CaptureReader::CaptureReader(CaptureOptions options)
    : options_(std::move(options)), run_(std::make_unique<Run>()) {
  if (options_.paths.empty()) throw CaptureError("no capture file is given");
  if (options_.paths.size() > kMaxFiles) throw CaptureError("over 65,535 capture files at once");
  if (std::count(options_.paths.begin(), options_.paths.end(), "-") > 1) {
    throw CaptureError("standard input ('-') can be read only once");
  }
  if (!options_.filter.empty()) filter_ = std::make_unique<Filter>(options_.filter);
  takes_all_ = !filter_ && options_.start_ns == std::numeric_limits<int64_t>::min() &&
               options_.end_ns == std::numeric_limits<int64_t>::max();
  const size_t block = std::clamp(kAllBlocksBytes / options_.paths.size(), kLeastBlockBytes, kBlockBytes);
  const bool use_threads = options_.paths.size() <= kMaxThreads && std::thread::hardware_concurrency() > 1;
  bool sizes_known = true;
  for (size_t i = 0; i < options_.paths.size(); ++i) {
    auto file = std::make_unique<File>();
    file->name = options_.names.at(i);
    file->index = static_cast<uint16_t>(i);
    for (Record& record : file->records) record.file = file->index;
    try {
      const CaptureShard* shard = options_.shards.empty() ? nullptr : &options_.shards.at(i);
      if (shard != nullptr && shard->end != 0) {
        file->reader = make_record_reader(
            open_range(options_.paths[i], shard->prologue, shard->begin, shard->end, shard->file_size), block);
        file->reader->resume(shard->packets_before, shard->time_ns, shard->begin - shard->prologue.size());
        file_bytes_ += shard->end - shard->begin;
      } else {
        OpenedSource opened = open_source(options_.paths[i], options_.interrupted, use_threads);
        file->reader = make_record_reader(std::move(opened.source), block);
        file_bytes_ += opened.file_size;
        sizes_known = sizes_known && opened.file_size != 0;
      }
    } catch (const CaptureError& error) {
      throw CaptureError(file->name + ": " + error.what());
    }
    files_.push_back(std::move(file));
  }
  if (!sizes_known) file_bytes_ = 0;
}

CaptureReader::~CaptureReader() = default;

uint64_t CaptureReader::file_bytes_read() const {
  uint64_t sum = closed_file_bytes_read_;
  for (const auto& file : files_) sum += file->reader->file_bytes_read();
  return sum;
}

void CaptureReader::close() {
  closed_file_bytes_read_ = file_bytes_read();
  files_.clear();
  heap_.clear();
  drained_ = nullptr;
  run_->at = run_->n = 0;
}

CaptureReader::Progress CaptureReader::fill(PacketBatch& batch, FlowTable* flows,
                                            std::span<PacketObserver* const> observers) {
  Decoded run;
  while (run.bytes < kSliceBytes) {
    if (!decode_run(batch.capacity() - batch.size(), run)) return Progress::end;
    const uint32_t row = batch.size();
    batch.append(run.records, run.packets, run.n);
    if (flows != nullptr) show(run, *flows, observers, batch, row);
    if (delivered_ == options_.count) return Progress::end;
    if (batch.full()) return Progress::full;
  }
  return Progress::more;
}

CaptureReader::Progress CaptureReader::follow(FlowTable& flows, std::span<PacketObserver* const> observers) {
  if (!followed_) followed_ = std::make_unique<PacketBatch>(kMaxRun);
  followed_->shows_flows = !observers.empty();
  Decoded run;
  while (run.bytes < kFollowedBytes) {
    if (!decode_run(kMaxRun, run)) return Progress::end;
    show(run, flows, observers, *followed_, 0);
    if (delivered_ == options_.count) return Progress::end;
  }
  return Progress::more;
}

// The next packets that are wanted, at most `room` of them and perhaps none. False at the end of the capture.
bool CaptureReader::decode_run(uint64_t room, Decoded& run) {
  if (run_->at == run_->n) {
    next_run(*run_);
    if (run_->n == 0) return false;
  }
  room = std::min(room, options_.count - delivered_);
  run.records = run_->records + run_->at;
  run.n = 0;
  if (takes_all_) {
    run.n = std::min<uint64_t>(run_->n - run_->at, room);
    packets_read_ += run.n;
    run_->at += run.n;
  } else {
    for (; run_->at != run_->n && run.n != room; ++run_->at) {
      const Record& record = run_->records[run_->at];
      ++packets_read_;
      if (is_wanted(record)) run.wanted[run.n++] = record;
      else run.bytes += record.captured + 16;
    }
    run.records = run.wanted;
  }
  delivered_ += run.n;
  uint8_t any_status = 0;
  for (size_t i = 0; i < run.n; ++i) {
    decode(run.records[i], run.packets[i]);
    run.bytes += run.records[i].captured + 16;
    any_status |= run.packets[i].status;
  }
  if (any_status == 0) status_counts_[0] += run.n;
  else for (size_t i = 0; i < run.n; ++i) ++status_counts_[run.packets[i].status];
  return true;
}

void CaptureReader::show(const Decoded& run, FlowTable& flows, std::span<PacketObserver* const> observers,
                         PacketBatch& batch, uint32_t row) {
  flows.update(run.packets, run.records, run.n, batch, row);
  for (PacketObserver* observer : observers) {
    observer->update(run.packets, run.records, run.n, flows.joined(), batch, row);
  }
}

bool CaptureReader::is_wanted(const Record& record) {
  if (record.time_ns < options_.start_ns) return false;
  if (record.time_ns >= options_.end_ns && options_.end_ns != std::numeric_limits<int64_t>::max()) return false;
  return !filter_ || filter_->matches(record);
}

void CaptureReader::next_run(Run& run) {
  run.at = run.n = 0;
  if (files_.size() > 1 && options_.merge) merged_run(run);
  else concatenated_run(run);
}

// Reads the next records of a file; false, with its problem noted, at its end.
bool CaptureReader::refill(File& file) {
  file.at = 0;
  file.n = file.reader->next_run(file.records);
  if (file.n != 0) return true;
  const RecordReader& reader = *file.reader;
  if (!reader.problem().empty()) {
    problems_.push_back({file.name,
                         std::to_string(reader.packets_read()) + " packets read, then " + reader.problem() +
                             " at byte " + std::to_string(reader.problem_offset()),
                         reader.packets_read(), reader.problem_offset()});
  }
  return false;
}

void CaptureReader::concatenated_run(Run& run) {
  for (; current_file_ < files_.size(); ++current_file_) {
    File& file = *files_[current_file_];
    if (!refill(file)) continue;
    run.records = file.records;
    run.n = file.n;
    return;
  }
}

// The heads of all files in a heap. A file whose run is used up is read on only at the next call, because its records
// in `run` become invalid by that.
void CaptureReader::merged_run(Run& run) {
  const auto later = [](const File* a, const File* b) {
    return a->head().time_ns != b->head().time_ns ? a->head().time_ns > b->head().time_ns : a->index > b->index;
  };
  const auto enter = [&](File* file) {
    if (!refill(*file)) return;
    heap_.push_back(file);
    std::push_heap(heap_.begin(), heap_.end(), later);
  };
  if (!heap_ready_) {
    heap_ready_ = true;
    for (const auto& file : files_) enter(file.get());
  }
  if (drained_) enter(std::exchange(drained_, nullptr));
  run.records = run.merged;
  while (!heap_.empty() && run.n < kMaxRun) {
    std::pop_heap(heap_.begin(), heap_.end(), later);
    File* first = heap_.back();
    heap_.pop_back();
    run.merged[run.n++] = first->head();
    if (++first->at == first->n) {
      drained_ = first;
      break;
    }
    heap_.push_back(first);
    std::push_heap(heap_.begin(), heap_.end(), later);
  }
}

}  // namespace meshsieve
