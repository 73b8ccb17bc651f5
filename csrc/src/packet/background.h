// A source read ahead on a thread of its own.
//
// What    The thread fills blocks, two ahead of the reader; read() hands their bytes on in order. An error of the source
//         comes after the bytes before it.
// Why     Decompression costs as much as reading and decoding together: beside them it costs no time.
// Cost    One more copy of the bytes, and three blocks of memory.
// Limits  Only for sources that never block for long (regular files): the destructor waits for the thread. A child made
//         by fork has no thread and is refused by name.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "packet/source.h"

namespace meshsieve {

class BackgroundSource : public Source {
 public:
  // `interrupted` is called every kPatience while the reader waits, and every few MiB; it may throw.
  BackgroundSource(std::unique_ptr<Source> source, std::function<void()> interrupted);
  ~BackgroundSource() override;
  BackgroundSource(const BackgroundSource&) = delete;
  BackgroundSource& operator=(const BackgroundSource&) = delete;

  size_t read(uint8_t* to, size_t size) override;
  uint64_t file_bytes_read() const override { return file_bytes_.load(std::memory_order_relaxed); }

 private:
  static constexpr size_t kBlocks = 3;
  static constexpr size_t kBlockBytes = 512 << 10;

  struct Block {
    std::vector<uint8_t> bytes;
    size_t size = 0;
  };
  void work();
  void begin();

  std::unique_ptr<Source> source_;
  std::function<void()> interrupted_;
  std::array<Block, kBlocks> blocks_;
  size_t read_at_ = 0;  // in the block that is being read
  uint64_t delivered_ = 0, look_at_ = kSignalsEveryBytes;  // when to call interrupted_
  std::atomic<uint64_t> file_bytes_{0};

  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t filled_ = 0;  // blocks ever
  uint64_t drained_ = 0;
  bool ended_ = false;   // no further block
  bool stop_ = false;
  std::exception_ptr error_;

  int owner_ = 0;  // process that has the thread; 0 = not begun
  std::thread thread_;
};

}  // namespace meshsieve
