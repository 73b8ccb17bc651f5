// In-order bytes of one direction of a TCP connection, within a byte budget.
//
// What    add() takes segments as they come; bytes() is what is contiguous from the start, or from what consume() left.
//         Segments that come too early wait. Nothing is ever taken from outside the window.
// Why     A message that names the application (ClientHello, request line) may span segments, in any order.
// Rules   Sequence numbers compare modulo 2^32 (RFC 9293, section 3.4). Of bytes that come twice the first copy counts;
//         if a later one differs, conflicting() says so. Bytes before the start are none of the stream's.
// Limits  `limit` bytes, waiting segments included, and `max_waiting` waiting segments; what has no room is dropped and
//         lost() says so. Memory grows only with bytes that came, and goes when they are done with; memory_bytes() counts
//         what a waiting segment costs beside its bytes, for a sender may send them one by one.
// Example start(100); add(103, "def") waits; add(100, "abc") -> bytes() == "abcdef".
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace meshsieve {

class TcpStream {
 public:
  static constexpr size_t kMaxWaiting = 64;

  // `kept`: of what was consumed, so many bytes stay known, to notice later copies that differ.
  explicit TcpStream(uint32_t limit, size_t max_waiting = kMaxWaiting, size_t kept = 0)
      : limit_(limit), max_waiting_(max_waiting), kept_(kept) {}

  bool started() const { return started_; }
  // The sequence number of the first byte: that of the SYN plus 1, or of the first segment that was seen.
  void start(uint32_t seq) {
    started_ = true;
    next_ = seq;
  }
  // Sequence number of the byte behind bytes().
  uint32_t next() const { return next_; }

  // Returns whether bytes() has grown. Starts the stream if nobody did.
  bool add(uint32_t seq, std::span<const uint8_t> data) {
    if (!started_) start(seq);
    const auto ahead = static_cast<int32_t>(seq - next_);
    if (ahead < 0) {
      const size_t known = std::min<size_t>(0u - static_cast<uint32_t>(ahead), data.size());
      compare_known(static_cast<uint32_t>(-static_cast<int64_t>(ahead)), data.first(known));
      data = data.subspan(known);
      seq += static_cast<uint32_t>(known);
    }
    if (data.empty()) return false;
    if (seq != next_) {
      hold(seq, data);
      return false;
    }
    const size_t before = ready_.size();
    while (!data.empty()) {
      if (waiting_.empty() || waiting_.front().seq - next_ >= data.size()) {
        append(data);
        break;
      }
      // A segment that came earlier begins inside this one: its bytes count.
      const size_t gap = waiting_.front().seq - next_;
      append(data.first(gap));
      data = data.subspan(gap);
      data = data.subspan(std::min(data.size(), take_first_waiting(data)));
    }
    while (!waiting_.empty() && waiting_.front().seq == next_) take_first_waiting({});
    return ready_.size() > before;
  }

  std::span<const uint8_t> bytes() const { return std::span(ready_).subspan(begin_); }
  // The first n of bytes() are done with, n <= bytes().size(). Makes room.
  void consume(size_t n) {
    begin_ += n;
    if (begin_ <= 2 * kept_ || begin_ < ready_.size() / 2) return;
    ready_.erase(ready_.begin(), ready_.begin() + static_cast<ptrdiff_t>(begin_ - kept_));
    begin_ = kept_;
    give_memory_back();
  }

  // Segments wait for bytes that have not come.
  bool has_gap() const { return !waiting_.empty(); }
  // Gives the missing bytes up: bytes() goes on at the first waiting segment. Returns how many are missing.
  // Only when bytes() is empty and has_gap(), so that no message is put together across a hole.
  uint32_t skip_gap() {
    const uint32_t missing = waiting_.front().seq - next_;
    ready_.clear();
    give_memory_back();
    begin_ = 0;
    next_ += missing;
    while (!waiting_.empty() && waiting_.front().seq == next_) take_first_waiting({});
    return missing;
  }

  bool conflicting() const { return conflicting_; }
  bool lost() const { return lost_; }
  size_t waiting_segments() const { return waiting_.size(); }
  size_t waiting_bytes() const { return waiting_bytes_; }
  size_t held_bytes() const { return ready_.size() - begin_ + waiting_bytes_; }
  size_t memory_bytes() const {
    return ready_.size() + waiting_bytes_ + waiting_.size() * (sizeof(Segment) + kAllocation);
  }

  // As new, not started; a buffer of up to `spare` bytes stays.
  void clear(uint32_t limit, size_t spare) {
    if (ready_.capacity() > spare) ready_ = {};
    ready_.clear();
    waiting_.clear();
    limit_ = limit;
    next_ = 0;
    begin_ = waiting_bytes_ = 0;
    started_ = conflicting_ = lost_ = false;
  }

  // Frees the memory; the stream then takes nothing more.
  void close() {
    *this = TcpStream(0);
    started_ = true;
  }

 private:
  struct Segment {
    uint32_t seq;
    std::vector<uint8_t> bytes;
  };

  static constexpr size_t kAllocation = 32;  // of a few bytes
  static constexpr size_t kSpareBytes = 16 << 10;

  void give_memory_back() {
    if (ready_.capacity() > kSpareBytes && ready_.capacity() / 4 > ready_.size()) ready_.shrink_to_fit();
  }

  size_t room() const { return limit_ - std::min<size_t>(limit_, held_bytes()); }

  void append(std::span<const uint8_t> data) {
    const size_t n = std::min(data.size(), room());
    if (n < data.size()) lost_ = true;
    ready_.insert(ready_.end(), data.begin(), data.begin() + static_cast<ptrdiff_t>(n));
    next_ += static_cast<uint32_t>(n);
    if (n < data.size()) limit_ = static_cast<uint32_t>(held_bytes());  // what follows the hole would not fit either
  }

  // Moves the first waiting segment behind bytes(); `again` is another copy of its beginning. Returns its size.
  size_t take_first_waiting(std::span<const uint8_t> again) {
    const Segment segment = std::move(waiting_.front());
    waiting_.erase(waiting_.begin());
    waiting_bytes_ -= segment.bytes.size();
    note_conflict(again, segment.bytes);
    append(segment.bytes);
    return segment.bytes.size();
  }

  void hold(uint32_t seq, std::span<const uint8_t> data) {
    if (static_cast<size_t>(seq - next_) >= room()) {
      lost_ = true;
      return;
    }
    for (size_t i = 0; i <= waiting_.size() && !data.empty(); ++i) {
      const uint32_t at = seq - next_;
      if (i == waiting_.size()) {
        insert(i, seq, data);
        return;
      }
      const uint32_t begin = waiting_[i].seq - next_;
      const uint32_t end = begin + static_cast<uint32_t>(waiting_[i].bytes.size());
      if (at >= end) continue;
      if (at < begin) {
        const size_t before = std::min<size_t>(begin - at, data.size());
        if (insert(i, seq, data.first(before))) ++i;
        data = data.subspan(before);
        seq += static_cast<uint32_t>(before);
        if (data.empty()) return;
      }
      if (i >= waiting_.size()) return;
      const size_t inside = seq - waiting_[i].seq;
      const size_t common = std::min(waiting_[i].bytes.size() - inside, data.size());
      note_conflict(data.first(common), std::span(waiting_[i].bytes).subspan(inside));
      data = data.subspan(common);
      seq += static_cast<uint32_t>(common);
    }
  }

  bool insert(size_t i, uint32_t seq, std::span<const uint8_t> data) {
    if (data.size() > room() || waiting_.size() >= max_waiting_) {
      lost_ = true;
      return false;
    }
    waiting_.insert(waiting_.begin() + static_cast<ptrdiff_t>(i), Segment{seq, {data.begin(), data.end()}});
    waiting_bytes_ += data.size();
    return true;
  }

  // `data` begins `back` bytes before next_.
  void compare_known(uint32_t back, std::span<const uint8_t> data) {
    const size_t skip = back > ready_.size() ? back - ready_.size() : 0;
    if (skip >= data.size()) return;
    note_conflict(data.subspan(skip), std::span(ready_).subspan(ready_.size() - (back - skip)));
  }

  void note_conflict(std::span<const uint8_t> a, std::span<const uint8_t> b) {
    const size_t n = std::min(a.size(), b.size());
    if (n != 0 && std::memcmp(a.data(), b.data(), n) != 0) conflicting_ = true;
  }

  uint32_t limit_;
  size_t max_waiting_;
  size_t kept_;
  uint32_t next_ = 0;
  bool started_ = false;
  bool conflicting_ = false;
  bool lost_ = false;
  size_t begin_ = 0;
  size_t waiting_bytes_ = 0;
  std::vector<uint8_t> ready_;
  std::vector<Segment> waiting_;  // by sequence number, without overlap, all behind next_
};

}  // namespace meshsieve
