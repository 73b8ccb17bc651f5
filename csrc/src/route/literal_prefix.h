// The bytes with which every text that a regular expression matches as a whole must begin.
//
// Example "/w/svc7/[0-9]+" -> "/w/svc7/"; "/a?" -> "/"; "/a|/b", "(?i)/a" -> ""
// Limits  Reads the pattern from its beginning and stops at whatever is not plainly literal, so it may say too little,
//         never too much. RE2's syntax.
#pragma once

#include <string>
#include <string_view>

namespace meshsieve::route {

std::string literal_prefix(std::string_view pattern);

}  // namespace meshsieve::route
