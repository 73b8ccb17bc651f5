// All tests of all rules: interned, and found for a request without trying them one by one.
//
// What    A key is a field, perhaps one claim or header of it, perhaps folded to lower case. A test is a key, an operator
//         and a text. Exact texts, prefixes and suffixes of all keys are in one hash; a value is probed whole, and cut to
//         every length that the prefixes (suffixes) of its key have. Where those are many, a radix tree takes over.
//         Path templates and peer tests have structures of their own, networks one prefix table for all addresses.
//         All probes are made in three rounds (slots, records, comparisons), so that memory is waited for once a round and
//         not once a probe.
// Numbers Until `place` tests are numbered densely; then by where their record lies in the arena, so that a probe needs no
//         second table.
// Lazy    Regular expressions and `contains` are run when a rule asks for them, at most once a request.
#pragma once

#include <array>
#include <map>
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
  // --- building, by dense numbers
  uint32_t key(Field field, bool fold, const std::string& name);
  uint32_t slot(uint32_t key) const { return keys_[key].slot; }
  uint32_t intern(uint32_t key, Op op, std::string_view text);
  size_t size() const { return drafts_.size(); }
  uint32_t key_of(uint32_t test) const { return drafts_[test].kind / kOps; }
  bool is_lazy(uint32_t test) const { return lazy_op(op_of(drafts_[test].kind)); }
  // Chance that a request passes each test, judged by the texts that policies name: what many rules name is common.
  // `mentions`: in how many rules each stands.
  std::vector<float> chances(const std::vector<uint32_t>& mentions) const;
  // By dense number, the number from now on. Throws CompileError beyond 2^30.
  std::vector<uint32_t> place();
  // Makes the searched structures. `covers`: by dense number, whether rules hang under the test.
  void seal(const std::vector<bool>& covers);

  // --- asking
  // Adds what the request passes to `state.passed`, and to `state.covers` where rules hang under it. Three rounds, so
  // that many requests can be in the same round while memory comes.
  void start(const Facts& facts, bool tcp, AuthzScratch::State& state) const;
  void look_up(AuthzScratch::State& state) const;
  void finish(const Facts& facts, bool tcp, AuthzScratch::State& state) const;
  void prepare(Context& context, AuthzScratch::State& state) const;
  // A lazy test.
  bool holds(uint32_t test, const Facts& facts, bool tcp, AuthzScratch::State& state) const;

  HeaderNames& header_names() { return header_names_; }
  const HeaderNames& header_names() const { return header_names_; }
  size_t n_regexes() const { return regexes_.size(); }
  size_t template_shapes() const { return templates_.shapes(); }
  size_t text_bytes() const { return arena_.size(); }
  size_t bytes() const;

 private:
  struct Draft {
    uint32_t text, length, kind;
  };
  // In the arena in front of every text, at a multiple of 4: a test's number is its place / 4.
  struct Record {
    uint32_t kind;  // key * kOps + operator
    uint32_t length : 31;
    uint32_t covers : 1;
  };
  static constexpr size_t kMostLengths = 16;  // beyond, a tree
  // The prefixes (suffixes) of one key and one length, and which bytes they have where they are cut: path prefixes mostly
  // end in a slash, so most cuts of a path need no probe.
  struct Cut {
    uint32_t length;
    std::array<uint64_t, 4> bytes = {};

    bool may(char c) const { return (bytes[static_cast<uint8_t>(c) / 64] >> static_cast<uint8_t>(c) % 64 & 1) != 0; }
    void add(char c) { bytes[static_cast<uint8_t>(c) / 64] |= uint64_t{1} << static_cast<uint8_t>(c) % 64; }
  };
  // Prefixes, or suffixes, of one key.
  struct Lengths {
    std::vector<Cut> cuts;  // by length; empty if there are none or the tree takes over
    uint32_t root = kNone;

    bool empty() const { return cuts.empty() && root == kNone; }
  };
  struct Key {
    Field field;
    bool fold;
    uint32_t slot;  // of headers: in header_names_; of claims and metadata: in Context; of others 0
    uint32_t present = kNone, any = kNone;
    bool exact = false;
    Lengths prefixes = {}, suffixes = {};
  };
  // A network and the next larger one that holds it; the tests by which address they are of.
  struct Network {
    uint32_t parent = kNone;
    uint32_t test[3] = {kNone, kNone, kNone};
  };
  struct PortRange {
    uint32_t low, high, test;
  };

  static bool lazy_op(Op op) { return op == Op::regex || op == Op::contains; }
  static Op op_of(uint32_t kind) { return static_cast<Op>(kind % kOps); }
  static uint32_t kind_of(uint32_t key, Op op) { return key * static_cast<uint32_t>(kOps) + static_cast<uint32_t>(op); }
  std::string_view draft_text(uint32_t test) const { return {draft_texts_.data() + drafts_[test].text, drafts_[test].length}; }
  const Record& record(uint32_t test) const { return *reinterpret_cast<const Record*>(arena_.data() + size_t{test} * 4); }
  std::string_view text(uint32_t test) const {
    return {arena_.data() + size_t{test} * 4 + sizeof(Record), record(test).length};
  }
  const char* arena() const { return arena_.data(); }
  void seal_lengths();
  void seal_networks();

  void pass(uint32_t test, AuthzScratch::State& state) const {
    if (state.passed.add(test) && record(test).covers) state.covers.push_back(test);
  }
  void probe(uint32_t kind, std::string_view text, AuthzScratch::State& state) const {
    const uint64_t hash = hash_of(text, kind);
    index_.prefetch(hash);
    state.probes.push_back({hash, text, kind});
  }
  // Puts the probes of a value, and passes what is found without one.
  void probe_text(uint32_t key, std::string_view value, AuthzScratch::State& state) const;
  void probe_suffixes(const Lengths& of, uint32_t kind, std::string_view value, AuthzScratch::State& state) const;
  void probe_keyed(uint32_t key, std::string_view value, AuthzScratch::State& state) const;
  void probe_field(Field field, std::string_view value, AuthzScratch::State& state) const;
  void match_address(size_t which, const Address& address, AuthzScratch::State& state) const;
  // Passes the tests that the probes have found.
  void compare(AuthzScratch::State& state) const;
  // Calls each(value) for the values of a key's field; stops where it returns true, and returns that.
  template <class Each>
  static bool any_value(const Key& key, const Facts& facts, bool tcp, Each each);

  std::vector<Draft> drafts_;
  std::vector<char> draft_texts_;
  std::vector<uint32_t> number_;  // by dense number, from `place` to `seal`
  std::vector<char> arena_;
  HashIndex index_;  // of drafts, then of exact texts, prefixes, suffixes and ports by number
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
  Lengths peer_suffixes_;  // what an identity behind its scheme ends with
  PrefixTable networks_{"auto"};
  std::vector<Network> network_;
  std::vector<PortRange> port_ranges_;
  std::unordered_map<uint32_t, Regex> regexes_;  // by test
};

}  // namespace meshsieve::authz
