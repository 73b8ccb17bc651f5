#include "packet/source.h"

#include <fcntl.h>
#include <lz4frame.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "meshsieve/errors.h"
#include "packet/background.h"

namespace meshsieve {

namespace {

constexpr size_t kCompressedBlock = 256 << 10;
constexpr uint64_t kLeastBytesForThread = 1 << 20;  // a smaller file is read before the thread has begun

class FileSource : public Source {
 public:
  FileSource(int descriptor, bool owned, std::function<void()> interrupted)
      : descriptor_(descriptor), owned_(owned), interrupted_(std::move(interrupted)) {}
  ~FileSource() override {
    if (owned_) ::close(descriptor_);
  }
  FileSource(const FileSource&) = delete;
  FileSource& operator=(const FileSource&) = delete;

  size_t read(uint8_t* to, size_t size) override {
    if (interrupted_ && bytes_ >= look_at_) {
      look_at_ = bytes_ + kSignalsEveryBytes;
      interrupted_();
    }
    for (;;) {
      const ssize_t got = ::read(descriptor_, to, size);
      if (got >= 0) {
        bytes_ += static_cast<uint64_t>(got);
        return static_cast<size_t>(got);
      }
      if (errno != EINTR) throw CaptureError(std::string("the file cannot be read: ") + std::strerror(errno));
      if (interrupted_) interrupted_();
    }
  }
  uint64_t file_bytes_read() const override { return bytes_; }
  // From now on on a thread that has nothing to do with signals.
  void ignore_signals() { interrupted_ = nullptr; }

 private:
  int descriptor_;
  bool owned_;
  std::function<void()> interrupted_;
  uint64_t bytes_ = 0;
  uint64_t look_at_ = kSignalsEveryBytes;
};

// Bytes already read to look at the magic, then the rest of the file.
class PrefixedSource : public Source {
 public:
  PrefixedSource(std::unique_ptr<Source> rest, std::vector<uint8_t> prefix)
      : rest_(std::move(rest)), prefix_(std::move(prefix)) {}

  size_t read(uint8_t* to, size_t size) override {
    if (at_ == prefix_.size()) return rest_->read(to, size);
    const size_t n = std::min(size, prefix_.size() - at_);
    std::memcpy(to, prefix_.data() + at_, n);
    at_ += n;
    return n;
  }
  uint64_t file_bytes_read() const override { return rest_->file_bytes_read(); }

 private:
  std::unique_ptr<Source> rest_;
  std::vector<uint8_t> prefix_;
  size_t at_ = 0;
};

// What both decompressors share: a block of compressed input and the limits on the output.
class InflatingSource : public Source {
 public:
  explicit InflatingSource(std::unique_ptr<Source> compressed)
      : compressed_(std::move(compressed)), block_(kCompressedBlock) {}
  uint64_t file_bytes_read() const override { return compressed_->file_bytes_read(); }

 protected:
  // Fills the input block; false at the end of the file.
  bool refill() {
    filled_ = compressed_->read(block_.data(), block_.size());
    in_ += filled_;
    return filled_ != 0;
  }
  void count_output(size_t n) {
    out_ += n;
    if (out_ > kMaxInflatedBytes) throw CaptureError("the compressed data grows beyond 1 TiB");
    if (out_ > kInflationRatioFrom && out_ / kMaxInflationRatio > in_) {
      throw CaptureError("the compressed data grows more than 1,000-fold; decompress it yourself if you trust it");
    }
  }

  std::unique_ptr<Source> compressed_;
  std::vector<uint8_t> block_;
  size_t filled_ = 0;

 private:
  uint64_t in_ = 0;
  uint64_t out_ = 0;
};

class GzipSource : public InflatingSource {
 public:
  explicit GzipSource(std::unique_ptr<Source> compressed) : InflatingSource(std::move(compressed)) {
    if (inflateInit2(&stream_, 15 + 16) != Z_OK) throw std::bad_alloc();
  }
  ~GzipSource() override { inflateEnd(&stream_); }

  size_t read(uint8_t* to, size_t size) override {
    size = std::min<size_t>(size, 1u << 30);
    stream_.next_out = to;
    stream_.avail_out = static_cast<uInt>(size);
    while (stream_.avail_out == size) {
      // Behind a full buffer the library may hold more of what it has read.
      if (stream_.avail_in == 0 && !std::exchange(was_full_, false)) {
        if (!refill()) {
          if (in_member_) throw CaptureError("the gzip data ends in the middle");
          return 0;
        }
        stream_.next_in = block_.data();
        stream_.avail_in = static_cast<uInt>(filled_);
      }
      if (!in_member_) {
        while (stream_.avail_in != 0 && *stream_.next_in == 0) {  // tape padding, as gzip ignores it
          ++stream_.next_in;
          --stream_.avail_in;
        }
        if (stream_.avail_in == 0) continue;
        in_member_ = true;
      }
      const int result = inflate(&stream_, Z_NO_FLUSH);
      if (result == Z_STREAM_END) {
        in_member_ = false;
        inflateReset(&stream_);
      } else if (result == Z_MEM_ERROR) {
        throw std::bad_alloc();
      } else if (result != Z_OK && result != Z_BUF_ERROR && stream_.avail_out == size) {
        throw CaptureError(std::string("the gzip data is damaged: ") + (stream_.msg ? stream_.msg : "no gzip data"));
      }
    }
    was_full_ = stream_.avail_out == 0;
    const size_t n = size - stream_.avail_out;
    count_output(n);
    return n;
  }

 private:
  z_stream stream_{};
  bool in_member_ = true;
  bool was_full_ = false;
};

class ZstdSource : public InflatingSource {
 public:
  explicit ZstdSource(std::unique_ptr<Source> compressed)
      : InflatingSource(std::move(compressed)), stream_(ZSTD_createDStream()) {
    if (!stream_) throw std::bad_alloc();
    ZSTD_DCtx_setParameter(stream_.get(), ZSTD_d_windowLogMax, kMaxZstdWindowLog);
  }

  size_t read(uint8_t* to, size_t size) override {
    ZSTD_outBuffer out{to, size, 0};
    while (out.pos == 0) {
      if (in_.pos == in_.size && !std::exchange(was_full_, false)) {
        if (!refill()) {
          if (in_frame_) throw CaptureError("the Zstandard data ends in the middle");
          return 0;
        }
        in_ = {block_.data(), filled_, 0};
      }
      const size_t result = ZSTD_decompressStream(stream_.get(), &out, &in_);
      if (ZSTD_isError(result)) {
        throw CaptureError(std::string("the Zstandard data is damaged or needs too large a window: ") +
                           ZSTD_getErrorName(result));
      }
      in_frame_ = result != 0;
    }
    was_full_ = out.pos == size;
    count_output(out.pos);
    return out.pos;
  }

 private:
  struct Free {
    void operator()(ZSTD_DStream* stream) const { ZSTD_freeDStream(stream); }
  };
  std::unique_ptr<ZSTD_DStream, Free> stream_;
  ZSTD_inBuffer in_{nullptr, 0, 0};
  bool in_frame_ = true;
  bool was_full_ = false;
};

class Lz4Source : public InflatingSource {
 public:
  explicit Lz4Source(std::unique_ptr<Source> compressed) : InflatingSource(std::move(compressed)) {
    LZ4F_dctx* context = nullptr;
    if (LZ4F_isError(LZ4F_createDecompressionContext(&context, LZ4F_VERSION))) throw std::bad_alloc();
    context_.reset(context);
  }

  size_t read(uint8_t* to, size_t size) override {
    size_t written = 0;
    while (written == 0) {
      if (at_ == filled_ && !std::exchange(was_full_, false)) {
        if (!refill()) {
          if (in_frame_) throw CaptureError("the LZ4 data ends in the middle");
          return 0;
        }
        at_ = 0;
      }
      written = size;
      size_t taken = std::min(wanted_, filled_ - at_);
      const size_t result = LZ4F_decompress(context_.get(), to, &written, block_.data() + at_, &taken, nullptr);
      if (LZ4F_isError(result)) {
        throw CaptureError(std::string("the LZ4 data is damaged: ") + LZ4F_getErrorName(result));
      }
      at_ += taken;
      in_frame_ = result != 0;
      wanted_ = in_frame_ ? result : kFrameStart;
    }
    was_full_ = written == size;
    count_output(written);
    return written;
  }

 private:
  struct Free {
    void operator()(LZ4F_dctx* context) const { LZ4F_freeDecompressionContext(context); }
  };
  static constexpr size_t kFrameStart = LZ4F_HEADER_SIZE_MIN;
  std::unique_ptr<LZ4F_dctx, Free> context_;
  size_t at_ = 0;
  // As much as the library asks for: a block, or the checksum behind the last one. What it finds damaged then costs
  // nothing of what came before.
  size_t wanted_ = kFrameStart;
  bool in_frame_ = true;
  bool was_full_ = false;
};

}  // namespace

namespace {

class RangeSource : public Source {
 public:
  RangeSource(std::unique_ptr<Source> file, uint64_t size) : file_(std::move(file)), left_(size) {}

  size_t read(uint8_t* to, size_t size) override {
    size = static_cast<size_t>(std::min<uint64_t>(size, left_));
    const size_t got = size == 0 ? 0 : file_->read(to, size);
    left_ -= got;
    return got;
  }
  uint64_t file_bytes_read() const override { return file_->file_bytes_read(); }

 private:
  std::unique_ptr<Source> file_;
  uint64_t left_;
};

}  // namespace

std::unique_ptr<Source> open_range(const std::string& path, std::string prologue, uint64_t begin, uint64_t end,
                                   uint64_t file_size) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) throw CaptureError(std::string("the file cannot be opened: ") + std::strerror(errno));
  auto file = std::make_unique<FileSource>(descriptor, true, std::function<void()>());
  struct stat status;
  if (::fstat(descriptor, &status) != 0 || static_cast<uint64_t>(status.st_size) != file_size) {
    throw CaptureError("the file has changed since it was scanned; scan its shards again");
  }
  if (begin > end || ::lseek(descriptor, static_cast<off_t>(begin), SEEK_SET) < 0) {
    throw CaptureError("the shard does not lie in the file");
  }
  auto range = std::make_unique<RangeSource>(std::move(file), end - begin);
  return std::make_unique<PrefixedSource>(std::move(range), std::vector<uint8_t>(prologue.begin(), prologue.end()));
}

OpenedSource open_source(const std::string& path, std::function<void()> interrupted, bool may_use_thread) {
  OpenedSource opened;
  const bool standard_input = path == "-";
  const int descriptor = standard_input ? STDIN_FILENO : ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) throw CaptureError(std::string("the file cannot be opened: ") + std::strerror(errno));
  auto file = std::make_unique<FileSource>(descriptor, !standard_input, interrupted);
  FileSource* const bare = file.get();
  struct stat status;
  if (::fstat(descriptor, &status) == 0) {
    if (S_ISDIR(status.st_mode)) throw CaptureError("the path is a folder, not a capture file");
    if (S_ISREG(status.st_mode)) {
      opened.file_size = static_cast<uint64_t>(status.st_size);
      ::posix_fadvise(descriptor, 0, 0, POSIX_FADV_SEQUENTIAL);
    }
  }
  std::vector<uint8_t> magic(4);
  size_t got = 0;
  while (got < magic.size()) {
    const size_t n = file->read(magic.data() + got, magic.size() - got);
    if (n == 0) break;
    got += n;
  }
  magic.resize(got);
  const auto begins_with = [&](std::initializer_list<uint8_t> bytes) {
    return magic.size() >= bytes.size() && std::equal(bytes.begin(), bytes.end(), magic.begin());
  };
  const bool gzip = begins_with({0x1f, 0x8b});
  const bool lz4 = begins_with({0x04, 0x22, 0x4d, 0x18});
  const bool zstd = begins_with({0x28, 0xb5, 0x2f, 0xfd});
  opened.compressed = gzip || zstd || lz4;
  opened.source = std::make_unique<PrefixedSource>(std::move(file), std::move(magic));
  if (gzip) opened.source = std::make_unique<GzipSource>(std::move(opened.source));
  if (zstd) opened.source = std::make_unique<ZstdSource>(std::move(opened.source));
  if (lz4) opened.source = std::make_unique<Lz4Source>(std::move(opened.source));
  // Never on a pipe: nobody could wake the thread from a read that blocks.
  if (opened.compressed && may_use_thread && opened.file_size >= kLeastBytesForThread) {
    bare->ignore_signals();
    opened.source = std::make_unique<BackgroundSource>(std::move(opened.source), std::move(interrupted));
  }
  return opened;
}

}  // namespace meshsieve
