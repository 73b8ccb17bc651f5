// A route configuration, compiled: which route takes a request, in time that hardly grows with the number of routes.
//
// What    Domains are one hash table. A virtual host's routes are a radix tree over exact, prefix and path-separated
//         prefix entries (route/path_tree.h); regular expressions and URI templates hang under their literal prefix.
//         Routes at one place that differ by the text of a header, query parameter or cookie are found by hashing that
//         text, many regular expressions at one place by one automaton (route/lists.h). Everything else of a route is a
//         predicate, tested when the route is a candidate (route/predicates.h). Match trees are walked as written.
// Order   The answer is the lowest route number among those whose match holds, as in a scan from the first. Whatever
//         cannot be below the best candidate found so far is not looked at.
// Cost    Look-up: some 100 ns plus the predicates of the candidates. Batches interleave kLanes look-ups and fetch
//         ahead.
// Limits  2^31 - 2 routes, 2^32 four-byte words of tree; CompileError beyond. A list of routes at one place whose
//         predicates are neither text nor regular expressions is scanned; stats().longest_list is the longest.
// Threads Immutable after build(): any number may look up. Batches allocate scratch, no look-up throws but bad_alloc.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "meshsieve/regex.h"
#include "meshsieve/request_view.h"

namespace meshsieve {

// Answers below 0.
constexpr int32_t kNoRoute = -1;         // of the virtual host
constexpr int32_t kNoVirtualHost = -2;
constexpr int32_t kRefusedRequest = -3;  // before routing (read_request)
constexpr int32_t kHttpsRedirect = -4;   // the virtual host requires TLS

struct RouteAnswer {
  int32_t route = kNoRoute;
  int32_t host = -1;  // number of the virtual host
};

struct RouteTableStats {
  size_t hosts = 0, routes = 0, nodes = 0, predicates = 0, regexes = 0, regex_sets = 0, fans = 0, longest_list = 0;
  size_t bytes = 0;  // of what look-ups read; RE2's programs and automata are not counted
};

class RouteTable {
 public:
  virtual ~RouteTable() = default;

  // `view` was read with names(); facts: fact_count() numbers (route/predicates.h).
  virtual RouteAnswer lookup(const RequestView& view, const int64_t* facts) const = 0;
  // A request over http that has not been read yet; lines: those headers whose names have a slot.
  virtual int32_t find(std::string_view authority, std::string_view target, std::string_view method,
                       std::span<const HeaderLine> lines) const = 0;
  // Rows [begin, end) of the batch, or rows[begin] to rows[end - 1] if rows is given; answers stand where the row does.
  // facts: fact_count() numbers for each of the contexts; a row that names none has those of the first. hosts may be
  // nullptr.
  virtual void lookup_batch(const RequestBatch& batch, const int64_t* facts, size_t contexts, const int64_t* rows,
                            size_t begin, size_t end, int32_t* routes, int32_t* hosts) const = 0;

  virtual const HeaderNames& names() const = 0;
  virtual size_t fact_count() const = 0;
  virtual RouteTableStats stats() const = 0;
};

enum class PathKind : uint8_t { exact, prefix, separated_prefix, regex, uri_template, connect };
enum class RequireTls : uint8_t { none, external_only, all };
enum class TextMatch : uint8_t { exact, prefix, suffix, contains, regex };
enum class TreeKind : uint8_t { list, exact, prefix };
enum class JoinKind : uint8_t { all, any, negation };

// Takes a configuration piece by piece, in its order; numbers are given out from 0. Throws CompileError beyond the
// limits.
class RouteTableBuilder {
 public:
  struct Settings {
    HttpOptions options;
    bool ignore_port = false;
    bool ignore_path_parameters = false;
    std::optional<std::string> vhost_header;
    std::vector<int64_t> default_facts;  // of a request without structured values
  };
  struct OnMatch {
    bool is_tree;
    uint32_t number;  // of a tree, or of a group
    bool keep;
  };

  explicit RouteTableBuilder(Settings settings);
  ~RouteTableBuilder();

  uint32_t text(TextMatch kind, std::string value, bool ignore_case, std::shared_ptr<const Regex> regex);
  uint32_t header_text(const std::string& name, uint32_t text, bool invert, bool missing_as_empty);
  uint32_t header_present(const std::string& name, bool present, bool invert, bool missing_as_empty);
  uint32_t header_range(const std::string& name, int64_t low, int64_t high, bool invert, bool missing_as_empty);
  uint32_t query_text(const std::string& name, uint32_t text);
  uint32_t query_present(const std::string& name, bool present);
  uint32_t cookie_text(const std::string& name, uint32_t text, bool invert);
  uint32_t grpc();
  uint32_t tls(bool validated, bool wanted);
  uint32_t runtime(std::optional<uint32_t> fact, int64_t numerator, int64_t denominator);
  uint32_t fact(uint32_t fact);

  // Routes belong to the group that was begun last, of the host that was begun last.
  uint32_t begin_host(const std::vector<std::string>& domains, RequireTls require_tls);
  uint32_t begin_group();
  // `value` of the three kinds of text, `regex` of regex and uri_template.
  uint32_t add_route(PathKind kind, std::string value, bool case_sensitive, std::shared_ptr<const Regex> regex,
                     std::vector<uint32_t> conditions);

  uint32_t tree_text(const std::string& header, uint32_t text);
  uint32_t tree_join(JoinKind kind, std::vector<uint32_t> members);
  uint32_t tree_list(std::vector<std::pair<uint32_t, OnMatch>> entries, std::optional<OnMatch> no_match);
  uint32_t tree_map(TreeKind kind, const std::string& header, std::vector<std::pair<std::string, OnMatch>> entries,
                    std::optional<OnMatch> no_match);
  void set_host_tree(uint32_t tree);

  // Once; the builder is empty afterwards.
  std::shared_ptr<const RouteTable> build();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace meshsieve
