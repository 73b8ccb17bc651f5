// Records of one capture file, pcap or pcapng.
//
// What    next_run() hands out as many whole records as lie in the buffer, so that callers work on runs of packets
//         and prefetch ahead; the records of a run stay valid until the next call.
// Errors  A broken record ends the file: problem() then says what is wrong and problem_offset() where (in the
//         decompressed stream). Records handed out before stay right. Nothing is thrown for what a file contains.
// Limits  262,144 bytes a packet; pcapng blocks of 16 MiB; 65,536 interfaces a section. The buffer grows with bytes
//         that were really read, never by a length that a file claims.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "meshsieve/packet.h"
#include "packet/source.h"

namespace meshsieve {

inline constexpr uint32_t kMaxPacketBytes = 262144;
inline constexpr uint32_t kMaxBlockBytes = 16u << 20;
inline constexpr size_t kMaxInterfaces = 65536;
inline constexpr size_t kMaxRun = 32;

// A window on the stream of a Source.
class BlockBuffer {
 public:
  BlockBuffer(std::unique_ptr<Source> source, size_t block_bytes)
      : source_(std::move(source)),
        block_bytes_(block_bytes),
        bytes_(std::make_unique_for_overwrite<uint8_t[]>(block_bytes)),
        size_(block_bytes) {}

  const uint8_t* data() const { return bytes_.get() + begin_; }
  size_t available() const { return end_ - begin_; }
  void skip(size_t n) { begin_ += n; }  // n <= available()
  // Position of data() in the stream.
  uint64_t offset() const { return consumed_before_ + begin_; }
  // Reads until n bytes are available; false if the stream ends (or fails: see error()) before. Moves the bytes.
  bool fill(size_t n);
  const std::string& error() const { return error_; }
  uint64_t file_bytes_read() const { return source_->file_bytes_read(); }

 private:
  std::unique_ptr<Source> source_;
  size_t block_bytes_;
  std::unique_ptr<uint8_t[]> bytes_;  // never cleared: most captures fill little of it
  size_t size_;
  size_t begin_ = 0, end_ = 0;
  uint64_t consumed_before_ = 0;
  bool ended_ = false;
  std::string error_;
};

class RecordReader {
 public:
  virtual ~RecordReader() = default;
  // Up to kMaxRun records, fewer at the end of the buffer; 0 only at the end of the file. Fills every member but file.
  size_t next_run(Record* out);
  // What a reader of the records from here on must be given: see CaptureShard. Only if asked for before the first run.
  void keep_prologue() { keeps_prologue_ = true; }
  const std::string& prologue() const { return prologue_; }
  bool can_be_split() const { return prologue_.size() <= kMaxBlockBytes; }
  uint64_t offset() const { return buffer_->offset(); }
  int64_t last_time_ns() const { return last_time_ns_; }
  // Goes on where another reader was: numbers and offsets count on from there.
  void resume(uint64_t packets_before, int64_t time_ns, uint64_t offset) {
    packets_before_ = packets_before;
    last_time_ns_ = time_ns;
    moved_ = offset;
  }
  const std::string& problem() const { return problem_; }
  uint64_t problem_offset() const { return problem_offset_; }
  uint64_t packets_read() const { return packets_read_; }
  uint64_t file_bytes_read() const { return buffer_->file_bytes_read(); }

 protected:
  enum class Step : uint8_t { record, skipped, more, end };

  explicit RecordReader(std::unique_ptr<BlockBuffer> buffer) : buffer_(std::move(buffer)) {}
  // Takes up to `room` records that are whole in the buffer and need no care; what follows them is up to take().
  virtual size_t take_plain(Record*, size_t) { return 0; }
  // Takes one record or block out of the buffer. `more`: needs wanted_ bytes at least. `end`: no further record.
  virtual Step take(Record& record) = 0;
  // By the time a run is whole they are there.
  static void prefetch_headers(const Record& record) {
    __builtin_prefetch(record.data);
    __builtin_prefetch(record.data + 64);
  }
  Step fail(std::string problem) {
    problem_ = std::move(problem);
    problem_offset_ = buffer_->offset() + moved_;
    return Step::end;
  }
  Step want(size_t bytes, const char* what) {
    wanted_ = bytes;
    wanted_what_ = what;
    return Step::more;
  }

  std::unique_ptr<BlockBuffer> buffer_;
  int64_t last_time_ns_ = 0;
  bool keeps_prologue_ = false;
  std::string prologue_;

 private:
  uint64_t packets_before_ = 0;
  uint64_t moved_ = 0;  // modulo 2^64: what the prologue takes is less than where the shard begins
  size_t wanted_ = 0;
  const char* wanted_what_ = "";
  bool ended_ = false;
  uint64_t packets_read_ = 0;
  std::string problem_;
  uint64_t problem_offset_ = 0;
};

// Tells the format by its magic. Throws CaptureError if the file is neither pcap nor pcapng, with `offset` 0.
std::unique_ptr<RecordReader> make_record_reader(std::unique_ptr<Source> source, size_t block_bytes);

// One for each format; the buffer holds at least the magic.
std::unique_ptr<RecordReader> make_pcap_reader(std::unique_ptr<BlockBuffer> buffer);
std::unique_ptr<RecordReader> make_pcapng_reader(std::unique_ptr<BlockBuffer> buffer);
bool is_pcap_magic(uint32_t magic);    // as read on a little-endian machine
bool is_pcapng_magic(uint32_t magic);

}  // namespace meshsieve
