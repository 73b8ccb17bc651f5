#include "packet/background.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "meshsieve/errors.h"

namespace meshsieve {

namespace {

constexpr std::chrono::milliseconds kPatience{20};

}  // namespace

BackgroundSource::BackgroundSource(std::unique_ptr<Source> source, std::function<void()> interrupted)
    : source_(std::move(source)), interrupted_(std::move(interrupted)) {}

BackgroundSource::~BackgroundSource() {
  if (!thread_.joinable()) return;
  if (owner_ != ::getpid()) {  // a child after fork: there is nothing to wait for
    thread_.detach();
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

// The thread begins with the first read, so that opening many files starts none.
void BackgroundSource::begin() {
  for (Block& block : blocks_) block.bytes.resize(kBlockBytes);
  owner_ = ::getpid();
  thread_ = std::thread([this] { work(); });
}

void BackgroundSource::work() {
  for (;;) {
    uint64_t next;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stop_ || filled_ - drained_ < kBlocks; });
      if (stop_) return;
      next = filled_;
    }
    Block& block = blocks_[next % kBlocks];
    std::exception_ptr error;
    block.size = 0;
    try {
      // Whole blocks, so that the two threads meet rarely.
      for (size_t got = 1; got != 0 && block.size < block.bytes.size(); block.size += got) {
        got = source_->read(block.bytes.data() + block.size, block.bytes.size() - block.size);
      }
    } catch (...) {
      error = std::current_exception();
    }
    file_bytes_.store(source_->file_bytes_read(), std::memory_order_relaxed);
    const bool last = error != nullptr || block.size < block.bytes.size();
    {
      const std::lock_guard lock(mutex_);
      filled_ += block.size != 0;
      ended_ = last;
      error_ = error;
    }
    changed_.notify_all();
    if (last) return;
  }
}

size_t BackgroundSource::read(uint8_t* to, size_t size) {
  if (owner_ == 0) begin();
  if (owner_ != ::getpid()) throw CaptureError("the capture was being read before this process was forked");
  {
    std::unique_lock lock(mutex_);
    const auto ready = [&] { return filled_ != drained_ || ended_; };
    while (!changed_.wait_for(lock, kPatience, ready)) {
      lock.unlock();
      if (interrupted_) interrupted_();
      lock.lock();
    }
    if (filled_ == drained_) {
      if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
      return 0;
    }
  }
  if (interrupted_ && delivered_ >= look_at_) {
    look_at_ = delivered_ + kSignalsEveryBytes;
    interrupted_();
  }
  const Block& block = blocks_[drained_ % kBlocks];
  const size_t n = std::min(size, block.size - read_at_);
  std::memcpy(to, block.bytes.data() + read_at_, n);
  read_at_ += n;
  delivered_ += n;
  if (read_at_ == block.size) {
    read_at_ = 0;
    {
      const std::lock_guard lock(mutex_);
      ++drained_;
    }
    changed_.notify_all();
  }
  return n;
}

}  // namespace meshsieve
