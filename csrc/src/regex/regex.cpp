#include "meshsieve/regex.h"

#include <re2/re2.h>

#include "meshsieve/errors.h"

namespace meshsieve {
namespace {

constexpr int64_t kMaxProgramBytes = 8 << 20;

}  // namespace

Regex::Regex(const std::string& pattern) {
  re2::RE2::Options options(re2::RE2::Latin1);
  options.set_log_errors(false);
  options.set_max_mem(kMaxProgramBytes);
  re_ = std::make_unique<re2::RE2>(pattern, options);
  if (!re_->ok()) throw ModelError("not a regular expression that RE2 takes: " + re_->error());
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

bool Regex::full_match(std::string_view text) const {
  return re_->Match(re2::StringPiece(text.data(), text.size()), 0, text.size(), re2::RE2::ANCHOR_BOTH, nullptr, 0);
}

std::vector<std::string> Regex::groups(std::string_view text) const {
  std::vector<re2::StringPiece> found(re_->NumberOfCapturingGroups() + 1);
  const re2::StringPiece whole(text.data(), text.size());
  if (!re_->Match(whole, 0, text.size(), re2::RE2::ANCHOR_BOTH, found.data(), static_cast<int>(found.size()))) return {};
  std::vector<std::string> out;
  for (const re2::StringPiece& piece : found) out.emplace_back(piece.data() ? std::string(piece) : std::string());
  return out;
}

std::string Regex::replace_all(const std::string& text, const std::string& substitution) const {
  std::string out = text;
  re2::RE2::GlobalReplace(&out, *re_, substitution);
  return out;
}

void Regex::check_substitution(const std::string& substitution) const {
  std::string error;
  if (!re_->CheckRewriteString(substitution, &error)) throw ModelError(error);
}

const std::string& Regex::pattern() const { return re_->pattern(); }

}  // namespace meshsieve
