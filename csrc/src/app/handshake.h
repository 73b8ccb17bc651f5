// The TLS handshake messages that are sent in clear, the same in TLS, DTLS and QUIC.
#pragma once

#include "app/dissector.h"

namespace meshsieve::app {

enum class HelloOf : char { tls = 't', dtls = 'd', quic = 'q' };

// Bodies of whole messages, without the header. False if they are not what they should be: nothing is then set.
bool read_client_hello(Bytes body, HelloOf carrier, Attributes& out);
bool read_server_hello(Bytes body, Attributes& out);
// The certificate list of TLS up to 1.2: the names of the first one, the server's.
void read_certificates(Bytes body, Attributes& out);

// "TLSv1.2" and so on; empty if there is no such version.
std::string_view tls_version_name(uint16_t version);
std::string cipher_suite_name(uint16_t suite);

struct TlsProgress {
  Answer answer = Answer::no;  // no: it does not begin with a TLS record; more: it may; yes: it does
  bool client_hello = false, server_hello = false;
  bool past_clear = false;  // what follows is encrypted: no more names come
};

// Reads the records of one direction from their start. Used by every protocol that switches to TLS.
TlsProgress read_tls_stream(Bytes bytes, Attributes& out);

}  // namespace meshsieve::app
