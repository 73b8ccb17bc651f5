// Bytes of a capture file, decompressed on the way if its first bytes say so.
//
// What    open_source() gives the plain bytes of a file, of standard input ("-"), of gzip (RFC 1952, several members),
//         Zstandard (RFC 8878, several frames) or LZ4 (frame format 1.6, several frames) data, told apart by magic and
//         never by name.
// Why     read() into a reused buffer: measured cheaper than mmap, and it works on pipes.
// Threads A large compressed file is decompressed on a thread of its own, two blocks ahead of the reader (background.h).
// Limits  compressed data may grow 1,000-fold and to 1 TiB; Zstandard windows of up to 32 MiB are accepted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace meshsieve {

inline constexpr uint64_t kMaxInflationRatio = 1000;
inline constexpr uint64_t kInflationRatioFrom = 16u << 20;  // below this output the ratio is not looked at
inline constexpr uint64_t kMaxInflatedBytes = uint64_t{1} << 40;
inline constexpr int kMaxZstdWindowLog = 25;
inline constexpr uint64_t kSignalsEveryBytes = 4 << 20;

class Source {
 public:
  virtual ~Source() = default;
  // Reads 1..size bytes; 0 at the end. Throws CaptureError (operating system error, damaged compressed data); what was
  // returned before stays valid.
  virtual size_t read(uint8_t* to, size_t size) = 0;
  // Bytes consumed of the file itself, before decompression.
  virtual uint64_t file_bytes_read() const = 0;
};

struct OpenedSource {
  std::unique_ptr<Source> source;
  uint64_t file_size = 0;  // 0 where it cannot be known (pipes)
  bool compressed = false;
};

// Bytes begin..end of a regular file behind `prologue`. Throws CaptureError, also if the file has not `file_size` bytes.
std::unique_ptr<Source> open_range(const std::string& path, std::string prologue, uint64_t begin, uint64_t end,
                                   uint64_t file_size);

// `interrupted` is called when a signal arrives during a blocking read and every few MiB, for a file may be made of blocks
// that nobody is given; it may throw to end the read.
// `may_use_thread`: decompression may run on a second thread.
OpenedSource open_source(const std::string& path, std::function<void()> interrupted, bool may_use_thread);

}  // namespace meshsieve
