// The protocol families; each file adds its dissectors.
#pragma once

#include "app/dissector.h"

namespace meshsieve::app {

void add_tls(Registry& registry);
void add_quic(Registry& registry);
void add_http(Registry& registry);
void add_dns(Registry& registry);
void add_ssh(Registry& registry);
void add_smb(Registry& registry);
void add_mail(Registry& registry);
void add_databases(Registry& registry);
void add_stores(Registry& registry);
void add_queues(Registry& registry);
void add_rpc(Registry& registry);
void add_identity(Registry& registry);
void add_infrastructure(Registry& registry);
void add_voice(Registry& registry);
void add_remote(Registry& registry);
void add_industry(Registry& registry);
void add_tunnels(Registry& registry);
void add_peers(Registry& registry);
void add_sctp(Registry& registry);

// Shared: SCTP carries Diameter, connectivity checks of STUN make way for DTLS.
Answer dtls(const Payload& payload, Findings& out);
Answer diameter(const Payload& payload, Findings& out);

}  // namespace meshsieve::app
