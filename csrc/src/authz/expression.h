// A rule as a Boolean expression over tests, and as jump code.
//
// What    Nodes of any, all, not and tests, in one arena. `cover` finds tests of which one must hold if the expression does,
//         and that hold as rarely as can be had; `emit` writes code: each step is one test with a way on for either answer.
// Why     Jump code stops as early as the expression allows and needs no stack. It takes any nesting, so that Envoy's
//         permission trees and Istio's rules are one thing.
// Cover   of a test: itself; of `all`: the rarest of its parts'; of `any`: those of all parts together; of `not`: none.
// Example all(any(a, b), not(c)): cover {a, b}; code: a ? 2 : 1;  b ? 2 : fail;  c ? fail : hold.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "authz/radix.h"

namespace meshsieve::authz {

enum class NodeKind : uint8_t { test, opaque, any, all, negation };

struct ExpressionNode {
  NodeKind kind;
  uint32_t value;  // test or opaque number; of others where the children begin
  uint32_t count;  // of children
};

// | kind : 2 | number : 30 |   kind 0 = test, 1 = lazy test, 2 = list of tests, 3 = opaque test
struct Step {
  uint32_t what;
  uint16_t if_true, if_false;  // steps to go on by; kHolds, kFails
};
static_assert(sizeof(Step) == 8);
constexpr uint16_t kHolds = 0, kFails = 0xffff;
enum StepWhat : uint32_t { kTest = 0, kLazyTest = 1u << 30, kTestList = 2u << 30, kOpaque = 3u << 30 };
constexpr uint32_t kWhatMask = 3u << 30;

struct Cover {
  float chance;  // that a request passes one of the tests; above 1 if there is no cover
  std::vector<uint32_t> tests;
};
constexpr float kNoCover = 1e30f;

class Expressions {
 public:
  uint32_t add(NodeKind kind, uint32_t value);
  uint32_t add(NodeKind kind, std::span<const uint32_t> children);  // throws CompileError if nested too deeply
  const ExpressionNode& at(uint32_t node) const { return nodes_[node]; }
  std::span<const uint32_t> children(const ExpressionNode& node) const { return {children_.data() + node.value, node.count}; }
  size_t size() const { return nodes_.size(); }

 private:
  std::vector<ExpressionNode> nodes_;
  std::vector<uint32_t> children_;
  std::vector<uint8_t> depth_;
};

// What the writer of code knows of tests.
struct TestFacts {
  std::vector<float> chance;
  std::vector<bool> lazy;
  std::vector<uint32_t> number;  // what code calls it
};

Cover cover(const Expressions& expressions, uint32_t node, const TestFacts& facts);

// Code of all rules, and the lists of tests that it names: of a list one test has to hold.
struct Code {
  struct List {
    uint32_t first, count;  // in `listed`, ascending
  };
  std::vector<Step> steps;
  std::vector<List> lists;
  std::vector<uint32_t> listed;
};
// An expression that needs no step.
enum class Constant : uint8_t { none, holds, fails };

// Appends the code of an expression. Throws CompileError if it is too long.
class CodeWriter {
 public:
  CodeWriter(const Expressions& expressions, const TestFacts& facts, Code& code)
      : expressions_(expressions), facts_(facts), code_(code) {}
  struct Written {
    uint32_t first;  // step
    uint32_t count;
    Constant constant;
  };
  Written write(uint32_t node);

 private:
  static constexpr int32_t kToHolds = -1, kToFails = -2;

  int32_t emit(uint32_t node, int32_t if_true, int32_t if_false);
  int32_t put(uint32_t what, int32_t if_true, int32_t if_false);
  // Lower is sooner.
  float rank(uint32_t node) const;

  const Expressions& expressions_;
  const TestFacts& facts_;
  Code& code_;
  struct Draft {
    uint32_t what;
    int32_t if_true, if_false;
  };
  std::vector<Draft> draft_;  // last step first
};

}  // namespace meshsieve::authz
