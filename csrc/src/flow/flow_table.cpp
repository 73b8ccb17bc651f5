#include "meshsieve/flow_table.h"

#include <sys/random.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <utility>

#include "app/dns_answers.h"
#include "app/recognizer.h"
#include "flow/flow_index.h"
#include "flow/fragments.h"
#include "flow/slots.h"
#include "flow/timeout_lists.h"
#include "meshsieve/errors.h"

namespace meshsieve {

namespace {

constexpr uint8_t kFin = 1, kSyn = 2, kRst = 4, kAck = 16;
constexpr uint8_t kUnknownProto = 255;  // key of packets whose protocol cannot be read
constexpr uint8_t kCtNew = 1, kCtEstablished = 2, kCtRelated = 3;

constexpr uint32_t kMostFlows = 1u << 30;
constexpr size_t kReservedFlows = 16384;  // records that have room at once, as those taken before

// Sequence numbers compare modulo 2^32 (RFC 9293, section 3.4).
bool before(uint32_t a, uint32_t b) { return static_cast<int32_t>(a - b) < 0; }

void leave_without_flow(PacketBatch& batch, uint32_t row) {
  batch.flow_id[row] = 0;
  batch.flow_slot[row] = kNoFlow;
  batch.new_flow[row] = batch.reply[row] = false;
  batch.ct_state[row] = batch.app_how[row] = 0;
  batch.app[row] = 0;
}

}  // namespace

KeyedHash::KeyedHash() {
  if (::getrandom(secret_, sizeof secret_, 0) != sizeof secret_) throw Error("the system gives no random bytes");
}

class FlowTable::Impl {
 public:
  explicit Impl(const FlowOptions& options)
      : options_(options),
        lists_(slots_, options),
        fragments_(hash_, options.max_fragmented),
        finished_(std::make_shared<FlowBatch>()) {
    if (options.apps.enabled) apps_ = std::make_unique<app::Recognizer>(options.apps);
  }

  void update(const Packet* packets, const Record* records, size_t n, PacketBatch& batch, uint32_t row);
  void finish();

  FlowStats stats_;
  std::vector<JoinedDatagram> joined_;  // of the last update()
  Slots slots_;
  FlowIndex index_;
  std::shared_ptr<FlowBatch> next_finished() {
    finished_->complete();
    return std::exchange(finished_, spare_batch());
  }
  size_t finished() const { return finished_->size(); }
  const app::Recognizer* apps() const { return apps_.get(); }
  std::vector<DnsAnswer> take_dns_answers() {
    dns_answer_bytes_ = 0;
    return std::exchange(dns_answers_, {});
  }

 private:
  // An empty batch, with the memory of an earlier one that nobody holds any more.
  std::shared_ptr<FlowBatch> spare_batch() {
    if (handed_out_ != nullptr && handed_out_.use_count() == 1) {
      std::atomic_thread_fence(std::memory_order_acquire);
      handed_out_->clear();
      return std::exchange(handed_out_, finished_->size() <= kMostSpareRows ? finished_ : nullptr);
    }
    handed_out_ = finished_->size() <= kMostSpareRows ? finished_ : nullptr;
    auto batch = std::make_shared<FlowBatch>();
    batch->reserve(std::min(finished_->size(), kReservedFlows));
    return batch;
  }

  // One packet on its way through update().
  struct Pending {
    DirectedKey key;
    uint32_t tag;
    uint32_t slot;  // where its flow is, or kNone; before locate(), where it probably is
    bool has_flow;
  };

  bool make_packet_key(const Packet& packet, DirectedKey& out) const;
  void options_key(const Packet& packet, FlowKey& key) const;
  uint32_t find(const FlowKey& key, uint32_t tag) {
    return index_.find(tag, [&](uint32_t slot) { return slots_.hot(slot).key == key; });
  }
  // The flow of the guess may have begun or ended since: then its slot has a key that no packet has, or another's.
  uint32_t locate(const Pending& pending) {
    if (pending.slot != Slots::kNone && slots_.hot(pending.slot).key == pending.key.key) return pending.slot;
    return find(pending.key.key, pending.tag);
  }
  bool steady_packet(const Packet& packet, const Record& record, const Pending& pending, PacketBatch& batch, uint32_t row);
  void packet(const Packet& packet, const Record& record, const Pending& pending, PacketBatch& batch, uint32_t row);
  void show_flow(const HotFlow& flow, uint32_t slot, bool is_new, bool reply, bool related, PacketBatch& batch,
                 uint32_t row);
  void fragment(const Packet& packet, const Record& record, const Pending& pending, PacketBatch& batch, uint32_t row);
  void wait_for_first(const Packet& packet, const Record& record, FragmentedDatagram* datagram, PacketBatch& batch,
                      uint32_t row);
  FragmentedDatagram* datagram_of(const Packet& packet, int64_t now_ns);
  void join(FragmentedDatagram& datagram, const Record& last, const PacketBatch& batch, uint32_t row);
  void give_up(const FragmentedDatagram& datagram);
  bool is_related(const Packet& packet);
  void show_payload(uint32_t slot, const Packet& packet, const Record& record, bool reply);
  void snoop(const Packet& packet, const Record& record);

  uint32_t start(const Packet& packet, const Record& record, const DirectedKey& key, uint32_t tag, bool related);
  bool is_over(const HotFlow& flow, const Packet& packet, int64_t now_ns, FlowEnd& why) const;
  void count(uint32_t slot, const Packet& packet, const Record& record, bool reply);
  void follow_sequence(HotFlow& flow, const Packet& packet, int direction);
  void follow_state(HotFlow& flow, uint8_t flags, int direction);
  void write(uint32_t slot, FlowEnd why);
  void end(uint32_t slot, FlowEnd why);
  void evict_oldest();
  void bound_attributes();

  FlowOptions options_;
  std::array<Pending, kMaxFlowRun> pending_;
  TimeoutLists lists_;
  KeyedHash hash_;
  FragmentTable fragments_;
  std::shared_ptr<FlowBatch> finished_;
  static constexpr size_t kMostSpareRows = 1u << 15;
  std::shared_ptr<FlowBatch> handed_out_;  // the last one, if its memory is worth keeping
  std::unique_ptr<app::Recognizer> apps_;
  std::vector<DnsAnswer> dns_answers_;
  size_t dns_answer_bytes_ = 0;
};

// ---- keys

void FlowTable::Impl::options_key(const Packet& packet, FlowKey& key) const {
  if (options_.key_vlan && packet.has(Field::vlan)) key.add_vlan(packet.vlan);
  if (options_.key_vni && packet.has_sparse && packet.tunnel != 0) key.add_tunnel(packet.tunnel, packet.vni);
}

inline bool FlowTable::Impl::make_packet_key(const Packet& packet, DirectedKey& out) const {
  if (!packet.has(Field::src_ip)) return false;
  const bool ports = packet.has(Field::sport);
  out = make_key(packet.src_ip, packet.dst_ip, ports ? packet.sport : 0, ports ? packet.dport : 0,
                 packet.has(Field::proto) ? packet.proto : kUnknownProto, packet.ip_ver);
  options_key(packet, out.key);
  return true;
}

// ---- the way of a run of packets

void FlowTable::Impl::update(const Packet* packets, const Record* records, size_t n, PacketBatch& batch,
                             uint32_t row) {
  joined_.clear();
  Pending* const pending = pending_.data();
  for (size_t i = 0; i < n; ++i) {
    pending[i].has_flow = make_packet_key(packets[i], pending[i].key);
    if (!pending[i].has_flow) continue;
    pending[i].tag = FlowIndex::tag(hash_(pending[i].key.key));
    index_.prefetch(pending[i].tag);
  }
  for (size_t i = 0; i < n; ++i) {
    if (!pending[i].has_flow) continue;
    pending[i].slot = index_.guess(pending[i].tag);
    if (pending[i].slot != FlowIndex::kNone) slots_.prefetch(pending[i].slot);
  }
  for (size_t i = 0; i < n; ++i) {
    const int64_t now_ns = records[i].time_ns;
    ++stats_.packets;
    if (lists_.is_due(now_ns)) lists_.expire(now_ns, [this](uint32_t slot) { end(slot, FlowEnd::idle); });
    const uint32_t at = row + static_cast<uint32_t>(i);
    if (!pending[i].has_flow) {
      ++stats_.packets_without_flow;
      leave_without_flow(batch, at);
    } else if (packets[i].is_fragment()) {
      fragment(packets[i], records[i], pending[i], batch, at);
      bound_attributes();
    } else {
      pending[i].slot = locate(pending[i]);
      if (!steady_packet(packets[i], records[i], pending[i], batch, at)) {
        packet(packets[i], records[i], pending[i], batch, at);
        bound_attributes();
      }
    }
  }
}

// What packet() does with the packets that nearly all are, in one piece: they belong to a flow that goes on, change only
// its counters, and nobody wants to see their payload. False, with nothing done, for all others.
inline bool FlowTable::Impl::steady_packet(const Packet& packet, const Record& record, const Pending& pending,
                                           PacketBatch& batch, uint32_t row) {
  if (pending.slot == Slots::kNone || (packet.sport == 53 && apps_ != nullptr)) return false;
  HotFlow& flow = slots_.hot(pending.slot);
  const bool reply = pending.key.from_high != (flow.initiator_is_high != 0);
  const bool tcp = packet.has(Field::tcp_flags);
  if ((flow.steady >> reply & 1) == 0 || (tcp && (packet.tcp_flags & (kSyn | kFin | kRst)) != 0) ||
      ((flow.app_open >> reply & 1) != 0 && packet.payload_length != 0) ||
      (packet.has_sparse && packet.quoted_ip_ver != 0) || lists_.is_over(flow, record.time_ns)) {
    return false;
  }
  ++flow.packets[reply];
  flow.bytes[reply] += record.length;
  flow.last_ns = std::max(flow.last_ns, record.time_ns);
  if (tcp) follow_sequence(flow, packet, reply);
  if (batch.shows_flows) show_flow(flow, pending.slot, false, reply, false, batch, row);
  return true;
}

// The columns of a packet that has a flow.
inline void FlowTable::Impl::show_flow(const HotFlow& flow, uint32_t slot, bool is_new, bool reply, bool related,
                                       PacketBatch& batch, uint32_t row) {
  batch.flow_id[row] = flow.flow_id;
  batch.flow_slot[row] = slot;
  batch.new_flow[row] = is_new;
  batch.reply[row] = reply;
  batch.app[row] = flow.app;
  batch.app_how[row] = flow.app_how;
  batch.present[row] |= bit_of(Field::ct_state);
  batch.ct_state[row] = related ? kCtRelated : flow.packets[0] != 0 && flow.packets[1] != 0 ? kCtEstablished : kCtNew;
}

void FlowTable::Impl::packet(const Packet& packet, const Record& record, const Pending& pending, PacketBatch& batch,
                             uint32_t row) {
  uint32_t slot = pending.slot;
  FlowEnd why;
  if (slot != Slots::kNone && is_over(slots_.hot(slot), packet, record.time_ns, why)) {
    end(slot, why);
    slot = Slots::kNone;
  }
  const bool related = packet.has_sparse && packet.quoted_ip_ver != 0 && is_related(packet);
  const bool is_new = slot == Slots::kNone;
  if (is_new) slot = start(packet, record, pending.key, pending.tag, related);
  HotFlow& flow = slots_.hot(slot);
  const bool reply = pending.key.from_high != (flow.initiator_is_high != 0);
  if (flow.app_open >> reply & 1 && packet.payload_length != 0 && !packet.is_later_fragment()) {
    show_payload(slot, packet, record, reply);
  }
  if (packet.sport == 53 && apps_ != nullptr) snoop(packet, record);
  count(slot, packet, record, reply);
  show_flow(flow, slot, is_new, reply, related, batch, row);
}

// To the recognizer. Before count(), so that the sequence number that was expected is known.
void FlowTable::Impl::show_payload(uint32_t slot, const Packet& packet, const Record& record, bool reply) {
  if (record.data == nullptr) return;
  HotFlow& flow = slots_.hot(slot);
  const bool picked_up = (flow.notes & kNotePickedUp) != 0 && (flow.tcp_flags_or[reply] & kSyn) == 0;
  FlowRow& row = slots_.cold(slot).row;
  const bool from_start = (flow.seq_known >> reply & 1) != 0 && !picked_up;
  flow.app_open = apps_->inspect(slot, row, packet, record, reply, from_start, flow.next_seq[reply]);
  flow.app = row.app;
  flow.app_how = row.app_how;
}

// A packet from a DNS server: the answers in it.
void FlowTable::Impl::snoop(const Packet& packet, const Record& record) {
  if (record.data == nullptr || packet.is_fragment() || packet.payload_offset > record.captured ||
      packet.payload_length > record.captured - packet.payload_offset) {
    return;
  }
  if (dns_answers_.size() >= kMostDnsAnswers || dns_answer_bytes_ >= kMostDnsAnswerBytes) {
    ++stats_.dns_answers_dropped;
    return;
  }
  app::Reader reader(app::Bytes(record.data + packet.payload_offset, packet.payload_length));
  app::Bytes message = reader.rest();
  if (!is_udp(packet.proto)) message = reader.vector16();  // over TCP a length stands before the message
  if (!reader.ok()) return;
  const size_t before = dns_answers_.size();
  stats_.dns_answers_dropped += app::read_dns_answers(message, record.time_ns, dns_answers_);
  for (size_t i = before; i < dns_answers_.size(); ++i) dns_answer_bytes_ += sizeof(DnsAnswer) + dns_answers_[i].name.size();
}

// An ICMP error about a packet of a flow that we know, whichever side sent it.
bool FlowTable::Impl::is_related(const Packet& packet) {
  DirectedKey quoted = make_key(packet.quoted_src_ip, packet.quoted_dst_ip, packet.quoted_sport, packet.quoted_dport,
                                packet.quoted_proto, packet.quoted_ip_ver);
  options_key(packet, quoted.key);
  return find(quoted.key, FlowIndex::tag(hash_(quoted.key))) != Slots::kNone;
}

// ---- one flow

void FlowTable::Impl::evict_oldest() {
  ++stats_.evicted;
  end(lists_.oldest(), FlowEnd::evicted);
}

// After a packet that may have told something: a flood of flows that each tell 4 KiB is bounded as one of flows is.
inline void FlowTable::Impl::bound_attributes() {
  while (apps_ != nullptr && apps_->holds_too_much()) evict_oldest();
}

uint32_t FlowTable::Impl::start(const Packet& packet, const Record& record, const DirectedKey& key, uint32_t tag,
                                bool related) {
  if (slots_.live() >= options_.max_flows) evict_oldest();
  const uint32_t slot = slots_.take(stats_.packets);
  HotFlow& flow = slots_.hot(slot);
  ColdFlow& cold = slots_.cold(slot);
  clear(flow);
  clear(cold);
  flow.key = key.key;
  flow.tag = tag;
  flow.last_ns = record.time_ns;
  const bool tcp = packet.has(Field::tcp_flags);
  const bool answers = tcp && (packet.tcp_flags & (kSyn | kAck)) == (kSyn | kAck);
  flow.initiator_is_high = key.from_high != answers;
  if (tcp && (packet.tcp_flags & kSyn) == 0) flow.notes |= kNotePickedUp;
  if (tcp) flow.tcp_state = (packet.tcp_flags & kSyn) != 0 ? TcpState::opening : TcpState::established;

  FlowRow& row = cold.row;
  // ct_state is a field of flows that the decoder does not know.
#define FIELD_COLUMN(type, name) row.name = source.name;
#define FLOW_COLUMN(type, name, doc)
  struct : DenseColumns { uint8_t ct_state; } source{packet, related ? kCtRelated : kCtNew};
#include "meshsieve/flow_columns.def"
#undef FIELD_COLUMN
#undef FLOW_COLUMN
  row.present = packet.present | bit_of(Field::ct_state);
  row.flow_id = flow.flow_id = ++stats_.flows;
  row.flow_slot = slot;
  row.first_ns = record.time_ns;
  row.number = record.number;
  row.file = record.file;
  row.status = packet.status;
  if (packet.has_sparse) {
    row.vlan_inner = packet.vlan_inner;
    row.tunnel = packet.tunnel;
    row.tunnel_depth = packet.tunnel_depth;
    row.vni = packet.vni;
    row.outer_src_ip = packet.outer_src_ip;
    row.outer_dst_ip = packet.outer_dst_ip;
    row.outer_sport = packet.outer_sport;
    row.outer_dport = packet.outer_dport;
    row.outer_proto = packet.outer_proto;
    row.outer_ip_ver = packet.outer_ip_ver;
  }
  if (answers) {
    std::swap(row.src_ip, row.dst_ip);
    std::swap(row.sport, row.dport);
    std::swap(row.outer_src_ip, row.outer_dst_ip);
    std::swap(row.outer_sport, row.outer_dport);
  }
  if (apps_) {
    flow.app_open = apps_->start(slot, row);
    flow.app = row.app;
    flow.app_how = row.app_how;
  }
  for (uint32_t displaced; (displaced = index_.insert(tag, slot)) != FlowIndex::kNone;) {
    ++stats_.evicted;
    end(displaced, FlowEnd::evicted);
  }
  lists_.add(slot);
  return slot;
}

// Whether the flow that has the packet's key ended before the packet.
bool FlowTable::Impl::is_over(const HotFlow& flow, const Packet& packet, int64_t now_ns, FlowEnd& why) const {
  why = FlowEnd::idle;
  if (lists_.is_over(flow, now_ns)) return true;
  why = FlowEnd::reused;
  return options_.port_reuse && flow.tcp_state >= TcpState::closed && packet.has(Field::tcp_flags) &&
         (packet.tcp_flags & (kSyn | kAck)) == kSyn;
}

void FlowTable::Impl::count(uint32_t slot, const Packet& packet, const Record& record, bool reply) {
  HotFlow& flow = slots_.hot(slot);
  if (options_.active_ns != 0 && flow.packets[0] + flow.packets[1] != 0) {
    FlowRow& row = slots_.cold(slot).row;
    if (has_passed(options_.active_ns, row.first_ns, record.time_ns)) {
      write(slot, FlowEnd::active);
      row.first_ns = record.time_ns;
      for (int direction : {0, 1}) flow.packets[direction] = flow.bytes[direction] = flow.retransmissions[direction] = 0;
    }
  }
  ++flow.packets[reply];
  flow.bytes[reply] += record.length;
  flow.last_ns = std::max(flow.last_ns, record.time_ns);
  const bool tcp = packet.has(Field::tcp_flags);
  if (tcp) follow_sequence(flow, packet, reply);
  if ((flow.steady >> reply & 1) != 0 && !(tcp && (packet.tcp_flags & (kSyn | kFin | kRst)) != 0)) return;
  if (tcp) follow_state(flow, packet.tcp_flags, reply);
  lists_.update(slot);
  // State and class come from which directions have packets, FIN and RST; only records of long flows reset the first.
  if (options_.active_ns == 0) flow.steady |= static_cast<uint8_t>(1 << reply);
}

inline void FlowTable::Impl::follow_sequence(HotFlow& flow, const Packet& packet, int direction) {
  const uint8_t flags = packet.tcp_flags;
  flow.tcp_flags_or[direction] |= flags;
  const uint32_t occupied = packet.payload_length + ((flags & kSyn) != 0) + ((flags & kFin) != 0);
  const uint32_t next = packet.tcp_seq + occupied;
  const auto bit = static_cast<uint8_t>(1 << direction);
  const bool known = (flow.seq_known & bit) != 0;
  if (known && occupied != 0 && before(packet.tcp_seq, flow.next_seq[direction])) ++flow.retransmissions[direction];
  if (!known || before(flow.next_seq[direction], next)) flow.next_seq[direction] = next;
  flow.seq_known |= bit;
}

void FlowTable::Impl::follow_state(HotFlow& flow, uint8_t flags, int direction) {
  if ((flags & kFin) != 0) flow.ended |= static_cast<uint8_t>(1 << direction);
  if ((flags & kRst) != 0) flow.tcp_state = TcpState::reset;
  if (flow.tcp_state == TcpState::reset) return;
  constexpr uint8_t kBoth = 3;
  if (flow.ended == kBoth) flow.tcp_state = TcpState::closed;
  else if (flow.ended != 0) flow.tcp_state = TcpState::closing;
  else if (flow.packets[0] != 0 && flow.packets[1] != 0) flow.tcp_state = TcpState::established;
}

void FlowTable::Impl::write(uint32_t slot, FlowEnd why) {
  const HotFlow& flow = slots_.hot(slot);
  FlowRow& row = finished_->append(slots_.cold(slot).row);
  row.packets = flow.packets[0];
  row.bytes = flow.bytes[0];
  row.packets_reply = flow.packets[1];
  row.bytes_reply = flow.bytes[1];
  row.last_ns = flow.last_ns;
  row.tcp_flags_or = flow.tcp_flags_or[0];
  row.tcp_flags_or_reply = flow.tcp_flags_or[1];
  row.tcp_state = static_cast<uint8_t>(flow.tcp_state);
  row.retransmissions = flow.retransmissions[0];
  row.retransmissions_reply = flow.retransmissions[1];
  row.end_reason = static_cast<uint8_t>(why);
  row.notes = flow.notes;
  if (apps_) finished_->describe_last(apps_->look(slot, row));
}

void FlowTable::Impl::end(uint32_t slot, FlowEnd why) {
  lists_.prefetch_after(slot);  // what often ends next
  write(slot, why);
  if (apps_) apps_->end(slot);
  lists_.remove(slot);
  index_.erase(slots_.hot(slot).tag, slot);
  slots_.hot(slot).key.make_void();
  slots_.give_back(slot, stats_.packets);
}

// ---- fragments

// The datagram that a fragment belongs to. Null if the header that was fragmented is neither the innermost nor the
// outermost one: its addresses are not kept.
FragmentedDatagram* FlowTable::Impl::datagram_of(const Packet& packet, int64_t now_ns) {
  while (!fragments_.empty()) {
    const bool over = has_passed(options_.fragment_ns, fragments_.oldest().started_ns, now_ns);
    if (!over && !fragments_.over_limit()) break;
    if (!over) ++stats_.fragmented_evicted;
    give_up(fragments_.take_oldest());
  }
  if (packet.fragment_level == packet.tunnel_depth) {
    const uint8_t proto = packet.ip_ver == 4 ? packet.proto : 0;  // RFC 8200 identifies without the protocol
    return &fragments_.find_or_add(packet.src_ip, packet.dst_ip, packet.fragment_id, proto, packet.ip_ver, now_ns);
  }
  if (packet.fragment_level != 0) return nullptr;
  const uint8_t proto = packet.outer_ip_ver == 4 ? packet.outer_proto : 0;
  return &fragments_.find_or_add(packet.outer_src_ip, packet.outer_dst_ip, packet.fragment_id, proto,
                                 packet.outer_ip_ver, now_ns);
}

void FlowTable::Impl::fragment(const Packet& packet, const Record& record, const Pending& pending, PacketBatch& batch,
                               uint32_t row) {
  FragmentedDatagram* datagram = datagram_of(packet, record.time_ns);
  const bool first = packet.fragment_offset == 0;
  if (datagram != nullptr) {
    if (first && datagram->complete()) fragments_.forget_fragments(*datagram);  // the identification is used again
    fragments_.note(*datagram, packet);
    // A copy of the first fragment with other ports is none.
    datagram->overlapping |= first && datagram->has_flow && !(datagram->flow.key == pending.key.key);
  }
  const bool whole = datagram != nullptr && fragments_.add_payload(*datagram, packet, record);
  if (first) {
    this->packet(packet, record, Pending{pending.key, pending.tag, locate(pending), true}, batch, row);
  } else if (datagram != nullptr && datagram->has_flow) {
    const FlowKey& key = datagram->flow.key;
    const uint32_t tag = FlowIndex::tag(hash_(key));
    this->packet(packet, record, Pending{datagram->flow, tag, find(key, tag), true}, batch, row);
  } else {
    wait_for_first(packet, record, datagram, batch, row);
    return;
  }
  HotFlow& flow = slots_.hot(batch.flow_slot[row]);
  flow.notes |= kNoteFragments;
  if (datagram != nullptr && datagram->overlapping) flow.notes |= kNoteFragmentOverlap;
  if (whole) join(*datagram, record, batch, row);
  if (!first || datagram == nullptr) return;
  datagram->has_flow = true;
  datagram->flow = pending.key;
  if (datagram->waiting_packets == 0) return;
  flow.packets[batch.reply[row]] += datagram->waiting_packets;
  flow.bytes[batch.reply[row]] += datagram->waiting_bytes;
  int64_t& first_ns = slots_.cold(batch.flow_slot[row]).row.first_ns;
  first_ns = std::min(first_ns, datagram->waiting_first_ns);
  datagram->waiting_packets = 0;
}

// The last missing fragment of a datagram has come: its payload is read as if it had never been cut.
void FlowTable::Impl::join(FragmentedDatagram& datagram, const Record& last, const PacketBatch& batch, uint32_t row) {
  JoinedDatagram& joined = joined_.emplace_back();
  std::shared_ptr<DatagramBuffer> payload = fragments_.forget_payload(datagram);
  payload->read(last, joined.packet, joined.record);
  joined.row = row;
  const uint32_t slot = batch.flow_slot[row];
  const bool reply = batch.reply[row];
  if ((slots_.hot(slot).app_open >> reply & 1) != 0) show_payload(slot, joined.packet, joined.record, reply);
  if (joined.packet.sport == 53 && apps_ != nullptr) snoop(joined.packet, joined.record);
  joined.bytes = std::move(payload);
}

void FlowTable::Impl::wait_for_first(const Packet& packet, const Record& record, FragmentedDatagram* datagram,
                                     PacketBatch& batch, uint32_t row) {
  leave_without_flow(batch, row);
  ++stats_.fragments_waiting;
  if (datagram == nullptr) {
    ++stats_.packets_without_flow;
    return;
  }
  if (datagram->waiting_packets++ == 0) {
    datagram->waiting_first_ns = record.time_ns;
    datagram->waiting_packet = packet;
    datagram->waiting_record = record;
  }
  datagram->waiting_bytes += record.length;
  datagram->waiting_last_ns = record.time_ns;
}

// Fragments without their first one become a flow without ports, so that they are counted and judged.
void FlowTable::Impl::give_up(const FragmentedDatagram& datagram) {
  if (datagram.waiting_packets == 0) return;
  stats_.fragments_unmatched += datagram.waiting_packets;
  DirectedKey key;
  make_packet_key(datagram.waiting_packet, key);
  const uint32_t tag = FlowIndex::tag(hash_(key.key));
  uint32_t slot = find(key.key, tag);
  if (slot == Slots::kNone) slot = start(datagram.waiting_packet, datagram.waiting_record, key, tag, false);
  HotFlow& flow = slots_.hot(slot);
  const bool reply = key.from_high != (flow.initiator_is_high != 0);
  flow.packets[reply] += datagram.waiting_packets;
  flow.bytes[reply] += datagram.waiting_bytes;
  flow.last_ns = std::max(flow.last_ns, datagram.waiting_last_ns);
  flow.notes |= kNoteFragments | kNoteNoFirstFragment;
  if (datagram.overlapping) flow.notes |= kNoteFragmentOverlap;
  flow.steady = 0;
}

void FlowTable::Impl::finish() {
  while (!fragments_.empty()) give_up(fragments_.take_oldest());
  finished_->reserve(finished_->size() + slots_.live());
  lists_.end_all([this](uint32_t slot) { end(slot, FlowEnd::open); });
}

// ---- the public face

FlowTable::FlowTable(const FlowOptions& options) {
  if (options.max_flows == 0 || options.max_flows > kMostFlows || options.max_fragmented == 0) {
    throw Error("a flow table holds 1 to " + std::to_string(kMostFlows) + " flows and at least one datagram");
  }
  impl_ = std::make_unique<Impl>(options);
}
FlowTable::~FlowTable() = default;

void FlowTable::update(const Packet* packets, const Record* records, size_t n, PacketBatch& batch, uint32_t row) {
  batch.has_flows = true;
  impl_->update(packets, records, n, batch, row);
}

void FlowTable::update(PacketBatch& batch) {
  Packet packets[kMaxFlowRun];
  Record records[kMaxFlowRun];
  batch.has_flows = true;
  batch.spread_sparse();
  for (uint32_t row = 0; row < batch.size();) {
    const size_t n = std::min<size_t>(kMaxFlowRun, batch.size() - row);
    for (size_t i = 0; i < n; ++i) batch.read(row + static_cast<uint32_t>(i), records[i], packets[i]);
    impl_->update(packets, records, n, batch, row);
    row += static_cast<uint32_t>(n);
  }
}

void FlowTable::finish() { impl_->finish(); }
std::shared_ptr<FlowBatch> FlowTable::take_finished() { return impl_->next_finished(); }
std::vector<DnsAnswer> FlowTable::take_dns_answers() { return impl_->take_dns_answers(); }
std::span<const JoinedDatagram> FlowTable::joined() const { return impl_->joined_; }
size_t FlowTable::finished() const { return impl_->finished(); }
FlowStats FlowTable::stats() const {
  FlowStats stats = impl_->stats_;
  if (impl_->apps() != nullptr) stats.apps_given_up = impl_->apps()->given_up();
  return stats;
}
uint32_t FlowTable::live() const { return impl_->slots_.live(); }
uint32_t FlowTable::slots() const { return impl_->slots_.used(); }
size_t FlowTable::bytes() const {
  return impl_->slots_.bytes() + impl_->index_.bytes() + (impl_->apps() != nullptr ? impl_->apps()->bytes() : 0);
}

}  // namespace meshsieve
