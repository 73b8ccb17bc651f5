// Which application each flow speaks: the states of flows that are not decided, and what was learned of the others.
//
// What    The flow table shows every packet with payload of a flow that is still open. TCP is put in order; the first byte
//         selects dissectors, those that the port suggests first; the one that says `yes` has the flow from then on and
//         goes on learning until it is done. A user's signatures come before the built-ins.
// Cost    A decided flow costs one test of a byte a packet. A state lives from the first payload to the decision.
// Limits  kMaxPayloads packets or kMaxBytes a direction; kMaxDuplicates packets without news. All that waits is within
//         AppOptions::waiting_bytes, the oldest flow given up; at most kMaxExpected announced flows, the oldest out. The
//         flow table evicts flows while their attributes are over AppOptions::attribute_bytes.
// Same    Nothing depends on batches, hash keys or addresses in memory.
#pragma once

#include <array>
#include <bitset>
#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "app/dissector.h"
#include "flow/flow_key.h"
#include "flow/reassembly.h"
#include "meshsieve/flow_table.h"

namespace meshsieve::app {

inline constexpr int kMaxPayloads = 8;
inline constexpr int kMaxDuplicates = 24;
inline constexpr uint32_t kMaxBytes = 16 << 10;
inline constexpr size_t kMaxExpected = 65536;

class Recognizer {
 public:
  explicit Recognizer(AppOptions options);
  ~Recognizer();

  // Bits of the directions whose payload is to be shown: 1 = initiator's, 2 = responder's.
  using Open = uint8_t;

  // A flow starts in `slot`.
  Open start(uint32_t slot, FlowRow& row);
  // A packet with payload of an open direction. `next_seq`: TCP, the sequence number expected before it, if known.
  Open inspect(uint32_t slot, FlowRow& row, const Packet& packet, const Record& record, bool reply, bool from_start,
               uint32_t next_seq);
  // What is known for a record of the flow now; writes the application columns of `row`.
  const Attributes& look(uint32_t slot, FlowRow& row);
  // The flow has ended: its slot is free.
  void end(uint32_t slot);

  uint64_t given_up() const { return given_up_; }
  bool holds_too_much() const { return attribute_bytes_ > options_.attribute_bytes; }
  size_t bytes() const;

 private:
  struct State;
  struct Slot {
    std::unique_ptr<State> state;
    Attributes attributes;
    bool closed = false;  // nothing more is wanted
  };

  using Candidates = std::array<std::array<std::vector<uint8_t>, 256>, 3>;  // dissectors by transport and first byte
  static const Candidates& candidates();
  std::unique_ptr<State> new_state(const FlowRow& row);
  void give_back(std::unique_ptr<State> state);
  bool dispatch(State& state, FlowRow& row, const Payload& payload);
  bool apply_signatures(const State& state, FlowRow& row, const Payload& payload) const;
  void apply_host_signatures(const Attributes& attributes, FlowRow& row) const;
  void expect(const Payload& payload, const FlowRow& row, std::vector<Expectation>& expectations);
  void forget_expected(uint16_t port);
  Open close(Slot& slot, FlowRow& row, Open directions);
  void account(Slot& slot, uint32_t number);
  void tidy_queue();
  void give_up_oldest();
  void keep(Slot& slot);

  AppOptions options_;
  const Candidates& candidates_;
  std::vector<Slot> slots_;
  std::vector<std::unique_ptr<State>> spare_;  // of decided flows, to be used again
  Findings findings_;                          // of the dissector that is being asked
  Findings fitting_;                           // of one that was asked before
  struct Waiting {
    uint32_t slot;
    uint64_t flow_id;
  };
  std::deque<Waiting> waiting_;  // flows that hold payload, the oldest first; some have been decided meanwhile
  uint64_t waiting_bytes_ = 0;
  uint64_t attribute_bytes_ = 0;  // of decided flows
  uint64_t given_up_ = 0;
  KeyedHash hash_;
  struct Hash {
    const KeyedHash* hash;
    size_t operator()(const FlowKey& key) const { return (*hash)(key); }
  };
  std::unordered_map<FlowKey, App, Hash> expected_{16, Hash{&hash_}};
  std::deque<std::pair<FlowKey, uint16_t>> expected_order_;
  std::vector<uint32_t> expected_ports_;  // by port: how many are expected; empty until one is
  std::bitset<65536> expects_port_;       // ... whether any is: small enough to stay in the cache, and a look mostly suffices
};

}  // namespace meshsieve::app
