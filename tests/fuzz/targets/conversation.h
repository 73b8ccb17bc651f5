// Two directions of bytes through HttpFlow. Oracle: how they are cut into segments changes no row.
#pragma once

#include <string>
#include <tuple>

#include "fuzz.h"
#include "http/http_flow.h"

using Row = std::tuple<std::string, std::string, std::string, std::string, std::string, uint16_t, int32_t, uint32_t, uint64_t,
                       uint64_t, uint32_t, meshsieve::HeaderLines>;

class Conversation {
 public:
  Conversation() : flow_(context_, meshsieve::HttpRequest{}) {
    flow_.start(0, kSeq);
    flow_.start(1, kSeq);
  }

  void say(int direction, Bytes bytes) {
    if (flow_.done()) return;
    flow_.segment({direction, kSeq + said_[direction], kSeq + said_[1 - direction], 16, bytes, ++time_ns_});
    said_[direction] += static_cast<uint32_t>(bytes.size());
  }

  std::vector<Row> finish() {
    flow_.finish();
    std::vector<Row> rows;
    for (meshsieve::HttpRequest& r : context_.rows) {
      rows.emplace_back(r.method, r.scheme, r.authority, r.path, r.upgrade, r.status, r.grpc_status, r.notes,
                        r.request_body_bytes, r.response_body_bytes, r.stream, std::move(r.headers));
    }
    return rows;
  }

 private:
  static constexpr uint32_t kSeq = 0xfffffff0;
  meshsieve::HttpContext context_;
  meshsieve::HttpFlow flow_;
  uint32_t said_[2] = {0, 0};
  int64_t time_ns_ = 0;
};

inline std::vector<Row> whole(Bytes client, Bytes server) {
  Conversation conversation;
  conversation.say(0, client);
  conversation.say(1, server);
  return conversation.finish();
}

inline std::vector<Row> cut(Bytes client, Bytes server, size_t most) {
  Conversation conversation;
  Cuts cuts(client);
  for (const auto& [direction, bytes] : {std::pair{0, client}, std::pair{1, server}}) {
    for (size_t at = 0; at < bytes.size();) {
      const size_t n = std::min(bytes.size() - at, 1 + cuts.below(most));
      conversation.say(direction, bytes.subspan(at, n));
      at += n;
    }
  }
  return conversation.finish();
}
