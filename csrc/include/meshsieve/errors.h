// Exceptions of the control path. The data path never throws. exceptions.cpp in the bindings maps each class to the
// Python class of the same name.
#pragma once

#include <stdexcept>
#include <string>

namespace meshsieve {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct ModelError : Error { using Error::Error; };     // a rule set that cannot be what it says
struct CompileError : Error { using Error::Error; };   // an engine cannot take this rule set
struct BackendError : Error { using Error::Error; };   // an unknown engine or SIMD backend, or one this CPU lacks
struct TableError : Error { using Error::Error; };     // a saved table that cannot be used
struct BalanceError : Error { using Error::Error; };   // hosts, weights or table sizes that Envoy refuses too
struct CaptureError : Error { using Error::Error; };   // a capture file that cannot be read (further)
struct FilterError : Error { using Error::Error; };    // a capture filter expression that libpcap refuses

}  // namespace meshsieve
