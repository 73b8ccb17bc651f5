// The input is a frame behind one byte that selects the link type. Oracle: what the packet says of its payload lies inside
// the captured bytes, and the same bytes give the same packet when more were on the wire.
#include <cstring>

#include "fuzz.h"
#include "meshsieve/packet.h"

using namespace meshsieve;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || size > 65536) return 0;
  static const std::vector<uint32_t> types = [] {
    std::vector<uint32_t> out;
    for (uint32_t type = 0; type < 512; ++type) {
      if (link_type_is_known(type)) out.push_back(type);
    }
    return out;
  }();
  Record record;
  record.link_type = types[data[0] % types.size()];
  record.data = data + 1;
  record.captured = record.length = static_cast<uint32_t>(size - 1);
  Packet packet, again;
  decode(record, packet);
  check(packet.status < kDecodeStatusCount, "a status without name");
  check(packet.payload_offset <= record.captured, "the payload begins behind the packet");
  check(packet.payload_length <= record.captured - packet.payload_offset, "the payload ends behind the packet");
  check(!packet.has_sparse || packet.tunnel_depth <= kMaxTunnels, "more tunnels than the limit");
  again.status = 255;  // what was there before does not shine through
  decode(record, again);
  check(again.present == packet.present && again.status == packet.status && again.payload_offset == packet.payload_offset,
        "decoding twice gives two answers");
  record.length += 100;
  decode(record, again);
  check(again.payload_offset <= record.captured && again.payload_length <= record.captured - again.payload_offset,
        "the payload of a cut packet ends behind it");
  return 0;
}
