// The decoder of one frame: a chain of steps, each of which reads one header and says what follows it.
//
// Hot steps (Ethernet, IP, transport) are in decode.cpp, other link layers in decode_link.cpp, tunnels in
// decode_tunnel.cpp. A step never calls the next one across a tunnel: run() loops, so the stack stays constant.
#pragma once

#include "meshsieve/packet.h"
#include "packet/cursor.h"

namespace meshsieve {

namespace ethertype {
inline constexpr uint16_t kIpv4 = 0x0800, kIpv6 = 0x86dd, kVlan = 0x8100, kServiceVlan = 0x88a8, kOldQinq = 0x9100,
                          kOldQinq2 = 0x9200, kMpls = 0x8847, kMplsMulticast = 0x8848, kPppoeSession = 0x8864,
                          kFabricPath = 0x8903, kVnTag = 0x8926, kETag = 0x893f, kBackboneTag = 0x88e7,
                          kTransparentBridging = 0x6558, kErspan = 0x88be, kErspan3 = 0x22eb, kPppInGre = 0x880b,
                          kWccp = 0x883e, kFirst = 0x0600;
}
namespace ipproto {
inline constexpr uint8_t kHopByHop = 0, kIcmp = 1, kIpv4 = 4, kTcp = 6, kUdp = 17, kDccp = 33, kIpv6 = 41, kRouting = 43,
                         kFragment = 44, kGre = 47, kAuthentication = 51, kIcmpv6 = 58, kNone = 59,
                         kDestinationOptions = 60, kSctp = 132, kUdpLite = 136;
}

class FrameDecoder {
 public:
  FrameDecoder(const Record& record, Packet& packet)
      : c_(record.data, record.captured),
        p_(packet),
        wire_length_(record.length),
        cut_(record.captured < record.length) {}

  void run(uint32_t link_type);

 private:
  enum class Next : uint8_t { done, ethernet, llc, ip, ipv4, ipv6, ppp, mpls };
  enum class Part : uint8_t { whole, first_fragment };

  // decode.cpp
  Next ethernet();
  Next by_ethertype(uint16_t type);
  Next vlan(uint16_t type);
  Next ip();
  Next ipv4();
  Next ipv6();
  Next ipv6_extension(uint8_t next, bool unlimited);
  Next transport(uint8_t proto, Part part);
  Next tcp(Part part);
  Next udp(Part part);
  void icmp(bool error);
  void quoted_packet();

  // decode_link.cpp
  Next link(uint32_t link_type);
  Next llc();
  Next ppp();
  Next ppp_protocol(uint16_t protocol);
  Next pppoe();
  Next mpls();
  Next null(bool network_order);
  Next cooked1();
  Next cooked2();
  Next cooked_protocol(uint16_t hardware, uint16_t protocol);
  Next wlan();
  Next radiotap();
  Next nflog();
  Next erf();
  Next tagged(uint32_t tag_bytes);

  // decode_tunnel.cpp
  Next udp_tunnel();
  Next vxlan(bool generic);
  Next geneve();
  Next gtpu();
  Next teredo();
  Next mpls_udp();
  Next gre();
  Next gre_payload(uint16_t protocol, uint32_t key);
  Next ip_in_ip(Next inner);
  bool enter_tunnel(TunnelKind kind, uint32_t vni);
  Next by_inner_ethertype(uint16_t type);
  bool ip_begins_at(uint32_t i) const;  // true if what stands `i` bytes ahead can be an IP header
  bool ethernet_begins_at(uint32_t i) const;

  // Outcomes. The first status that is noted stays.
  void note(DecodeStatus status) {
    if (p_.status == 0) p_.status = static_cast<uint8_t>(status);
  }
  Next fail_link(DecodeStatus status);
  Next fail_ip(DecodeStatus status);
  Next not_ip(uint16_t type);
  // The transport of the header around an inner IP header: its values must not stand beside the inner addresses.
  void forget_transport() {
    p_.sport = p_.dport = 0;
    p_.tcp_flags = p_.icmp_type = p_.icmp_code = 0;
    p_.tcp_seq = p_.payload_offset = p_.payload_length = 0;
  }
  void payload() {
    p_.payload_offset = c_.offset();
    p_.payload_length = c_.left();
  }
  void ports() {
    p_.sport = c_.u16(0);
    p_.dport = c_.u16(2);
    p_.present |= bit_of(Field::sport) | bit_of(Field::dport);
  }
  void truncated(Part part) {
    note(part == Part::whole ? DecodeStatus::truncated_transport : DecodeStatus::short_first_fragment);
  }

  Cursor c_;
  Packet& p_;
  uint32_t wire_length_;
  bool cut_;  // the capture holds fewer bytes than the wire did
  int layers_ = 0;
  int vlan_tags_ = 0;
  int tunnels_ = 0;
};

}  // namespace meshsieve
