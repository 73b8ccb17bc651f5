// What looks at packets while their bytes are at hand, after the flow table has given them their flows.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "meshsieve/packet_batch.h"

namespace meshsieve {

// A datagram that came in fragments: the packet that it would have been, whole with the fragment of `row`.
struct JoinedDatagram {
  uint32_t row = 0;
  Packet packet;
  Record record;                      // its data is the payload
  std::shared_ptr<const void> bytes;  // keeps that alive
};

class PacketObserver {
 public:
  virtual ~PacketObserver() = default;
  // Packets in capture order: rows row..row+n of `batch`, with the flow columns, and the datagrams that became whole with
  // them, by row. What the records point to is valid only during the call.
  virtual void update(const Packet* packets, const Record* records, size_t n, std::span<const JoinedDatagram> joined,
                      const PacketBatch& batch, uint32_t row) = 0;
};

}  // namespace meshsieve
