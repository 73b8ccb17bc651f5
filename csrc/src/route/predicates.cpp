#include "route/predicates.h"

#include <charconv>
#include <cstring>

#include "meshsieve/errors.h"

namespace meshsieve::route {
namespace {

char folded(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }

bool equal_folded(std::string_view text, std::string_view wanted) {
  for (size_t i = 0; i < text.size(); ++i)
    if (folded(text[i]) != wanted[i]) return false;
  return true;
}

bool equal(std::string_view text, std::string_view wanted, bool ignore_case) {
  if (text.size() != wanted.size()) return false;
  return ignore_case ? equal_folded(text, wanted) : std::memcmp(text.data(), wanted.data(), text.size()) == 0;
}

// A decimal int64 with an optional sign, at most 64 bytes long.
bool parse_int64(std::string_view text, int64_t& out) {
  if (text.size() > 64) return false;
  if (text.starts_with('+')) {
    text.remove_prefix(1);
    if (text.starts_with('-')) return false;
  }
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

std::string_view stripped(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

void append_number(std::string& key, int64_t number) {
  key.append(reinterpret_cast<const char*>(&number), sizeof number);
}

}  // namespace

bool StringMatcher::holds(std::string_view text) const {
  switch (kind) {
    case Kind::exact: return equal(text, value, ignore_case);
    case Kind::prefix: return text.size() >= value.size() && equal(text.substr(0, value.size()), value, ignore_case);
    case Kind::suffix:
      return text.size() >= value.size() && equal(text.substr(text.size() - value.size()), value, ignore_case);
    case Kind::contains: {
      if (!ignore_case) return text.find(value) != std::string_view::npos;
      std::string lower(text);
      for (char& c : lower) c = folded(c);
      return lower.find(value) != std::string::npos;
    }
    case Kind::regex: return regex->full_match(text);
  }
  return false;
}

bool query_value(std::string_view query, std::string_view name, std::string_view& out) {
  while (true) {
    const size_t end = std::min(query.find('&'), query.size());
    const std::string_view part = query.substr(0, end);
    const size_t equals = std::min(part.find('='), part.size());
    if (part.substr(0, equals) == name) {
      out = part.substr(std::min(equals + 1, part.size()));
      return true;
    }
    if (end == query.size()) return false;
    query.remove_prefix(end + 1);
  }
}

uint32_t Predicates::matcher(StringMatcher matcher) {
  if (matcher.ignore_case)
    for (char& c : matcher.value) c = folded(c);
  std::string key = {static_cast<char>(matcher.kind), static_cast<char>(matcher.ignore_case)};
  key += matcher.kind == StringMatcher::Kind::regex ? matcher.regex->pattern() : matcher.value;
  const auto [found, fresh] = matcher_numbers_.try_emplace(std::move(key), static_cast<uint32_t>(matchers_.size()));
  if (fresh) matchers_.push_back(std::move(matcher));
  return found->second;
}

uint32_t Predicates::add(const Predicate& p) {
  if (p.kind == Predicate::Kind::grpc) content_type_ = names_.slot("content-type");
  std::string key = {static_cast<char>(p.kind), static_cast<char>(p.invert), static_cast<char>(p.present),
                     static_cast<char>(p.missing_as_empty), static_cast<char>(p.source.kind)};
  for (const int64_t number : {int64_t{p.source.index}, int64_t{p.matcher}, int64_t{p.fact}, p.low, p.high})
    append_number(key, number);
  if (predicates_.size() >= 0x7FFFFFFF) throw CompileError("a route table holds at most 2^31 - 1 distinct conditions");
  const auto [found, fresh] = predicate_numbers_.try_emplace(std::move(key), static_cast<uint32_t>(predicates_.size()));
  if (fresh) predicates_.push_back(p);
  return found->second;
}

uint32_t Predicates::name_of(std::vector<std::string>& names, const std::string& name) {
  for (size_t i = 0; i < names.size(); ++i)
    if (names[i] == name) return static_cast<uint32_t>(i);
  names.push_back(name);
  return static_cast<uint32_t>(names.size() - 1);
}

Source Predicates::header(const std::string& name) {
  if (name == ":method") return {Source::Kind::method};
  if (name == ":scheme") return {Source::Kind::scheme};
  if (name == ":path") return {Source::Kind::target};
  if (name == ":authority" || name == "host") return {Source::Kind::authority};
  return {Source::Kind::header, static_cast<uint32_t>(names_.slot(name))};
}

Source Predicates::cookie(const std::string& name) {
  cookie_header_ = names_.slot("cookie");
  return {Source::Kind::cookie, name_of(cookie_names_, name)};
}

bool Predicates::cookie_value(const std::string& name, const RequestView& view, std::string_view& out) const {
  for (const HeaderLine& line : view.headers) {
    if (line.slot != cookie_header_) continue;
    for (size_t at = 0; at <= line.value.size();) {
      const size_t end = std::min(line.value.find(';', at), line.value.size());
      const std::string_view part = stripped(line.value.substr(at, end - at));
      const size_t equals = part.find('=');
      if (equals != std::string_view::npos && part.substr(0, equals) == name) {
        out = part.substr(equals + 1);
        if (out.size() >= 2 && out.front() == '"' && out.back() == '"') out = out.substr(1, out.size() - 2);
        return true;
      }
      at = end + 1;
    }
  }
  return false;
}

bool Predicates::is_grpc(const RequestView& view) const {
  for (const HeaderLine& line : view.headers)
    if (line.slot == content_type_) {
      static constexpr std::string_view kGrpc = "application/grpc";
      return line.value.starts_with(kGrpc) && (line.value.size() == kGrpc.size() || line.value[kGrpc.size()] == '+');
    }
  return false;
}

bool Predicates::header_holds(const Predicate& p, const RequestView& view) const {
  const auto compare = [&](std::string_view text) {
    if (p.kind == Predicate::Kind::text) return matchers_[p.matcher].holds(text);
    int64_t number = 0;
    return p.kind == Predicate::Kind::range && parse_int64(text, number) && p.low <= number && number < p.high;
  };
  bool found = false, hit = false;
  each_text(p.source, view, [&](std::string_view text) {
    found = true;
    return p.kind == Predicate::Kind::present || (hit = compare(text));
  });
  if (!found && p.missing_as_empty) {
    found = true;
    hit = compare("");
  }
  if (p.kind == Predicate::Kind::present) return (found == p.present) != p.invert;
  if (p.source.kind == Source::Kind::cookie) return (found && hit) != p.invert;  // inverted, an absent cookie will do
  return found && hit != p.invert;
}

bool Predicates::holds(uint32_t predicate, const RequestView& view, const int64_t* facts) const {
  const Predicate& p = predicates_[predicate];
  switch (p.kind) {
    case Predicate::Kind::text:
      // The commonest of all, a method, without the general path.
      if (p.source.kind == Source::Kind::method) return matchers_[p.matcher].holds(view.method) != p.invert;
      [[fallthrough]];
    case Predicate::Kind::present:
    case Predicate::Kind::range: return header_holds(p, view);
    case Predicate::Kind::grpc: return is_grpc(view);
    case Predicate::Kind::tls: return ((view.tls & p.low) != 0) == p.present;
    case Predicate::Kind::fact: return facts[p.fact] != 0;
    case Predicate::Kind::runtime: {
      const int64_t percent = p.fact == 0xFFFFFFFF ? kUnset : facts[p.fact];
      if (percent == kUnset) return static_cast<int64_t>(view.random % static_cast<uint64_t>(p.high)) < p.low;
      return static_cast<int64_t>(view.random % 100) < percent;
    }
  }
  return false;
}

const StringMatcher* Predicates::decisive(uint32_t predicate) const {
  const Predicate& p = predicates_[predicate];
  if (p.kind != Predicate::Kind::text || p.invert) return nullptr;
  const StringMatcher& m = matchers_[p.matcher];
  if (m.ignore_case || m.kind > StringMatcher::Kind::suffix) return nullptr;
  return p.missing_as_empty && m.value.empty() ? nullptr : &m;
}

int Predicates::cost(uint32_t predicate) const {
  const Predicate& p = predicates_[predicate];
  const bool regex = p.kind == Predicate::Kind::text && matchers_[p.matcher].kind == StringMatcher::Kind::regex;
  return (regex ? 4 : 0) + (p.source.kind >= Source::Kind::query ? 2 : p.source.kind == Source::Kind::header ? 1 : 0);
}

size_t Predicates::bytes() const {
  size_t total = predicates_.size() * sizeof(Predicate) + matchers_.size() * sizeof(StringMatcher);
  for (const StringMatcher& m : matchers_) total += m.value.size();
  return total;
}

}  // namespace meshsieve::route
