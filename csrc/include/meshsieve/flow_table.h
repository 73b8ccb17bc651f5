// Flow table: which conversation a packet belongs to, in which direction, in which state.
//
// What    A flow is a bidirectional 5-tuple of the innermost IP header (ICMP and what has no ports: ports 0), with VLAN
//         and tunnel identifier as an option. update() gives every packet its flow, counts both directions, follows
//         TCP, and ends flows by timeouts in packet time, by port reuse, and when the table is full.
// Why     Policy is judged once a connection; counters and states are per conversation.
// How     Open addressing with linear probing over 8-byte entries (32 hash bits, slot), slots of two cache lines, the
//         first packet's fields in a cold array beside them. Packets come in runs: first all hashes, with the index
//         lines prefetched, then the slots, then the work.
// Safety  The hash is keyed at random, so colliding packets cannot be prepared; a probe ends after kMaxProbes anyway.
//         Nothing that is visible depends on the key, the batch size or addresses in memory.
// Ends    Each timeout class is a list. A flow moves to its tail only when its head is looked at (second chance), so
//         packets do not touch the lists. Time that runs backwards ends nothing.
// Limits  max_flows (860,000: 256 MiB); the least recently used flow of the oldest list heads is evicted and counted.
//         Fragments: 32 MiB of datagrams that wait and 16 MiB of their payload, the oldest out, counted.
// Source  Initiator and timeouts: the NSX and netfilter conventions named in docs/flows.md.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "meshsieve/apps.h"
#include "meshsieve/packet_batch.h"
#include "meshsieve/packet_observer.h"
#include "meshsieve/text_pool.h"

namespace meshsieve {

// A timeout of 0 never ends a flow.
struct FlowOptions {
  int64_t tcp_syn_ns = 120'000'000'000;            // one direction, opened by SYN
  int64_t tcp_established_ns = 43'200'000'000'000;  // both directions, or picked up in the middle
  int64_t tcp_closing_ns = 120'000'000'000;        // FIN from one side
  int64_t tcp_closed_ns = 20'000'000'000;          // FIN from both, or RST
  int64_t udp_single_ns = 30'000'000'000;          // UDP and UDP-Lite, no reply yet
  int64_t udp_reply_ns = 60'000'000'000;
  int64_t icmp_ns = 20'000'000'000;
  int64_t other_ns = 600'000'000'000;
  int64_t active_ns = 0;        // write a record of a long flow so often, and go on
  int64_t fragment_ns = 30'000'000'000;
  bool port_reuse = true;       // SYN on a closed flow starts another
  bool key_vlan = false;        // the outermost VLAN id is part of the key
  bool key_vni = false;         // tunnel kind and network identifier are part of the key
  uint32_t max_flows = 860'000;
  uint32_t max_fragmented = 65'536;  // datagrams in the fragment table
  AppOptions apps;
};

enum class TcpState : uint8_t { none, opening, established, closing, closed, reset };
inline constexpr std::array kTcpStateNames = {"none", "opening", "established", "closing", "closed", "reset"};

// open: the capture ended first; active: a record of a flow that goes on; reused: its ports began another flow
enum class FlowEnd : uint8_t { open, idle, active, reused, evicted };
inline constexpr std::array kFlowEndNames = {"open", "idle", "active", "reused", "evicted"};

enum FlowNote : uint8_t {
  kNotePickedUp = 1,          // TCP without its SYN: the initiator is a guess
  kNoteFragments = 2,         // holds fragments
  kNoteFragmentOverlap = 4,   // fragments of one datagram overlap (RFC 5722, RFC 3128)
  kNoteNoFirstFragment = 8,   // fragments whose first one never came: ports unknown
};
inline constexpr std::array kFlowNoteNames = {"picked_up", "fragments", "fragment_overlap", "no_first_fragment"};

struct FlowRow {
#define FIELD_COLUMN(type, name) type name{};
#define FLOW_COLUMN(type, name, doc) type name{};
#include "meshsieve/flow_columns.def"
#undef FIELD_COLUMN
#undef FLOW_COLUMN
  uint32_t present{};
};

// Flows as a struct of arrays.
class FlowBatch {
 public:
  size_t size() const { return present.size() + waiting_.size(); }
  FlowRow& append(const FlowRow& row);  // may be written to until the next call
  void describe_last(const Attributes& attributes);
  void reserve(size_t n);
  void complete();  // when nothing more is appended, before anything is read
  void clear();     // the memory stays
  void sort();  // by flow_id, then first_ns

  struct ColumnInfo {
    const char* name;
    ColumnType type;
    ColumnGroup group;
    const void* data;
  };
  std::vector<ColumnInfo> columns() const;

#define FIELD_COLUMN(type, name) std::vector<type> name;
#define FLOW_COLUMN(type, name, doc) std::vector<type> name;
#include "meshsieve/flow_columns.def"
#undef FIELD_COLUMN
#undef FLOW_COLUMN
  std::vector<uint32_t> present;

  // Attributes: each flow's text as a number into `texts`, -1 without one. Empty = no flow has the attribute.
  std::array<std::vector<int32_t>, kAttributeCount> attributes;
  TextPool texts;

 private:
  static constexpr size_t kMostWaiting = 64;
  // Rows wait, so that each column gets many at once.
  void settle();
  std::vector<FlowRow> waiting_;
};

// A name that a DNS response gave for an address (IPv4 in the last four bytes).
struct DnsAnswer {
  int64_t time_ns;
  uint32_t ttl_s;
  uint8_t ip_ver;
  std::array<uint8_t, 16> address;
  std::string name;  // lower case, without the last dot
};

struct FlowStats {
  uint64_t packets = 0;                // ever seen
  uint64_t flows = 0;                  // ever started
  uint64_t evicted = 0;                // ended because the table was full
  uint64_t packets_without_flow = 0;   // no IP, or headers that cannot be read
  uint64_t fragments_waiting = 0;      // later fragments that came before their first one
  uint64_t fragments_unmatched = 0;    // of these, given up: counted in a flow without ports
  uint64_t apps_given_up = 0;          // recognition ended early: too much waited
  uint64_t fragmented_evicted = 0;     // datagrams dropped from the fragment table because it was full
  uint64_t dns_answers_dropped = 0;    // beyond kMostDnsAnswers or their bytes that nobody took, or too many of one message
};

// Community ID version 1 (github.com/corelight/community-id-spec) of flow i, seed 0: "1:" and base64 of a SHA-1.
// Writes kCommunityId characters.
inline constexpr size_t kCommunityId = 30;
void put_community_id(const FlowBatch& flows, size_t i, char* out);

class FlowTable {
 public:
  explicit FlowTable(const FlowOptions& options);
  ~FlowTable();
  FlowTable(const FlowTable&) = delete;
  FlowTable& operator=(const FlowTable&) = delete;

  // Packets in capture order, at most kMaxFlowRun; fills the flow columns of rows row..row+n of `batch`.
  static constexpr size_t kMaxFlowRun = 32;
  void update(const Packet* packets, const Record* records, size_t n, PacketBatch& batch, uint32_t row);
  // Fragmented datagrams that became whole in the last update(), by row.
  std::span<const JoinedDatagram> joined() const;
  // All packets of a batch.
  void update(PacketBatch& batch);
  // Ends every flow. The table is empty afterwards.
  void finish();
  // The records written since the last call.
  std::shared_ptr<FlowBatch> take_finished();
  size_t finished() const;
  // What DNS responses (from port 53, over UDP or whole in one TCP segment) said since the last call, in capture order;
  // empty where no applications are recognised.
  static constexpr size_t kMostDnsAnswers = 1u << 18, kMostDnsAnswerBytes = 32u << 20;
  std::vector<DnsAnswer> take_dns_answers();

  FlowStats stats() const;
  uint32_t live() const;        // flows in the table
  uint32_t slots() const;       // largest flow_slot that was ever given, plus 1
  size_t bytes() const;         // memory held

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace meshsieve
