// Fragmented datagrams under way: the first fragment gives its flow to the others.
//
// What    One entry a datagram (source, destination, identification, protocol; RFC 791, RFC 8200). Fragments that come
//         before the first one wait as counts; what was seen of the datagram is kept as intervals, to notice overlap, and
//         its bytes until it is whole.
// Limits  A fixed number of datagrams and of bytes, the oldest out; a timeout in packet time; kMaxIntervals a datagram.
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <unordered_map>

#include "flow/datagram_buffer.h"
#include "flow/flow_key.h"
#include "meshsieve/packet.h"

namespace meshsieve {

struct FragmentedDatagram {
  static constexpr size_t kMaxIntervals = 8;

  FlowKey key;                 // the datagram's own addresses; ports hold the identification
  int64_t started_ns = 0;
  bool has_flow = false;       // the first fragment was seen
  DirectedKey flow;
  // Fragments that wait for the first one.
  uint64_t waiting_packets = 0, waiting_bytes = 0;
  int64_t waiting_first_ns = 0, waiting_last_ns = 0;
  Record waiting_record;
  Packet waiting_packet;       // the first of them
  // What was seen, [begin, end) in bytes of the datagram.
  struct Interval { uint32_t begin, end; };
  std::array<Interval, kMaxIntervals> seen;
  size_t n_seen = 0;
  std::unique_ptr<DatagramBuffer> payload;  // none once it was whole

  // Notes a fragment; true if it overlaps an earlier one without being its copy.
  bool add(uint32_t begin, uint32_t length) {
    const uint32_t end = begin + length;
    bool overlap = false;
    for (size_t i = 0; i < n_seen; ++i) {
      if (seen[i].begin == begin && seen[i].end == end) return false;
      overlap |= begin < seen[i].end && seen[i].begin < end;
    }
    if (n_seen < kMaxIntervals) seen[n_seen++] = {begin, end};
    return overlap;
  }
};

class FragmentTable {
 public:
  FragmentTable(const KeyedHash& hash, uint32_t max_datagrams)
      : max_datagrams_(max_datagrams), by_key_(16, Hash{&hash}) {}

  // The datagram of a fragment, new if unknown. The addresses are those of the header that was fragmented.
  FragmentedDatagram& find_or_add(const U128& src, const U128& dst, uint32_t id, uint8_t proto, uint8_t ip_ver,
                                  int64_t now_ns) {
    FlowKey key = make_key(src, dst, 0, 0, proto, ip_ver).key;
    key.low = src;  // directed: both ends may use the same identification
    key.high = dst;
    key.outer = id;
    const auto found = by_key_.find(key);
    if (found != by_key_.end()) return *found->second;
    FragmentedDatagram& datagram = in_order_.emplace_back();
    datagram.key = key;
    datagram.started_ns = now_ns;
    by_key_.emplace(key, std::prev(in_order_.end()));
    return datagram;
  }

  bool empty() const { return in_order_.empty(); }
  bool over_limit() const { return in_order_.size() > max_datagrams_ || payload_bytes_ > kMostPayloadBytes; }
  const FragmentedDatagram& oldest() const { return in_order_.front(); }
  FragmentedDatagram take_oldest() {
    FragmentedDatagram out = std::move(in_order_.front());
    forget_payload(out);
    by_key_.erase(out.key);
    in_order_.pop_front();
    return out;
  }

  // Adds a fragment to the payload of its datagram. Returns whether the datagram is whole.
  bool add_payload(FragmentedDatagram& datagram, const Packet& packet, const Record& record) {
    if (!datagram.payload) {
      datagram.payload = std::make_unique<DatagramBuffer>();
      payload_bytes_ += sizeof(DatagramBuffer);
    }
    const size_t before = datagram.payload->held_bytes();
    datagram.payload->add(packet, record);
    payload_bytes_ += datagram.payload->held_bytes() - before;
    return datagram.payload->whole();
  }
  std::unique_ptr<DatagramBuffer> forget_payload(FragmentedDatagram& datagram) {
    if (datagram.payload) payload_bytes_ -= sizeof(DatagramBuffer) + datagram.payload->held_bytes();
    return std::move(datagram.payload);
  }

 private:
  static constexpr size_t kMostPayloadBytes = 16u << 20;
  struct Hash {
    const KeyedHash* hash;
    size_t operator()(const FlowKey& key) const { return (*hash)(key); }
  };
  size_t max_datagrams_;
  size_t payload_bytes_ = 0;
  std::list<FragmentedDatagram> in_order_;  // by arrival of their first-seen fragment
  std::unordered_map<FlowKey, std::list<FragmentedDatagram>::iterator, Hash> by_key_;
};

}  // namespace meshsieve
