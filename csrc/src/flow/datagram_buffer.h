// The payload of one fragmented datagram, put together.
//
// What    add() takes fragments in any order; whole() when every byte has come. Positions count from the end of the IP
//         header, as fragment offsets do; the first fragment also says where the transport's payload begins.
// Why     What a TCP segment or a UDP datagram says may stand in any of its fragments.
// Rules   Fragments that overlap make a datagram that receivers read differently: it is never whole (RFC 5722). One that
//         repeats bytes which came before is a copy and changes nothing. Bytes that the capture lacks are never whole.
//         What a UDP header says of its length holds: bytes behind it are no payload, and one that promises more than
//         the datagram has makes none.
// Limits  65,535 bytes and kMostParts separate parts; beyond, never whole.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "meshsieve/packet.h"

namespace meshsieve {

class DatagramBuffer {
 public:
  static constexpr size_t kMostParts = 64, kMostBytes = 65535;

  // A fragment as decode() left it.
  void add(const Packet& packet, const Record& record) {
    const size_t begin = packet.fragment_offset, end = begin + packet.fragment_length;
    const bool there = record.data != nullptr && record.captured >= record.length &&
                       packet.payload_offset <= record.captured &&
                       packet.payload_length <= record.captured - packet.payload_offset;
    const bool ends_before = size_ != 0 && end > size_;
    const bool fits = begin == 0 ? packet.payload_length <= packet.fragment_length
                                 : packet.payload_length == packet.fragment_length;
    if (!there || !fits || end == begin || end > kMostBytes || ends_before) give_up();
    if (broken_) return;
    const size_t payload = end - packet.payload_length;
    const uint8_t* data = record.data + packet.payload_offset;
    if (const Part* known = touched(begin, end)) {
      const bool copy = known->begin <= begin && known->end >= end &&
                        std::memcmp(bytes_.data() + payload, data, packet.payload_length) == 0;
      if (!copy) give_up();
      return;
    }
    if (begin == 0) {
      first_ = packet;
      header_ = payload;
      // A transport header that goes on in the next fragment, or a tunnel's packet that ends in this one.
      const bool tunnelled = packet.fragment_level != packet.tunnel_depth;
      if (packet.payload_offset < kUdpHeader ||
          (tunnelled && packet.status != static_cast<uint8_t>(DecodeStatus::ip_length_beyond_frame))) {
        return give_up();
      }
      if (packet.has(Field::proto) && packet.proto == kUdp) {
        promised_ = data[-4] << 8 | data[-3];
        // All of it is in this fragment, or it is none: then what was read of it alone is all there is.
        if (promised_ <= kUdpHeader + packet.payload_length) return give_up();
      }
    }
    if (packet.more_fragments == 0) size_ = end;
    if (bytes_.size() < end) bytes_.resize(end);
    std::memcpy(bytes_.data() + payload, data, packet.payload_length);
    note(begin, end);
  }

  bool whole() const {
    return !broken_ && size_ != 0 && header_ <= size_ && parts_.size() == 1 && parts_[0].begin == 0 &&
           parts_[0].end == size_ && (promised_ == 0 || promised_ - kUdpHeader <= size_ - header_);
  }
  // When whole: the packet that was never cut, its payload in `record`, which lives as long as this. `last` is the
  // record that made it whole.
  void read(const Record& last, Packet& packet, Record& record) const {
    packet = first_;
    packet.more_fragments = 0;
    packet.fragment_offset = 0;
    packet.payload_offset = 0;
    packet.payload_length = static_cast<uint32_t>(promised_ != 0 ? promised_ - kUdpHeader : size_ - header_);
    record = last;
    record.data = bytes_.data() + header_;
    record.captured = record.length = packet.payload_length;
  }
  // Frees the memory; the datagram is then never whole.
  void give_up() {
    broken_ = true;
    bytes_ = {};
    parts_ = {};
  }
  size_t held_bytes() const { return bytes_.capacity() + parts_.capacity() * sizeof(Part); }

 private:
  struct Part {
    size_t begin, end;
  };

  // The first part that has bytes of [begin, end).
  const Part* touched(size_t begin, size_t end) const {
    for (const Part& part : parts_) {
      if (part.begin < end && begin < part.end) return &part;
    }
    return nullptr;
  }
  // Adds a part that touches no other one, and joins it with its neighbours. Parts are in order.
  void note(size_t begin, size_t end) {
    const auto after = std::find_if(parts_.begin(), parts_.end(), [&](const Part& p) { return p.begin >= end; });
    const bool joins_after = after != parts_.end() && after->begin == end;
    const bool joins_before = after != parts_.begin() && (after - 1)->end == begin;
    if (joins_after && joins_before) {
      (after - 1)->end = after->end;
      parts_.erase(after);
    } else if (joins_before) {
      (after - 1)->end = end;
    } else if (joins_after) {
      after->begin = begin;
    } else if (parts_.size() >= kMostParts) {
      give_up();
    } else {
      parts_.insert(after, {begin, end});
    }
  }

  static constexpr uint8_t kUdp = 17;
  static constexpr size_t kUdpHeader = 8;

  Packet first_;
  size_t promised_ = 0;             // length in the UDP header; 0 = no UDP
  size_t header_ = kMostBytes + 1;  // bytes before the payload; none is that many
  size_t size_ = 0;                 // 0 = the last fragment has not come
  std::vector<uint8_t> bytes_;
  std::vector<Part> parts_;
  bool broken_ = false;
};

}  // namespace meshsieve
