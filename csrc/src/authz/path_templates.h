// Path templates of AuthorizationPolicy, without running one regular expression each.
//
// What    Templates of one *shape* - how many segments, which of them {*}, whether {**} ends them and how long the text
//         behind it is - differ in literals alone, so one hash of a path's literals at those places finds the one that
//         matches. A path is split and hashed by segments once.
// Why     Meshes have thousands of templates and a handful of shapes; a tree would chase pointers segment by segment.
// Cost    A shape: its segments combined, one probe. Shapes are counted in the table's statistics.
// Limits  60 segments before {**} or the end. Operators take [A-Za-z0-9-._~%!$&'()+,;:@=*] alone, as Envoy's do.
// Example {/a/{*}, /b/{*}, /a/b/{**}/z}: two shapes. /a/b takes the first; /a/b/c/z the third; /a/b/z neither.
// Source  Srinivasan, Suri, Varghese, Packet classification using tuple space search, SIGCOMM 1999; the semantics are of
//         Envoy's uri_template_internal.cc and Istio's authorization_policy.proto.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include "authz/hash_index.h"

namespace meshsieve::authz {

class PathTemplates {
 public:
  // Whether it can be held: literals of allowed characters, operators alone in their segments, {**} last of them.
  static bool takes(std::string_view text);

  // `text` passes `takes`, is a part of the arena, and is added once.
  void add(const char* arena, std::string_view text, uint32_t id);

  void seal(const char* arena) {
    index_.seal([&](uint32_t i) { return hash_at(arena, i); });
    templates_.shrink_to_fit();
  }

  // Calls found(id) for every template that the path matches.
  template <class Found>
  void walk(const char* arena, std::string_view path, Found found) const {
    if (shapes_.empty() || path.empty() || path[0] != '/') return;
    Segments segments;
    split(path, segments);
    // Of most paths no shape has the number of segments.
    if ((counts_ >> std::min<size_t>(segments.count, 63) & 1) == 0 && segments.count <= fewest_before_rest_) return;
    hash(path, segments);
    for (uint32_t s = 0; s < shapes_.size(); ++s)
      if (const uint32_t id = match(arena, path, segments, s); id != kMissing) found(id);
  }

  size_t shapes() const { return shapes_.size(); }
  size_t bytes() const {
    return templates_.capacity() * sizeof(Template) + shapes_.capacity() * sizeof(Shape) + index_.bytes();
  }

  static constexpr uint32_t kMissing = HashIndex::kMissing;

 private:
  static constexpr size_t kMaxSegments = 60;

  struct Shape {
    uint64_t variables;      // bit i: segment i is {*}
    uint32_t count;          // of segments before {**} or the end
    bool rest;               // {**} follows
    uint32_t suffix_length;  // of what follows {**}
    friend bool operator==(const Shape&, const Shape&) = default;
  };
  struct Template {
    uint32_t text, length, id, shape;
  };
  struct Segments {
    size_t count = 0;                  // kMaxSegments + 2 stands for more
    uint32_t begin[kMaxSegments + 3];  // begin[i + 1] - 1 is where segment i ends
    uint64_t hash[kMaxSegments + 2];
  };

  static bool is_clean(std::string_view text);
  static void split(std::string_view path, Segments& out);
  static void hash(std::string_view path, Segments& segments);
  static std::string_view segment(std::string_view path, const Segments& of, size_t i) {
    return path.substr(of.begin[i], of.begin[i + 1] - 1 - of.begin[i]);
  }
  static Shape shape_of(std::string_view text);
  static uint64_t hash_in_shape(uint32_t number, const Shape& shape, const Segments& segments, std::string_view suffix);
  uint32_t match(const char* arena, std::string_view path, const Segments& segments, uint32_t number) const;
  uint64_t hash_at(const char* arena, uint32_t position) const;

  uint64_t counts_ = 0;  // bit n: a shape without {**} has n segments
  size_t fewest_before_rest_ = ~size_t{0};
  std::vector<Shape> shapes_;
  std::vector<Template> templates_;
  HashIndex index_;  // of templates_
};

}  // namespace meshsieve::authz
