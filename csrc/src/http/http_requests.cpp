#include "meshsieve/http_requests.h"

#include <algorithm>
#include <utility>

#include "http/http_context.h"
#include "http/http_flow.h"

namespace meshsieve {

namespace {

constexpr uint8_t kTcp = 6, kSyn = 2;
constexpr uint32_t kNone = 0xffffffff;       // no connection is followed (yet)
constexpr uint32_t kNotHttp = 0xfffffffe;    // and none will be

}  // namespace

size_t HttpRequest::bytes() const {
  size_t sum = sizeof *this + method.size() + scheme.size() + authority.size() + path.size() + upgrade.size();
  for (const auto& [name, value] : headers) sum += sizeof(headers[0]) + name.size() + value.size();
  return sum;
}

class HttpRequests::Impl {
 public:
  explicit Impl(const HttpLimits& limits) { context_.limits = limits; }

  void packet(const Packet& packet, const Record& record, const PacketBatch& batch, uint32_t row);
  void finish() {
    for (uint32_t i = oldest_; i != kNone; i = oldest_) release(i);
  }

  HttpContext context_;
  uint64_t bytes_ = 0;

 private:
  // What is known of the flow in a slot of the flow table before its first payload.
  struct Slot {
    uint64_t flow_id = 0;
    uint32_t connection = kNone;
    uint32_t first_seq[2] = {0, 0};
    bool first_seq_known[2] = {false, false};
  };
  // Connections are in a list, the one that was silent longest first.
  struct Connection {
    std::unique_ptr<HttpFlow> flow;
    uint32_t slot = 0;
    uint32_t previous = kNone, next = kNone;
    size_t bytes = 0;
  };

  uint32_t follow(const Packet& packet, const PacketBatch& batch, uint32_t row, const Slot& slot);
  void release(uint32_t connection);
  void unlink(uint32_t i);
  void append(uint32_t i);

  std::vector<Slot> slots_;
  std::vector<Connection> connections_;
  std::vector<uint32_t> free_;
  uint32_t oldest_ = kNone, newest_ = kNone;
};

void HttpRequests::Impl::packet(const Packet& packet, const Record& record, const PacketBatch& batch, uint32_t row) {
  const uint32_t at = batch.flow_slot[row];
  if (packet.proto != kTcp || at == kNoFlow || !packet.has(Field::tcp_flags)) return;
  if (at >= slots_.size()) slots_.resize(std::max<size_t>(at + 1, slots_.size() * 2));
  if (slots_[at].flow_id != batch.flow_id[row]) {
    if (slots_[at].connection < kNotHttp) release(slots_[at].connection);
    slots_[at] = Slot{.flow_id = batch.flow_id[row]};
  }
  Slot& slot = slots_[at];
  if (slot.connection == kNotHttp) return;
  const int direction = batch.reply[row];
  const bool syn = (packet.tcp_flags & kSyn) != 0;
  const uint32_t seq = packet.tcp_seq + syn;
  if (syn) {
    slot.first_seq[direction] = seq;
    slot.first_seq_known[direction] = true;
    if (slot.connection != kNone) connections_[slot.connection].flow->start(direction, seq);
  }
  if (packet.payload_length == 0 && slot.connection == kNone) return;
  if (slot.connection == kNone) slot.connection = follow(packet, batch, row, slot);
  const uint32_t i = slot.connection;
  Connection& connection = connections_[i];
  connection.flow->segment({direction, seq, packet.tcp_ack, packet.tcp_flags,
                            Bytes(record.data + packet.payload_offset, packet.payload_length), record.time_ns});
  if (connection.flow->done()) {
    release(i);
    return;
  }
  bytes_ -= connection.bytes;
  connection.bytes = connection.flow->bytes();
  bytes_ += connection.bytes;
  unlink(i);
  append(i);
  while (bytes_ > context_.limits.memory_bytes && oldest_ != newest_) {
    ++context_.counts.evicted;
    release(oldest_);
  }
}

uint32_t HttpRequests::Impl::follow(const Packet& packet, const PacketBatch& batch, uint32_t row, const Slot& slot) {
  HttpRequest base;
  base.flow_id = batch.flow_id[row];
  base.src_ip = packet.src_ip;
  base.dst_ip = packet.dst_ip;
  base.sport = packet.sport;
  base.dport = packet.dport;
  base.ip_ver = packet.ip_ver;
  if (batch.reply[row]) {
    std::swap(base.src_ip, base.dst_ip);
    std::swap(base.sport, base.dport);
  }
  if (free_.empty()) {
    free_.push_back(static_cast<uint32_t>(connections_.size()));
    connections_.emplace_back();
  }
  const uint32_t i = free_.back();
  free_.pop_back();
  Connection& connection = connections_[i];
  connection.flow = std::make_unique<HttpFlow>(context_, base);
  connection.slot = batch.flow_slot[row];
  connection.bytes = 0;
  for (int direction : {0, 1}) {
    if (slot.first_seq_known[direction]) connection.flow->start(direction, slot.first_seq[direction]);
  }
  append(i);
  return i;
}

void HttpRequests::Impl::release(uint32_t i) {
  Connection& connection = connections_[i];
  connection.flow->finish();
  bytes_ -= connection.bytes;
  slots_[connection.slot].connection = kNotHttp;
  connection.flow.reset();
  unlink(i);
  free_.push_back(i);
}

void HttpRequests::Impl::unlink(uint32_t i) {
  const Connection& c = connections_[i];
  (c.previous == kNone ? oldest_ : connections_[c.previous].next) = c.next;
  (c.next == kNone ? newest_ : connections_[c.next].previous) = c.previous;
}

void HttpRequests::Impl::append(uint32_t i) {
  connections_[i].previous = newest_;
  connections_[i].next = kNone;
  (newest_ == kNone ? oldest_ : connections_[newest_].next) = i;
  newest_ = i;
}

HttpRequests::HttpRequests(const HttpLimits& limits) : impl_(std::make_unique<Impl>(limits)) {}
HttpRequests::~HttpRequests() = default;

void HttpRequests::update(const Packet* packets, const Record* records, size_t n, std::span<const JoinedDatagram> joined,
                          const PacketBatch& batch, uint32_t row) {
  for (size_t i = 0; i < n; ++i) {
    const uint32_t at = row + static_cast<uint32_t>(i);
    impl_->packet(packets[i], records[i], batch, at);
    for (; !joined.empty() && joined.front().row == at; joined = joined.subspan(1)) {
      impl_->packet(joined.front().packet, joined.front().record, batch, at);
    }
  }
}

void HttpRequests::finish() { impl_->finish(); }
std::vector<HttpRequest> HttpRequests::take() { return std::exchange(impl_->context_.rows, {}); }
size_t HttpRequests::ready() const { return impl_->context_.rows.size(); }
const HttpCounts& HttpRequests::counts() const { return impl_->context_.counts; }
size_t HttpRequests::bytes() const { return impl_->bytes_; }

}  // namespace meshsieve
