// What looks at packets while their bytes are at hand, after the flow table has given them their flows.
#pragma once

#include <cstddef>

#include "meshsieve/packet_batch.h"

namespace meshsieve {

class PacketObserver {
 public:
  virtual ~PacketObserver() = default;
  // Packets in capture order: rows row..row+n of `batch`, with the flow columns. What the records point to is valid
  // only during the call.
  virtual void update(const Packet* packets, const Record* records, size_t n, const PacketBatch& batch,
                      uint32_t row) = 0;
};

}  // namespace meshsieve
