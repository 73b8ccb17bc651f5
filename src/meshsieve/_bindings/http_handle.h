// HttpRequests with the lock that keeps Python threads out of each other's way.
#pragma once

#include <mutex>

#include "meshsieve/errors.h"
#include "meshsieve/http_requests.h"

struct HttpHandle {
  explicit HttpHandle(const meshsieve::HttpLimits& limits) : requests(limits) {}

  // Never waits: two threads in one reader is a mistake of the caller.
  std::unique_lock<std::mutex> lock() {
    std::unique_lock held(busy, std::try_to_lock);
    if (!held) throw meshsieve::CaptureError("the requests are being read by another thread");
    return held;
  }

  meshsieve::HttpRequests requests;
  std::mutex busy;
};
