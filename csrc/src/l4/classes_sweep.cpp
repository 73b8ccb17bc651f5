// Interval sweep: the axis of a field cut into classes of values that the same sets contain.
//
// A boundary toggles one set, so the signature (signature.h) of the sets that contain a point follows the sweep in
// constant time. Class ids follow the order of first appearance.
#include <algorithm>
#include <string>
#include <unordered_map>

#include "l4/classes_table.h"
#include "l4/signature.h"
#include "meshsieve/errors.h"

namespace meshsieve::classes {
namespace {

// Entries of all membership lists of one field: 256 MB. Beyond, so many sets overlap that classes do not pay.
constexpr size_t kMaxMembers = size_t{1} << 26;

// The sets that contain the point under the sweep; toggled in constant time.
class ActiveSets {
 public:
  explicit ActiveSets(size_t n_sets) : place_(n_sets, kAbsent) {}
  void toggle(uint32_t set) {
    signature_.toggle(signature_of(set));
    if (place_[set] == kAbsent) {
      place_[set] = static_cast<uint32_t>(sets_.size());
      sets_.push_back(set);
    } else {
      place_[sets_.back()] = place_[set];
      sets_[place_[set]] = sets_.back();
      sets_.pop_back();
      place_[set] = kAbsent;
    }
  }
  const Signature& signature() const { return signature_; }
  const std::vector<uint32_t>& sets() const { return sets_; }

 private:
  static constexpr uint32_t kAbsent = ~uint32_t{0};
  Signature signature_;
  std::vector<uint32_t> sets_, place_;
};

struct Event {
  U128 at;
  uint32_t set;
};

// By place. IPv4 events, which large groups have by the hundred thousand, are sorted as one word each.
void sort(std::vector<Event>& events) {
  const bool narrow = std::all_of(events.begin(), events.end(),
                                  [](const Event& e) { return e.at.hi == 0 && e.at.lo <= 0xffffffffu; });
  if (!narrow) {
    std::sort(events.begin(), events.end(), [](const Event& x, const Event& y) { return x.at < y.at; });
    return;
  }
  std::vector<uint64_t> words;
  words.reserve(events.size());
  for (const Event& e : events) words.push_back(e.at.lo << 32 | e.set);
  std::sort(words.begin(), words.end());
  for (size_t i = 0; i < words.size(); ++i) events[i] = {{0, words[i] >> 32}, static_cast<uint32_t>(words[i])};
}

class Sweeper {
 public:
  Sweeper(const FieldInfo& field, FieldSweep& out) : field_(field), out_(out) { class_of({}, {}); }

  void axis(std::vector<Event>& events, size_t n_sets, std::vector<Boundary>& boundaries) {
    sort(events);
    ActiveSets active(n_sets);
    boundaries.push_back({{0, 0}, kNoSet});
    for (size_t e = 0; e < events.size();) {
      const U128 at = events[e].at;
      for (; e < events.size() && events[e].at == at; ++e) active.toggle(events[e].set);
      const uint32_t id = class_of(active.signature(), active.sets());
      if (id == boundaries.back().id) continue;
      if (boundaries.back().start == at) boundaries.pop_back();
      boundaries.push_back({at, id});
    }
  }

  uint32_t class_of(const Signature& signature, const std::vector<uint32_t>& sets) {
    const auto [found, is_new] = ids_.try_emplace(signature, out_.members.size());
    if (is_new) {
      std::vector<uint32_t>& items = out_.members.items;
      if (items.size() + sets.size() > kMaxMembers)
        throw CompileError(std::string("field ") + field_.name + ": more than " + std::to_string(kMaxMembers) +
                           " memberships of value classes in sets");
      items.insert(items.end(), sets.begin(), sets.end());
      std::sort(items.end() - static_cast<ptrdiff_t>(sets.size()), items.end());
      out_.members.close();
    }
    return found->second;
  }

 private:
  const FieldInfo& field_;
  FieldSweep& out_;
  std::unordered_map<Signature, uint32_t, SignatureHash> ids_;
};

void add_events(const std::vector<Interval>& span, U128 last, uint32_t set, std::vector<Event>& events) {
  for (const Interval& interval : span) {
    events.push_back({interval.lo, set});
    if (interval.hi < last) events.push_back({interval.hi.next(), set});
  }
}

}  // namespace

FieldSweep sweep(const std::vector<const ValueSet*>& sets, const FieldInfo& field) {
  FieldSweep out;
  Sweeper sweeper(field, out);
  std::vector<Event> v4, v6;
  Signature all;
  std::vector<uint32_t> every(sets.size());
  for (uint32_t s = 0; s < sets.size(); ++s) {
    add_events(sets[s]->v4, {0, 0xffffffffu}, s, v4);
    add_events(sets[s]->v6, U128::max(), s, v6);
    all.toggle(signature_of(s));
    every[s] = s;
  }
  sweeper.axis(v4, sets.size(), out.v4);
  if (field.kind == FieldKind::address) sweeper.axis(v6, sets.size(), out.v6);
  out.unknown = sweeper.class_of(all, every);
  return out;
}

}  // namespace meshsieve::classes
