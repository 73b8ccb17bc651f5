// One TCP flow that may speak HTTP: its two directions in order, what they speak, and which response answers what.
//
// Start   A direction whose first byte was captured must begin as HTTP, or the flow is none. One that was picked up in the
//         middle, or that has a hole, is looked at where segments begin, which is where messages nearly always begin; what
//         is found there is noted as picked_up or after_gap.
// Gaps    A hole is certain when the receiver has acknowledged what the capture lacks, when too much waits behind it, or at
//         the end. Inside a body of known length it is bridged exactly; elsewhere what was being read is lost and noted.
// Change  After a request that asks for another protocol (Upgrade, CONNECT) its sender's bytes wait for the answer: 101
//         h2c goes on as HTTP/2, 101 for anything else is not read on, a tunnel is looked at as a new connection.
#pragma once

#include <array>
#include <deque>
#include <memory>

#include "flow/reassembly.h"
#include "http/http1.h"
#include "http/http2.h"
#include "http/http_context.h"

namespace meshsieve {

// One packet of a flow; direction 0 is the flow's initiator.
struct TcpSegment {
  int direction;
  uint32_t seq;
  uint32_t ack;
  uint8_t flags;
  Bytes payload;
  int64_t time_ns;
};

class HttpFlow {
 public:
  // `base` has the flow id and the addresses of the initiator.
  HttpFlow(HttpContext& context, const HttpRequest& base);

  // Sequence number of a direction's first byte, from its SYN.
  void start(int direction, uint32_t seq);
  void segment(const TcpSegment& segment);
  // Nothing more comes: writes what is left.
  void finish();
  // There is nothing more to be had of this flow.
  bool done() const { return stage_ == Stage::none; }
  size_t bytes() const;

 private:
  static constexpr uint32_t kStreamBytes = 1 << 20;
  static constexpr size_t kMaxWaitingSegments = 1024;
  static constexpr size_t kMaxWaitingBytes = 512 << 10;  // behind a hole
  static constexpr size_t kComparedBytes = 2048;         // with later copies
  static constexpr size_t kMaxHeldBytes = 64 << 10;      // behind a request to change the protocol
  static constexpr size_t kMaxSearched = 16 << 10;       // a start line that recognises the protocol
  static constexpr uint8_t kMaxTries = 8;

  enum class Stage : uint8_t { unknown, http1, http2, none };
  enum class Mode : uint8_t { search, head, body, waiting, unread };

  struct Direction {
    TcpStream stream{kStreamBytes, kMaxWaitingSegments, kComparedBytes};
    Mode mode = Mode::search;
    bool fresh = false;         // its bytes are known from the first one on
    bool lost = false;          // a hole since the last message
    bool acked_known = false;
    bool fin_known = false;
    bool over = false;          // everything up to the FIN was read
    uint32_t acked = 0;         // by the receiver
    uint32_t fin_seq = 0;
    uint8_t tries = 0;          // segments that began as nothing known
    size_t scanned = 0;         // of the head
    int64_t begun_ns = kNoTime; // first byte of the head
    uint32_t messages = 0;
    Http1Body body;
  };
  // A request that is not written yet.
  struct Pending {
    HttpRequest request;
    bool request_over = false;
    bool response_over = false;
    bool wants_upgrade = false;
    std::string http2_settings;
  };

  bool note_from_here(uint32_t note);
  void run(int64_t now_ns, bool at_end);
  void pump(int direction, int64_t now_ns, bool at_end);
  bool step(int direction, int64_t now_ns);
  bool search(int direction, int64_t now_ns);
  Begins recognise(int direction);
  bool take_head(int direction, int64_t now_ns);
  void request_head(Direction& d, Bytes head, int64_t now_ns);
  void response_head(Direction& d, Bytes head, int64_t now_ns);
  bool take_body(int direction, int64_t now_ns);
  void end_message(int direction, int64_t end_ns, uint32_t notes);
  void switch_protocol(const std::string& protocol, int64_t now_ns);
  void open_tunnel(int64_t now_ns);
  void lose(int direction);
  void close(int direction, int64_t now_ns);
  void unread(Direction& d);
  void write_front();
  void begin_http(Stage stage, int client);
  bool is_client(int direction) const { return direction == client_; }
  Http2Side side(int direction) const {
    return is_client(direction) ? Http2Side::client : Http2Side::server;
  }
  HttpRequest* unanswered();

  HttpContext& context_;
  HttpRequest base_;
  Stage stage_ = Stage::unknown;
  bool counted_ = false;
  int client_ = 0;
  std::array<Direction, 2> directions_;
  std::deque<Pending> pending_;
  std::unique_ptr<Http2Connection> http2_;
  size_t pending_bytes_ = 0;
  bool again_ = false;         // what was read may let the other direction go on
  bool answer_known_ = false;  // the response that is being read belongs to pending_.front()
};

}  // namespace meshsieve
