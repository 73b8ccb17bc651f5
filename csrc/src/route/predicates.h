// What a request must be besides its path: headers, query parameters, cookies and the rest of Envoy's RouteMatch.
//
// What    Equal predicates are one; routes name them by number. A predicate reads a source (a header, a pseudo header,
//         a query parameter, a cookie) and compares, or reads a fact.
// Facts   Metadata, filter state and runtime keys are structured values of the caller. What a table wants to know of
//         them is worked out once for each distinct set of values (Python, routes/facts.py) and handed over as a row of
//         int64: 0 or 1 for a matcher, the percentage or kUnset for a runtime key.
// Source  Envoy's header_utility.cc and config_utility.cc semantics, as routes/reference.py has them.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "meshsieve/regex.h"
#include "meshsieve/request_view.h"

namespace meshsieve::route {

constexpr int64_t kUnset = std::numeric_limits<int64_t>::min();

struct StringMatcher {
  enum class Kind : uint8_t { exact, prefix, suffix, contains, regex } kind;
  bool ignore_case;
  std::string value;  // folded if ignore_case
  std::shared_ptr<const Regex> regex;

  bool holds(std::string_view text) const;
};

// Where texts of a request come from.
struct Source {
  enum class Kind : uint8_t { header, method, scheme, target, authority, query, cookie } kind;
  uint32_t index = 0;  // header slot, or position among the query or cookie names

  friend auto operator<=>(const Source&, const Source&) = default;
};

struct Predicate {
  enum class Kind : uint8_t { text, present, range, grpc, tls, runtime, fact } kind;
  bool invert = false;
  bool present = true;           // present; tls: the wanted value
  bool missing_as_empty = false;
  Source source{};
  uint32_t matcher = 0;          // text
  uint32_t fact = 0xFFFFFFFF;    // fact; runtime: of the key, if it has one
  int64_t low = 0, high = 0;     // range: [low, high); runtime: numerator, denominator; tls: low is the bit
};

class Predicates {
 public:
  // Each returns the number of what it adds, or of its equal.
  uint32_t matcher(StringMatcher matcher);
  uint32_t add(const Predicate& predicate);
  Source header(const std::string& name);  // lower case; pseudo headers and `host` included
  Source query(const std::string& name) { return {Source::Kind::query, name_of(query_names_, name)}; }
  Source cookie(const std::string& name);

  // facts: of the request's structured values.
  bool holds(uint32_t predicate, const RequestView& view, const int64_t* facts) const;

  bool matcher_holds(uint32_t matcher, std::string_view text) const { return matchers_[matcher].holds(text); }

  // The exact, prefix or suffix text without which the predicate cannot hold, if it is so simple; else nullptr.
  const StringMatcher* decisive(uint32_t predicate) const;
  Source source_of(uint32_t predicate) const { return predicates_[predicate].source; }
  // Rough cost, to test the cheap ones first.
  int cost(uint32_t predicate) const;
  bool is_grpc(const RequestView& view) const;

  // Every text of a source, in order; f returns true to stop.
  template <class F>
  void each_text(Source source, const RequestView& view, F&& f) const;

  HeaderNames& names() { return names_; }
  const HeaderNames& names() const { return names_; }
  size_t size() const { return predicates_.size(); }
  size_t bytes() const;

 private:
  static uint32_t name_of(std::vector<std::string>& names, const std::string& name);
  bool cookie_value(const std::string& name, const RequestView& view, std::string_view& out) const;
  bool header_holds(const Predicate& predicate, const RequestView& view) const;

  HeaderNames names_;
  std::vector<std::string> query_names_, cookie_names_;
  std::vector<StringMatcher> matchers_;
  std::vector<Predicate> predicates_;
  std::unordered_map<std::string, uint32_t> matcher_numbers_, predicate_numbers_;
  int32_t content_type_ = -1, cookie_header_ = -1;
};

bool query_value(std::string_view query, std::string_view name, std::string_view& out);

template <class F>
void Predicates::each_text(Source source, const RequestView& view, F&& f) const {
  std::string_view text;
  switch (source.kind) {
    case Source::Kind::header:
      for (const HeaderLine& line : view.headers)
        if (line.slot == static_cast<int32_t>(source.index) && f(line.value)) return;
      return;
    case Source::Kind::method: f(view.method); return;
    case Source::Kind::scheme:
      if (!view.scheme.empty()) f(view.scheme);
      return;
    case Source::Kind::target:
      if (!view.target.empty()) f(view.target);
      return;
    case Source::Kind::authority:
      if (view.has_authority) f(view.authority);
      return;
    case Source::Kind::query:
      if (view.query(text) && query_value(text, query_names_[source.index], text)) f(text);
      return;
    case Source::Kind::cookie:
      if (cookie_value(cookie_names_[source.index], view, text)) f(text);
      return;
  }
}

}  // namespace meshsieve::route
