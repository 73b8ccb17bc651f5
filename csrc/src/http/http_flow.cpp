#include "http/http_flow.h"

#include <algorithm>
#include <utility>

namespace meshsieve {

namespace {

constexpr uint8_t kFin = 1, kReset = 4, kAck = 16, kUrgent = 32;

size_t empty_lines(Bytes bytes) {
  size_t n = 0;
  while (n < bytes.size() && (bytes[n] == '\r' || bytes[n] == '\n')) ++n;
  return n;
}

}  // namespace

HttpFlow::HttpFlow(HttpContext& context, const HttpRequest& base) : context_(context), base_(base) {}

void HttpFlow::start(int direction, uint32_t seq) {
  Direction& d = directions_[direction];
  if (d.stream.started()) return;
  d.stream.start(seq);
  d.fresh = true;
}

void HttpFlow::segment(const TcpSegment& s) {
  Direction& d = directions_[s.direction];
  Direction& other = directions_[1 - s.direction];
  if ((s.flags & kAck) != 0 && (!other.acked_known || static_cast<int32_t>(s.ack - other.acked) > 0)) {
    other.acked = s.ack;
    other.acked_known = true;
  }
  // A keep-alive probe repeats the last byte, whatever it was (RFC 9293, section 3.8.4).
  const bool probe = s.payload.size() == 1 && d.stream.started() && s.seq + 1 == d.stream.next();
  if (!s.payload.empty() && !probe) d.stream.add(s.seq, s.payload);
  if ((s.flags & kFin) != 0 && !d.fin_known) {
    d.fin_known = true;
    d.fin_seq = s.seq + static_cast<uint32_t>(s.payload.size());
  }
  if ((s.flags & kUrgent) != 0 && !s.payload.empty()) note_from_here(kNote_urgent_bytes);
  if (d.stream.conflicting() && note_from_here(kNote_conflicting_bytes)) context_.counts.conflicting += counted_;
  run(s.time_ns, false);
  const bool reset = (s.flags & kReset) != 0 && (!d.stream.started() || s.seq == d.stream.next());
  if (stage_ != Stage::none && (reset || (d.over && other.over))) finish();
}

// What holds for the requests that are not written yet, and for those to come; false if it was noted before.
bool HttpFlow::note_from_here(uint32_t note) {
  if ((base_.notes & note) != 0) return false;
  base_.notes |= note;
  for (Pending& pending : pending_) pending.request.notes |= note;
  if (http2_) http2_->note(note);
  return true;
}

// Reads both directions as far as they can be read. What one direction says may release the other one.
void HttpFlow::run(int64_t now_ns, bool at_end) {
  do {
    again_ = false;
    for (int direction : {client_, 1 - client_}) {
      pump(direction, now_ns, at_end);
      if (stage_ == Stage::none) return;
    }
  } while (again_);
}

void HttpFlow::pump(int direction, int64_t now_ns, bool at_end) {
  Direction& d = directions_[direction];
  for (;;) {
    while (step(direction, now_ns)) {
      if (stage_ == Stage::none) return;
    }
    if (stage_ == Stage::none || !d.stream.has_gap()) break;
    const bool acked = d.acked_known && static_cast<int32_t>(d.acked - d.stream.next()) > 0;
    const bool full = d.stream.waiting_segments() > kMaxWaitingSegments / 2 || d.stream.waiting_bytes() > kMaxWaitingBytes;
    if (!acked && !full && !at_end) break;
    lose(direction);
  }
  if (d.fin_known && !d.over && d.stream.started() && d.stream.next() == d.fin_seq) close(direction, now_ns);
}

// Does one thing; false if nothing can be done with the bytes that are there.
bool HttpFlow::step(int direction, int64_t now_ns) {
  Direction& d = directions_[direction];
  if (stage_ == Stage::http2) {
    Bytes bytes = d.stream.bytes();
    const size_t before = bytes.size();
    http2_->read(side(direction), bytes, now_ns);
    d.stream.consume(before - bytes.size());
    if (http2_->stopped(side(direction))) unread(d);
    return false;
  }
  switch (d.mode) {
    case Mode::search: return search(direction, now_ns);
    case Mode::head: return take_head(direction, now_ns);
    case Mode::body: return take_body(direction, now_ns);
    case Mode::waiting:
      if (d.stream.bytes().size() <= kMaxHeldBytes) return false;
      d.mode = Mode::search;
      return true;
    case Mode::unread: unread(d); return false;
  }
  return false;
}

void HttpFlow::unread(Direction& d) {
  const size_t n = d.stream.bytes().size();
  if (stage_ != Stage::unknown) context_.counts.unread_bytes += n;
  d.stream.consume(n);
}

// ---- what the flow speaks

bool HttpFlow::search(int direction, int64_t now_ns) {
  Direction& d = directions_[direction];
  if (stage_ == Stage::unknown || is_client(direction)) d.stream.consume(empty_lines(d.stream.bytes()));
  const Bytes bytes = d.stream.bytes();
  if (bytes.empty()) return false;
  if (d.begun_ns == kNoTime) d.begun_ns = now_ns;
  const Begins begins = stage_ == Stage::unknown ? recognise(direction)
                        : is_client(direction)   ? begins_as_request(bytes)
                                                 : begins_as_response(bytes);
  if (begins == Begins::yes) {
    d.mode = Mode::head;
    return true;
  }
  if (begins == Begins::open && bytes.size() < kMaxSearched) return false;
  d.begun_ns = kNoTime;
  if (stage_ != Stage::unknown) {
    unread(d);
  } else if (d.fresh || ++d.tries == kMaxTries) {
    d.mode = Mode::unread;
    if (directions_[1 - direction].mode == Mode::unread) stage_ = Stage::none;
    d.stream.consume(bytes.size());
  } else {
    d.stream.consume(bytes.size());
  }
  return false;
}

Begins HttpFlow::recognise(int direction) {
  const Bytes bytes = directions_[direction].stream.bytes();
  const Begins preface = begins_with(bytes, kHttp2Preface);
  if (preface == Begins::open) return preface;
  if (preface == Begins::yes) {
    begin_http(Stage::http2, direction);
    return Begins::yes;
  }
  if (!directions_[direction].fresh) {
    if (const auto sender = http2_sender(bytes)) {
      begin_http(Stage::http2, *sender == Http2Side::client ? direction : 1 - direction);
      http2_->pick_up();
      return Begins::yes;
    }
  }
  const Begins request = begins_as_request(bytes), response = begins_as_response(bytes);
  if (request == Begins::yes) begin_http(Stage::http1, direction);
  if (response == Begins::yes) begin_http(Stage::http1, 1 - direction);
  if (request == Begins::yes || response == Begins::yes) return Begins::yes;
  // An HTTP/2 server may speak first; the client's preface then says whether it is one.
  const bool server = begins_as_http2_server(bytes) != Begins::no && !directions_[1 - direction].over;
  return server || request == Begins::open || response == Begins::open ? Begins::open : Begins::no;
}

void HttpFlow::begin_http(Stage stage, int client) {
  stage_ = stage;
  client_ = client;
  if (!counted_) {
    ++context_.counts.connections;
    context_.counts.conflicting += (base_.notes & kNote_conflicting_bytes) != 0;
  }
  counted_ = true;
  // Addresses are those of the initiator until here.
  if (client == 1) {
    std::swap(base_.src_ip, base_.dst_ip);
    std::swap(base_.sport, base_.dport);
  }
  if (!directions_[client].fresh) base_.notes |= kNote_picked_up;
  if (stage == Stage::http2) {
    ++context_.counts.http2_connections;
    http2_ = std::make_unique<Http2Connection>(context_, base_);
  } else {
    for (Direction& d : directions_) {
      if (d.mode == Mode::unread) ++context_.counts.bad_start_line;
      else if (d.fresh) d.mode = Mode::head;
    }
  }
  again_ = true;
}

// ---- HTTP/1

bool HttpFlow::take_head(int direction, int64_t now_ns) {
  constexpr size_t kLookedAtAgain = 4096;  // bounds what is read twice when a line comes byte by byte
  Direction& d = directions_[direction];
  if (d.scanned == 0 && is_client(direction)) d.stream.consume(empty_lines(d.stream.bytes()));
  const Bytes bytes = d.stream.bytes();
  if (bytes.empty()) return false;
  if (d.begun_ns == kNoTime) d.begun_ns = now_ns;
  const size_t size = head_size(bytes, d.scanned);
  const bool begins_wrong = size == 0 && bytes.size() <= kLookedAtAgain &&
                            (is_client(direction) ? begins_as_request(bytes) : begins_as_response(bytes)) == Begins::no;
  if (begins_wrong || (size != 0 ? size : bytes.size()) > context_.limits.head_bytes) {
    ++(begins_wrong ? context_.counts.bad_start_line : context_.counts.head_too_large);
    d.mode = Mode::unread;
    return true;
  }
  if (size == 0) return false;
  if (is_client(direction)) request_head(d, bytes.first(size), now_ns);
  else response_head(d, bytes.first(size), now_ns);
  d.stream.consume(size);
  d.scanned = 0;
  d.begun_ns = kNoTime;
  return !again_;  // behind a change of the protocol the client speaks first
}

void HttpFlow::request_head(Direction& d, Bytes bytes, int64_t now_ns) {
  Http1Head head = parse_request_head(bytes, context_.limits);
  if (!head.ok) {
    ++context_.counts.bad_start_line;
    d.mode = Mode::unread;
    return;
  }
  if (pending_.size() >= context_.limits.pending) {
    ++context_.counts.evicted;
    write_front();
  }
  Pending& pending = pending_.emplace_back();
  HttpRequest& request = pending.request = base_;
  request.notes |= head.notes;
  if (std::exchange(d.lost, false)) request.notes |= kNote_after_gap;
  request.version = head.version;
  request.stream = ++d.messages;
  request.time_ns = d.begun_ns == kNoTime ? now_ns : d.begun_ns;
  set_target(head, request);
  pending.wants_upgrade = head.method == "CONNECT" || !head.all("upgrade").empty();
  if (pending.wants_upgrade) pending.http2_settings = head.all("http2-settings");
  request.method = std::move(head.method);
  request.headers = std::move(head.lines);
  pending_bytes_ += request.bytes();
  if (head.framing == Framing::unknown || (head.notes & kNote_length_and_chunked) != 0) {
    ++context_.counts.ambiguous;
    base_.notes |= kNote_after_ambiguous;
  }
  if (head.framing == Framing::unknown) {
    d.mode = Mode::unread;
    pending.request_over = true;  // as far as it can be seen
    return;
  }
  d.body.start(head.framing, head.length);
  d.mode = Mode::body;
}

void HttpFlow::response_head(Direction& d, Bytes bytes, int64_t now_ns) {
  const Http1Head head = parse_response_head(bytes, context_.limits);
  if (!head.ok) {
    ++context_.counts.bad_start_line;
    d.mode = Mode::unread;
    return;
  }
  d.mode = Mode::head;
  if (head.status < 200 && head.status != 101) return;  // interim
  const bool lost = std::exchange(d.lost, false);
  // Who does not pipeline asks again only after an answer: the answers to all but the last request are in the hole.
  while (lost && pending_.size() > 1) {
    pending_.front().request.notes |= kNote_after_gap;
    write_front();
  }
  HttpRequest* request = unanswered();
  answer_known_ = request != nullptr;
  d.body.start(head.framing, head.length);
  d.mode = Mode::body;
  const bool ambiguous = head.framing == Framing::unknown || (head.notes & kNote_length_and_chunked) != 0;
  context_.counts.ambiguous += ambiguous;
  if (head.framing == Framing::unknown) d.mode = Mode::unread;
  if (request == nullptr) {
    ++context_.counts.responses_unmatched;
    return;
  }
  request->status = head.status;
  request->response_ns = d.begun_ns == kNoTime ? now_ns : d.begun_ns;
  if (lost) request->notes |= kNote_after_gap;
  if (ambiguous) request->notes |= kNote_response_ambiguous;
  if (head.status == 101) {
    switch_protocol(head.all("upgrade"), now_ns);
  } else if (request->method == "CONNECT" && head.status < 300) {
    open_tunnel(now_ns);
  } else if (request->method == "HEAD") {
    d.body.start(Framing::none, 0);
    d.mode = Mode::body;
  }
}

// The request that the next response answers.
HttpRequest* HttpFlow::unanswered() {
  for (Pending& pending : pending_) {
    if (!pending.response_over) return &pending.request;
  }
  return nullptr;
}

bool HttpFlow::take_body(int direction, int64_t now_ns) {
  Direction& d = directions_[direction];
  Bytes bytes = d.stream.bytes();
  const size_t before = bytes.size();
  const Http1Body::State state = d.body.take(bytes);
  d.stream.consume(before - bytes.size());
  if (state == Http1Body::State::more) return false;
  if (state == Http1Body::State::bad) {
    ++context_.counts.bad_body;
    end_message(direction, kNoTime, kNote_bad_chunk);
    d.mode = Mode::unread;
  } else {
    end_message(direction, now_ns, 0);
  }
  // What the client sent behind a refused change of the protocol comes before the next response.
  return !again_;
}

// The message that is being read is over; `end_ns` kNoTime: its end was not seen.
void HttpFlow::end_message(int direction, int64_t end_ns, uint32_t notes) {
  Direction& d = directions_[direction];
  notes |= d.body.notes();
  d.mode = Mode::head;
  if (is_client(direction)) {
    if (pending_.empty() || pending_.back().request_over) return;
    Pending& pending = pending_.back();
    pending.request.request_body_bytes = d.body.bytes();
    pending.request.request_end_ns = end_ns;
    pending.request.notes |= notes;
    pending.request_over = true;
    if (pending.wants_upgrade && !pending.response_over) d.mode = Mode::waiting;
  } else {
    Direction& client = directions_[client_];
    if (client.mode == Mode::waiting) {  // refused
      client.mode = client.lost ? Mode::search : Mode::head;
      again_ = true;
    }
    if (!std::exchange(answer_known_, false)) return;
    for (Pending& pending : pending_) {
      if (pending.response_over) continue;
      pending.request.response_body_bytes = d.body.bytes();
      pending.request.response_end_ns = end_ns;
      if ((notes & kNote_bad_chunk) != 0) pending.request.notes |= kNote_bad_chunk;
      pending.response_over = true;
      break;
    }
  }
  while (!pending_.empty() && pending_.front().request_over && pending_.front().response_over) write_front();
}

void HttpFlow::write_front() {
  pending_bytes_ -= std::min(pending_bytes_, pending_.front().request.bytes());
  context_.write(std::move(pending_.front().request));
  pending_.pop_front();
}

// ---- another protocol

void HttpFlow::switch_protocol(const std::string& protocol, int64_t now_ns) {
  ++context_.counts.upgrades;
  while (pending_.size() > 1) write_front();  // none, unless a server answers before its turn
  Pending pending = std::move(pending_.front());
  pending_.clear();
  pending_bytes_ = 0;
  pending.request.upgrade = protocol;
  answer_known_ = false;
  if (!equal_without_case(protocol, "h2c")) {
    pending.request.response_end_ns = now_ns;
    context_.write(std::move(pending.request));
    stage_ = Stage::none;
    return;
  }
  // The answer itself comes as stream 1.
  ++context_.counts.http2_connections;
  pending.request.status = 0;
  pending.request.response_ns = kNoTime;
  http2_ = std::make_unique<Http2Connection>(context_, base_);
  http2_->adopt(std::move(pending.request), pending.http2_settings);
  stage_ = Stage::http2;
  again_ = true;
}

void HttpFlow::open_tunnel(int64_t now_ns) {
  ++context_.counts.tunnels;
  answer_known_ = false;
  pending_.back().request.response_end_ns = now_ns;
  while (!pending_.empty()) write_front();
  stage_ = Stage::unknown;
  base_.notes |= kNote_in_tunnel;
  if (client_ == 1) {  // as begin_http() finds them
    std::swap(base_.src_ip, base_.dst_ip);
    std::swap(base_.sport, base_.dport);
  }
  for (Direction& d : directions_) {
    d.mode = Mode::search;
    d.fresh = !d.lost;
    d.tries = 0;
  }
  again_ = true;
}

// ---- holes and ends

void HttpFlow::lose(int direction) {
  Direction& d = directions_[direction];
  const bool http = stage_ != Stage::unknown;
  const size_t rest = d.stream.bytes().size();
  if (http) context_.counts.unread_bytes += rest;
  d.stream.consume(rest);
  const uint32_t n = d.stream.skip_gap();
  d.begun_ns = kNoTime;
  d.scanned = 0;
  d.lost = d.lost || d.mode != Mode::body;
  if (!http) {
    d.fresh = false;
    return;
  }
  ++context_.counts.gaps;
  context_.counts.gap_bytes += n;
  if (stage_ == Stage::http2) {
    http2_->skip(side(direction), rest == 0 ? n : UINT64_MAX);
  } else if (d.mode == Mode::body) {
    if (d.body.skip(n)) {
      HttpRequest* request = is_client(direction) ? (pending_.empty() ? nullptr : &pending_.back().request)
                             : answer_known_      ? unanswered()
                                                  : nullptr;
      if (request != nullptr) request->notes |= kNote_body_gap;
    } else {
      end_message(direction, kNoTime, 0);
      d.lost = true;
      if (d.mode == Mode::head) d.mode = Mode::search;
    }
  } else if (d.mode == Mode::head) {
    d.mode = Mode::search;
  }
}

// Everything up to the sender's FIN was read.
void HttpFlow::close(int direction, int64_t now_ns) {
  Direction& d = directions_[direction];
  d.over = true;
  if (stage_ == Stage::http1 && d.mode == Mode::body) {
    end_message(direction, d.body.ends_at_close() ? now_ns : kNoTime, 0);
    d.mode = Mode::unread;
  }
}

void HttpFlow::finish() {
  if (stage_ == Stage::none) return;
  run(kNoTime, true);
  for (int direction : {0, 1}) {
    Direction& d = directions_[direction];
    if (d.mode == Mode::waiting) d.mode = Mode::search;  // no answer was seen: what comes next tells
  }
  if (stage_ != Stage::none) run(kNoTime, true);
  if (stage_ == Stage::http1 || stage_ == Stage::http2) {
    if (stage_ == Stage::http1) {
      for (int direction : {0, 1}) {
        if (directions_[direction].mode == Mode::body) end_message(direction, kNoTime, 0);
      }
    }
    for (Direction& d : directions_) unread(d);
    if (http2_) http2_->finish();
    while (!pending_.empty()) write_front();
  }
  stage_ = Stage::none;
}

size_t HttpFlow::bytes() const {
  size_t sum = sizeof *this + pending_bytes_;
  for (const Direction& d : directions_) sum += d.stream.memory_bytes();
  return http2_ ? sum + http2_->bytes() : sum;
}

}  // namespace meshsieve
