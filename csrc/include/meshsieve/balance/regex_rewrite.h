// A header's regex_rewrite: RE2 replaces every match by a substitution with \0 .. \9 for groups, as Envoy does.
//
// Limits  linear time in the text; 8 MiB a program (RE2's default). A pattern or substitution that RE2 refuses is a
//         BalanceError with RE2's reason.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace re2 {
class RE2;
}

namespace meshsieve::balance {

class RegexRewrite {
 public:
  RegexRewrite(const std::string& pattern, std::string substitution);
  ~RegexRewrite();
  std::string apply(std::string text) const;

 private:
  std::unique_ptr<re2::RE2> pattern_;
  std::string substitution_;
};

}  // namespace meshsieve::balance
