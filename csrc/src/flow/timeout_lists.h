// Live flows in lists by timeout class, so that those whose time is over are found without looking at the others.
//
// What    A flow stands at the tail of its class's list when it is added, and moves there again only when the head is looked
//         at (second chance), so packets do not touch the lists. Of each list it is known when its head may be over.
// Cost    Constant for add and remove; expire() looks at no more than kAtOnce flows a class, so that a jump in time is
//         not paid by one packet.
// Limits  A flow that is over but stands behind one that is not is ended later, or by its own next packet: its record is the
//         same.
// Source  Second chance: Corbato, A paging experiment with the Multics system, 1968.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <utility>

#include "flow/slots.h"
#include "meshsieve/flow_table.h"

namespace meshsieve {

inline bool is_udp(uint8_t proto) { return proto == 17 || proto == 136; }
inline bool is_icmp(uint8_t proto) { return proto == 1 || proto == 58; }

// Whether more than `timeout_ns` lies between. Time that runs backwards lets nothing pass; 0 = no timeout.
inline bool has_passed(int64_t timeout_ns, int64_t since_ns, int64_t now_ns) {
  return timeout_ns != 0 && now_ns > since_ns &&
         static_cast<uint64_t>(now_ns) - static_cast<uint64_t>(since_ns) > static_cast<uint64_t>(timeout_ns);
}

enum TimeoutClass : uint8_t {
  kTcpSyn, kTcpEstablished, kTcpClosing, kTcpClosed, kUdpSingle, kUdpReply, kIcmp, kOther, kTimeoutClasses
};

inline uint8_t timeout_class_of(const HotFlow& flow) {
  const uint8_t proto = flow.key.proto();
  if (proto == 6) {
    switch (flow.tcp_state) {
      case TcpState::closing: return kTcpClosing;
      case TcpState::closed:
      case TcpState::reset: return kTcpClosed;
      case TcpState::established: return kTcpEstablished;
      default: return kTcpSyn;
    }
  }
  if (is_udp(proto)) return flow.packets[1] != 0 ? kUdpReply : kUdpSingle;
  return is_icmp(proto) ? kIcmp : kOther;
}

class TimeoutLists {
 public:
  TimeoutLists(Slots& slots, const FlowOptions& options)
      : slots_(slots),
        timeout_ns_{options.tcp_syn_ns, options.tcp_established_ns, options.tcp_closing_ns, options.tcp_closed_ns,
                    options.udp_single_ns, options.udp_reply_ns, options.icmp_ns, options.other_ns} {
    head_.fill(Slots::kNone);
    tail_.fill(Slots::kNone);
    due_ns_.fill(kNever);
  }

  bool is_over(const HotFlow& flow, int64_t now_ns) const {
    return has_passed(timeout_ns_[flow.timeout_class], flow.last_ns, now_ns);
  }
  bool is_due(int64_t now_ns) const { return now_ns >= next_due_ns_ && next_due_ns_ != kNever; }

  // To the tail of the list of its class.
  void add(uint32_t slot) {
    HotFlow& flow = slots_.hot(slot);
    ColdFlow& cold = slots_.cold(slot);
    const uint8_t timeout_class = flow.timeout_class = timeout_class_of(flow);
    cold.listed_ns = flow.last_ns;
    cold.next = Slots::kNone;
    cold.previous = tail_[timeout_class];
    if (cold.previous != Slots::kNone) slots_.cold(cold.previous).next = slot;
    tail_[timeout_class] = slot;
    if (head_[timeout_class] == Slots::kNone) {
      head_[timeout_class] = slot;
      look_at_head(timeout_class);
    }
  }

  void remove(uint32_t slot) {
    const uint8_t timeout_class = slots_.hot(slot).timeout_class;
    const ColdFlow& cold = slots_.cold(slot);
    if (cold.next != Slots::kNone) slots_.cold(cold.next).previous = cold.previous;
    else tail_[timeout_class] = cold.previous;
    if (cold.previous != Slots::kNone) {
      slots_.cold(cold.previous).next = cold.next;
    } else {
      head_[timeout_class] = cold.next;
      look_at_head(timeout_class);
    }
  }

  // Two flows behind a slot in its list: the first one's lines were asked for when the slot before ended.
  void prefetch_after(uint32_t slot) {
    const uint32_t next = slots_.cold(slot).next;
    if (next == Slots::kNone) return;
    const uint32_t then = slots_.cold(next).next;
    slots_.prefetch_all(next);
    if (then != Slots::kNone) slots_.prefetch_all(then);
  }

  // After a packet, which may have changed the class.
  void update(uint32_t slot) {
    const HotFlow& flow = slots_.hot(slot);
    if (timeout_class_of(flow) != flow.timeout_class) move_to_tail(slot);
  }

  // Calls end(slot), which must remove it, for flows at the heads of the lists whose time is over.
  template <class End>
  void expire(int64_t now_ns, const End& end) {
    for (uint8_t timeout_class = 0; timeout_class < kTimeoutClasses; ++timeout_class) {
      for (int i = 0; i < kAtOnce; ++i) {
        if (due_ns_[timeout_class] == kNever || now_ns < due_ns_[timeout_class]) break;
        const uint32_t slot = head_[timeout_class];
        if (is_over(slots_.hot(slot), now_ns)) end(slot);
        else move_to_tail(slot);
      }
    }
  }

  // The least recently used of the heads, after flows that were active since they were listed had their second chance;
  // kNone if there is no flow.
  uint32_t oldest() {
    uint32_t oldest = Slots::kNone;
    for (int i = 0; i < kSecondChances; ++i) {
      oldest = Slots::kNone;
      for (const uint32_t head : head_) {
        if (head == Slots::kNone) continue;
        if (oldest == Slots::kNone || slots_.cold(head).listed_ns < slots_.cold(oldest).listed_ns) oldest = head;
      }
      if (oldest == Slots::kNone || slots_.hot(oldest).last_ns == slots_.cold(oldest).listed_ns) break;
      move_to_tail(oldest);
    }
    return oldest;
  }

  // Calls end(slot), which must remove it, for every flow.
  template <class End>
  void end_all(const End& end) {
    for (const uint32_t& head : head_)
      while (head != Slots::kNone) end(head);
  }

 private:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
  static constexpr int kAtOnce = 8;
  static constexpr int kSecondChances = 16;

  void move_to_tail(uint32_t slot) {
    remove(slot);
    add(slot);
  }

  // Sets when the head of a list may be over.
  void look_at_head(uint8_t timeout_class) {
    const uint32_t slot = head_[timeout_class];
    const int64_t timeout = timeout_ns_[timeout_class];
    const int64_t before = std::exchange(due_ns_[timeout_class], kNever);
    if (slot != Slots::kNone && timeout != 0) {
      const int64_t last_ns = slots_.hot(slot).last_ns;
      if (last_ns <= kNever - 1 - timeout) due_ns_[timeout_class] = last_ns + timeout + 1;
    }
    if (before != next_due_ns_) next_due_ns_ = std::min(next_due_ns_, due_ns_[timeout_class]);
    else next_due_ns_ = *std::min_element(due_ns_.begin(), due_ns_.end());
  }

  Slots& slots_;
  std::array<int64_t, kTimeoutClasses> timeout_ns_;
  std::array<uint32_t, kTimeoutClasses> head_, tail_;
  std::array<int64_t, kTimeoutClasses> due_ns_;  // when the head of the list is to be looked at
  int64_t next_due_ns_ = kNever;
};

}  // namespace meshsieve
