// What a dissector is: a pure function from payload to an answer.
//
// How     For TCP it sees all bytes in order from the start of both directions (bounded), and is called again when there
//         are more. For UDP and SCTP it sees one datagram (SCTP: one data chunk) at a time, and the earlier ones in
//         `history`. It keeps no state: the same bytes give the same answer, whatever the segments and batches were.
// Must    *confirm*: fields that only this protocol has, in a layout that only it has. A port proves nothing.
//         Read through Reader only.
#pragma once

#include <bitset>
#include <optional>
#include <string>
#include <vector>

#include "app/bytes.h"
#include "meshsieve/apps.h"
#include "meshsieve/types.h"

namespace meshsieve::app {

enum class Answer : uint8_t {
  no,      // this direction never speaks the protocol
  more,    // the bytes so far fit; ask again when there are more
  likely,  // they look like it; taken if the port agrees or another packet looks like it too
  yes,     // it is
};

enum Transport : uint8_t { kTcp = 1, kUdp = 2, kSctp = 4 };

struct Datagram {
  bool reply;
  std::vector<uint8_t> bytes;
};

struct Payload {
  Bytes here;    // of the direction that has just grown
  Bytes there;   // TCP: of the other one
  size_t fresh;  // bytes at the end of `here` that were not there before
  bool reply;    // here is what the responder sends
  Transport transport;
  uint16_t here_port, there_port;  // of the sender of `here`, and of the other one
  bool from_start;                 // TCP: the SYN of this direction was seen
  bool whole;                      // UDP: the datagram was captured whole and is no fragment
  bool multicast;                  // sent to a multicast or broadcast address
  uint32_t payload_protocol;       // SCTP
  const std::vector<Datagram>& history;

  bool tcp() const { return transport == kTcp; }
  bool udp() const { return transport == kUdp; }
  bool on_port(uint16_t port) const { return here_port == port || there_port == port; }
};

// Another flow that the payload announces: its application is known before it speaks.
struct Expectation {
  std::optional<U128> address;  // none = that of the sender of `here`
  bool of_receiver = false;     // none = that of the receiver instead
  uint16_t port;
  uint8_t proto;
  App app;
};

struct Findings {
  App app = App::unknown;
  bool done = false;    // nothing more to learn
  bool told = false;    // ... from this direction; set anew each time
  bool follow = false;  // show packets beyond the limits as well, each by itself (FTP control)
  Attributes attributes;
  std::vector<Expectation> expectations;

  void clear() {
    app = App::unknown;
    done = told = follow = false;
    attributes.clear();
    expectations.clear();
  }
};

using FirstBytes = std::bitset<256>;

struct Dissector {
  App app;
  uint8_t transports;
  FirstBytes first;  // what a direction may begin with
  Answer (*dissect)(const Payload&, Findings&);
  bool rereads = false;  // wants `history` also when it has said yes
};

inline FirstBytes any_byte() { return FirstBytes().set(); }
inline FirstBytes bytes_of(std::string_view characters) {
  FirstBytes out;
  for (const char c : characters) out.set(static_cast<uint8_t>(c));
  return out;
}
inline FirstBytes byte_range(uint8_t first, uint8_t last) {
  FirstBytes out;
  for (unsigned i = first; i <= last; ++i) out.set(i);
  return out;
}
inline FirstBytes letters() { return byte_range('A', 'Z') | byte_range('a', 'z'); }
inline FirstBytes operator+(FirstBytes a, const FirstBytes& b) { return a | b; }

// All built-in dissectors, those with the strongest evidence first.
const std::vector<Dissector>& dissectors();

// Each protocol family adds its own, in its own file.
using Registry = std::vector<Dissector>;

}  // namespace meshsieve::app
