// What an HTTP connection manager does to a request before anything matches it; Envoy's fields and defaults.
// Python's meshsieve.routes.HttpOptions says the same, field by field.
#pragma once

#include <cstdint>

namespace meshsieve {

enum class EscapedSlashes : uint8_t { keep, reject, unescape_and_redirect, unescape_and_forward };

struct HttpOptions {
  bool normalize_path = false;
  bool merge_slashes = false;
  EscapedSlashes escaped_slashes = EscapedSlashes::keep;
  bool strip_any_host_port = false;
  bool strip_matching_host_port = false;
  bool strip_trailing_host_dot = false;
  int32_t listener_port = 0;
  bool codec = true;  // refuse what an HTTP/1 codec refuses
};

}  // namespace meshsieve
