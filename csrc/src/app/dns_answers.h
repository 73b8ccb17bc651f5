// Which domain names a DNS response gives for which addresses.
//
// What    The names of a response's question and of the aliases that lead from it (CNAME), each with every A and AAAA
//         record at the end of the chain. A name holds as long as the shortest TTL on its way to the address.
// Why     Policy that names domains is decided by the answers that clients were given (docs/apps.md).
// Limits  Responses without error, class IN, one question; 64 names a chain, 256 records and 1,024 pairs of name and
//         address a message. Records that do not follow from the question say nothing: an answer cannot name a domain
//         that nobody asked for.
// Source  RFC 1035, sections 3.3.1, 4.1; RFC 3596 (AAAA); RFC 2181, section 8 (a TTL with its top bit set is 0)
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "app/bytes.h"
#include "meshsieve/flow_table.h"

namespace meshsieve::app {

// Appends what the message says; of one that is broken, nothing. Returns how many pairs beyond the limit were left out.
size_t read_dns_answers(Bytes message, int64_t time_ns, std::vector<DnsAnswer>& out);

}  // namespace meshsieve::app
