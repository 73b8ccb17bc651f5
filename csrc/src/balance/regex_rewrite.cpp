#include "meshsieve/balance/regex_rewrite.h"

#include <re2/re2.h>

#include "meshsieve/errors.h"

namespace meshsieve::balance {

RegexRewrite::RegexRewrite(const std::string& pattern, std::string substitution)
    : substitution_(std::move(substitution)) {
  RE2::Options options(RE2::Quiet);
  pattern_ = std::make_unique<RE2>(pattern, options);
  if (!pattern_->ok()) throw BalanceError("regular expression '" + pattern + "' is refused: " + pattern_->error());
  std::string reason;
  if (!pattern_->CheckRewriteString(substitution_, &reason))
    throw BalanceError("substitution '" + substitution_ + "' does not fit '" + pattern + "': " + reason);
}

RegexRewrite::~RegexRewrite() = default;

std::string RegexRewrite::apply(std::string text) const {
  RE2::GlobalReplace(&text, *pattern_, substitution_);
  return text;
}

}  // namespace meshsieve::balance
