// Applications of flows: names, how sure they are, and attributes.
//
// What    Which application protocol a flow speaks, from the first payload of both directions, and what it says in
//         clear: server names, versions, hosts, paths. docs/apps.md has the rules.
// Why     Layer 7 rules (NSX context profiles) name applications and attributes; ports lie.
// Limits  8 payload packets or 16 KiB a direction; 4 KiB of attributes a flow; all that waits for a decision within
//         AppOptions::waiting_bytes, the oldest given up and counted.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace meshsieve {

// Built-in applications; numbers from App::built_in on are user signatures, in the order of their file.
enum class App : uint16_t {
#define APP(identifier, name, doc) identifier,
#include "meshsieve/apps.def"
#undef APP
  built_in
};

// How the application of a flow is known, from nothing to best.
enum class AppHow : uint8_t {
  none,
  protocol,   // the IP protocol says it (icmp, gre)
  tunnel,     // the decoder read the tunnel
  pattern,    // several packets look like it, no field proves it
  related,    // another flow announced this one (FTP data, TFTP, RTP by SIP)
  signature,  // a user signature
  parsed,     // a dissector read the protocol's own fields
};
inline constexpr std::array kAppHowNames = {"none",    "protocol",  "tunnel", "pattern",
                                            "related", "signature", "parsed"};

enum class Attribute : uint8_t {
#define ATTRIBUTE(name, doc) name,
#include "meshsieve/app_attributes.def"
#undef ATTRIBUTE
  count
};
inline constexpr size_t kAttributeCount = static_cast<size_t>(Attribute::count);

struct NameAndDoc {
  const char* name;
  const char* doc;
};
extern const std::array<NameAndDoc, static_cast<size_t>(App::built_in)> kApps;
extern const std::array<NameAndDoc, kAttributeCount> kAttributes;

// The application that a port is registered or known for; unknown without one. proto 6, 17 or 132.
App app_of_port(uint8_t proto, uint16_t port);
// The application that an IP protocol number alone means.
App app_of_protocol(uint8_t proto);

// Attributes of a flow, at most one text each, packed: attribute (1 byte), size (2 bytes), text.
class Attributes {
 public:
  static constexpr size_t kMaxText = 1024;   // longer ones are cut
  static constexpr size_t kMaxBytes = 4096;  // of a flow; beyond, further ones are left out

  // The first text counts. An empty one says nothing.
  void set(Attribute attribute, std::string_view text);
  void set(Attribute attribute, const uint8_t* text, size_t size) {
    set(attribute, {reinterpret_cast<const char*>(text), size});
  }
  // The later text counts.
  void replace(Attribute attribute, std::string_view text);
  // Valid until the next change; empty without one.
  std::string_view get(Attribute attribute) const;
  bool has(Attribute attribute) const { return !get(attribute).empty(); }
  bool empty() const { return packed_.empty(); }
  // f(attribute, text) for each, in the order in which they became known.
  template <class F>
  void for_each(const F& f) const {
    for (size_t at = 0; at < packed_.size();) {
      const size_t size = size_at(at);
      f(static_cast<Attribute>(packed_[at]), std::string_view(packed_).substr(at + 3, size));
      at += 3 + size;
    }
  }
  void clear() { packed_.clear(); }
  size_t bytes() const { return packed_.size(); }

 private:
  size_t size_at(size_t at) const {
    return static_cast<uint8_t>(packed_[at + 1]) << 8 | static_cast<uint8_t>(packed_[at + 2]);
  }
  std::string packed_;
};

// One signature of a user's file.
struct UserSignature {
  uint16_t app;  // index among the user's applications
  uint8_t proto = 0;                                // 6, 17, or 0 for both
  std::vector<std::pair<uint16_t, uint16_t>> ports;  // responder port ranges; empty = any
  std::string prefix, mask;                         // the first bytes, compared under the mask; empty = any
  std::vector<std::string> host_suffixes;           // of sni, http_host or dns_name; "=name" is whole; empty = any
};

struct AppOptions {
  bool enabled = true;
  uint64_t waiting_bytes = 16u << 20;     // of flows whose recognition is not done: payload and state
  uint64_t attribute_bytes = 256u << 20;  // of all live flows; beyond, the least recently used are evicted
  std::vector<UserSignature> signatures;
};

}  // namespace meshsieve
