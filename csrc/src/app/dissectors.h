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

}  // namespace meshsieve::app
