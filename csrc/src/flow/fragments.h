// Fragmented datagrams under way: the first fragment gives its flow to the others.
//
// What    One entry a datagram (source, destination, identification, protocol; RFC 791, RFC 8200). Fragments that come
//         before the first one wait as counts; what was seen of the datagram is kept as pieces, to notice overlap, and its
//         bytes until it is whole.
// Limits  A fixed number of datagrams and of bytes, the oldest out; a timeout in packet time. Offsets are multiples of
//         eight below 65,536, so a datagram has at most 8,192 pieces that lie apart, and the first overlap drops them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <list>
#include <memory>
#include <unordered_map>
#include <vector>

#include "flow/datagram_buffer.h"
#include "flow/flow_key.h"
#include "meshsieve/packet.h"

namespace meshsieve {

struct FragmentedDatagram {
  FlowKey key;                 // the datagram's own addresses; ports hold the identification
  int64_t started_ns = 0;
  bool has_flow = false;       // the first fragment was seen
  DirectedKey flow;
  // Fragments that wait for the first one.
  uint64_t waiting_packets = 0, waiting_bytes = 0;
  int64_t waiting_first_ns = 0, waiting_last_ns = 0;
  Record waiting_record;
  Packet waiting_packet;       // the first of them
  // What was seen, [begin, end) in bytes of the datagram: in order, apart from each other.
  struct Piece { uint32_t begin, end; };
  std::vector<Piece> seen;
  uint32_t seen_bytes = 0;
  uint32_t size = 0;           // 0 = the last fragment was not seen
  bool overlapping = false;    // two fragments overlap, and are not copies of each other
  std::unique_ptr<DatagramBuffer> payload;  // none once it was whole

  void note(const Packet& packet) {
    const uint32_t begin = packet.fragment_offset, end = begin + packet.fragment_length;
    if (overlapping || begin == end) return;
    const auto after =
        std::lower_bound(seen.begin(), seen.end(), begin, [](const Piece& piece, uint32_t at) { return piece.begin < at; });
    if (after != seen.end() && after->begin == begin && after->end == end) return;
    if ((after != seen.end() && after->begin < end) || (after != seen.begin() && std::prev(after)->end > begin)) {
      overlapping = true;
      seen = {};
      return;
    }
    seen.insert(after, {begin, end});
    seen_bytes += end - begin;
    if (packet.more_fragments == 0) size = end;
  }
  // Whether every fragment was seen: what follows under the same identification is another datagram.
  bool complete() const { return !overlapping && size != 0 && seen_bytes == size; }
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
    held_bytes_ += kEntryBytes;
    return datagram;
  }

  bool empty() const { return in_order_.empty(); }
  bool over_limit() const { return in_order_.size() > max_datagrams_ || held_bytes_ > kMostHeldBytes; }
  const FragmentedDatagram& oldest() const { return in_order_.front(); }
  FragmentedDatagram take_oldest() {
    FragmentedDatagram out = std::move(in_order_.front());
    forget_fragments(out);
    by_key_.erase(out.key);
    in_order_.pop_front();
    held_bytes_ -= kEntryBytes;
    return out;
  }

  // Notes what a fragment covers, for FragmentedDatagram::overlapping and complete().
  void note(FragmentedDatagram& datagram, const Packet& packet) {
    held_bytes_ -= bytes_of_pieces(datagram);
    datagram.note(packet);
    held_bytes_ += bytes_of_pieces(datagram);
  }
  // Forgets what was seen of a datagram: its identification is used again.
  void forget_fragments(FragmentedDatagram& datagram) {
    forget_payload(datagram);
    held_bytes_ -= bytes_of_pieces(datagram);
    datagram.seen = {};
    datagram.seen_bytes = datagram.size = 0;
    datagram.has_flow = false;
  }

  // Adds a fragment to the payload of its datagram. Returns whether the datagram is whole.
  bool add_payload(FragmentedDatagram& datagram, const Packet& packet, const Record& record) {
    if (!datagram.payload) {
      datagram.payload = std::make_unique<DatagramBuffer>();
      held_bytes_ += sizeof(DatagramBuffer);
    }
    const size_t before = datagram.payload->held_bytes();
    datagram.payload->add(packet, record);
    held_bytes_ += datagram.payload->held_bytes() - before;
    return datagram.payload->whole();
  }
  std::unique_ptr<DatagramBuffer> forget_payload(FragmentedDatagram& datagram) {
    if (datagram.payload) held_bytes_ -= sizeof(DatagramBuffer) + datagram.payload->held_bytes();
    return std::move(datagram.payload);
  }

 private:
  static constexpr size_t kMostHeldBytes = 32u << 20;
  static constexpr size_t kEntryBytes = sizeof(FragmentedDatagram) + sizeof(FlowKey) + 96;  // list, map and heap
  static size_t bytes_of_pieces(const FragmentedDatagram& datagram) {
    return datagram.seen.capacity() * sizeof(FragmentedDatagram::Piece);
  }
  struct Hash {
    const KeyedHash* hash;
    size_t operator()(const FlowKey& key) const { return (*hash)(key); }
  };
  size_t max_datagrams_;
  size_t held_bytes_ = 0;
  std::list<FragmentedDatagram> in_order_;  // by arrival of their first-seen fragment
  std::unordered_map<FlowKey, std::list<FragmentedDatagram>::iterator, Hash> by_key_;
};

}  // namespace meshsieve
