#include "authz/path_templates.h"

#include <algorithm>
#include <array>
#include <bit>

namespace meshsieve::authz {
namespace {

constexpr std::array<bool, 256> kTaken = [] {
  std::array<bool, 256> taken{};
  for (int c = 'a'; c <= 'z'; ++c) taken[c] = true;
  for (int c = 'A'; c <= 'Z'; ++c) taken[c] = true;
  for (int c = '0'; c <= '9'; ++c) taken[c] = true;
  for (const char c : std::string_view("-._~%!$&'()+,;:@=*")) taken[static_cast<uint8_t>(c)] = true;
  return taken;
}();

constexpr std::string_view kOne = "{*}", kAny = "{**}";

}  // namespace

bool PathTemplates::takes(std::string_view text) {
  if (text.empty() || text[0] != '/') return false;
  size_t count = 0;
  bool ended = false;
  for (size_t at = 0; at < text.size(); ++count) {
    const size_t end = std::min(text.find('/', at + 1), text.size());
    const std::string_view segment = text.substr(at + 1, end - at - 1);
    if (segment == kOne || segment == kAny) {
      if (ended) return false;
      ended = segment == kAny;
    } else if (!is_clean(segment)) {
      return false;
    }
    at = end;
  }
  return count <= kMaxSegments;
}

void PathTemplates::add(const char* arena, std::string_view text, uint32_t id) {
  const Shape shape = shape_of(text);
  const auto found = std::find(shapes_.begin(), shapes_.end(), shape);
  const auto number = static_cast<uint32_t>(found - shapes_.begin());
  if (found == shapes_.end()) shapes_.push_back(shape);
  if (shape.rest) {
    fewest_before_rest_ = std::min<size_t>(fewest_before_rest_, shape.count);
  } else {
    counts_ |= uint64_t{1} << shape.count;
  }
  templates_.push_back({static_cast<uint32_t>(text.data() - arena), static_cast<uint32_t>(text.size()), id, number});
  const auto position = static_cast<uint32_t>(templates_.size() - 1);
  index_.insert(hash_at(arena, position), position, [&](uint32_t i) { return hash_at(arena, i); });
}

bool PathTemplates::is_clean(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return kTaken[static_cast<uint8_t>(c)]; });
}

void PathTemplates::split(std::string_view path, Segments& out) {
  for (size_t at = 0; at < path.size() && out.count < kMaxSegments + 2;) {
    const size_t end = std::min(path.find('/', at + 1), path.size());
    out.begin[out.count] = static_cast<uint32_t>(at + 1);
    out.begin[out.count + 1] = static_cast<uint32_t>(end + 1);
    ++out.count;
    at = end;
  }
}

void PathTemplates::hash(std::string_view path, Segments& segments) {
  for (size_t i = 0; i < segments.count; ++i) segments.hash[i] = hash_of(segment(path, segments, i), 0);
}

PathTemplates::Shape PathTemplates::shape_of(std::string_view text) {
  Shape shape{};
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('/', at + 1), text.size());
    const std::string_view part = text.substr(at + 1, end - at - 1);
    if (part == kAny) {
      shape.rest = true;
      shape.suffix_length = static_cast<uint32_t>(text.size() - end);
      break;
    }
    if (part == kOne) shape.variables |= uint64_t{1} << shape.count;
    ++shape.count;
    at = end;
  }
  return shape;
}

uint64_t PathTemplates::hash_in_shape(uint32_t number, const Shape& shape, const Segments& segments,
                                      std::string_view suffix) {
  uint64_t hash = number;
  for (size_t i = 0; i < shape.count; ++i)
    if ((shape.variables >> i & 1) == 0) hash = (std::rotl(hash, 23) ^ segments.hash[i]) * 0x9e3779b97f4a7c15u;
  return shape.suffix_length == 0 ? hash ^ hash >> 32 : hash_of(suffix, hash);
}

uint32_t PathTemplates::match(const char* arena, std::string_view path, const Segments& segments, uint32_t number) const {
  const Shape& shape = shapes_[number];
  std::string_view any, suffix;  // what {**} stands for, and what follows
  if (shape.rest) {
    if (segments.count <= shape.count) return kMissing;
    any = path.substr(segments.begin[shape.count]);
    if (any.size() < shape.suffix_length) return kMissing;
    suffix = any.substr(any.size() - shape.suffix_length);
    any.remove_suffix(shape.suffix_length);
  } else if (segments.count != shape.count) {
    return kMissing;
  }
  const uint32_t found = index_.find(hash_in_shape(number, shape, segments, suffix), [&](uint32_t i) {
    if (templates_[i].shape != number) return false;
    const std::string_view text(arena + templates_[i].text, templates_[i].length);
    size_t at = 0;
    for (size_t s = 0; s < shape.count; ++s) {
      const size_t end = std::min(text.find('/', at + 1), text.size());
      const std::string_view given = segment(path, segments, s);
      const bool is_variable = (shape.variables >> s & 1) != 0;
      if (is_variable ? given.empty() || !is_clean(given) : text.substr(at + 1, end - at - 1) != given) return false;
      at = end;
    }
    const auto taken = [](char c) { return c == '/' || kTaken[static_cast<uint8_t>(c)]; };
    return text.ends_with(suffix) && std::all_of(any.begin(), any.end(), taken);
  });
  return found == kMissing ? kMissing : templates_[found].id;
}

uint64_t PathTemplates::hash_at(const char* arena, uint32_t position) const {
  const Template& of = templates_[position];
  const std::string_view text(arena + of.text, of.length);
  Segments segments;
  split(text, segments);
  hash(text, segments);
  return hash_in_shape(of.shape, shapes_[of.shape], segments, text.substr(text.size() - shapes_[of.shape].suffix_length));
}

}  // namespace meshsieve::authz
