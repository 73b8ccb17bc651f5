// The input is a list of fragments of one datagram: more fragments (1 bit), 2 bits unused and the offset in units of eight
// (13 bits), size (1 byte), then that many bytes. The first eight bytes of the datagram are its transport header.
// Oracles: overlap is what comparing all pairs finds; a whole datagram consists of first copies; fragments that lie apart,
// or are copies, and leave no hole make one.
#include <algorithm>

#include "flow/fragments.h"
#include "fuzz.h"

using namespace meshsieve;

namespace {

struct Fragment {
  size_t begin, end;
  bool last;
  Bytes bytes;
  bool covers_as(const Fragment& other) const { return begin == other.begin && end == other.end; }
};

// What a datagram is, by all fragments so far, in the plainest way.
struct Expected {
  bool overlapping = false, conflicting = false, complete = false;
  size_t size = 0;

  explicit Expected(const std::vector<Fragment>& fragments) {
    size_t covered = 0, most = 0;
    std::vector<size_t> sizes;
    for (size_t i = 0; i < fragments.size(); ++i) {
      const Fragment& one = fragments[i];
      if (one.begin == one.end) continue;
      most = std::max(most, one.end);
      bool copy = false;
      for (size_t j = 0; j < i; ++j) {
        const Fragment& other = fragments[j];
        if (other.begin == other.end) continue;
        if (one.covers_as(other)) {
          copy = true;
          conflicting |= one.last != other.last || !std::ranges::equal(one.bytes, other.bytes);
        } else {
          overlapping |= one.begin < other.end && other.begin < one.end;
        }
      }
      if (!copy) covered += one.end - one.begin;
      if (!copy && one.last) sizes.push_back(one.end);
    }
    if (sizes.size() == 1) size = sizes[0];
    conflicting |= sizes.size() > 1;
    complete = !overlapping && !conflicting && size != 0 && covered == size && most == size;
  }
};

constexpr size_t kHeader = 8;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const KeyedHash hash;
  FragmentTable table(hash, 4);
  FragmentedDatagram& datagram = table.find_or_add({0, 1}, {0, 2}, 7, 17, 4, 0);
  std::vector<Fragment> fragments;
  std::vector<int> world(0x10000 + 256, -1);  // the first copy of each byte
  bool empty = false;
  for (size_t at = 0; at + 3 <= size && fragments.size() < 400;) {
    const uint32_t place = data[at] << 8 | data[at + 1];
    const size_t n = std::min<size_t>(data[at + 2], size - at - 3), begin = (place & 0x1fff) * 8;
    at += 3;
    Packet packet;
    packet.has_sparse = true;
    packet.more_fragments = place >> 15;
    packet.fragment_offset = static_cast<uint32_t>(begin);
    packet.fragment_length = static_cast<uint16_t>(n);
    packet.payload_length = static_cast<uint32_t>(begin == 0 ? n - std::min(n, kHeader) : n);
    packet.payload_offset = static_cast<uint32_t>(n - packet.payload_length);
    Record record;
    record.data = data + at;
    record.captured = record.length = static_cast<uint32_t>(n);
    if (!packet.is_fragment()) return 0;
    fragments.push_back({begin, begin + n, packet.more_fragments == 0, {data + at, n}});
    for (size_t i = 0; i < n; ++i) {
      if (world[begin + i] < 0) world[begin + i] = data[at + i];
    }
    at += n;
    empty |= n == 0 || begin + n > DatagramBuffer::kMostBytes;
    table.note(datagram, packet);
    const bool whole = table.add_payload(datagram, packet, record);
    const Expected expected(fragments);
    check(datagram.overlapping == expected.overlapping, "overlap is not what all pairs say");
    if (expected.complete) check(datagram.complete(), "a complete datagram is none");
    if (expected.complete && !empty && fragments.size() <= DatagramBuffer::kMostParts)
      check(whole, "fragments without hole make no datagram");
    if (!whole) continue;
    table.note(datagram, packet);  // a copy
    check(datagram.overlapping == expected.overlapping, "a copy overlaps");
    Packet joined;
    const auto payload = table.forget_payload(datagram);
    payload->read(Record{record}, joined, record);
    check(!joined.is_fragment(), "a whole datagram is a fragment");
    for (size_t i = 0; i < record.captured; ++i)
      check(world[kHeader + i] == record.data[i], "a byte is not its first copy");
    table.forget_fragments(datagram);
    check(!datagram.complete() && !table.over_limit(), "what was forgotten is still held");
    return 0;
  }
  return 0;
}
