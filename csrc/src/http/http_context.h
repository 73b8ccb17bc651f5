// What all connections of one HttpRequests share.
#pragma once

#include <utility>
#include <vector>

#include "meshsieve/http_requests.h"

namespace meshsieve {

struct HttpContext {
  HttpLimits limits;
  HttpCounts counts;
  std::vector<HttpRequest> rows;

  // Writes a row; notes what is missing of it.
  void write(HttpRequest&& request) {
    if (request.request_end_ns == kNoTime) request.notes |= kNote_request_cut;
    if (request.response_ns == kNoTime) request.notes |= kNote_no_response;
    else if (request.response_end_ns == kNoTime) request.notes |= kNote_response_cut;
    ++counts.requests;
    rows.push_back(std::move(request));
  }
};

}  // namespace meshsieve
