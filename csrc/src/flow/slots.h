// The flows themselves: numbered slots in blocks that never move.
//
// Hot     two cache lines that every packet of the flow touches: key, time, counters, TCP
// Cold    what only the start and the end of a flow touch: the first packet's fields, list links
// Reuse   A slot that became free is given out again only kMaxBatch packets later. A batch therefore never shows two
//         flows under one slot, and which slot a flow gets does not depend on the batch size.
#pragma once

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <new>
#include <vector>

#include "flow/flow_key.h"
#include "meshsieve/flow_table.h"

namespace meshsieve {

// Arrays indexed by direction: 0 = from the initiator, 1 = from the responder.
struct alignas(64) HotFlow {
  FlowKey key;
  int64_t last_ns;
  uint32_t tag;
  uint8_t initiator_is_high;
  TcpState tcp_state;
  uint8_t timeout_class;
  uint8_t notes;
  // second line
  uint64_t packets[2];
  uint64_t bytes[2];
  uint32_t next_seq[2];
  uint32_t retransmissions[2];
  uint8_t tcp_flags_or[2];
  // A bit a direction, 1 << direction:
  uint8_t seq_known;
  uint8_t ended : 2;   // FIN seen
  uint8_t steady : 2;  // a further packet without SYN, FIN and RST changes neither state nor timeout class
  uint8_t app_open;  // the recognizer wants to see the payload
  uint8_t app_how;   // as in the row
  uint16_t app;
  uint64_t flow_id;
};
static_assert(sizeof(HotFlow) == 128);

// Zeroes by the library's memset: what compilers put in its place here (`rep stos`) takes several times as long.
template <class T>
void clear(T& flow) {
  size_t size = sizeof flow;
  asm("" : "+r"(size));
  std::memset(static_cast<void*>(&flow), 0, size);
}

struct ColdFlow {
  FlowRow row;              // first packet's fields, flow_id, first_ns
  uint32_t previous, next;  // in the list of the timeout class
  int64_t listed_ns;        // last_ns when it was put at the tail
};

class Slots {
 public:
  static constexpr uint32_t kNone = 0xffffffff;

  HotFlow& hot(uint32_t slot) { return hot_[slot >> kShift].get()[slot & kMask]; }
  ColdFlow& cold(uint32_t slot) { return cold_[slot >> kShift].get()[slot & kMask]; }
  void prefetch(uint32_t slot) {
    const auto* line = reinterpret_cast<const char*>(&hot(slot));
    __builtin_prefetch(line);
    __builtin_prefetch(line + 64);
  }

  void prefetch_all(uint32_t slot) {
    prefetch(slot);
    const auto* lines = reinterpret_cast<const char*>(&cold(slot));
    for (size_t at = 0; at < sizeof(ColdFlow); at += 64) __builtin_prefetch(lines + at, 1);
  }

  uint32_t take(uint64_t packet) {
    ++live_;
    if (!free_.empty() && free_.front().packet + kMaxBatch < packet) {
      const uint32_t slot = free_.front().slot;
      free_.pop_front();
      if (!free_.empty()) prefetch_all(free_.front().slot);  // which a later flow will fill
      return slot;
    }
    if ((used_ & kMask) == 0) {
      hot_.push_back(block<HotFlow>());
      cold_.push_back(block<ColdFlow>());
    }
    if (used_ == kManyFlows || ((used_ & kMask) == 0 && used_ != 0)) {
      use_huge_pages(hot_.back());
      use_huge_pages(cold_.back());
    }
    return used_++;
  }
  void give_back(uint32_t slot, uint64_t packet) {
    --live_;
    free_.push_back({slot, packet});
  }

  uint32_t live() const { return live_; }
  uint32_t used() const { return used_; }
  size_t bytes() const { return used_ * (sizeof(HotFlow) + sizeof(ColdFlow)) + free_.size() * sizeof(Free); }

 private:
  static constexpr int kShift = 14;
  static constexpr uint32_t kMask = (1u << kShift) - 1;
  static constexpr uint32_t kManyFlows = 2048;

  struct Unmap {
    size_t bytes;
    void operator()(void* start) const { ::munmap(start, bytes); }
  };
  template <class T>
  using Block = std::unique_ptr<T, Unmap>;
  // Mapped, so that a small capture touches only the pages it uses.
  template <class T>
  static Block<T> block() {
    const size_t bytes = sizeof(T) << kShift;
    void* start = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) throw std::bad_alloc();
    return Block<T>(static_cast<T*>(start), Unmap{bytes});
  }
  // Once there are many flows, packets find them all over the block, and each small page costs a walk through the page
  // tables (through two of them in a virtual machine). Where the system refuses, ordinary pages do as well.
  template <class T>
  static void use_huge_pages(const Block<T>& block) {
    constexpr int kCollapse = 25;  // MADV_COLLAPSE of Linux 6.1: also the pages that are in use already
    ::madvise(block.get(), block.get_deleter().bytes, MADV_HUGEPAGE);
    ::madvise(block.get(), block.get_deleter().bytes, kCollapse);
  }

  struct Free {
    uint32_t slot;
    uint64_t packet;
  };
  std::vector<Block<HotFlow>> hot_;
  std::vector<Block<ColdFlow>> cold_;
  std::deque<Free> free_;
  uint32_t used_ = 0;
  uint32_t live_ = 0;
};

}  // namespace meshsieve
