// The names in an X.509 certificate.
#pragma once

#include <string>

#include "app/bytes.h"

namespace meshsieve::app {

// Common name of the subject, then DNS names of subjectAltName, each once, comma-separated; empty if it cannot be read.
// Nothing is verified. Source: RFC 5280, X.690.
std::string certificate_names(Bytes der);

}  // namespace meshsieve::app
