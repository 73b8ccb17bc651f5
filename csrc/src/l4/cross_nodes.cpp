#include "l4/cross_nodes.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

#include "meshsieve/errors.h"

namespace meshsieve::cross {
namespace {

constexpr size_t kMostPlaces = 0xffff;      // places have 16 bits, 0 is none
constexpr size_t kMostCompared = 1 << 20;   // pairs of services of which it is found out whether one contains the other

// Of 16-bit numbers, padded with zeros.
Signature content_of(const std::vector<uint16_t>& numbers) {
  SequenceSignature content;
  for (size_t i = 0; i < numbers.size(); i += 4) {
    uint64_t word = 0;
    std::memcpy(&word, &numbers[i], std::min<size_t>(4, numbers.size() - i) * sizeof(uint16_t));
    content.add(word);
  }
  return content.finish();
}

// contained[x * n + y]: is set y inside set x?
std::vector<bool> containments(const ClassSets& sets) {
  const size_t n = sets.size();
  std::vector<bool> contained(n * n);
  for (uint32_t x = 0; x < n; ++x)
    for (uint32_t y = 0; y < n; ++y) {
      size_t w = 0;
      while (w < sets.words && (sets.of(y)[w] & ~sets.of(x)[w]) == 0) ++w;
      contained[x * n + y] = w == sets.words;
    }
  return contained;
}

}  // namespace

void Work::spend(uint64_t units) {
  if (units > left_) throw CompileError("building cross-product tables takes too long: too many different cells");
  left_ -= units;
}

// --- LocalMaps ------------------------------------------------------------------------------------------------------

LocalMaps::LocalMaps(const ClassSets& sets, bool in_blocks, Work& work)
    : sets_(sets),
      in_blocks_(in_blocks),
      block_(in_blocks ? kBlock : sets.n_classes),
      work_(work),
      members_(sets.size()),
      noted_(sets.size(), 0),
      part_(sets.n_classes),
      local_(sets.n_classes),
      is_touched_((sets.n_classes + block_ - 1) / block_),
      pattern_(block_),
      position_(sets.size()),
      patterns_(block_) {  // pattern 0: one local class
  by_pattern_.try_emplace(content_of(patterns_), 0);
  for (uint32_t set = 0; set < sets.size(); ++set) {
    size_t n = 0;
    for (size_t w = 0; w < sets.words; ++w) n += static_cast<size_t>(std::popcount(sets.of(set)[w]));
    complemented_.push_back(2 * n > sets.n_classes);
    for (uint32_t c = 0; c < sets.n_classes; ++c)
      if (sets.has(set, c) != complemented_[set]) members_[set].push_back(c);
  }
}

const LocalMaps::Map& LocalMaps::of(const std::vector<uint32_t>& sets) {
  ++call_;
  distinct_.clear();
  Signature content;
  for (const uint32_t set : sets) {
    if (set == 0 || noted_[set] == call_) continue;
    noted_[set] = call_;
    distinct_.push_back(set);
    content.toggle(signature_of(set));
  }
  const auto [id, is_new] = by_sets_.try_emplace(content, 0);
  if (is_new) id = make();
  const Map& map = maps_[id];
  for (size_t i = 0; i < map.n_sets; ++i) position_[map_sets_[map.sets + i]] = static_cast<uint32_t>(i);
  all_.assign(map.words, ~uint64_t{0});
  if (map.n_local % 64 != 0) all_.back() >>= 64 - map.n_local % 64;
  return map;
}

// Two parts where the set (or its complement) contains some classes of a part and not others; which is which does not
// matter.
void LocalMaps::split(uint32_t set, uint32_t& n_parts) {
  halved_.clear();
  for (const uint32_t c : members_[set]) {
    const uint32_t whole = part_[c];
    if (half_[whole] == 0) {
      half_[whole] = n_parts++;
      half_.push_back(0);
      halved_.push_back(whole);
    }
    part_[c] = half_[whole];
    if (is_touched_[c / block_]) continue;
    is_touched_[c / block_] = 1;
    touched_.push_back(c / block_);
  }
  for (const uint32_t whole : halved_) half_[whole] = 0;
}

uint32_t LocalMaps::make() {
  half_.assign(1, 0);
  touched_.clear();
  uint32_t n_parts = 1;
  for (const uint32_t set : distinct_) {
    work_.spend(2 * members_[set].size() + 10);
    split(set, n_parts);
  }
  work_.spend(100 + 2 * is_touched_.size() + 3 * block_ * touched_.size());
  whole_block_.assign(n_parts, 0);
  const auto n_blocks = static_cast<uint32_t>(is_touched_.size());
  uint32_t n_local = 0;
  if (touched_.size() < n_blocks) whole_block_[0] = ++n_local;
  Map map{static_cast<uint32_t>(entries_.size()), 0, 0, map_sets_.size(), distinct_.size(), bits_.size()};
  row_.assign(n_blocks, 0);
  for (const uint32_t b : touched_) row_[b] = entry_of(b * block_, std::min((b + 1) * block_, sets_.n_classes), n_local);
  if (in_blocks_) entries_.insert(entries_.end(), row_.begin(), row_.end());
  else map.at = (row_.front() >> kLocalBits) * block_;
  map.n_local = n_local;
  map.words = (n_local + 63) / 64;
  map_sets_.insert(map_sets_.end(), distinct_.begin(), distinct_.end());
  for (const uint32_t set : distinct_) add_bits(set, map);
  for (const uint32_t b : touched_) {
    is_touched_[b] = 0;
    std::fill(part_.begin() + b * block_, part_.begin() + std::min((b + 1) * block_, sets_.n_classes), 0);
  }
  maps_.push_back(map);
  return static_cast<uint32_t>(maps_.size() - 1);
}

// The entry of the block of classes [begin, end), whose local classes are numbered on from n_local.
uint32_t LocalMaps::entry_of(uint32_t begin, uint32_t end, uint32_t& n_local) {
  uint32_t first = n_local, pattern = 0;
  halved_.clear();  // half_ is all zero again: here it says which local class of this block a part is, counted from 1
  for (uint32_t c = begin; c < end; ++c) {
    uint32_t& number = half_[part_[c]];
    if (number == 0) {
      halved_.push_back(part_[c]);
      number = static_cast<uint32_t>(halved_.size());
    }
    pattern_[c - begin] = static_cast<uint16_t>(number - 1);
    local_[c] = first + number - 1;
  }
  for (const uint32_t p : halved_) half_[p] = 0;
  if (halved_.size() == 1) {
    uint32_t& whole = whole_block_[halved_.front()];
    if (whole == 0) whole = ++n_local;
    first = whole - 1;
    std::fill(&local_[begin], &local_[begin] + (end - begin), first);
  } else {
    n_local += static_cast<uint32_t>(halved_.size());
    std::fill(pattern_.begin() + (end - begin), pattern_.end(), uint16_t{0});
    const auto n_patterns = static_cast<uint32_t>(patterns_.size() / block_);
    const auto [known, is_new] = by_pattern_.try_emplace(content_of(pattern_), n_patterns);
    if (is_new) patterns_.insert(patterns_.end(), pattern_.begin(), pattern_.end());
    pattern = known;
  }
  if (n_local > kMostLocal || pattern >= kMostPatterns)
    throw CompileError("the maps of a cross-product table have " + std::to_string(n_local) + " local classes and " +
                       std::to_string(pattern) + " patterns");
  return pattern << kLocalBits | first;
}

void LocalMaps::add_bits(uint32_t set, const Map& map) {
  const size_t begin = bits_.size();
  bits_.resize(begin + map.words, 0);
  for (const uint32_t c : members_[set]) bits_[begin + local_[c] / 64] |= uint64_t{1} << local_[c] % 64;
  if (!complemented_[set]) return;
  for (size_t w = begin; w < bits_.size(); ++w) bits_[w] = ~bits_[w];
  if (map.n_local % 64 != 0) bits_.back() &= ~uint64_t{0} >> (64 - map.n_local % 64);
}

// --- NodePool -------------------------------------------------------------------------------------------------------

NodePool::NodePool(const Problem& problem, size_t most_bytes, Work& work)
    : problem_(problem),
      most_bytes_(most_bytes),
      work_(work),
      p_maps_(problem.p, problem.p.n_classes > kMostInOneBlock, work),
      q_maps_(problem.q, false, work),
      words_((problem.service.size() + 63) / 64),
      inside_(problem.service.size() * words_),
      covered_(words_) {
  const size_t n = problem.service.size(), n_p = problem.p.size(), n_q = problem.q.size();
  for (const std::vector<Product>& service : problem.service)
    whole_.push_back(std::find(service.begin(), service.end(), Product{0, 0}) != service.end());
  // Where there are too many to compare them all, a service is only known to be inside itself.
  const bool compare = std::max({n * n, n_p * n_p, n_q * n_q}) <= kMostCompared;
  std::vector<bool> p_inside, q_inside;
  if (compare) {
    p_inside = containments(problem.p);
    q_inside = containments(problem.q);
  }
  const auto inside = [&](const Product& inner, const std::vector<Product>& outer) {
    return std::any_of(outer.begin(), outer.end(), [&](const Product& product) {
      return p_inside[product.p * n_p + inner.p] && q_inside[product.q * n_q + inner.q];
    });
  };
  for (size_t outer = 0; outer < n; ++outer)
    for (size_t inner = compare ? 0 : outer; inner < (compare ? n : outer + 1); ++inner) {
      const std::vector<Product>& parts = problem.service[inner];
      if (outer == inner || std::all_of(parts.begin(), parts.end(), [&](const Product& part) {
            return inside(part, problem.service[outer]);
          }))
        inside_[outer * words_ + inner / 64] |= uint64_t{1} << inner % 64;
    }
  node_of({});  // node 0: no rule anywhere
}

uint32_t NodePool::node_of(const std::vector<uint32_t>& rules) {
  work_.spend(16 * rules.size() + 200);
  services_.clear();
  kept_.clear();
  std::fill(covered_.begin(), covered_.end(), 0);
  for (const uint32_t r : rules) {
    const uint32_t service = problem_.service_of_rule[r];
    if (covered_[service / 64] >> service % 64 & 1) continue;
    const uint64_t* inside = &inside_[service * words_];
    for (size_t w = 0; w < words_; ++w) covered_[w] |= inside[w];
    services_.push_back(service);
    kept_.push_back(r);
    if (whole_[service]) break;
  }
  const uint32_t number = shape_of(services_);
  const Shape& shape = shapes_[number];
  SequenceSignature content;
  content.add(number);
  for (size_t i = 0; i < shape.n_winning; ++i) content.add(kept_[winning_[shape.winning + i]]);
  const auto [id, is_new] = node_ids_.try_emplace(content.finish(), static_cast<uint32_t>(nodes_.size()));
  if (!is_new) return id;
  work_.spend(50 + 2 * shape.n_places);
  nodes_.push_back({shape.p_map, shape.q_map, static_cast<uint32_t>(winners_.size()), shape.width});
  winners_.resize(winners_.size() + shape.n_places, kNoRule);
  uint32_t* winner = &winners_[nodes_.back().base];
  const uint16_t* place = &places_[shape.places];
  const uint16_t* winning = winning_.data() + shape.winning;
  for (size_t i = 0; i < shape.n_places; ++i)
    if (place[i] != 0) winner[i] = kept_[winning[place[i] - 1]];
  if (bytes() > most_bytes_)
    throw CompileError("the nodes, maps and winners of cross-product tables take more than " +
                       std::to_string(most_bytes_) + " bytes");
  return id;
}

uint32_t NodePool::shape_of(const std::vector<uint32_t>& services) {
  SequenceSignature key;
  for (const uint32_t service : services) key.add(service);
  const auto [id, is_new] = shape_ids_.try_emplace(key.finish(), static_cast<uint32_t>(shapes_.size()));
  if (!is_new) return id;
  if (services.size() >= kMostPlaces)
    throw CompileError("one cell of a cross-product table has " + std::to_string(services.size()) + " services");
  p_sets_.clear();
  q_sets_.clear();
  for (const uint32_t service : services)
    for (const Product& product : problem_.service[service]) {
      p_sets_.push_back(product.p);
      q_sets_.push_back(product.q);
    }
  const LocalMaps::Map& p = p_maps_.of(p_sets_);
  const LocalMaps::Map& q = q_maps_.of(q_sets_);
  const size_t n_places = size_t{p.n_local} * q.n_local;
  if (n_places * sizeof(uint16_t) > most_bytes_)
    throw CompileError("one cell of a cross-product table has " + std::to_string(n_places) + " pairs of local classes");
  work_.spend(200 + 3 * n_places);
  Shape shape{p.at, q.at, q.n_local, places_.size(), n_places, winning_.size(), 0};
  places_.resize(places_.size() + n_places);
  place(services, p, q, &places_[shape.places]);
  keep_winning(services, shape);
  shapes_.push_back(shape);
  return id;
}

// Service by service: the pairs that it has and no service before it had. `left`: a bitmap of local P classes for each
// local Q class.
void NodePool::place(const std::vector<uint32_t>& services, const LocalMaps::Map& p, const LocalMaps::Map& q,
                     uint16_t* places) {
  left_.clear();
  for (uint32_t b = 0; b < q.n_local; ++b)
    left_.insert(left_.end(), p_maps_.within(p, 0), p_maps_.within(p, 0) + p.words);
  size_t open = size_t{p.n_local} * q.n_local;
  for (size_t k = 0; k < services.size() && open != 0; ++k) {
    for (const Product& product : problem_.service[services[k]]) {
      work_.spend(10 + q.n_local * p.words);
      const uint64_t* wins = p_maps_.within(p, product.p);
      const uint64_t* columns = q_maps_.within(q, product.q);
      for (uint32_t b = 0; b < q.n_local; ++b) {
        if ((columns[b / 64] >> b % 64 & 1) == 0) continue;
        for (size_t w = 0; w < p.words; ++w) {
          uint64_t won = left_[b * p.words + w] & wins[w];
          left_[b * p.words + w] &= ~won;
          for (; won != 0; won &= won - 1, --open)
            places[(w * 64 + static_cast<size_t>(std::countr_zero(won))) * q.n_local + b] = static_cast<uint16_t>(k + 1);
        }
      }
    }
  }
}

// Numbers the services that win somewhere.
void NodePool::keep_winning(const std::vector<uint32_t>& services, Shape& shape) {
  rank_.assign(services.size() + 1, 0);
  for (size_t i = 0; i < shape.n_places; ++i) rank_[places_[shape.places + i]] = 1;
  rank_[0] = 0;
  for (size_t k = 0; k < services.size(); ++k) {
    if (rank_[k + 1] == 0) continue;
    winning_.push_back(static_cast<uint16_t>(k));
    rank_[k + 1] = static_cast<uint16_t>(++shape.n_winning);
  }
  if (shape.n_winning == services.size()) return;  // ranks are places
  for (size_t i = 0; i < shape.n_places; ++i) places_[shape.places + i] = rank_[places_[shape.places + i]];
}

size_t NodePool::bytes() const {
  return p_maps_.entries().size() * sizeof(uint32_t) + p_maps_.patterns().size() +
         q_maps_.patterns().size() * sizeof(uint16_t) + winners_.size() * (wide_winners() ? 4 : 2) +
         nodes_.size() * sizeof(Node);
}

}  // namespace meshsieve::cross
