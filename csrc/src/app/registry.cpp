#include <array>

#include "app/dissectors.h"

namespace meshsieve {

namespace app {

const std::vector<Dissector>& dissectors() {
  static const std::vector<Dissector> all = [] {
    Registry registry;
    add_tls(registry);
    add_ssh(registry);
    add_http(registry);
    add_smb(registry);
    add_mail(registry);
    add_queues(registry);
    add_stores(registry);
    add_rpc(registry);
    add_remote(registry);
    add_industry(registry);
    add_peers(registry);
    add_databases(registry);
    add_identity(registry);
    add_quic(registry);
    add_voice(registry);
    add_tunnels(registry);
    add_infrastructure(registry);
    add_sctp(registry);
    add_dns(registry);
    return registry;
  }();
  return all;
}

}  // namespace app

App app_of_port(uint8_t proto, uint16_t port) {
  using app::kSctp, app::kTcp, app::kUdp;
  struct Ports {
    uint8_t transports;
    uint16_t first, last;
    App app;
  };
  static constexpr Ports kPorts[] = {
#define PORT(transports, first, last, app) {transports, first, last, App::app},
#include "meshsieve/app_ports.def"
#undef PORT
  };
  // One array a transport, so that a look-up is one load.
  using Table = std::array<App, 65536>;
  static const auto tables = [] {
    auto out = std::make_unique<std::array<Table, 3>>();
    for (const Ports& ports : kPorts) {
      for (int transport = 0; transport < 3; ++transport) {
        if ((ports.transports >> transport & 1) == 0) continue;
        for (uint32_t port = ports.first; port <= ports.last; ++port) (*out)[transport][port] = ports.app;
      }
    }
    return out;
  }();
  switch (proto) {
    case 6: return (*tables)[0][port];
    case 17: return (*tables)[1][port];
    case 132: return (*tables)[2][port];
    default: return App::unknown;
  }
}

}  // namespace meshsieve
