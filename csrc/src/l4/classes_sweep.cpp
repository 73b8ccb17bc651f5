// Interval sweep: the axis of a field cut into classes of values that the same sets contain.
//
// What    A boundary toggles one set, so the signature (signature.h) of the sets that contain a point follows the sweep
//         in constant time. Class ids follow the order of first appearance.
// Parts   In policies of groups a class is an accident of a wide network and a narrow host: there are many more classes
//         than groups, and a row a class is what takes the memory. Such an axis is swept in two parts, the sets that
//         contain a value by an interval of at least 2^cut values, and the others; a class is a pair of parts, and a
//         row a part is enough, since the sets of the class are those of both. The cut is the one that leaves the
//         fewest parts, by estimate; where even that saves little, the axis stays whole. Then classes_absorb.cpp makes
//         narrow parts equal where it may.
// Cost    A radix sort of the interval ends; then constant time a distinct end and cut that is weighed.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <string>
#include <unordered_map>

#include "l4/classes_table.h"
#include "l4/signature.h"
#include "meshsieve/errors.h"

namespace meshsieve::classes {
namespace {

// Entries of all membership lists of one field: 256 MB. Beyond, so many sets overlap that classes do not pay.
constexpr size_t kMaxMembers = size_t{1} << 26;

constexpr double kLeastSaved = 0.3;  // share of the rows that two parts must save

// An end of an interval: at this place its set is toggled. The magnitude is the number of bits of last - first.
struct Event {  // | place : 32 | set : 26 | magnitude : 6 |
  uint64_t bits;
  Event(U128 at, uint32_t set, uint32_t magnitude) : bits(at.lo << 32 | uint64_t{set} << 6 | magnitude) {}
  U128 at() const { return {0, bits >> 32}; }
  uint32_t set() const { return static_cast<uint32_t>(bits) >> 6; }
  uint32_t magnitude() const { return static_cast<uint32_t>(bits) & 63; }
  static constexpr std::array<uint8_t, 8> kCuts = {1, 2, 4, 6, 8, 10, 12, 16};
};
static_assert(kMaxMembers <= size_t{1} << 26, "the number of a set has 26 bits");

struct Event128 {
  U128 place;
  uint32_t set_;
  uint32_t magnitude_;
  Event128(U128 at, uint32_t set, uint32_t magnitude) : place(at), set_(set), magnitude_(magnitude) {}
  U128 at() const { return place; }
  uint32_t set() const { return set_; }
  uint32_t magnitude() const { return magnitude_; }
  static constexpr std::array<uint8_t, 8> kCuts = {1, 8, 32, 64, 65, 72, 80, 96};
};

void sort(std::vector<Event128>& events) {
  std::sort(events.begin(), events.end(), [](const Event128& x, const Event128& y) { return x.place < y.place; });
}

// By place: three passes of eleven bits each.
void sort(std::vector<Event>& events) {
  constexpr size_t kDigits = size_t{1} << 11;
  if (events.size() < kDigits)
    return std::sort(events.begin(), events.end(), [](const Event& x, const Event& y) { return x.bits < y.bits; });
  std::vector<Event> other(events);
  for (uint32_t shift = 32; shift < 64; shift += 11) {
    std::array<size_t, kDigits + 1> first{};
    for (const Event& e : events) ++first[(e.bits >> shift) % kDigits + 1];
    for (size_t d = 0; d < kDigits; ++d) first[d + 1] += first[d];
    for (const Event& e : events) other[first[(e.bits >> shift) % kDigits]++] = e;
    events.swap(other);
  }
}

// Calls on_event(event) for each event and after_place(place) after the last of each place.
template <class Event, class OnEvent, class AfterPlace>
void walk(const std::vector<Event>& events, const OnEvent& on_event, const AfterPlace& after_place) {
  for (size_t e = 0; e < events.size();) {
    const U128 at = events[e].at();
    for (; e < events.size() && events[e].at() == at; ++e) on_event(events[e]);
    after_place(at);
  }
}

// How many different numbers were noted, about: the bits set in a table, corrected for those that were hit twice
// (linear counting; Whang, Vander-Zanden and Taylor, 1990).
class Census {
 public:
  void note(uint64_t number) { bits_[number % kBits / 64] |= uint64_t{1} << number % 64; }
  double count() const {
    size_t set = 0;
    for (const uint64_t word : bits_) set += static_cast<size_t>(std::popcount(word));
    return -static_cast<double>(kBits) * std::log1p(-static_cast<double>(set) / (kBits + 1));
  }

 private:
  static constexpr size_t kBits = size_t{1} << 18;
  std::vector<uint64_t> bits_ = std::vector<uint64_t>(kBits / 64);
};

// The cut that leaves the fewest parts, 0 for none.
template <class Event>
uint32_t best_cut(const std::vector<Event>& events, size_t most_classes) {
  constexpr size_t kCuts = Event::kCuts.size();
  if (events.size() <= most_classes) return 0;
  std::array<Census, kCuts> wide, narrow;
  std::array<uint64_t, kCuts> below{};  // signature of the narrow sets
  uint64_t all = 0;
  Census whole;
  walk(
      events,
      [&](const Event& e) {
        const uint64_t toggled = mixed(e.set());  // not the random signature: what is built must not depend on chance
        all ^= toggled;
        for (size_t c = 0; c < kCuts; ++c) below[c] ^= e.magnitude() < Event::kCuts[c] ? toggled : 0;
      },
      [&](U128) {
        whole.note(all);
        for (size_t c = 0; c < kCuts; ++c) {
          wide[c].note(all ^ below[c]);
          narrow[c].note(below[c]);
        }
      });
  const double most = whole.count();
  if (most <= static_cast<double>(most_classes)) return 0;
  uint32_t best = 0;
  double fewest = (1 - kLeastSaved) * most;
  for (size_t c = 0; c < kCuts; ++c) {
    const double parts = wide[c].count() + narrow[c].count();
    if (parts >= fewest) continue;
    fewest = parts;
    best = Event::kCuts[c];
  }
  return best;
}

// The sets that contain the point under the sweep by an interval of one part; toggled in constant time.
class ActiveSets {
 public:
  explicit ActiveSets(size_t n_sets) : place_(n_sets, kAbsent) {}
  void toggle(uint32_t set, const Signature& signature) {
    signature_.toggle(signature);
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

// The different lists of sets of one part, numbered from the empty one.
class Parts {
 public:
  Parts(const FieldInfo& field, Lists& lists) : field_(field), lists_(lists) { id_of({}, {}); }

  uint32_t id_of(const Signature& signature, const std::vector<uint32_t>& sets) {
    const auto [found, is_new] = ids_.try_emplace(signature, lists_.size());
    if (is_new) {
      std::vector<uint32_t>& items = lists_.items;
      if (items.size() + sets.size() > kMaxMembers)
        throw CompileError(std::string("field ") + field_.name + ": more than " + std::to_string(kMaxMembers) +
                           " memberships of value classes in sets");
      items.insert(items.end(), sets.begin(), sets.end());
      std::sort(items.end() - static_cast<ptrdiff_t>(sets.size()), items.end());
      lists_.close();
    }
    return found->second;
  }
  uint32_t id_of(const ActiveSets& active) { return id_of(active.signature(), active.sets()); }

 private:
  const FieldInfo& field_;
  Lists& lists_;
  std::unordered_map<Signature, uint32_t, SignatureHash> ids_;
};

class Sweeper {
 public:
  Sweeper(const std::vector<const ValueSet*>& sets, const FieldInfo& field, size_t most_classes)
      : sets_(sets),
        field_(field),
        most_classes_(most_classes),
        wide_(field, out_.members),
        narrow_(field, out_.narrow_members) {
    if (sets.size() > kMaxMembers)
      throw CompileError(std::string("field ") + field.name + ": more than " + std::to_string(kMaxMembers) + " sets");
    for (uint32_t s = 0; s < sets.size(); ++s) signature_.push_back(signature_of(s));
  }

  FieldSweep sweep() && {
    axis<Event>(&ValueSet::v4, {0, 0xffffffffu}, out_.v4);
    if (field_.kind == FieldKind::address) axis<Event128>(&ValueSet::v6, U128::max(), out_.v6);
    Signature all;
    std::vector<uint32_t> every(sets_.size());
    for (uint32_t s = 0; s < sets_.size(); ++s) {
      all.toggle(signature_[s]);
      every[s] = s;
    }
    out_.unknown = wide_.id_of(all, every);
    pack();
    return std::move(out_);
  }

 private:
  template <class Event>
  void axis(std::vector<Interval> ValueSet::* span, U128 last, std::vector<Boundary>& boundaries) {
    std::vector<Event> events;
    for (uint32_t s = 0; s < sets_.size(); ++s)
      for (const Interval& interval : sets_[s]->*span) {
        const uint32_t magnitude = magnitude_of(interval);
        events.push_back({interval.lo, s, magnitude});
        if (interval.hi < last) events.push_back({interval.hi.next(), s, magnitude});
      }
    sort(events);
    const uint32_t cut = best_cut(events, most_classes_);
    ActiveSets wide(sets_.size()), narrow(sets_.size());
    boundaries.push_back({{0, 0}, kNoSet});
    parts_.push_back({0, 0});
    walk(
        events, [&](const Event& e) { (e.magnitude() < cut ? narrow : wide).toggle(e.set(), signature_[e.set()]); },
        [&](U128 at) {
          const PartPair parts = {wide_.id_of(wide), narrow_.id_of(narrow)};
          if (parts == parts_.back()) return;
          if (boundaries.back().start == at) {
            boundaries.pop_back();
            parts_.pop_back();
          }
          boundaries.push_back({at, 0});
          parts_.push_back(parts);
        });
  }

  static uint32_t magnitude_of(const Interval& interval) {
    const uint64_t low = interval.hi.lo - interval.lo.lo;
    const uint64_t high = interval.hi.hi - interval.lo.hi - (interval.hi.lo < interval.lo.lo);
    return static_cast<uint32_t>(high != 0 ? 64 + std::bit_width(high) : std::bit_width(low));
  }

  // Gives every boundary its class, now that the number of parts is known.
  void pack() {
    absorb_narrow_parts(out_.members, out_.narrow_members, parts_);
    out_.narrow_bits = static_cast<uint32_t>(std::bit_width(out_.narrow_members.size() - 1));
    auto parts = parts_.begin();
    for (std::vector<Boundary>* boundaries : {&out_.v4, &out_.v6})
      for (Boundary& boundary : *boundaries) {
        boundary.id = parts->wide << out_.narrow_bits | parts->narrow;
        ++parts;
      }
    out_.unknown <<= out_.narrow_bits;
  }

  const std::vector<const ValueSet*>& sets_;
  const FieldInfo& field_;
  const size_t most_classes_;
  FieldSweep out_;
  Parts wide_, narrow_;
  std::vector<Signature> signature_;               // of each set
  std::vector<PartPair> parts_;           // of each boundary, v4 before v6
};

}  // namespace

FieldSweep sweep(const std::vector<const ValueSet*>& sets, const FieldInfo& field, size_t most_classes) {
  FieldSweep out = Sweeper(sets, field, most_classes).sweep();
  const bool fits = out.members.size() < kLowWord >> out.narrow_bits;
  return fits || out.narrow_bits == 0 ? out : Sweeper(sets, field, kAllClasses).sweep();
}

}  // namespace meshsieve::classes
