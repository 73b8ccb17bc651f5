#include "authz/expression.h"

#include <algorithm>

#include "meshsieve/errors.h"

namespace meshsieve::authz {
namespace {

constexpr uint8_t kMaxDepth = 200;
constexpr size_t kMaxSteps = 65'000;
// Shorter lists are cheaper test by test.
constexpr size_t kListFrom = 5;

}  // namespace

uint32_t Expressions::add(NodeKind kind, uint32_t value) {
  nodes_.push_back({kind, value, 0});
  depth_.push_back(0);
  return static_cast<uint32_t>(nodes_.size() - 1);
}

uint32_t Expressions::add(NodeKind kind, std::span<const uint32_t> children) {
  if (children.size() == 1 && kind != NodeKind::negation) return children[0];
  uint8_t depth = 0;
  for (const uint32_t child : children) depth = std::max(depth, depth_[child]);
  if (depth >= kMaxDepth) throw CompileError("a rule nests conditions more than 200 deep");
  const auto first = static_cast<uint32_t>(children_.size());
  children_.insert(children_.end(), children.begin(), children.end());
  nodes_.push_back({kind, first, static_cast<uint32_t>(children.size())});
  depth_.push_back(depth + 1);
  return static_cast<uint32_t>(nodes_.size() - 1);
}

Cover cover(const Expressions& expressions, uint32_t at, const TestFacts& facts) {
  const ExpressionNode& node = expressions.at(at);
  switch (node.kind) {
    case NodeKind::test: {
      if (facts.lazy[node.value]) return {kNoCover, {}};
      return {facts.chance[node.value], {node.value}};
    }
    case NodeKind::all: {
      Cover best{kNoCover, {}};
      for (const uint32_t child : expressions.children(node)) {
        Cover found = cover(expressions, child, facts);
        if (found.chance < best.chance) best = std::move(found);
      }
      return best;
    }
    case NodeKind::any: {
      Cover all{0, {}};
      for (const uint32_t child : expressions.children(node)) {
        Cover found = cover(expressions, child, facts);
        if (found.chance >= kNoCover) return {kNoCover, {}};
        all.chance += found.chance;
        all.tests.insert(all.tests.end(), found.tests.begin(), found.tests.end());
      }
      return all;
    }
    default: return {kNoCover, {}};
  }
}

CodeWriter::Written CodeWriter::write(uint32_t node) {
  draft_.clear();
  const int32_t entry = emit(node, kToHolds, kToFails);
  const auto first = static_cast<uint32_t>(code_.steps.size());
  if (entry < 0) return {first, 0, entry == kToHolds ? Constant::holds : Constant::fails};
  const auto n = entry + 1;  // ways only lead to earlier drafts, so nothing behind the entry is reached
  for (int32_t i = n - 1; i >= 0; --i) {
    const auto way = [&](int32_t target) {
      return target == kToHolds ? kHolds : target == kToFails ? kFails : static_cast<uint16_t>(i - target);
    };
    code_.steps.push_back({draft_[i].what, way(draft_[i].if_true), way(draft_[i].if_false)});
  }
  if (code_.steps.size() > 0xffffffffu) throw CompileError("more than 2^32 steps of rules");
  return {first, static_cast<uint32_t>(n), Constant::none};
}

int32_t CodeWriter::emit(uint32_t at, int32_t if_true, int32_t if_false) {
  const ExpressionNode& node = expressions_.at(at);
  switch (node.kind) {
    case NodeKind::test: return put(facts_.number[node.value] | (facts_.lazy[node.value] ? kLazyTest : kTest), if_true, if_false);
    case NodeKind::opaque: return put(node.value | kOpaque, if_true, if_false);
    case NodeKind::negation: return emit(expressions_.children(node)[0], if_false, if_true);
    case NodeKind::all:
    case NodeKind::any: break;
  }
  const bool is_all = node.kind == NodeKind::all;
  std::vector<uint32_t> parts(expressions_.children(node).begin(), expressions_.children(node).end());
  std::vector<uint32_t> list;
  if (!is_all && parts.size() >= kListFrom) {
    const auto plain = [&](uint32_t part) {
      const ExpressionNode& child = expressions_.at(part);
      return child.kind == NodeKind::test && !facts_.lazy[child.value];
    };
    for (const uint32_t part : parts)
      if (plain(part)) list.push_back(facts_.number[expressions_.at(part).value]);
    if (list.size() >= kListFrom) {
      std::erase_if(parts, plain);
    } else {
      list.clear();
    }
  }
  if (parts.size() > 1)
    std::stable_sort(parts.begin(), parts.end(), [&](uint32_t a, uint32_t b) {
      const float x = rank(a), y = rank(b);
      return is_all || x >= kNoCover || y >= kNoCover ? x < y : x > y;
    });
  int32_t next = is_all ? if_true : if_false;
  for (size_t i = parts.size(); i > 0; --i) {
    next = is_all ? emit(parts[i - 1], next, if_false) : emit(parts[i - 1], if_true, next);
  }
  if (!list.empty()) {
    std::sort(list.begin(), list.end());
    const auto number = static_cast<uint32_t>(code_.lists.size());
    code_.lists.push_back({static_cast<uint32_t>(code_.listed.size()), static_cast<uint32_t>(list.size())});
    code_.listed.insert(code_.listed.end(), list.begin(), list.end());
    next = put(number | kTestList, if_true, next);
  }
  return next;
}

int32_t CodeWriter::put(uint32_t what, int32_t if_true, int32_t if_false) {
  if (draft_.size() >= kMaxSteps) throw CompileError("a rule makes more than 65,000 tests");
  if (if_true == if_false) return if_true;
  draft_.push_back({what, if_true, if_false});
  return static_cast<int32_t>(draft_.size() - 1);
}

float CodeWriter::rank(uint32_t at) const {
  const ExpressionNode& node = expressions_.at(at);
  switch (node.kind) {
    case NodeKind::test: return facts_.lazy[node.value] ? kNoCover : facts_.chance[node.value];
    case NodeKind::opaque: return 2 * kNoCover;
    case NodeKind::negation: {
      const float inner = rank(expressions_.children(node)[0]);
      return inner >= kNoCover ? inner : 1 - std::min(inner, 1.0f);
    }
    default: {
      float sum = 0, least = kNoCover, most = 0;
      for (const uint32_t child : expressions_.children(node)) {
        const float r = rank(child);
        sum += r, least = std::min(least, r), most = std::max(most, r);
      }
      if (most >= kNoCover) return most;
      return node.kind == NodeKind::all ? least : sum;
    }
  }
}

}  // namespace meshsieve::authz
