#include "meshsieve/prefix_table.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "l4/classes_table.h"
#include "l4/signature.h"
#include "prefix/changing_prefixes.h"
#include "saved/archive.h"
#include "simd/backends.h"

namespace meshsieve {
namespace {

using classes::Boundary;

// Ones where the addresses of a prefix differ.
U128 host_mask(const PrefixTable::Prefix& prefix) {
  const int host_bits = (prefix.is_v6 ? 128 : 32) - prefix.bits;
  const auto ones = [](int n) { return n <= 0 ? 0 : n >= 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1; };
  return {ones(host_bits - 64), ones(host_bits)};
}

U128 host_bits_of(const PrefixTable::Prefix& prefix) {
  const U128 mask = host_mask(prefix);
  return {prefix.address.hi & mask.hi, prefix.address.lo & mask.lo};
}

// The last address of a prefix, within its family.
U128 last_of(const PrefixTable::Prefix& prefix) {
  const U128 mask = host_mask(prefix);
  return {prefix.address.hi | mask.hi, prefix.address.lo | mask.lo};
}

// Flattens nested prefixes, given in order, into boundaries: inside a prefix, what is in no longer one has its class.
class Flattener {
 public:
  explicit Flattener(U128 largest) : largest_(largest) { put({0, 0}, classes::kNoSet); }

  void add(const PrefixTable::Prefix& prefix, uint32_t id) {
    leave_before(prefix.address);
    open_.push_back({last_of(prefix), id});
    put(prefix.address, id);
  }
  std::vector<Boundary> finish() {
    while (!open_.empty()) leave();
    return std::move(boundaries_);
  }

 private:
  struct Open {
    U128 last;
    uint32_t id;
  };

  void leave_before(U128 address) {
    while (!open_.empty() && open_.back().last < address) leave();
  }
  void leave() {
    const U128 last = open_.back().last;
    open_.pop_back();
    if (last < largest_) put(last.next(), open_.empty() ? classes::kNoSet : open_.back().id);
  }
  void put(U128 start, uint32_t id) {
    if (!boundaries_.empty() && boundaries_.back().start == start) boundaries_.pop_back();
    if (boundaries_.empty() || boundaries_.back().id != id) boundaries_.push_back({start, id});
  }

  U128 largest_;
  std::vector<Open> open_;
  std::vector<Boundary> boundaries_;
};

using Eight [[gnu::vector_size(16)]] = int16_t;

// How many of the node's keys are smaller.
template <class Id>
uint32_t keys_below(const classes::Node32<Id>& node, int16_t biased) {
  Eight keys, n{};
  for (int q = 0; q < 32; q += 8) {
    std::memcpy(&keys, node.key + q, sizeof keys);
    n -= biased > keys;  // -1 where it holds
  }
  uint64_t lanes[2];  // four counts each
  std::memcpy(lanes, &n, sizeof n);
  return static_cast<uint32_t>((lanes[0] + lanes[1]) * 0x0001'0001'0001'0001 >> 48);
}

// One value, without the set-up that the kernels for many need.
template <class Id>
uint32_t class_in(const classes::Trees32<Id>& trees, const classes::Search32View& map, uint32_t value) {
  const uint32_t block = map.blocks[value >> (32 - classes::kBlockBits)];
  uint32_t id = trees.slots[(block >> 5) + (value << classes::kBlockBits >> (block & 31))];
  const auto biased = static_cast<int16_t>(value ^ 0x8000u);
  for (uint32_t level = 0; level < map.levels; ++level) {
    const classes::Node32<Id>& node = trees.nodes[id];
    id = node.child[keys_below(node, biased)];
  }
  return id;
}

uint32_t class_of(const classes::Search32View& map, uint32_t value) {
  return map.narrow.slots != nullptr ? class_in(map.narrow, map, value) : class_in(map.wide, map, value);
}

uint32_t child_of(const classes::Node64& node, uint64_t word) {
  const auto biased = static_cast<int64_t>(word ^ (uint64_t{1} << 63));
  uint32_t below = 0;
  for (int k = 0; k < 7; ++k) below += biased > node.key[k];
  return node.child[below];
}

// Likewise, for IPv6.
uint32_t class_of(const classes::Search128View& map, U128 value) {
  uint32_t entry = map.entry_of(value.hi);
  for (uint32_t left = map.high_levels; left != 0 && (entry & (classes::kTerminal | classes::kLowWord)) == 0; --left)
    entry = child_of(map.nodes[entry], value.hi);
  entry &= ~classes::kLowWord;
  for (uint32_t left = map.low_levels; left != 0 && (entry & classes::kTerminal) == 0; --left)
    entry = child_of(map.nodes[entry], value.lo);
  return entry & ~classes::kTerminal;
}

}  // namespace

struct PrefixTable::Snapshot {
  classes::Map32 v4;
  classes::Map128 v6;
  TableArray<int64_t> value;  // by class; class 0 is no prefix
  std::shared_ptr<const void> image;  // what the tables are views of, where they were loaded

  template <class Archive>
  void visit(Archive& a) {
    a("v4", v4)("v6", v6)("value", value);
  }
  void check() const {
    classes::LargestIds ids;
    v4.check(ids);
    v6.check(ids);
    saved::require(ids.whole < value.size(), "a prefix without value");
  }
};

// The list of prefixes as it lies in a file.
struct PrefixTable::Packed {
  TableArray<uint32_t> v4_address;
  TableArray<U128> v6_address;
  TableArray<uint8_t> bits;   // of both, IPv4 first
  TableArray<int64_t> value;  // likewise
  std::shared_ptr<const void> image;

  template <class Archive>
  void visit(Archive& a) {
    a("v4_address", v4_address)("v6_address", v6_address)("bits", bits)("prefix_value", value);
  }
  size_t size() const { return bits.size(); }
  Prefix operator[](size_t i) const {
    if (i < v4_address.size()) return {false, {0, v4_address[i]}, bits[i]};
    return {true, v6_address[i - v4_address.size()], bits[i]};
  }
  void check() const {
    saved::require(bits.size() == v4_address.size() + v6_address.size() && value.size() == bits.size(),
                   "prefixes of another number");
    for (size_t i = 0; i < size(); ++i) {
      const Prefix prefix = (*this)[i];
      saved::require(prefix.bits <= (prefix.is_v6 ? 128 : 32), "a prefix that is too long");
      saved::require(host_bits_of(prefix) == U128{}, "a prefix with host bits");
      saved::require(i == 0 || (*this)[i - 1] < prefix, "prefixes out of order");
    }
  }
};

PrefixTable::PrefixTable(const std::string& backend) : backend_(&simd::backend_named(backend)) {}
PrefixTable::~PrefixTable() = default;

bool PrefixTable::apply(std::span<const Change> changes) {
  const std::lock_guard lock(mutex_);
  if (changing_ == nullptr && snapshot_ != nullptr) {  // looked up since it was made
    changing_ = std::make_unique<prefix::ChangingPrefixes>(all());
    serving_.store(changing_.get(), std::memory_order_release);
    prefixes_.clear();
    snapshot_ = nullptr;
  }
  if (changing_ != nullptr) return changing_->apply(changes);
  unpack();
  for (const Change& change : changes)
    if (!change.value && prefixes_.count(change.prefix) == 0) return false;
  for (const Change& change : changes) {
    if (change.value) {
      prefixes_[change.prefix] = *change.value;
    } else {
      prefixes_.erase(change.prefix);
    }
  }
  return true;
}

std::optional<int64_t> PrefixTable::exact(const Prefix& prefix) const {
  const std::lock_guard lock(mutex_);
  if (changing_ != nullptr) return changing_->exact(prefix);
  unpack();
  const auto found = prefixes_.find(prefix);
  return found == prefixes_.end() ? std::nullopt : std::optional(found->second);
}

std::vector<std::pair<PrefixTable::Prefix, int64_t>> PrefixTable::items() const {
  const std::lock_guard lock(mutex_);
  return all();
}

std::vector<std::pair<PrefixTable::Prefix, int64_t>> PrefixTable::all() const {
  if (changing_ != nullptr) return changing_->items();
  unpack();
  return {prefixes_.begin(), prefixes_.end()};
}

size_t PrefixTable::size() const {
  const std::lock_guard lock(mutex_);
  if (changing_ != nullptr) return changing_->size();
  return packed_ != nullptr ? packed_->size() : prefixes_.size();
}

size_t PrefixTable::bytes() const {
  {
    const std::lock_guard lock(mutex_);
    if (changing_ != nullptr) return changing_->bytes();
  }
  const Snapshot& tables = snapshot(held_by_thread());
  return tables.v4.bytes() + tables.v6.bytes() + tables.value.bytes();
}

// Who looks up keeps the snapshot used last, so that a look-up costs one atomic load instead of four atomic
// read-modify-writes on a counter that all threads share. Versions are unique in the process, so the version alone tells
// of which table and state a snapshot is. An idle thread thus keeps its last snapshot alive.
const PrefixTable::Snapshot& PrefixTable::snapshot(Held& held) const {
  const uint64_t now = version_.load(std::memory_order_acquire);
  if (now != 0 && now == held.version) [[likely]] return *held.tables;
  const std::lock_guard lock(mutex_);
  if (snapshot_ == nullptr) publish(build());
  held.tables = snapshot_;
  held.version = version_.load(std::memory_order_relaxed);
  return *held.tables;
}

PrefixTable::Held& PrefixTable::held_by_thread() {
  thread_local Held* held = nullptr;  // a plain pointer, which is read without asking whether it was made
  if (held == nullptr) {
    thread_local Held own;
    held = &own;
  }
  return *held;
}

void PrefixTable::publish(std::shared_ptr<const Snapshot> snapshot) const {
  // Each extension module has its own copy of this counter; they start far apart, by their addresses.
  static std::atomic<uint64_t> last_version = mixed(reinterpret_cast<uintptr_t>(&last_version));
  snapshot_ = std::move(snapshot);
  version_.store(++last_version, std::memory_order_release);
}

void PrefixTable::unpack() const {
  if (packed_ == nullptr) return;
  for (size_t i = 0; i < packed_->size(); ++i) prefixes_.emplace_hint(prefixes_.end(), (*packed_)[i], packed_->value[i]);
  packed_ = nullptr;
}

void PrefixTable::save(saved::Writer& writer) const {
  const std::lock_guard lock(mutex_);
  // A look-up that began before the first change may have left a snapshot of later.
  std::shared_ptr<const Snapshot> tables = changing_ == nullptr ? snapshot_ : nullptr;
  if (tables == nullptr) tables = build();
  std::vector<uint32_t> v4;
  std::vector<U128> v6;
  std::vector<uint8_t> bits;
  std::vector<int64_t> values;
  for (const auto& [prefix, value] : all()) {
    if (prefix.is_v6) v6.push_back(prefix.address);
    else v4.push_back(static_cast<uint32_t>(prefix.address.lo));
    bits.push_back(static_cast<uint8_t>(prefix.bits));
    values.push_back(value);
  }
  Packed packed{TableArray<uint32_t>::copy_of(v4), TableArray<U128>::copy_of(v6), TableArray<uint8_t>::copy_of(bits),
                TableArray<int64_t>::copy_of(values), nullptr};
  writer("prefixes", writer.keep(std::move(packed)))("tables", *writer.keep(std::move(tables)));
}

std::shared_ptr<PrefixTable> PrefixTable::load(saved::Reader& reader, const std::string& backend) {
  auto table = std::make_shared<PrefixTable>(backend);
  auto packed = std::make_shared<Packed>();
  auto tables = std::make_shared<Snapshot>();
  reader("prefixes", *packed)("tables", *tables);
  packed->check();
  tables->check();
  packed->image = tables->image = reader.image();
  table->packed_ = std::move(packed);
  table->publish(std::move(tables));
  return table;
}

std::shared_ptr<const PrefixTable::Snapshot> PrefixTable::build() const {
  Flattener v4({0, 0xffffffffu}), v6(U128::max());
  std::vector<int64_t> values = {0};  // class 0: no prefix
  std::unordered_map<int64_t, uint32_t> classes;
  for (const auto& [prefix, value] : all()) {
    const auto [found, is_new] = classes.try_emplace(value, static_cast<uint32_t>(values.size()));
    if (is_new) values.push_back(value);
    (prefix.is_v6 ? v6 : v4).add(prefix, found->second);
  }
  auto tables = std::make_shared<Snapshot>();
  tables->v4 = classes::Map32(v4.finish());
  tables->v6 = classes::Map128(v6.finish());
  tables->value = TableArray<int64_t>::copy_of(values);
  return tables;
}

int64_t PrefixTable::lookup(Held& held, uint32_t address, int64_t missing) const {
  if (const auto* changing = serving_.load(std::memory_order_acquire)) return changing->lookup(address, missing);
  const Snapshot& tables = snapshot(held);
  const uint32_t id = class_of(tables.v4.view(), address);
  return id == classes::kNoSet ? missing : tables.value[id];
}

int64_t PrefixTable::lookup(Held& held, U128 address, int64_t missing) const {
  if (const auto* changing = serving_.load(std::memory_order_acquire)) return changing->lookup(address, missing);
  const Snapshot& tables = snapshot(held);
  const uint32_t id = class_of(tables.v6.view(), address);
  return id == classes::kNoSet ? missing : tables.value[id];
}

int64_t PrefixTable::lookup(uint32_t address, int64_t missing) const {
  return lookup(held_by_thread(), address, missing);
}
int64_t PrefixTable::lookup(U128 address, int64_t missing) const { return lookup(held_by_thread(), address, missing); }

void PrefixTable::lookup_batch(const void* addresses, uint32_t width, const uint8_t* is_v6, size_t n, int64_t missing,
                               int64_t* out) const {
  if (const auto* changing = serving_.load(std::memory_order_acquire))
    return changing->lookup_batch(addresses, width, is_v6, n, missing, out);
  const Snapshot& tables = snapshot(held_by_thread());
  const int64_t* values = tables.value.data();
  uint32_t id[classes::kChunk], v4_id[classes::kChunk], v4[classes::kChunk];
  for (size_t first = 0; first < n; first += classes::kChunk) {
    const size_t m = std::min(classes::kChunk, n - first);
    if (width == 4) {
      backend_->search32(tables.v4.view(), static_cast<const uint32_t*>(addresses) + first, m, id);
    } else {
      const U128* wide = static_cast<const U128*>(addresses) + first;
      backend_->search128(tables.v6.view(), wide, m, id);
      if (is_v6 != nullptr) {
        for (size_t i = 0; i < m; ++i) v4[i] = static_cast<uint32_t>(wide[i].lo);
        backend_->search32(tables.v4.view(), v4, m, v4_id);
        for (size_t i = 0; i < m; ++i) id[i] = is_v6[first + i] != 0 ? id[i] : v4_id[i];
      }
    }
    for (size_t i = 0; i < m; ++i) out[first + i] = id[i] == classes::kNoSet ? missing : values[id[i]];
  }
}

}  // namespace meshsieve
