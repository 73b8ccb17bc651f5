#include "prefix/prefix_trie.h"

#include <algorithm>
#include <cstring>

namespace meshsieve::prefix {
namespace {

uint64_t ones(int n) { return n <= 0 ? 0 : n >= 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1; }

uint32_t from_top(uint32_t address, int from, int n) { return address << from >> (32 - n); }
// `from` and `n` are multiples of 8, or from is 0: no run of bits lies across the two words.
uint32_t from_top(const U128& address, int from, int n) {
  const uint64_t word = from < 64 ? address.hi << from : address.lo << (from - 64);
  return static_cast<uint32_t>(word >> (64 - n));
}

uint32_t with_ones(uint32_t address, int bits) { return address | static_cast<uint32_t>(ones(32 - bits)); }
U128 with_ones(U128 address, int bits) { return {address.hi | ones(64 - bits), address.lo | ones(128 - bits)}; }

uint32_t next(uint32_t address) { return address + 1; }
U128 next(U128 address) { return address.next(); }

bool reaches(uint32_t start, uint32_t address) { return start <= address; }
bool reaches(const U128& start, const U128& address) {  // without a branch
  return (start.hi < address.hi) | ((start.hi == address.hi) & (start.lo <= address.lo));
}

}  // namespace

template <class Address>
Trie<Address>::Trie() : slots_(kRootSlots), heap_(2 * kRootSlots), bits_(1) {}

// The node in which a prefix of that many bits ends, or the slot whose bucket it is in or would be.
template <class Address>
typename Trie<Address>::Place Trie<Address>::place_of(Address address, int bits) const {
  Place place{0, 0, 0};
  for (;;) {
    const int end = place.depth + stride(place.node);
    place.slot = first_slot(place.node) + from_top(address, place.depth, stride(place.node));
    const uint32_t child = slots_[place.slot].child;
    if (bits <= end || child == 0 || (child & kBucket) != 0) return place;
    place = {child, 0, end};
  }
}

template <class Address>
uint32_t& Trie<Address>::heap_of(const Place& place, Address address, int bits) {
  const int own = bits - place.depth;
  const uint32_t b = own == 0 ? 0 : from_top(address, place.depth, stride(place.node)) >> (stride(place.node) - own);
  return heap_[first_heap(place.node) + (uint32_t{1} << own) + b];
}

template <class Address>
uint32_t Trie<Address>::find(Address address, int bits) const {
  const Place place = place_of(address, bits);
  if (bits <= place.depth + stride(place.node)) return const_cast<Trie*>(this)->heap_of(place, address, bits);
  const uint32_t child = slots_[place.slot].child;
  if (child == 0) return 0;
  for (const Item& item : contents_[head_of(child).of])
    if (item.address == address && item.bits == bits) return item.id;
  return 0;
}

template <class Address>
void Trie<Address>::insert(Address address, int bits, uint32_t id) {
  if (bits_.size() <= id) bits_.resize(std::max<size_t>(id + 1, bits_.size() * 2));
  bits_[id] = static_cast<uint8_t>(bits);
  Place place = place_of(address, bits);
  while (bits > place.depth + stride(place.node) && slots_[place.slot].child != 0 &&
         contents_[head_of(slots_[place.slot].child).of].size() == kMostInBucket) {
    burst(place);
    place = place_of(address, bits);
  }
  if (bits <= place.depth + stride(place.node)) {
    heap_of(place, address, bits) = id;
    return cover(place, address, bits, id);
  }
  Slot& slot = slots_[place.slot];
  uint32_t of;
  if (slot.child != 0) {
    of = head_of(slot.child).of;
  } else if (!free_contents_.empty()) {
    of = free_contents_.back();
    free_contents_.pop_back();
  } else {
    of = static_cast<uint32_t>(contents_.size());
    contents_.emplace_back();
  }
  std::vector<Item>& items = contents_[of];
  const Item item{address, bits, id};
  const auto before = [](const Item& a, const Item& b) {
    return a.address < b.address || (a.address == b.address && a.bits < b.bits);
  };
  items.insert(std::lower_bound(items.begin(), items.end(), item, before), item);
  flatten(slot, of);
}

template <class Address>
void Trie<Address>::erase(Address address, int bits) {
  const Place place = place_of(address, bits);
  if (bits <= place.depth + stride(place.node)) {
    uint32_t& own = heap_of(place, address, bits);
    const uint32_t id = own;
    own = 0;
    return uncover(place, address, bits, id);
  }
  Slot& slot = slots_[place.slot];
  const uint32_t of = head_of(slot.child).of;
  std::vector<Item>& items = contents_[of];
  std::erase_if(items, [&](const Item& item) { return item.address == address && item.bits == bits; });
  flatten(slot, of);
}

// Names `id` in the slots that the prefix holds and no longer one of the node does.
template <class Address>
void Trie<Address>::cover(const Place& place, Address address, int bits, uint32_t id) {
  const int wide = place.depth + stride(place.node) - bits;
  const uint32_t first = first_slot(place.node) + (from_top(address, place.depth, stride(place.node)) >> wide << wide);
  for (uint32_t s = first; s < first + (uint32_t{1} << wide); ++s)
    if (slots_[s].owner == 0 || bits_[slots_[s].owner] <= bits) slots_[s].owner = id;
}

template <class Address>
void Trie<Address>::uncover(const Place& place, Address address, int bits, uint32_t id) {
  uint32_t heir = 0;  // the next shorter prefix of the node
  for (int shorter = bits - 1; heir == 0 && shorter >= place.depth + (place.node != 0); --shorter)
    heir = heap_of(place, address, shorter);
  const int wide = place.depth + stride(place.node) - bits;
  const uint32_t first = first_slot(place.node) + (from_top(address, place.depth, stride(place.node)) >> wide << wide);
  for (uint32_t s = first; s < first + (uint32_t{1} << wide); ++s)
    if (slots_[s].owner == id) slots_[s].owner = heir;
}

template <class Address>
uint32_t Trie<Address>::new_node() {
  const auto node = static_cast<uint32_t>((slots_.size() - kRootSlots) / kNodeSlots) + 1;
  slots_.resize(slots_.size() + kNodeSlots);
  heap_.resize(heap_.size() + 2 * kNodeSlots);
  return node;
}

// The bucket at a place becomes a node.
template <class Address>
void Trie<Address>::burst(const Place& place) {
  const uint32_t child = slots_[place.slot].child;
  const Head head = head_of(child);
  const std::vector<Item> items = std::move(contents_[head.of]);
  contents_[head.of].clear();
  free_contents_.push_back(head.of);
  give_lines(child & ~kBucket, lines_for(head.n));
  const uint32_t node = new_node();
  slots_[place.slot].child = node;
  for (const Item& item : items) insert(item.address, item.bits, item.id);
}

// Writes the bucket anew from its prefixes: disjoint intervals, each with the id of its longest prefix, 0 for none.
template <class Address>
void Trie<Address>::flatten(Slot& slot, uint32_t of) {
  const std::vector<Item>& items = contents_[of];
  if (slot.child != 0) give_lines(slot.child & ~kBucket, lines_for(head_of(slot.child).n));
  if (items.empty()) {
    free_contents_.push_back(of);
    slot.child = 0;
    return;
  }
  Address starts[2 * kMostInBucket + 1];
  uint32_t ids[2 * kMostInBucket + 1];
  uint32_t n = 0;
  const auto put = [&](Address start, uint32_t id) {
    if (n > 0 && starts[n - 1] == start) --n;
    if (n > 0 && ids[n - 1] == id) return;
    starts[n] = start;
    ids[n++] = id;
  };
  const Item* open[kMostInBucket];  // nested prefixes, the longest last
  size_t n_open = 0;
  const auto leave = [&] {
    const Address last = with_ones(open[n_open - 1]->address, open[n_open - 1]->bits);
    --n_open;
    if (next(last) != Address{}) put(next(last), n_open == 0 ? 0 : open[n_open - 1]->id);
  };
  put(Address{}, 0);
  for (const Item& item : items) {
    while (n_open > 0 && with_ones(open[n_open - 1]->address, open[n_open - 1]->bits) < item.address) leave();
    put(item.address, item.id);
    open[n_open++] = &item;
  }
  while (n_open > 0) leave();
  const uint32_t first = take_lines(lines_for(n));
  uint8_t* memory = lines_[first].bytes;
  const Head head{n, of};
  std::memcpy(memory, &head, sizeof head);
  std::memcpy(memory + starts_at(), starts, n * sizeof(Address));
  std::memcpy(memory + starts_at() + n * sizeof(Address), ids, n * sizeof(uint32_t));
  slot.child = kBucket | first;
}

template <class Address>
uint32_t Trie<Address>::take_lines(uint32_t n) {
  std::vector<uint32_t>& free = free_lines_[n];
  if (!free.empty()) {
    const uint32_t first = free.back();
    free.pop_back();
    return first;
  }
  const auto first = static_cast<uint32_t>(lines_.size());
  lines_.resize(lines_.size() + n);
  return first;
}

template <class Address>
void Trie<Address>::give_lines(uint32_t first, uint32_t n) {
  free_lines_[n].push_back(first);
}

template <class Address>
uint32_t Trie<Address>::search(uint32_t child, Address address) const {
  const uint8_t* memory = lines_[child & ~kBucket].bytes;
  const uint32_t n = reinterpret_cast<const Head*>(memory)->n;
  const auto* starts = reinterpret_cast<const Address*>(memory + starts_at());
  // Halvings without a branch: `from` is the last start known not to lie beyond the address; starts[0] never does.
  uint32_t from = 0;
  for (uint32_t left = n; left > 1;) {
    const uint32_t half = left / 2;
    from += reaches(starts[from + half], address) ? half : 0;
    left -= half;
  }
  uint32_t id;
  std::memcpy(&id, reinterpret_cast<const uint8_t*>(starts + n) + size_t{from} * 4, 4);
  return id;
}

template <class Address>
uint32_t Trie<Address>::lookup(Address address) const {
  Slot slot = slots_[from_top(address, 0, kRootBits)];
  uint32_t best = slot.owner;
  for (int depth = kRootBits; slot.child != 0; depth += kNodeBits) {
    if ((slot.child & kBucket) != 0) {
      const uint32_t id = search(slot.child, address);
      return id != 0 ? id : best;
    }
    slot = slots_[first_slot(slot.child) + from_top(address, depth, kNodeBits)];
    best = slot.owner != 0 ? slot.owner : best;
  }
  return best;
}

// All take a step in turn, and what one needs next is fetched while the others step.
template <class Address>
void Trie<Address>::lookup(const Address* addresses, size_t n, uint32_t* ids) const {
  uint32_t child[kTogether];
  uint32_t walking[kTogether], n_walking = 0;
  for (uint32_t i = 0; i < n; ++i) __builtin_prefetch(&slots_[from_top(addresses[i], 0, kRootBits)]);
  const auto fetch = [this](uint32_t at, Address address, int depth) {
    if ((at & kBucket) != 0) {
      __builtin_prefetch(&lines_[at & ~kBucket]);
      __builtin_prefetch(reinterpret_cast<const uint8_t*>(&lines_[at & ~kBucket]) + 64);
    } else {
      __builtin_prefetch(&slots_[first_slot(at) + from_top(address, depth, kNodeBits)]);
    }
  };
  for (uint32_t i = 0; i < n; ++i) {
    const Slot slot = slots_[from_top(addresses[i], 0, kRootBits)];
    ids[i] = slot.owner;
    child[i] = slot.child;
    if (slot.child == 0) continue;
    fetch(slot.child, addresses[i], kRootBits);
    walking[n_walking++] = i;
  }
  for (int depth = kRootBits; n_walking != 0; depth += kNodeBits) {
    uint32_t still = 0;
    for (uint32_t j = 0; j < n_walking; ++j) {
      const uint32_t i = walking[j];
      if ((child[i] & kBucket) != 0) {
        const uint32_t id = search(child[i], addresses[i]);
        ids[i] = id != 0 ? id : ids[i];
        continue;
      }
      const Slot slot = slots_[first_slot(child[i]) + from_top(addresses[i], depth, kNodeBits)];
      ids[i] = slot.owner != 0 ? slot.owner : ids[i];
      child[i] = slot.child;
      if (slot.child == 0) continue;
      fetch(slot.child, addresses[i], depth + kNodeBits);
      walking[still++] = i;
    }
    n_walking = still;
  }
}

template <class Address>
void Trie<Address>::items(std::vector<Item>& out) const {
  for (const std::vector<Item>& items : contents_) out.insert(out.end(), items.begin(), items.end());
  struct Entered {
    uint32_t node;
    Address address;
    int depth;
  };
  std::vector<Entered> pending = {{0, Address{}, 0}};
  while (!pending.empty()) {
    const Entered at = pending.back();
    pending.pop_back();
    const auto with_bits = [&](uint32_t value, int bits) {  // `value` as the bits behind those that lead to the node
      const int end = at.depth + bits;
      if constexpr (sizeof(Address) == 4) {
        return bits == 0 ? at.address : at.address | value << (32 - end);
      } else {
        if (bits == 0) return at.address;
        return end <= 64 ? U128{at.address.hi | uint64_t{value} << (64 - end), at.address.lo}
                         : U128{at.address.hi, at.address.lo | uint64_t{value} << (128 - end)};
      }
    };
    for (int bits = at.node == 0 ? 0 : 1; bits <= stride(at.node); ++bits)
      for (uint32_t b = 0; b < uint32_t{1} << bits; ++b)
        if (const uint32_t id = heap_[first_heap(at.node) + (uint32_t{1} << bits) + b]; id != 0)
          out.push_back({with_bits(b, bits), at.depth + bits, id});
    for (uint32_t s = 0; s < uint32_t{1} << stride(at.node); ++s) {
      const uint32_t child = slots_[first_slot(at.node) + s].child;
      if (child != 0 && (child & kBucket) == 0)
        pending.push_back({child, with_bits(s, stride(at.node)), at.depth + stride(at.node)});
    }
  }
}

template <class Address>
size_t Trie<Address>::bytes() const {
  size_t bytes = slots_.capacity() * sizeof(Slot) + lines_.capacity() * sizeof(Line) + heap_.capacity() * 4 +
                 bits_.capacity() + contents_.capacity() * sizeof(std::vector<Item>);
  for (const std::vector<Item>& items : contents_) bytes += items.capacity() * sizeof(Item);
  return bytes;
}

template class Trie<uint32_t>;
template class Trie<U128>;

}  // namespace meshsieve::prefix
