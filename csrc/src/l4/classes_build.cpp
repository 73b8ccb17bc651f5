// Building the class front end: which fields are swept, which are joined, and which rules each class leaves standing.
#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <unordered_map>

#include "l4/classes_table.h"
#include "meshsieve/errors.h"

namespace meshsieve::classes {
namespace {

constexpr size_t kMaxJoinEntries = size_t{1} << 21;  // 4 MB of 16-bit classes
constexpr size_t kMaxJoinWork = size_t{1} << 27;     // 64-bit words of row bitmaps read while joining, about 0.1 s
constexpr size_t kOneJoinEntries = size_t{1} << 17;  // several fields share one table up to 256 KB, else joins are chained

// A field, the distinct sets that the segment's rules use on it, and their classes.
struct UsedField {
  int field;
  std::vector<const ValueSet*> sets;
  std::unordered_map<SetId, uint32_t> position;  // in `sets`
  FieldSweep sweep;
  uint32_t scale = 1;

  // 0 for "any", else 1 + the set's position.
  uint32_t code(const Match& match) const {
    return match[field] == kAnySet ? 0 : position.at(match[field]) + 1;
  }
};

// Bitmaps of equal length, equal ones stored once.
class BitmapInterner {
 public:
  explicit BitmapInterner(size_t words) : words_(words) {}
  uint32_t id_of(const uint64_t* bits) {
    uint64_t hash = 0;
    for (size_t w = 0; w < words_; ++w) hash = (hash ^ bits[w]) * 0x9e3779b97f4a7c15 ^ (hash >> 29);
    const auto [first, last] = by_hash_.equal_range(hash);
    for (auto it = first; it != last; ++it)
      if (std::memcmp(at(it->second), bits, words_ * 8) == 0) return it->second;
    const auto id = static_cast<uint32_t>(size());
    by_hash_.emplace(hash, id);
    bits_.insert(bits_.end(), bits, bits + words_);
    return id;
  }
  const uint64_t* at(uint32_t id) const { return bits_.data() + id * words_; }
  size_t size() const { return bits_.size() / words_; }

 private:
  size_t words_;
  std::vector<uint64_t> bits_;
  std::unordered_multimap<uint64_t, uint32_t> by_hash_;
};

Lists lists_of(std::vector<std::vector<uint32_t>>&& keyed) {
  Lists lists;
  for (const auto& items : keyed) {
    lists.items.insert(lists.items.end(), items.begin(), items.end());
    lists.close();
  }
  return lists;
}

std::vector<Boundary> scaled(std::vector<Boundary> boundaries, uint32_t scale) {
  for (Boundary& boundary : boundaries) boundary.id *= scale;
  return boundaries;
}

class FrontBuilder {
 public:
  FrontBuilder(const RuleSet& rules, int32_t begin, int32_t end, size_t most_classes)
      : rules_(rules), begin_(begin), end_(end) {
    std::array<UsedField, kFieldCount> found;
    for (int f = 0; f < kFieldCount; ++f) found[f].field = f;
    const auto note = [&](const Match& match) {
      uint32_t mask = 0;
      for (int f = 0; f < kFieldCount; ++f) {
        if (match[f] == kAnySet) continue;
        mask |= uint32_t{1} << f;
        if (found[f].position.try_emplace(match[f], static_cast<uint32_t>(found[f].sets.size())).second)
          found[f].sets.push_back(&rules.sets[match[f]]);
      }
      return mask;
    };
    for (int32_t r = begin; r < end; ++r) {
      used_ |= note(rules.common[r]);
      for (uint32_t a = rules.alternative_begin[r]; a < rules.alternative_begin[r + 1]; ++a)
        alternative_fields_ |= note(rules.alternatives[a]);
    }
    used_ |= alternative_fields_;
    for (UsedField& field : found)
      if (used_ >> field.field & 1) fields_.push_back(std::move(field));
    for (UsedField& field : fields_)
      field.sweep = sweep(field.sets, kFields[field.field], is_joined(field) ? kAllClasses : most_classes);
  }

  uint32_t used() const { return used_; }

  // After dimensions(), which settles the scales.
  std::vector<FieldMap> maps() const {
    std::vector<FieldMap> maps;
    for (const UsedField& used : fields_) {
      FieldMap map;
      map.field = used.field;
      map.scale = used.scale;
      map.unknown = used.sweep.unknown * used.scale;
      const std::vector<Boundary> v4 = scaled(used.sweep.v4, used.scale), v6 = scaled(used.sweep.v6, used.scale);
      if (map.is_small()) {
        map.small = PagedMap(v4);
      } else {
        map.v4 = Map32(v4);
        if (map.is_address()) map.v6 = Map128(v6);
      }
      maps.push_back(std::move(map));
    }
    return maps;
  }

  std::vector<Dimension> dimensions(Joint joint) {
    std::vector<Dimension> out;
    std::array<std::vector<int>, 2> joined;
    for (const int m : join_order()) {
      if (is_joined(fields_[m])) joined[joint == Joint::in_two && !is_of_services(m)].push_back(m);
      else out.push_back(alone(m));
    }
    std::vector<int> left_alone;
    for (const std::vector<int>& group : joined) {
      if (group.empty()) continue;
      if (joint == Joint::in_two && group.size() == 1) {
        out.push_back(alone(group.front()));
        out.back().is_joint = true;
        add_alternatives(group.front(), out.back());
        continue;
      }
      Dimension dimension = join(group, left_alone);
      if (!dimension.joins.empty()) out.push_back(std::move(dimension));
    }
    for (const int m : left_alone) out.push_back(alone(m));
    return out;
  }

 private:
  // Whether the field is for a joint table, if it fits: all but addresses, and those only where alternatives name them.
  bool is_joined(const UsedField& used) const {
    return (alternative_fields_ >> used.field & 1) != 0 || kFields[used.field].kind != FieldKind::address;
  }

  static constexpr Field kOfServices[] = {Field::ip_ver,    Field::proto,     Field::dport,
                                          Field::icmp_type, Field::icmp_code, Field::tcp_flags};
  bool is_of_services(int m) const {
    return std::any_of(std::begin(kOfServices), std::end(kOfServices),
                       [f = fields_[m].field](Field field) { return index_of(field) == f; });
  }

  // What alternatives name comes first, because it must be joined; then as services name fields, from coarse to fine.
  std::vector<int> join_order() const {
    static constexpr Field kOrder[] = {Field::ip_ver, Field::proto, Field::dport, Field::icmp_type, Field::icmp_code,
                                       Field::tcp_flags, Field::sport};
    std::vector<int> order(fields_.size());
    for (size_t m = 0; m < order.size(); ++m) order[m] = static_cast<int>(m);
    const auto rank = [this](int m) {
      const int f = fields_[m].field;
      int place = static_cast<int>(std::size(kOrder));
      for (size_t i = 0; i < std::size(kOrder); ++i)
        if (index_of(kOrder[i]) == f) place = static_cast<int>(i);
      const bool address = kFields[f].kind == FieldKind::address;
      return std::tuple((alternative_fields_ >> f & 1) == 0, address, place, f);
    };
    std::sort(order.begin(), order.end(), [&](int x, int y) { return rank(x) < rank(y); });
    return order;
  }

  Dimension alone(int m) const {
    const UsedField& used = fields_[m];
    Dimension dimension;
    dimension.map = m;
    dimension.n_classes = used.sweep.members.size();
    dimension.n_narrow = used.sweep.narrow_members.size();
    dimension.narrow_bits = used.sweep.narrow_bits;
    dimension.rows = rows_of(used.sweep.members, true);
    dimension.narrow_rows = rows_of(used.sweep.narrow_members, false);
    std::vector<std::vector<uint32_t>> by_row(used.sets.size() + 1);
    for (int32_t r = begin_; r < end_; ++r)
      by_row[used.code(rules_.common[r])].push_back(static_cast<uint32_t>(r - begin_));
    dimension.rules_by_common = lists_of(std::move(by_row));
    return dimension;
  }

  void add_alternatives(int m, Dimension& dimension) const {
    for (uint32_t a = rules_.alternative_begin[begin_]; a < rules_.alternative_begin[end_]; ++a)
      dimension.row_of_alternative.push_back(fields_[m].code(rules_.alternatives[a]));
  }

  // Lists of rows from lists of sets: row s + 1 is set s, row 0 constrains nothing.
  static Lists rows_of(const Lists& sets, bool with_row_0) {
    Lists rows;
    for (uint32_t c = 0; c < sets.size(); ++c) {
      if (with_row_0) rows.items.push_back(0);
      for (const uint32_t* s = sets.from(c); s != sets.to(c); ++s) rows.items.push_back(*s + 1);
      rows.close();
    }
    return rows;
  }

  // --- Joining ---

  struct Rows {
    std::map<std::vector<uint32_t>, uint32_t> id;  // codes of the joined fields -> row
    std::vector<std::vector<uint32_t>> codes;
    uint32_t of(const std::vector<uint32_t>& key) {
      const auto [found, is_new] = id.try_emplace(key, static_cast<uint32_t>(codes.size()));
      if (is_new) codes.push_back(key);
      return found->second;
    }
  };

  // Joins the given fields in order; an optional field that does not fit goes to `left_alone`.
  Dimension join(const std::vector<int>& joined, std::vector<int>& left_alone) {
    Dimension dimension;
    dimension.is_joint = true;
    Rows rows = collect_rows(joined, dimension);
    const size_t words = (rows.codes.size() + 63) / 64;
    std::vector<uint64_t> all(words, ~uint64_t{0});
    BitmapInterner current(words);  // the classes joined so far
    current.id_of(all.data());

    std::vector<BitmapInterner> axes;
    for (size_t j = 0; j < joined.size(); ++j) axes.push_back(row_bits(rows, j, fields_[joined[j]], words));

    std::vector<size_t> open;  // positions in `joined` of the join being collected
    const auto try_join = [&](const std::vector<size_t>& inputs) {
      Join made;
      if (!make_join(joined, inputs, axes, current, words, made)) return false;
      dimension.joins.push_back(std::move(made));
      return true;
    };
    const auto leave_alone = [&](size_t j) {
      const size_t n = axes[j].size();
      if (alternative_fields_ >> fields_[joined[j]].field & 1)
        throw CompileError(std::string("field ") + kFields[fields_[joined[j]].field].name +
                           " in alternatives: joining its " + std::to_string(n) + " classes takes " +
                           std::to_string(current.size() * n) + " entries, the limits are " +
                           std::to_string(kMaxJoinEntries) + " entries and 65,536 classes");
      left_alone.push_back(joined[j]);
    };
    const auto close_join = [&] {
      // kOneJoinEntries can be more classes than a table holds: then one field after the other.
      if (!open.empty() && !try_join(open))
        for (const size_t j : open)
          if (open.size() == 1 || !try_join({j})) leave_alone(j);
      open.clear();
    };
    size_t entries = 1;  // of the table that joins `current` and `open`
    for (size_t j = 0; j < joined.size(); ++j) {
      const size_t n = axes[j].size();
      if (!open.empty() && entries * n > kOneJoinEntries) close_join();
      if (open.empty()) entries = current.size();
      entries *= n;
      if (entries <= kOneJoinEntries && entries * words <= kMaxJoinWork) {
        open.push_back(j);
        continue;
      }
      if (entries <= kMaxJoinEntries && entries * words <= kMaxJoinWork && try_join({j})) continue;
      leave_alone(j);
    }
    close_join();
    dimension.n_classes = static_cast<uint32_t>(current.size());
    for (uint32_t c = 0; c < dimension.n_classes; ++c) {
      for (size_t w = 0; w < words; ++w)
        for (uint64_t bits = current.at(c)[w]; bits != 0; bits &= bits - 1) {
          const size_t row = w * 64 + static_cast<size_t>(__builtin_ctzll(bits));
          if (row < rows.codes.size()) dimension.rows.items.push_back(static_cast<uint32_t>(row));
        }
      dimension.rows.close();
    }
    return dimension;
  }

  // The distinct conjunctions over the joined fields, and which rules name each.
  Rows collect_rows(const std::vector<int>& joined, Dimension& dimension) const {
    Rows rows;
    std::vector<uint32_t> key(joined.size(), 0);
    rows.of(key);
    std::vector<std::vector<uint32_t>> common, alternative;
    const auto add = [&](const Match& match, int32_t r, std::vector<std::vector<uint32_t>>& by_row) {
      for (size_t j = 0; j < joined.size(); ++j) key[j] = fields_[joined[j]].code(match);
      const uint32_t row = rows.of(key);
      if (by_row.size() <= row) by_row.resize(row + 1);
      const auto rule = static_cast<uint32_t>(r - begin_);
      if (by_row[row].empty() || by_row[row].back() != rule) by_row[row].push_back(rule);
      return row;
    };
    for (int32_t r = begin_; r < end_; ++r) {
      add(rules_.common[r], r, common);
      const uint32_t from = rules_.alternative_begin[r], to = rules_.alternative_begin[r + 1];
      for (uint32_t a = from; a < to; ++a)
        dimension.row_of_alternative.push_back(add(rules_.alternatives[a], r, alternative));
      if (from != to) dimension.rules_with_alternatives.push_back(static_cast<uint32_t>(r - begin_));
    }
    common.resize(rows.codes.size());
    alternative.resize(rows.codes.size());
    dimension.rules_by_common = lists_of(std::move(common));
    dimension.rules_by_alternative = lists_of(std::move(alternative));
    return rows;
  }

  // Class of one field -> bitmap of the rows that do not fail on it. Classes are distinct sets of sets, and every set
  // is in some row by itself or with others, so two classes may share a bitmap only if rows repeat: they are kept apart.
  BitmapInterner row_bits(const Rows& rows, size_t j, const UsedField& used, size_t words) const {
    std::vector<std::vector<uint32_t>> rows_of_code(used.sets.size() + 1);
    for (uint32_t row = 0; row < rows.codes.size(); ++row) rows_of_code[rows.codes[row][j]].push_back(row);
    BitmapInterner out(words);
    std::vector<uint64_t> bits(words);
    const auto set = [&](uint32_t code) {
      for (const uint32_t row : rows_of_code[code]) bits[row / 64] |= uint64_t{1} << row % 64;
    };
    for (uint32_t c = 0; c < used.sweep.members.size(); ++c) {
      std::fill(bits.begin(), bits.end(), 0);
      set(0);
      for (const uint32_t* s = used.sweep.members.from(c); s != used.sweep.members.to(c); ++s) set(*s + 1);
      if (out.id_of(bits.data()) != c) throw std::logic_error("field classes must differ in their rows");
    }
    return out;
  }

  // False if that makes more than 65,536 classes; `current` is then as before.
  bool make_join(const std::vector<int>& joined, const std::vector<size_t>& open,
                 const std::vector<BitmapInterner>& axes, BitmapInterner& current, size_t words, Join& join) {
    std::vector<const BitmapInterner*> inputs;
    const bool has_previous = current.size() > 1;
    if (has_previous) inputs.push_back(&current);
    for (const size_t j : open) {
      join.maps.push_back(joined[j]);
      inputs.push_back(&axes[j]);
    }
    size_t entries = 1;
    std::vector<uint32_t> stride(inputs.size());
    for (size_t k = inputs.size(); k-- > 0;) {
      stride[k] = static_cast<uint32_t>(entries);
      entries *= inputs[k]->size();
    }
    join.table = TableArray<uint16_t>(entries);
    BitmapInterner next(words);
    std::vector<uint64_t> bits(words * (inputs.size() + 1), ~uint64_t{0});
    if (!enumerate(join, inputs, stride, 0, 0, bits.data(), words, next)) return false;
    if (has_previous) join.previous_stride = stride[0];
    for (size_t k = 0; k < open.size(); ++k) fields_[static_cast<size_t>(joined[open[k]])].scale = stride[k + has_previous];
    current = std::move(next);
    return true;
  }

  // Fills the part of the table where inputs before `k` are fixed; bits[0..words) are the rows they leave.
  bool enumerate(Join& join, const std::vector<const BitmapInterner*>& inputs, const std::vector<uint32_t>& stride,
                 size_t k, size_t index, uint64_t* bits, size_t words, BitmapInterner& next) const {
    if (k == inputs.size()) {
      const uint32_t id = next.id_of(bits);
      join.table[index] = static_cast<uint16_t>(id);
      return id <= 0xffff;
    }
    uint64_t* narrowed = bits + words;
    for (uint32_t c = 0; c < inputs[k]->size(); ++c) {
      const uint64_t* rows = inputs[k]->at(c);
      for (size_t w = 0; w < words; ++w) narrowed[w] = bits[w] & rows[w];
      if (!enumerate(join, inputs, stride, k + 1, index + size_t{c} * stride[k], narrowed, words, next)) return false;
    }
    return true;
  }

  const RuleSet& rules_;
  int32_t begin_, end_;
  uint32_t used_ = 0, alternative_fields_ = 0;
  std::vector<UsedField> fields_;
};

}  // namespace

ClassFront::ClassFront(const RuleSet& rules, int32_t begin, int32_t end, const simd::Backend& backend,
                       size_t most_classes, Joint joint)
    : backend_(&backend) {
  FrontBuilder builder(rules, begin, end, most_classes);
  fields_used_ = builder.used();
  dimensions_ = builder.dimensions(joint);
  maps_ = builder.maps();
}

void ClassFront::forget_lists() {
  for (Dimension& dimension : dimensions_) {
    dimension.rows = {};
    dimension.narrow_rows = {};
    dimension.rules_by_common = {};
    dimension.rules_by_alternative = {};
    dimension.rules_with_alternatives = {};
    dimension.row_of_alternative = {};
  }
}

size_t ClassFront::bytes() const {
  size_t bytes = 0;
  for (const FieldMap& map : maps_) bytes += map.bytes();
  for (const Dimension& dimension : dimensions_)
    for (const Join& join : dimension.joins) bytes += join.table.bytes();
  return bytes;
}

uint64_t ClassFront::worst_case_steps() const {
  uint64_t steps = 0;
  for (const FieldMap& map : maps_) steps += map.levels();
  for (const Dimension& dimension : dimensions_) steps += dimension.joins.size();
  return steps;
}

RuleBits::RuleBits(const Dimension& dimension, uint32_t words, const std::vector<uint32_t>* place)
    : words_(words),
      common_(rules_of(dimension.rules_by_common, place)),
      alternative_(rules_of(dimension.rules_by_alternative, place)),
      has_alternatives_(!dimension.rules_with_alternatives.empty()) {
  if (!has_alternatives_) return;
  unrestricted_.assign(words, ~uint64_t{0});
  allowed_.resize(words);
  for (const uint32_t r : dimension.rules_with_alternatives) {
    const uint32_t bit = place == nullptr ? r : (*place)[r];
    unrestricted_[bit / 64] &= ~(uint64_t{1} << bit % 64);
  }
}

RuleBits::Rules RuleBits::rules_of(const Lists& rules, const std::vector<uint32_t>* place) const {
  Rules out{rules, std::vector<std::vector<uint64_t>>(rules.size())};
  if (place != nullptr)
    for (uint32_t& rule : out.lists.items) rule = (*place)[rule];
  for (uint32_t row = 0; row < rules.size(); ++row) {
    if (static_cast<size_t>(rules.to(row) - rules.from(row)) <= 2 * words_) continue;
    std::vector<uint64_t> bits(words_);
    out.add(row, bits.data());
    out.dense[row] = std::move(bits);
  }
  return out;
}

void RuleBits::Rules::add(uint32_t row, uint64_t* bits) const {
  if (dense[row].empty()) {
    for (const uint32_t* r = lists.from(row); r != lists.to(row); ++r) bits[*r / 64] |= uint64_t{1} << *r % 64;
  } else {
    for (size_t w = 0; w < dense[row].size(); ++w) bits[w] |= dense[row][w];
  }
}

void RuleBits::fill(const Lists& rows, uint32_t list, uint64_t* bits) {
  for (const uint32_t* row = rows.from(list); row != rows.to(list); ++row) common_.add(*row, bits);
  if (!has_alternatives_) return;
  allowed_ = unrestricted_;
  for (const uint32_t* row = rows.from(list); row != rows.to(list); ++row) alternative_.add(*row, allowed_.data());
  for (uint32_t w = 0; w < words_; ++w) bits[w] &= allowed_[w];
}

}  // namespace meshsieve::classes
