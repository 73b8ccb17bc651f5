// All tests of all rules: interned, and found for a request without trying them one by one.
//
// What    A key is a field, perhaps one claim or header of it, perhaps folded to lower case. A test is a key, an operator
//         and a text. Exact tests are in one hash over all keys, prefixes and suffixes in a tree a key, path templates and
//         peer tests in structures of their own, networks in one prefix table for all three addresses.
// Lazy    Regular expressions and `contains` are run when a rule asks for them, at most once a request.
// Cost    docs/authorization.md.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "authz/hash_index.h"
#include "authz/path_templates.h"
#include "authz/peer_index.h"
#include "authz/radix.h"
#include "authz/scratch.h"
#include "meshsieve/authz_table.h"
#include "meshsieve/prefix_table.h"
#include "meshsieve/regex.h"

namespace meshsieve::authz {

class Tests {
 public:
  // --- building
  uint32_t key(Field field, bool fold, const std::string& name);
  uint32_t slot(uint32_t key) const { return keys_[key].slot; }
  uint32_t intern(uint32_t key, Op op, std::string_view text);
  bool is_lazy(uint32_t test) const { return lazy_op(tests_[test].op); }
  // Chance that a request passes each test, judged by the texts that policies name: what many rules name is common.
  // `mentions`: by test, in how many rules it stands.
  std::vector<float> chances(const std::vector<uint32_t>& mentions) const;
  // Call once, after the last test: makes the searched structures.
  void finish();
  // By test, whether rules hang under it; such tests go to State::covers as well.
  void set_covers(std::vector<bool> covers) { covers_ = std::move(covers); }

  // --- asking
  // Adds what the request passes to `state.passed` and `state.covers`.
  void collect(const Facts& facts, bool tcp, AuthzScratch::State& state) const;
  void prepare(Context& context) const;
  // A lazy test.
  bool holds(uint32_t test, const Facts& facts, bool tcp, AuthzScratch::State& state) const;

  HeaderNames& header_names() { return header_names_; }
  const HeaderNames& header_names() const { return header_names_; }
  uint32_t key_of(uint32_t test) const { return tests_[test].key; }
  size_t size() const { return tests_.size(); }
  size_t n_regexes() const { return regexes_.size(); }
  size_t text_bytes() const { return arena_.capacity(); }
  size_t bytes() const;

 private:
  struct Test {
    uint32_t text, length, key;
    Op op;
  };
  struct Key {
    Field field;
    bool fold;
    uint32_t slot;  // of headers: in header_names_; of claims and metadata: in Context; of others 0
    uint32_t present = kNone, any = kNone;      // tests
    uint32_t prefixes = kNone, suffixes = kNone;  // roots
  };
  // A network and the next larger one that holds it; the tests by which address they are of.
  struct Network {
    uint32_t parent = kNone;
    uint32_t test[3] = {kNone, kNone, kNone};
  };

  static bool lazy_op(Op op) { return op == Op::regex || op == Op::contains; }
  std::string_view text(const Test& test) const { return {arena_.data() + test.text, test.length}; }
  static uint64_t seed(uint32_t key, Op op) { return uint64_t{key} * kOps + static_cast<uint64_t>(op); }
  uint32_t find(uint32_t key, Op op, std::string_view text) const;
  void finish_networks();

  template <class Pass>
  void match_text(uint32_t key, std::string_view value, Pass pass) const;
  template <class Pass>
  void match_field(Field field, std::string_view value, AuthzScratch::State& state, Pass pass) const;
  template <class Pass>
  void match_address(size_t which, const Address& address, Pass pass) const;
  template <class Pass>
  void match_keyed(uint32_t key, std::string_view value, std::string& folded, Pass pass) const;
  // Calls each(value) for the values of a key's field; stops where it returns true, and returns that.
  template <class Each>
  static bool any_value(const Key& key, const Facts& facts, bool tcp, Each each);

  std::vector<char> arena_;
  std::vector<Test> tests_;
  HashIndex index_;  // of tests_
  std::vector<Key> keys_;
  std::map<std::tuple<Field, bool, std::string>, uint32_t> key_of_;
  uint32_t plain_[kFields][2];  // keys of fields without names, by fold; kNone
  std::vector<std::array<uint32_t, 2>> header_keys_, context_keys_;  // by slot, by fold; kNone
  std::map<std::pair<Field, std::string>, uint32_t> context_slots_;
  HeaderNames header_names_;

  Radix<End::front> prefixes_;
  Radix<End::back> suffixes_;
  PathTemplates templates_;
  PeerIndex peers_;
  uint32_t peer_suffixes_ = kNone;  // root: what an identity behind its scheme ends with
  PrefixTable networks_{"auto"};
  std::vector<Network> network_;
  struct PortRange {
    uint32_t low, high, test;
  };
  std::vector<PortRange> port_ranges_;
  std::unordered_map<uint32_t, Regex> regexes_;  // by test
  std::vector<bool> covers_;
};

}  // namespace meshsieve::authz
