// The linear scan: every rule in turn for every packet, as the page on semantics says it, and nothing of the core.
//
// What    The truth that engines are compared with. It includes no header of the core and takes nothing from its
//         memory: tests/reference/linear_scan.py reads the rules as their author wrote them and says of each packet and
//         field whether it is there, cannot be there, or was not seen.
// Why     A reference that shares sets, columns or key building with the engines errs with them.
// Cost    Packets are tested in blocks, so that a compiler turns "is lo <= v <= hi" into vector instructions; those that
//         are decided leave the block. About 0.3 us a packet for 1,000 rules of five fields.
// Truth   0 no, 1 maybe, 2 yes; AND is the smaller, OR the larger.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace {

using Wide = unsigned __int128;
constexpr int kBlock = 1024;
constexpr uint8_t kNo = 0, kMaybe = 1, kYes = 2;

struct Words {
  uint64_t high, low;
  Wide value() const { return static_cast<Wide>(high) << 64 | low; }
};

// One field of all packets. seen[i]: kYes where packet i has the field, else what a rule is that constrains it.
struct Field {
  const uint64_t* words;  // high and low word a packet
  const uint8_t* seen;
  uint8_t is_wide;        // values beyond 32 bits occur
};

}  // namespace

extern "C" {

// Rule r holds if all of its tests hold and, where it has further clauses, one of these. A clause is a span of `tests`:
// clauses first_clause[r] (what all packets must pass) to first_clause[r + 1].
struct LinearRules {
  int32_t rules;
  const uint32_t* first_clause;
  const uint32_t* first_test;  // one a clause, and the end
  const int32_t* tests;        // pairs: field, set
  const uint64_t* first_span;  // one a set, and the end
  const Words* spans;          // pairs: low end, high end
  const uint8_t* certain;
  const int32_t* skip_to;      // -1: decides
};

}  // extern "C"

namespace {

class Block {
 public:
  Block(const LinearRules& list, const Field* fields, int field_count, size_t first, int n)
      : list_(list), n_(n), columns_(field_count) {
    for (int f = 0; f < field_count; ++f) {
      Column& column = columns_[f];
      column.is_wide = fields[f].is_wide != 0;
      column.seen.assign(fields[f].seen + first, fields[f].seen + first + n);
      for (int i = 0; i < n; ++i) {
        const uint64_t* word = fields[f].words + 2 * (first + i);
        if (column.is_wide) column.wide.push_back(Words{word[0], word[1]}.value());
        else column.narrow.push_back(static_cast<uint32_t>(word[1]));
      }
    }
    for (int i = 0; i < n; ++i) row_.push_back(first + i);
    next_.assign(n, 0);
  }

  void walk(int32_t* out) {
    std::vector<uint8_t> holds(kBlock), part(kBlock), any(kBlock);
    for (int32_t rule = 0; rule < list_.rules && n_ > 0; ++rule) {
      for (int i = 0; i < n_; ++i) holds[i] = next_[i] <= rule ? kYes : kNo;
      const uint32_t begin = list_.first_clause[rule], end = list_.first_clause[rule + 1];
      if (!narrow_by(begin, holds.data())) continue;
      if (end - begin > 1) {
        std::fill(any.begin(), any.begin() + n_, kNo);
        for (uint32_t clause = begin + 1; clause < end; ++clause) {
          std::copy(holds.begin(), holds.begin() + n_, part.begin());
          narrow_by(clause, part.data());
          for (int i = 0; i < n_; ++i) any[i] = std::max(any[i], part[i]);
        }
        holds.swap(any);
      }
      decide(rule, holds.data(), out);
    }
  }

 private:
  struct Column {
    bool is_wide = false;
    std::vector<uint32_t> narrow;
    std::vector<Wide> wide;
    std::vector<uint8_t> seen;
  };

  // holds = holds AND clause; false if it is "no" for every packet then.
  bool narrow_by(uint32_t clause, uint8_t* holds) const {
    for (uint32_t t = list_.first_test[clause]; t < list_.first_test[clause + 1]; ++t) {
      const Column& column = columns_[list_.tests[2 * t]];
      const uint64_t set = list_.tests[2 * t + 1];
      const Words* span = list_.spans + 2 * list_.first_span[set];
      const uint64_t spans = list_.first_span[set + 1] - list_.first_span[set];
      if (column.is_wide) test(column.wide.data(), column.seen.data(), span, spans, holds);
      else test(column.narrow.data(), column.seen.data(), span, spans, holds);
      uint8_t left = kNo;
      for (int i = 0; i < n_; ++i) left |= holds[i];
      if (left == kNo) return false;
    }
    return true;
  }

  template <class T>
  void test(const T* values, const uint8_t* seen, const Words* span, uint64_t spans, uint8_t* holds) const {
    if (spans > 6) {  // sorted and apart
      for (int i = 0; i < n_; ++i) {
        if (holds[i] == kNo) continue;
        uint64_t low = 0, high = spans;  // spans before `low` begin at or below the value
        while (low < high) {
          const uint64_t middle = (low + high) / 2;
          if (span[2 * middle].value() <= values[i]) low = middle + 1;
          else high = middle;
        }
        const bool inside = low > 0 && values[i] <= span[2 * low - 1].value();
        holds[i] = std::min<uint8_t>(holds[i], seen[i] != kYes ? seen[i] : inside ? kYes : kNo);
      }
      return;
    }
    uint8_t inside[kBlock] = {};
    constexpr Wide kLargest = static_cast<Wide>(static_cast<T>(~T{0}));
    for (uint64_t s = 0; s < spans; ++s) {
      if (span[2 * s].value() > kLargest) continue;  // an IPv6 span, and no value of this block goes beyond 32 bits
      const T low = static_cast<T>(span[2 * s].value());
      const T length = static_cast<T>(std::min(span[2 * s + 1].value(), kLargest)) - low;
      for (int i = 0; i < n_; ++i) inside[i] |= static_cast<T>(values[i] - low) <= length ? kYes : kNo;
    }
    for (int i = 0; i < n_; ++i) {
      const uint8_t truth = seen[i] == kYes ? inside[i] : seen[i];
      holds[i] = holds[i] < truth ? holds[i] : truth;
    }
  }

  void decide(int32_t rule, const uint8_t* holds, int32_t* out) {
    uint8_t reached = kNo;
    for (int i = 0; i < n_; ++i) reached |= holds[i];
    if (reached == kNo) return;
    int kept = 0;
    for (int i = 0; i < n_; ++i) {
      const bool sure = holds[i] == kYes && list_.certain[rule] != 0;
      if (holds[i] != kNo && !(sure && list_.skip_to[rule] >= 0)) {
        out[row_[i]] = sure ? rule : -rule - 2;
        continue;
      }
      if (sure) next_[i] = list_.skip_to[rule];
      keep(i, kept++);
    }
    n_ = kept;
  }

  void keep(int from, int to) {
    if (from == to) return;
    row_[to] = row_[from];
    next_[to] = next_[from];
    for (Column& column : columns_) {
      column.seen[to] = column.seen[from];
      if (column.is_wide) column.wide[to] = column.wide[from];
      else column.narrow[to] = column.narrow[from];
    }
  }

  const LinearRules& list_;
  int n_;
  std::vector<Column> columns_;
  std::vector<size_t> row_;   // which packet each place of the block holds
  std::vector<int32_t> next_;  // the rule from which its walk goes on
};

}  // namespace

// out[i]: r, rule r decides; -1, none does; -(r + 2), the walk ends undecided at rule r.
extern "C" void linear_scan(const LinearRules* list, const Field* fields, int32_t field_count, size_t packets,
                            int32_t* out) {
  std::fill(out, out + packets, -1);
  for (size_t first = 0; first < packets; first += kBlock)
    Block(*list, fields, field_count, first, static_cast<int>(std::min<size_t>(kBlock, packets - first))).walk(out);
}
