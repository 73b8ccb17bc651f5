#include "packet/record_reader.h"

#include <algorithm>
#include <cstring>

#include "meshsieve/errors.h"

namespace meshsieve {

bool BlockBuffer::fill(size_t n) {
  while (available() < n) {
    if (ended_) return false;
    if (begin_ != 0) {
      std::memmove(bytes_.get(), bytes_.get() + begin_, available());
      consumed_before_ += begin_;
      end_ -= begin_;
      begin_ = 0;
    }
    if (end_ == size_) {
      auto larger = std::make_unique_for_overwrite<uint8_t[]>(2 * size_);
      std::memcpy(larger.get(), bytes_.get(), end_);
      bytes_ = std::move(larger);
      size_ *= 2;
    }
    size_t got = 0;
    try {
      got = source_->read(bytes_.get() + end_, std::min(size_ - end_, block_bytes_));
    } catch (const CaptureError& error) {
      error_ = error.what();
    }
    ended_ = got == 0;
    end_ += got;
  }
  return true;
}

size_t RecordReader::next_run(Record* out) {
  size_t n = ended_ ? 0 : take_plain(out, kMaxRun);
  if (n != 0) {
    for (size_t i = 0; i < n; ++i) out[i].number = packets_before_ + packets_read_ + i + 1;
    packets_read_ += n;
    last_time_ns_ = out[n - 1].time_ns;
  }
  while (n < kMaxRun && !ended_) {
    switch (take(out[n])) {
      case Step::record:
        out[n].number = packets_before_ + ++packets_read_;
        last_time_ns_ = out[n].time_ns;
        prefetch_headers(out[n]);
        ++n;
        break;
      case Step::skipped: break;
      case Step::more:
        if (n != 0) return n;  // filling moves the bytes that the records of this run point to
        if (!buffer_->fill(wanted_)) {
          ended_ = true;
          if (!buffer_->error().empty()) {
            fail(buffer_->error());
          } else if (buffer_->available() != 0) {
            fail(std::string("the file ends inside ") + wanted_what_);
          }
        }
        break;
      case Step::end: ended_ = true; break;
    }
  }
  return n;
}

std::unique_ptr<RecordReader> make_record_reader(std::unique_ptr<Source> source, size_t block_bytes) {
  auto buffer = std::make_unique<BlockBuffer>(std::move(source), block_bytes);
  if (!buffer->fill(4)) {
    if (!buffer->error().empty()) throw CaptureError(buffer->error());
    if (buffer->available() == 0) throw CaptureError("the file is empty");
    throw CaptureError("the file ends inside the first 4 bytes, which tell its format");
  }
  uint32_t magic;
  std::memcpy(&magic, buffer->data(), 4);
  if (is_pcap_magic(magic)) return make_pcap_reader(std::move(buffer));
  if (is_pcapng_magic(magic)) return make_pcapng_reader(std::move(buffer));
  throw CaptureError("the file is neither pcap nor pcapng (nor either of them compressed by gzip, Zstandard or LZ4)");
}

}  // namespace meshsieve
