// First payload of a flow through the flow table and the recognition of applications. Oracle: what is recognised in one
// segment is recognised, with the same attributes, in two, in either order. (The first of two may prove what the rest
// then contradicts: not the other way round.)
#pragma once

#include <string>

#include "fuzz.h"
#include "meshsieve/flow_table.h"

struct Recognised {
  uint16_t app = 0;
  std::vector<std::string> attributes;

  // Whether the other one knows at least what this one knows.
  bool is_known_to(const Recognised& other) const {
    for (size_t i = 0; i < attributes.size(); ++i) {
      if (!attributes[i].empty() && attributes[i] != other.attributes[i]) return false;
    }
    return app == 0 || app == other.app;
  }
};

class OneFlow {
 public:
  OneFlow(uint8_t proto, uint16_t port) : table_(options()), batch_(1) {
    packet_.src_ip = {0, 1};
    packet_.dst_ip = {0, 2};
    packet_.sport = 40000;
    packet_.dport = port;
    packet_.proto = proto;
    packet_.ip_ver = 4;
    for (const auto field : {meshsieve::Field::src_ip, meshsieve::Field::dst_ip, meshsieve::Field::sport,
                             meshsieve::Field::dport, meshsieve::Field::proto, meshsieve::Field::ip_ver}) {
      packet_.present |= bit_of(field);
    }
    if (proto != 6) return;
    packet_.present |= bit_of(meshsieve::Field::tcp_flags);
    packet_.tcp_flags = 2;
    packet_.tcp_seq = kSeq - 1;
    say({});
    packet_.tcp_flags = 16;
  }

  void say(Bytes payload, size_t offset = 0) {
    meshsieve::Record record;
    record.data = payload.data();
    record.captured = record.length = static_cast<uint32_t>(payload.size());
    record.time_ns = ++time_ns_;
    if (packet_.tcp_flags != 2) packet_.tcp_seq = kSeq + static_cast<uint32_t>(offset);
    packet_.payload_length = record.captured;
    batch_.clear();
    batch_.append(&record, &packet_, 1);
    table_.update(&packet_, &record, 1, batch_, 0);
  }

  Recognised finish() {
    table_.finish();
    const auto flows = table_.take_finished();
    Recognised out;
    out.app = flows->app[0];
    for (const auto& column : flows->attributes) {
      const int32_t text = column.empty() ? -1 : column[0];
      out.attributes.emplace_back(text < 0 ? std::string_view() : flows->texts[static_cast<size_t>(text)]);
    }
    return out;
  }

 private:
  static meshsieve::FlowOptions options() {
    meshsieve::FlowOptions out;
    out.apps.enabled = true;
    return out;
  }
  static constexpr uint32_t kSeq = 0xfffffff0;
  meshsieve::FlowTable table_;
  meshsieve::PacketBatch batch_;
  meshsieve::Packet packet_;
  int64_t time_ns_ = 0;
};

// `same`: the oracle holds; without it, only that nothing breaks. (Of bytes that fit several protocols, a first segment may
// prove one and the whole another.)
inline void fuzz_tcp(Bytes bytes, uint16_t port, bool same = true) {
  OneFlow whole(6, port), in_order(6, port), reversed(6, port);
  whole.say(bytes);
  const Recognised expected = whole.finish();
  const size_t cut = Cuts(bytes).below(bytes.size());
  in_order.say(bytes.first(cut));
  in_order.say(bytes.subspan(cut), cut);
  check(expected.is_known_to(in_order.finish()) || !same, "two segments are another application");
  reversed.say(bytes.subspan(cut), cut);
  reversed.say(bytes.first(cut));
  check(expected.is_known_to(reversed.finish()) || !same, "two segments in the other order are another application");
}

inline void fuzz_udp(Bytes bytes, uint16_t port) {
  OneFlow flow(17, port);
  flow.say(bytes);
  flow.say(bytes);
  flow.finish();
}
