#include "app/recognizer.h"

#include <utility>

#include "app/text.h"

namespace meshsieve::app {

namespace {

constexpr uint8_t kSyn = 2;
constexpr int kNone = -1;
constexpr size_t kSpareStates = 256, kSpareBytes = kMaxBytes;
constexpr Recognizer::Open kInitiator = 1, kBoth = 3;

int transport_index(uint8_t proto) { return proto == 6 ? 0 : proto == 17 ? 1 : proto == 132 ? 2 : kNone; }

bool is_multicast(const U128& address, uint8_t ip_ver) {
  if (ip_ver == 6) return address.hi >> 56 == 0xff;
  const auto v4 = static_cast<uint32_t>(address.lo);
  return v4 >> 28 == 14 || v4 == 0xffffffff || (v4 & 0xff) == 0xff;
}

// "=name" is the whole name, everything else a suffix.
bool fits_host(std::string_view text, std::string_view suffix) {
  if (suffix.starts_with('=')) return equals_nocase(text, suffix.substr(1));
  return text.size() >= suffix.size() && equals_nocase(text.substr(text.size() - suffix.size()), suffix);
}

// What the IP protocol alone says, unless more is known.
void name_by_protocol(FlowRow& row) {
  if (row.app_how != static_cast<uint8_t>(AppHow::none) || (row.present & bit_of(Field::proto)) == 0) return;
  const App app = app_of_protocol(row.proto);
  if (app == App::unknown) return;
  row.app = static_cast<uint16_t>(app);
  row.app_how = static_cast<uint8_t>(AppHow::protocol);
}

// What is known of a flow while it is not decided, without what needs memory of its own.
struct Progress {
  uint64_t flow_id = 0;
  int transport = kNone;
  App hint = App::unknown;
  Recognizer::Open open = kBoth;
  int dissector = kNone;
  int likely = kNone;  // a dissector that said so, and of which direction
  bool likely_reply = false;
  bool in_queue = false;
  bool follow = false;
  uint8_t n_payloads[2] = {};
  uint8_t n_duplicates[2] = {};
  bool from_start[2] = {};
  size_t n_known[2] = {};  // bytes that the dissectors have seen
  std::bitset<128> rejected[2];
  size_t history_bytes = 0;
  size_t accounted = 0;
};

}  // namespace

struct Recognizer::State : Progress {
  TcpStream stream[2] = {TcpStream(kMaxBytes), TcpStream(kMaxBytes)};
  std::vector<Datagram> history;
  Findings findings;

  // With itself: a flood of flows that say little is bounded as well.
  size_t held_bytes() const {
    return sizeof(State) + stream[0].memory_bytes() + stream[1].memory_bytes() + history_bytes +
           findings.attributes.bytes();
  }

  // As new; the buffers stay, for the next flow.
  void clear() {
    static_cast<Progress&>(*this) = Progress{};
    for (TcpStream& s : stream) s.clear(kMaxBytes, kSpareBytes);
    history.clear();
    findings.clear();
  }
};

// Made once: a caller may open a table for each of many small captures.
const Recognizer::Candidates& Recognizer::candidates() {
  static const Candidates made = [] {
    Candidates by_byte;
    const auto& all = dissectors();
    for (size_t i = 0; i < all.size(); ++i) {
      for (size_t transport = 0; transport < by_byte.size(); ++transport) {
        if ((all[i].transports >> transport & 1) == 0) continue;
        for (size_t byte = 0; byte < 256; ++byte) {
          if (all[i].first[byte]) by_byte[transport][byte].push_back(static_cast<uint8_t>(i));
        }
      }
    }
    return by_byte;
  }();
  return made;
}

Recognizer::Recognizer(AppOptions options) : options_(std::move(options)), candidates_(candidates()) {}

Recognizer::~Recognizer() = default;

size_t Recognizer::bytes() const {
  return slots_.capacity() * sizeof(Slot) + waiting_bytes_ + waiting_.size() * sizeof(Waiting) + attribute_bytes_ + expected_.size() * (sizeof(FlowKey) * 2 + 32);
}

Recognizer::Open Recognizer::start(uint32_t slot, FlowRow& row) {
  if (slot >= slots_.size()) slots_.resize(std::max<size_t>(slot + 1, slots_.size() * 2));
  if (transport_index(row.proto) == kNone) name_by_protocol(row);
  if (transport_index(row.proto) == kNone || (row.present & bit_of(Field::sport)) == 0) return 0;
  if (expects_port_[row.dport] || expects_port_[row.sport]) {
    for (const auto& [address, port] : {std::pair(row.dst_ip, row.dport), std::pair(row.src_ip, row.sport)}) {
      const auto found = expected_.find(make_key(address, {}, port, 0, row.proto, row.ip_ver).key);
      if (found == expected_.end()) continue;
      row.app = static_cast<uint16_t>(found->second);
      row.app_how = static_cast<uint8_t>(AppHow::related);
      const bool announced_only = found->second == App::ftp_data || found->second == App::tftp;
      expected_.erase(found);
      forget_expected(port);
      return announced_only ? 0 : kBoth;
    }
  }
  return kBoth;
}

Recognizer::Open Recognizer::inspect(uint32_t number, FlowRow& row, const Packet& packet, const Record& record,
                                     bool reply, bool from_start, uint32_t next_seq) {
  Slot& slot = slots_[number];
  const Open direction = static_cast<Open>(kInitiator << reply);
  if (packet.payload_offset > record.captured || packet.payload_length > record.captured - packet.payload_offset) {
    return kBoth;
  }
  if (slot.closed) return 0;
  if (!slot.state) slot.state = new_state(row);
  State& state = *slot.state;
  if ((state.open & direction) == 0) return state.open;
  const Bytes segment(record.data + packet.payload_offset, packet.payload_length);
  const uint32_t seq = packet.tcp_seq + ((packet.tcp_flags & kSyn) != 0);
  const bool ordered = state.transport == 0 && !state.follow;
  TcpStream& stream = state.stream[reply];
  // The first segment is read where it is; it is copied only if more is wanted of the flow behind it.
  bool in_place = false;
  if (ordered) {
    if (!stream.started()) {
      stream.start(from_start ? next_seq : seq);
      state.from_start[reply] = from_start || (packet.tcp_flags & kSyn) != 0;
    }
    in_place = seq == stream.next() && stream.held_bytes() == 0 && segment.size() < kMaxBytes;
    if (!in_place && !stream.add(seq, segment)) {
      if (++state.n_duplicates[reply] >= kMaxDuplicates) return close(slot, row, direction);
      account(slot, number);
      return state.open;
    }
  }
  ++state.n_payloads[reply];
  const Bytes here = ordered && !in_place ? stream.bytes() : segment;
  const size_t known = ordered ? std::exchange(state.n_known[reply], here.size()) : 0;
  const Payload payload{.here = here,
                        .there = ordered ? state.stream[!reply].bytes() : Bytes{},
                        .fresh = here.size() - known,
                        .reply = reply,
                        .transport = static_cast<Transport>(1 << state.transport),
                        .here_port = reply ? row.dport : row.sport,
                        .there_port = reply ? row.sport : row.dport,
                        .from_start = state.from_start[reply],
                        .whole = record.captured >= record.length && !packet.is_fragment(),
                        .multicast = is_multicast(packet.dst_ip, packet.ip_ver),
                        .history = state.history};
  const bool wanted = dispatch(state, row, payload);
  expect(payload, row, state.findings.expectations);
  Open closing = state.findings.done ? kBoth : state.findings.told ? direction : Open{0};
  bool skip = false;
  if (!wanted && payload.tcp()) {
    // Picked up in the middle of something: the next segment may begin a message.
    if (payload.from_start) closing |= direction;
    else skip = true;
  }
  if (!state.follow) {
    const bool full = ordered ? stream.lost() || here.size() >= kMaxBytes : state.history_bytes >= kMaxBytes;
    if (state.n_payloads[reply] >= kMaxPayloads || full) closing |= direction;
    if (closing != 0 && state.findings.follow && !state.findings.done) {
      // From here on each packet by itself: the lines of a control channel are short.
      state.follow = true;
      for (TcpStream& s : state.stream) s.close();
      closing = 0;
    }
    const bool rereads = state.dissector == kNone || dissectors()[static_cast<size_t>(state.dissector)].rereads;
    if (!payload.tcp() && closing == 0 && rereads) {
      state.history.push_back({reply, {segment.begin(), segment.end()}});
      state.history_bytes += segment.size();
    }
  }
  if (ordered && !state.follow && (state.open & ~closing) != 0) {
    if (skip) {
      const uint32_t next = in_place ? seq + static_cast<uint32_t>(segment.size()) : stream.next();
      stream.clear(kMaxBytes, kSpareBytes);
      stream.start(next);
      state.n_known[reply] = 0;
      state.rejected[reply].reset();
    } else if (in_place) {
      stream.add(seq, segment);
    }
  }
  if (closing != 0) return close(slot, row, closing);
  account(slot, number);
  return state.open;
}

std::unique_ptr<Recognizer::State> Recognizer::new_state(const FlowRow& row) {
  std::unique_ptr<State> state;
  if (spare_.empty()) {
    state = std::make_unique<State>();
  } else {
    state = std::move(spare_.back());
    spare_.pop_back();
  }
  state->flow_id = row.flow_id;
  state->transport = transport_index(row.proto);
  state->hint = app_of_port(row.proto, row.dport);
  if (state->hint == App::unknown) state->hint = app_of_port(row.proto, row.sport);
  return state;
}

void Recognizer::give_back(std::unique_ptr<State> state) {
  if (spare_.size() >= kSpareStates) return;
  state->clear();
  spare_.push_back(std::move(state));
}

// Asks the dissectors. False if none of them wants more of this direction.
bool Recognizer::dispatch(State& state, FlowRow& row, const Payload& payload) {
  const auto& all = dissectors();
  const auto take = [&](size_t i, AppHow how) {
    state.dissector = static_cast<int>(i);
    std::swap(state.findings, findings_);
    row.app = static_cast<uint16_t>(state.findings.app);
    row.app_how = static_cast<uint8_t>(how);
    return true;
  };
  if (state.dissector != kNone) {
    state.findings.told = false;
    if (all[static_cast<size_t>(state.dissector)].dissect(payload, state.findings) == Answer::yes) {
      if (row.app_how != static_cast<uint8_t>(AppHow::signature)) {
        row.app = static_cast<uint16_t>(state.findings.app);
        row.app_how = static_cast<uint8_t>(AppHow::parsed);
      }
    }
    return true;
  }
  if (apply_signatures(state, row, payload)) {
    state.findings.done = true;
    return true;
  }
  bool wanted = false;
  size_t fitting = 0;  // looks like it, and something else agrees; taken unless another is sure
  bool fits = false;
  const auto& tried = candidates_[state.transport][payload.here[0]];
  for (const bool hinted : {true, false}) {
    for (const size_t i : tried) {
      if ((all[i].app == state.hint) != hinted || state.rejected[payload.reply][i]) continue;
      findings_.clear();
      const Answer answer = all[i].dissect(payload, findings_);
      if (answer == Answer::yes) return take(i, AppHow::parsed);
      if (answer == Answer::likely) {
        const bool agrees = findings_.app == state.hint || all[i].app == state.hint;
        // Again: in another datagram, or in what the other side says.
        const bool again = state.likely == static_cast<int>(i) && (!payload.tcp() || state.likely_reply != payload.reply);
        if ((agrees || again) && !fits) {
          fits = true;
          fitting = i;
          std::swap(fitting_, findings_);
        }
        if (state.likely == kNone) {
          state.likely = static_cast<int>(i);
          state.likely_reply = payload.reply;
        }
      }
      if (answer == Answer::no && payload.whole) state.rejected[payload.reply].set(i);
      wanted = wanted || answer != Answer::no;
    }
  }
  if (!fits) return wanted;
  std::swap(fitting_, findings_);
  return take(fitting, AppHow::pattern);
}

bool Recognizer::apply_signatures(const State& state, FlowRow& row, const Payload& payload) const {
  for (const UserSignature& signature : options_.signatures) {
    if (!signature.host_suffixes.empty()) continue;
    if (signature.proto != 0 && signature.proto != row.proto) continue;
    const bool port = signature.ports.empty() ||
                      std::any_of(signature.ports.begin(), signature.ports.end(), [&](const auto& range) {
                        return row.dport >= range.first && row.dport <= range.second;
                      });
    if (!port || payload.here.size() < signature.prefix.size()) continue;
    if (payload.tcp() && !state.from_start[payload.reply] && !signature.prefix.empty() && state.n_payloads[payload.reply] > 1) {
      continue;
    }
    bool fits = true;
    for (size_t i = 0; i < signature.prefix.size() && fits; ++i) {
      fits = ((payload.here[i] ^ static_cast<uint8_t>(signature.prefix[i])) & static_cast<uint8_t>(signature.mask[i])) == 0;
    }
    if (!fits) continue;
    row.app = static_cast<uint16_t>(static_cast<uint16_t>(App::built_in) + signature.app);
    row.app_how = static_cast<uint8_t>(AppHow::signature);
    return true;
  }
  return false;
}

void Recognizer::apply_host_signatures(const Attributes& attributes, FlowRow& row) const {
  if (options_.signatures.empty() || attributes.empty()) return;
  const std::string_view http_host = attributes.get(Attribute::http_host);
  const std::string_view hosts[] = {attributes.get(Attribute::sni), word(http_host, ":"),
                                    attributes.get(Attribute::dns_name)};
  for (const UserSignature& signature : options_.signatures) {
    if (signature.proto != 0 && signature.proto != row.proto) continue;
    for (const std::string& suffix : signature.host_suffixes) {
      for (const std::string_view host : hosts) {
        if (host.empty() || !fits_host(host, suffix)) continue;
        row.app = static_cast<uint16_t>(static_cast<uint16_t>(App::built_in) + signature.app);
        row.app_how = static_cast<uint8_t>(AppHow::signature);
        return;
      }
    }
  }
}

void Recognizer::expect(const Payload& payload, const FlowRow& row, std::vector<Expectation>& expectations) {
  for (const Expectation& expectation : expectations) {
    const bool of_initiator = expectation.of_receiver == payload.reply;
    const U128 address = expectation.address.value_or(of_initiator ? row.src_ip : row.dst_ip);
    const FlowKey key = make_key(address, {}, expectation.port, 0, expectation.proto, row.ip_ver).key;
    if (expectation.port == 0 || !expected_.insert_or_assign(key, expectation.app).second) continue;
    if (expected_ports_.empty()) expected_ports_.resize(65536);
    ++expected_ports_[expectation.port];
    expects_port_.set(expectation.port);
    expected_order_.push_back({key, expectation.port});
    if (expected_order_.size() > kMaxExpected) {
      const auto& [oldest, port] = expected_order_.front();
      if (expected_.erase(oldest) != 0) forget_expected(port);
      expected_order_.pop_front();
    }
  }
  expectations.clear();
}

void Recognizer::forget_expected(uint16_t port) {
  if (--expected_ports_[port] == 0) expects_port_.reset(port);
}

// Frees what the directions hold; the state as well when both are closed.
Recognizer::Open Recognizer::close(Slot& slot, FlowRow& row, Open directions) {
  State& state = *slot.state;
  state.open &= static_cast<Open>(~directions);
  // A direction that a known flow has closed is still what its other one is read with.
  const bool decided = state.dissector != kNone;
  for (const int reply : {0, 1}) {
    if ((directions >> reply & 1) != 0 && !decided) state.stream[reply].close();
  }
  waiting_bytes_ -= state.accounted;
  state.accounted = 0;
  if (state.open != 0) {
    state.accounted = state.held_bytes();
    waiting_bytes_ += state.accounted;
    return state.open;
  }
  keep(slot);
  if (row.app_how != static_cast<uint8_t>(AppHow::signature)) apply_host_signatures(slot.attributes, row);
  return 0;
}

void Recognizer::account(Slot& slot, uint32_t number) {
  State& state = *slot.state;
  const size_t held = state.held_bytes();
  waiting_bytes_ += held - state.accounted;
  state.accounted = held;
  if (held != 0 && !state.in_queue) {
    state.in_queue = true;
    waiting_.push_back({number, state.flow_id});
  }
  while (waiting_bytes_ > options_.waiting_bytes && !waiting_.empty()) give_up_oldest();
  tidy_queue();
}

// Takes out entries of flows that were decided long ago: those at the front, and all when one that still waits has let
// more of them gather behind it than there are slots.
void Recognizer::tidy_queue() {
  const auto decided = [this](const Waiting& waiting) {
    const State* state = slots_[waiting.slot].state.get();
    return state == nullptr || state->flow_id != waiting.flow_id;
  };
  while (!waiting_.empty() && decided(waiting_.front())) waiting_.pop_front();
  if (waiting_.size() > 2 * slots_.size() + 1024) std::erase_if(waiting_, decided);
}

void Recognizer::give_up_oldest() {
  const Waiting oldest = waiting_.front();
  waiting_.pop_front();
  Slot& slot = slots_[oldest.slot];
  if (!slot.state || slot.state->flow_id != oldest.flow_id) return;
  ++given_up_;
  waiting_bytes_ -= slot.state->accounted;
  keep(slot);
}

// What was learned stays; the state goes. inspect() tells the flow table at the flow's next packet.
void Recognizer::keep(Slot& slot) {
  slot.attributes = slot.state->findings.attributes;
  attribute_bytes_ += slot.attributes.bytes();
  give_back(std::move(slot.state));
  slot.closed = true;
}

const Attributes& Recognizer::look(uint32_t number, FlowRow& row) {
  Slot& slot = slots_[number];
  const Attributes& attributes = slot.state ? slot.state->findings.attributes : slot.attributes;
  if (row.app_how != static_cast<uint8_t>(AppHow::signature)) apply_host_signatures(attributes, row);
  name_by_protocol(row);
  App by_port = app_of_port(row.proto, row.dport);
  if (by_port == App::unknown) by_port = app_of_port(row.proto, row.sport);
  row.app_by_port = static_cast<uint16_t>(by_port);
  return attributes;
}

void Recognizer::end(uint32_t number) {
  Slot& slot = slots_[number];
  if (slot.state) {
    waiting_bytes_ -= slot.state->accounted;
    give_back(std::move(slot.state));
  }
  attribute_bytes_ -= slot.attributes.bytes();
  slot.attributes = Attributes();
  slot.closed = false;
}

}  // namespace meshsieve::app
