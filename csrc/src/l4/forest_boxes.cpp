// From rules to boxes: which intervals each rule, or each alternative of it, spans in each dimension.
#include <algorithm>
#include <bit>
#include <map>

#include "l4/forest_table.h"

namespace meshsieve::forest {
namespace {

// A rule whose sets and alternatives come to more boxes than this stays one box that is checked exactly.
constexpr size_t kMaxBoxesOfRule = 16;

constexpr int32_t kOneRange = -1;
constexpr int32_t kEmpty = -2;
constexpr int32_t kNotYet = -3;

// What a rule asks of one dimension: `hull`, or the intervals of lists[list] within it.
struct Constraint {
  Range hull{0, 0};
  int32_t list = kNotYet;
};

bool exists_without_ip(Field field) {
  const Requires requires_ = kFields[index_of(field)].requires_;
  return requires_ == Requires::nothing || requires_ == Requires::vlan_tag;
}

uint32_t largest(int bits) { return bits == 32 ? ~uint32_t{0} : (uint32_t{1} << bits) - 1; }

class BoxMaker {
 public:
  BoxMaker(const RuleSet& rules, int32_t begin, int32_t end, Family family, size_t max_entries)
      : rules_(rules), begin_(begin), end_(end), family_(family) {
    const size_t n = static_cast<size_t>(end - begin);
    spare_ = max_entries > n ? max_entries - n : 0;
  }

  Boxes make() {
    choose_dimensions();
    return fill();
  }

  Boxes make_like(const Boxes& shape) {
    boxes_.field = shape.field;
    boxes_.bits = shape.bits;
    boxes_.n32 = shape.n32, boxes_.n16 = shape.n16, boxes_.n8 = shape.n8;
    ranks_ = &shape.ranks;
    number_dimensions();
    return fill();
  }

 private:
  using Part = std::vector<Constraint>;  // one a dimension

  Boxes fill() {
    cache_.assign(boxes_.dims(), std::vector<Constraint>(rules_.sets.size()));
    for (int32_t rule = begin_; rule < end_; ++rule) add_rule(rule);
    return std::move(boxes_);
  }

  void choose_dimensions() {
    uint32_t used = 0;
    const auto collect = [&used](const Match& match) {
      for (int f = 0; f < kFieldCount; ++f) used |= static_cast<uint32_t>(match[f] != kAnySet) << f;
    };
    for (int32_t r = begin_; r < end_; ++r) {
      collect(rules_.common[r]);
      for (uint32_t a = rules_.alternative_begin[r]; a < rules_.alternative_begin[r + 1]; ++a)
        collect(rules_.alternatives[a]);
    }
    used &= ~bit_of(Field::ip_ver);  // the family says it
    for (const int width : {32, 16, 8}) {
      for (int f = 0; f < kFieldCount; ++f) {
        const int bits = std::min(kFields[f].bits, 32);
        const int rounded = bits <= 8 ? 8 : bits <= 16 ? 16 : 32;
        const auto field = static_cast<Field>(f);
        if ((used >> f & 1) == 0 || rounded != width || (family_ == kNoIp && !exists_without_ip(field))) continue;
        boxes_.field.push_back(field);
        boxes_.bits.push_back(family_ == kV6 && kFields[f].kind == FieldKind::address ? rank_bits(f) : bits);
        ++(width == 32 ? boxes_.n32 : width == 16 ? boxes_.n16 : boxes_.n8);
      }
    }
    number_dimensions();
  }

  void number_dimensions() {
    dim_of_.fill(-1);
    for (size_t d = 0; d < boxes_.dims(); ++d) dim_of_[index_of(boxes_.field[d])] = static_cast<int>(d);
  }

  // Fills the rank map of an address field; returns how many bits a rank takes.
  int rank_bits(int f) {
    std::vector<uint8_t> seen(rules_.sets.size(), 0);
    std::vector<U128> starts = {U128{}};
    const auto collect = [&](const Match& match) {
      const SetId id = match[f];
      if (id == kAnySet || seen[id]++) return;
      for (const Interval& interval : rules_.sets[id].v6) {
        starts.push_back(interval.lo);
        if (interval.hi != U128::max()) starts.push_back(interval.hi.next());
      }
    };
    for (int32_t r = begin_; r < end_; ++r) {
      collect(rules_.common[r]);
      for (uint32_t a = rules_.alternative_begin[r]; a < rules_.alternative_begin[r + 1]; ++a)
        collect(rules_.alternatives[a]);
    }
    std::sort(starts.begin(), starts.end());
    starts.erase(std::unique(starts.begin(), starts.end()), starts.end());
    const int bits = std::max(1, static_cast<int>(std::bit_width(starts.size() - 1)));
    boxes_.ranks[f].starts = std::move(starts);
    return bits;
  }

  Constraint any(size_t dim) const { return {{0, largest(boxes_.bits[dim])}, kOneRange}; }

  Constraint stored(std::vector<Range> ranges) {
    if (ranges.empty()) return {{0, 0}, kEmpty};
    const Range hull{ranges.front().lo, ranges.back().hi};
    if (ranges.size() == 1) return {hull, kOneRange};
    boxes_.lists.push_back(std::move(ranges));
    return {hull, static_cast<int32_t>(boxes_.lists.size() - 1)};
  }

  const Constraint& of_set(size_t dim, SetId id) {
    Constraint& cached = cache_[dim][id];
    if (cached.list != kNotYet) return cached;
    const int f = index_of(boxes_.field[dim]);
    std::vector<Range> ranges;
    if (family_ == kV6 && kFields[f].kind == FieldKind::address) {
      for (const Interval& i : rules_.sets[id].v6) {
        const Range range{(*ranks_)[f].rank(i.lo), (*ranks_)[f].rank(i.hi)};
        aligned_ = aligned_ && (*ranks_)[f].starts_at(range.lo, i.lo) && (*ranks_)[f].ends_at(range.hi, i.hi);
        if (!ranges.empty() && range.lo <= ranges.back().hi) ranges.back().hi = range.hi;
        else ranges.push_back(range);
      }
    } else {
      for (const Interval& i : rules_.sets[id].v4)
        ranges.push_back({static_cast<uint32_t>(i.lo.lo), static_cast<uint32_t>(i.hi.lo)});
    }
    return cached = stored(std::move(ranges));
  }

  std::span<const Range> ranges_of(const Constraint& c) const {
    if (c.list == kEmpty) return {};
    return c.list == kOneRange ? std::span<const Range>(&c.hull, 1) : std::span<const Range>(boxes_.lists[c.list]);
  }

  Constraint intersection(const Constraint& a, const Constraint& b) {
    std::vector<Range> both;
    const std::span<const Range> x = ranges_of(a), y = ranges_of(b);
    for (size_t i = 0, j = 0; i < x.size() && j < y.size();) {
      const Range common{std::max(x[i].lo, y[j].lo), std::min(x[i].hi, y[j].hi)};
      if (common.lo <= common.hi) both.push_back(common);
      ++(x[i].hi < y[j].hi ? i : j);
    }
    return stored(std::move(both));
  }

  Constraint union_of(const std::vector<Part>& parts, size_t dim) {
    std::vector<Range> all;
    for (const Part& part : parts)
      for (const Range& range : ranges_of(part[dim])) all.push_back(range);
    std::sort(all.begin(), all.end(), [](const Range& a, const Range& b) { return a.lo < b.lo; });
    std::vector<Range> merged;
    for (const Range& range : all) {
      if (!merged.empty() && range.lo <= merged.back().hi)
        merged.back().hi = std::max(merged.back().hi, range.hi);
      else
        merged.push_back(range);
    }
    return stored(std::move(merged));
  }

  // Narrows `part` by a match. False where nothing of this family can match it.
  bool narrow(Part& part, uint8_t& groups, const Match& match) {
    const SetId version = match[index_of(Field::ip_ver)];
    constexpr uint64_t kVersions[kFamilies] = {4, 6, 0};
    if (version != kAnySet && !rules_.sets[version].contains({0, kVersions[family_]}, false)) return false;
    bool possible = true;
    for (int f = 0; f < kFieldCount; ++f) {
      if (match[f] == kAnySet || f == index_of(Field::ip_ver)) continue;
      if (dim_of_[f] < 0) return false;  // a frame without IP lacks the field
      Constraint& constraint = part[dim_of_[f]];
      constraint = intersection_or_set(constraint, dim_of_[f], match[f]);
      const Group group = group_of(static_cast<Field>(f));
      if (group != kAlways) groups |= static_cast<uint8_t>(1 << group);
      if (constraint.list == kEmpty) {
        boxes_.blind |= uint32_t{1} << f;
        possible = false;
      }
    }
    return possible;
  }

  Constraint intersection_or_set(const Constraint& before, int dim, SetId id) {
    const Constraint& set = of_set(dim, id);
    if (before.list == kOneRange && before.hull == any(dim).hull) return set;
    if (before.list == kEmpty) return before;
    const Constraint a = before, b = set;  // `stored` may move the lists
    return intersection(a, b);
  }

  void add_rule(int32_t rule) {
    Part base;
    for (size_t d = 0; d < boxes_.dims(); ++d) base.push_back(any(d));
    uint8_t base_groups = 0;
    if (!narrow(base, base_groups, rules_.common[rule])) return;
    const uint32_t first = rules_.alternative_begin[rule], last = rules_.alternative_begin[rule + 1];
    std::vector<Part> parts;
    std::vector<uint8_t> groups;
    for (uint32_t a = first; a < last; ++a) {
      Part part = base;
      uint8_t part_groups = base_groups;
      if (!narrow(part, part_groups, rules_.alternatives[a])) continue;
      parts.push_back(std::move(part));
      groups.push_back(part_groups);
    }
    if (first == last) {
      parts.push_back(std::move(base));
      groups.push_back(base_groups);
    }
    if (parts.empty()) return;
    if (parts.size() > 1 && !take_spare(parts.size())) {
      // One entry that bounds all alternatives; a packet without ports fails it only if it fails them all.
      Part bound;
      for (size_t d = 0; d < boxes_.dims(); ++d) bound.push_back(union_of(parts, d));
      uint8_t common_groups = groups.front();
      for (const uint8_t g : groups) common_groups &= g;
      add_entry(rule, common_groups, false, bound);
      return;
    }
    for (size_t p = 0; p < parts.size(); ++p) add_part(rule, groups[p], parts[p]);
  }

  bool take_spare(size_t boxes) {
    if (boxes > kMaxBoxesOfRule || boxes - 1 > spare_) return false;
    spare_ -= boxes - 1;
    return true;
  }

  // One entry a combination of intervals where they are few, else one entry with lists.
  void add_part(int32_t rule, uint8_t groups, const Part& part) {
    size_t product = 1;
    for (const Constraint& c : part)
      product = std::min(kMaxBoxesOfRule + 1, product * std::max<size_t>(1, ranges_of(c).size()));
    if (product == 1 || !take_spare(product)) return add_entry(rule, groups, true, part);
    for (size_t combination = 0; combination < product; ++combination) {
      Part one = part;
      size_t left = combination;
      for (Constraint& c : one) {
        const std::span<const Range> ranges = ranges_of(c);
        const Range range = ranges[left % ranges.size()];
        left /= ranges.size();
        c = {range, kOneRange};
      }
      add_entry(rule, groups, true, one);
    }
  }

  void add_entry(int32_t rule, uint8_t groups, bool exact, const Part& part) {
    boxes_.entries.push_back({rule, groups, exact && aligned_});
    for (const Constraint& c : part) {
      boxes_.hull.push_back(c.hull);
      boxes_.list.push_back(c.list);
    }
  }

  const RuleSet& rules_;
  const int32_t begin_, end_;
  const Family family_;
  size_t spare_;
  Boxes boxes_;
  const std::array<RankMap, 2>* ranks_ = &boxes_.ranks;
  bool aligned_ = true;  // every bound so far starts or ends a rank; so they do where the ranks come from the rules
  std::array<int, kFieldCount> dim_of_{};
  std::vector<std::vector<Constraint>> cache_;  // [dim][set]
};

}  // namespace

Group group_of(Field field) {
  switch (kFields[index_of(field)].requires_) {
    case Requires::ports: return kPorts;
    case Requires::tcp: return kTcp;
    case Requires::icmp: return kIcmp;
    case Requires::vlan_tag: return kVlan;
    case Requires::ip:
    case Requires::nothing: return kAlways;
  }
  return kAlways;
}

uint32_t RankMap::rank(U128 value) const {
  const auto after = std::upper_bound(starts.begin(), starts.end(), value);
  return static_cast<uint32_t>(after - starts.begin()) - 1;
}

bool RankMap::starts_at(uint32_t rank, U128 value) const { return starts[rank] == value; }

bool RankMap::ends_at(uint32_t rank, U128 value) const {
  return rank + 1 == starts.size() ? value == U128::max() : value != U128::max() && starts[rank + 1] == value.next();
}

size_t Boxes::tail_offset() const { return (4 * size_t{n32} + 2 * size_t{n16} + n8) * 2 * kLanes; }

size_t Boxes::block_bytes() const {
  const size_t bytes = tail_offset() + sizeof(BlockTail);
  return (bytes + 63) / 64 * 64;
}

Boxes make_boxes(const RuleSet& rules, int32_t begin, int32_t end, Family family, size_t max_entries) {
  return BoxMaker(rules, begin, end, family, max_entries).make();
}

Boxes make_boxes_like(const Boxes& shape, const RuleSet& rules, int32_t begin, int32_t end, Family family,
                      size_t max_entries) {
  return BoxMaker(rules, begin, end, family, max_entries).make_like(shape);
}

}  // namespace meshsieve::forest
