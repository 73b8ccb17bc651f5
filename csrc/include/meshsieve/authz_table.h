// Authorization compiled: which rule of which filter decides a request.
//
// What    Every comparison that any rule makes is a *test*, known once by number. A request is read into the tests that it
//         passes - a few dozen of perhaps a million - by hashes, trees of prefixes, suffixes and path templates, and the
//         prefix table. A rule is a Boolean expression over tests, as short jump code. Each rule hangs under tests of which
//         one must hold if the rule does, chosen to hold rarely (its *cover*); only rules that hang under a passed test
//         are run. Rules whose rarest cover is common go to bitmaps, which are ANDed; rules without any are run always.
// Why     A filter of Envoy's runs every rule, about 1 us each.
// Order   Rules are numbered as they are reported: of several that match, the smallest number counts. DENY comes before
//         ALLOW, so that one walk finds both.
// Sharing Rules that always occur together form a *group*; a workload's list of rules is a list of groups. Tests, code and
//         groups are shared by all workloads, so that memory follows policies, not workloads.
// Cost    docs/authorization.md; the worst case of a table is in `statistics`.
// Threads A table never changes; any number of threads may read it, each with its own AuthzScratch.
// Limits  2^30 tests, 2^31 - 1 rules, 65,000 tests in one rule besides lists, nesting of 200; CompileError beyond.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "meshsieve/request_view.h"
#include "meshsieve/types.h"

namespace meshsieve::authz {

// Attributes of a request, as meshsieve.authz.model.FieldKind names them; a field has any number of values.
enum class Field : uint8_t {
  peer, source_ip, remote_ip, destination_ip, destination_port, sni, method, host, path, header, claim, claim_text,
  metadata, metadata_list
};
constexpr size_t kFields = 14;

// How a value is compared. Texts of `network`: 16 bytes of address in network order, one of IP version, one of length;
// of `ports`: low and high as four bytes each, in network order; of a namespace and a trust domain: as written, with its
// star; of a service account: NAMESPACE/ACCOUNT.
enum class Op : uint8_t {
  present, any, exact, prefix, suffix, contains, regex, path_template, name_space, service_account, trust_domain,
  peer_suffix, network, ports
};
constexpr size_t kOps = 14;

struct Address {
  U128 value;
  uint8_t version = 0;  // 0: absent
};

// Values of claims and metadata, by the table's context slots, and the tests that they pass.
struct Context {
  std::vector<std::pair<uint32_t, std::string>> values;  // slot and value; slots in any order
  std::vector<uint32_t> passed;                          // filled by AuthzTable::prepare
};

// What a request shows. Absent texts have no data().
struct Facts {
  std::string_view peer;  // with its scheme
  std::string_view sni;
  Address source_ip, remote_ip, destination_ip;
  int64_t destination_port = -1;
  const RequestView* http = nullptr;  // nullptr: not read as HTTP
  const Context* context = nullptr;   // prepared
};

// What a filter does with its rules.
enum class StepKind : uint8_t { custom, deny, allow, audit, shadow };

constexpr int32_t kNoRule = -1, kNotReached = -2;

struct Verdict {
  bool allowed = true;
  int32_t step = -1;  // that decided; -1: no filter had a say
  int32_t rule = kNoRule;
  int32_t audit = kNotReached;    // rule that audits; kNoRule: none does; kNotReached: no audit filter
  int32_t pending = kNoRule;      // first rule that asks a provider
  int32_t asked = -1;             // opaque test without an answer: the verdict is void
};

class AuthzScratch;

class AuthzTable {
 public:
  struct Statistics {
    uint64_t rules = 0, tests = 0, regexes = 0, groups = 0, lanes = 0, chains = 0;
    uint64_t covered = 0;       // rules that hang under tests
    uint64_t in_bitmaps = 0;    // rules in bitmaps
    uint64_t always = 0;        // rules that are run for every request to their workloads
    uint64_t template_shapes = 0;  // of path templates, each a probe
    uint64_t longest_list = 0;  // rules under one test
    uint64_t longest_code = 0;  // tests in one rule, a list counted as one
    uint64_t text_bytes = 0, test_bytes = 0, code_bytes = 0, list_bytes = 0, bitmap_bytes = 0, bytes = 0;
  };
  struct State;

  explicit AuthzTable(std::unique_ptr<State> state);
  ~AuthzTable();

  // `found`: nullptr, or a place a step of the chain for its rule, kNoRule or kNotReached.
  Verdict decide(uint32_t chain, const Facts& facts, AuthzScratch& scratch, int32_t* found) const;
  size_t steps(uint32_t chain) const;
  bool is_tcp(uint32_t chain) const;
  size_t chains() const;
  // Finds the tests that the values pass.
  void prepare(Context& context, AuthzScratch& scratch) const;
  const HeaderNames& header_names() const;
  // Once a request has been read: pseudo headers that rules look at become lines, and `host` means :authority.
  void add_pseudo_headers(RequestView& view, RequestScratch& scratch) const;
  Statistics statistics() const;
  const State& state() const { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

// Memory of one thread's decisions.
class AuthzScratch {
 public:
  AuthzScratch();
  ~AuthzScratch();
  AuthzScratch(AuthzScratch&&) noexcept;
  struct State;
  State& state() { return *state_; }

  // Answers to opaque tests for the next decisions, until `forget`.
  void answer(uint32_t opaque, bool holds);
  void forget();

 private:
  std::unique_ptr<State> state_;
};

class AuthzBuilder {
 public:
  AuthzBuilder();
  ~AuthzBuilder();

  // `name`: of a header, or what tells one claim from another. `fold`: compare without regard to ASCII case.
  uint32_t key(Field field, bool fold, const std::string& name);
  // A header that is read though no rule may look at it.
  void look_at_header(const std::string& name);
  // The context slot of a claim's or metadata's key; header keys have their slot in header_names().
  uint32_t slot(uint32_t key) const;
  // Whether `op` can hold `text`; else the caller passes a regular expression with Op::regex.
  static bool takes(Op op, std::string_view text);

  using Node = uint32_t;
  Node test(uint32_t key, Op op, std::string_view text);
  Node opaque(uint32_t number);
  Node any(std::span<const Node> nodes);  // of none: false
  Node all(std::span<const Node> nodes);  // of none: true
  Node negate(Node node);

  // Rules are numbered in the order of these calls: DENY and all that is not ALLOW first, then ALLOW, each in the order
  // in which rules are reported.
  uint32_t rule(Node node, bool allows);

  struct Step {
    StepKind kind;
    std::vector<uint32_t> rules;  // ascending
  };
  uint32_t chain(const std::vector<Step>& steps, bool tcp);

  // Throws CompileError beyond the limits.
  std::shared_ptr<const AuthzTable> build();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// What a proxy knows beside its policies.
struct AuthzOptions {
  HttpOptions http;
  int32_t trusted_proxies = 0;  // addresses at the end of X-Forwarded-For to be trusted where remote_ip is absent
};

// Memory that the facts of one request point into.
struct FactsScratch {
  RequestScratch request;
  RequestView view;
  std::string peer;
};

// IPv4 addresses mapped into IPv6 are IPv4.
Address address_of(U128 value, uint8_t version);
// The client by X-Forwarded-For; `missing` where it does not tell.
Address forwarded_for(const AuthzTable& table, const RequestView& view, int32_t trusted_proxies, Address missing);

// Columns of n rows that decide_rows fills; nullptr where nobody wants one.
struct AuthzColumns {
  uint8_t* allowed = nullptr;
  uint8_t* refused = nullptr;   // Refused: what the proxy answered before any policy
  int32_t* step = nullptr;
  int32_t* rule = nullptr;
  int32_t* audit = nullptr;
  int32_t* pending = nullptr;
  int32_t* asked = nullptr;
};

// Rows [begin, end) of a batch. chain[i] is the chain of row i, or chain[0] of all if `one_chain`. contexts[c]: prepared
// for the batch's context c. Rows are decided several at a time, step by step, so that one waits for memory while others
// compute. Any number of threads may fill different rows.
void decide_rows(const AuthzTable& table, const RequestBatch& batch, const AuthzOptions& options, const uint32_t* chain,
                 bool one_chain, std::span<const Context> contexts, size_t begin, size_t end, const AuthzColumns& out);

}  // namespace meshsieve::authz
