// A flow table with the lock that keeps Python threads out of each other's way.
#pragma once

#include <mutex>

#include "meshsieve/errors.h"
#include "meshsieve/flow_table.h"

struct FlowHandle {
  explicit FlowHandle(const meshsieve::FlowOptions& options) : table(options) {}

  // Never waits: two threads in one table is a mistake of the caller.
  std::unique_lock<std::mutex> lock() {
    std::unique_lock held(busy, std::try_to_lock);
    if (!held) throw meshsieve::CaptureError("the flow table is in use by another thread");
    return held;
  }

  meshsieve::FlowTable table;
  std::mutex busy;
};
