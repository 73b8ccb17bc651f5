#include "l4/forest_window.h"

#include <bit>
#include <cmath>

namespace meshsieve::forest {
namespace {

constexpr double kReplicationWeight = 0.9;  // halvings of the expected leaf that a doubling of memory must bring
constexpr double kFloorLength = 2;          // shorter lists save nothing: they are one block with lanes to spare
constexpr double kSharedShare = 0.25;       // of a list's memory, where it is like the one before and may be shared
constexpr int kMaxWindowBits = 16;
constexpr size_t kMinSample = 128;
constexpr size_t kAhead = 16;  // entries whose boxes are on their way from memory
constexpr size_t kSampleShare = 16;  // one entry in so many

}  // namespace

Window WindowChooser::best(std::span<const uint32_t> entries, std::span<const Region> region) {
  draw_sample(entries);
  find_hulls(entries, region);
  const int most_bits = std::min(kMaxWindowBits, static_cast<int>(std::bit_width(entries.size())) + 1);
  const auto n = static_cast<double>(entries.size());
  Window best;
  for (size_t d = 0; d < boxes_.dims(); ++d) {
    Window window;
    window.dim = d;
    if (!focus_on(region[d], window)) continue;
    const bool has_lists = std::any_of(sample_.begin(), sample_.end(), [&](uint32_t entry) {
      return boxes_.list[entry * boxes_.dims() + d] >= 0;
    });
    const int most = std::min(window.top, most_bits);
    Window best_here;
    for (window.bits = most; window.bits > 0; --window.bits) {
      if (window.bits == most || has_lists) count(window);
      else halve(window.values());
      window.score = score(window.values(), n);
      if (window.score > 0 && window.score >= best_here.score) best_here = window;  // the shorter of equals
    }
    if (best_here.score > best.score) best = best_here;
  }
  return best;
}

void WindowChooser::draw_sample(std::span<const uint32_t> entries) {
  const size_t n = entries.size(), size = std::min(n, std::max(kMinSample, n / kSampleShare));
  sample_.resize(size);
  for (size_t s = 0; s < size; ++s) sample_[s] = entries[s * n / size];
}

void WindowChooser::find_hulls(std::span<const uint32_t> entries, std::span<const Region> region) {
  std::fill(hulls_.begin(), hulls_.end(), Range{~uint32_t{0}, 0});
  for (size_t i = 0; i < entries.size(); ++i) {
    if (i + kAhead < entries.size()) __builtin_prefetch(&boxes_.hull[entries[i + kAhead] * boxes_.dims()]);
    const uint32_t entry = entries[i];
    const Range* const box = &boxes_.hull[entry * boxes_.dims()];
    for (size_t d = 0; d < boxes_.dims(); ++d) {
      if (covers(boxes_, entry, d, region[d].lo, region[d].hi)) continue;
      hulls_[d].lo = std::min(hulls_[d].lo, box[d].lo);
      hulls_[d].hi = std::max(hulls_[d].hi, box[d].hi);
    }
  }
}

// The smallest aligned block that holds all entries that do not span the region. False where none is left to split.
bool WindowChooser::focus_on(const Region& region, Window& window) const {
  const Range& hull = hulls_[window.dim];
  const uint32_t lo = std::max(hull.lo, region.focus), hi = std::min(hull.hi, last_of(region.focus, region.bits));
  if (lo > hi) return false;
  window.top = std::min(region.bits, static_cast<int>(std::bit_width(lo ^ hi)));
  window.focus = window.top == 32 ? 0 : lo >> window.top << window.top;
  return window.top > 0;
}

void WindowChooser::count(const Window& window) {
  starts_.assign(window.values(), 0);
  ends_.assign(window.values(), 0);
  for (const uint32_t entry : sample_)
    reached_values(boxes_, entry, window, [this](uint32_t first, uint32_t last) {
      ++starts_[first];
      ++ends_[last];
    });
}

// To a window of `values` values that is one bit shorter.
void WindowChooser::halve(size_t values) {
  for (std::vector<uint32_t>* counts : {&starts_, &ends_})
    for (size_t v = 0; v < values; ++v) (*counts)[v] = (*counts)[2 * v] + (*counts)[2 * v + 1];
}

double WindowChooser::score(size_t values, double entries) const {
  const double scale = entries / static_cast<double>(sample_.size());
  uint64_t copies = 0, pairs = 0;
  double lanes = 0;
  uint32_t reaching = 0, ended = 0;
  for (size_t v = 0; v < values; ++v) {
    const bool same_number = starts_[v] == ended;  // as reach the value before: taken for the same entries
    reaching += starts_[v] - ended;
    ended = ends_[v];
    if (reaching == 0) continue;
    copies += reaching;
    pairs += uint64_t{reaching} * (reaching - 1);
    const double length = std::max(static_cast<double>(reaching) * scale, kFloorLength);
    lanes += same_number ? kSharedShare * length : length;
  }
  if (copies == 0) return 0;
  const double expected =
      std::max(kFloorLength, 1 + scale * static_cast<double>(pairs) / static_cast<double>(copies));
  const double memory =
      (lanes * entry_bytes_ + static_cast<double>(values * sizeof(Node))) / (entries * entry_bytes_);
  return std::log2(entries / expected) - kReplicationWeight * std::log2(std::max(1.0, memory));
}

}  // namespace meshsieve::forest
