// Regular expressions with the engine and the semantics of Envoy: RE2, whole-value matches, bytes.
//
// What    RE2 in Latin-1 mode: pattern and text are bytes, `.` takes exactly one byte. Envoy 1.40.0 behaves so.
// Limits  8 MiB a program (RE2's own default, and spec'd for untrusted patterns); matching is linear in the text.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace re2 {
class RE2;
}

namespace meshsieve {

class Regex {
 public:
  // Throws ModelError with RE2's words if the pattern cannot be compiled within the memory limit.
  explicit Regex(const std::string& pattern);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  bool full_match(std::string_view text) const;
  // Groups 0 (the whole match) to n of a full match; empty vector if there is none.
  std::vector<std::string> groups(std::string_view text) const;
  // Every non-overlapping match replaced; \0 to \9 in the substitution are groups.
  std::string replace_all(const std::string& text, const std::string& substitution) const;
  // Throws ModelError if the substitution names a group that the pattern lacks.
  void check_substitution(const std::string& substitution) const;
  const std::string& pattern() const;

 private:
  std::unique_ptr<re2::RE2> re_;
};

}  // namespace meshsieve
