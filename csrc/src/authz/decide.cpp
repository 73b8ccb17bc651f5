#include <algorithm>
#include <limits>

#include "authz/table_state.h"

namespace meshsieve::authz {

AuthzScratch::AuthzScratch() : state_(std::make_unique<State>()) {}
AuthzScratch::~AuthzScratch() = default;
AuthzScratch::AuthzScratch(AuthzScratch&&) noexcept = default;

void AuthzScratch::answer(uint32_t opaque, bool holds) {
  if (state_->answers.size() <= opaque) state_->answers.resize(opaque + 1, -1);
  state_->answers[opaque] = holds;
}

void AuthzScratch::forget() { state_->answers.clear(); }

AuthzTable::AuthzTable(std::unique_ptr<State> state) : state_(std::move(state)) {}
AuthzTable::~AuthzTable() = default;

Verdict AuthzTable::decide(uint32_t number, const Facts& facts, AuthzScratch& scratch, int32_t* found) const {
  const State::Chain& chain = state_->chains[number];
  AuthzScratch::State& state = scratch.state();
  state_->tests.start(facts, chain.tcp, state);
  state_->tests.look_up(state);
  state_->tests.finish(facts, chain.tcp, state);
  return state_->judge(chain, facts, state, found);
}

Verdict AuthzTable::State::judge(const Chain& chain, const Facts& facts, AuthzScratch::State& state,
                                 int32_t* found) const {
  state.asked = -1;
  state.found.assign(chain.lanes.size(), kNotReached);
  if (found != nullptr) std::fill(found, found + chain.steps.size(), kNotReached);
  Verdict verdict;
  for (size_t i = 0; i < chain.steps.size(); ++i) {
    const ChainStep& step = chain.steps[i];
    int32_t rule = state.found[step.lane];
    if (rule == kNotReached) {
      rule = first_match(lanes[chain.lanes[step.lane]], facts, chain.tcp, state);
      if (state.asked >= 0) {
        verdict.asked = state.asked;
        return verdict;
      }
      state.found[step.lane] = rule;
    }
    const bool allows = rule != kNoRule && static_cast<uint32_t>(rule) >= first_allow;
    switch (step.kind) {
      case StepKind::shadow: break;
      case StepKind::audit: verdict.audit = rule; break;
      case StepKind::custom:
        if (rule != kNoRule && verdict.pending == kNoRule) verdict.pending = rule;
        break;
      case StepKind::deny:
        if (allows) rule = kNoRule;
        if (rule != kNoRule) verdict.allowed = false;
        break;
      case StepKind::allow:
        if (!allows) rule = kNoRule;
        verdict.allowed = rule != kNoRule;
        break;
    }
    if (found != nullptr) found[i] = rule;
    if (!verdict.allowed || step.kind == StepKind::allow) {
      verdict.step = static_cast<int32_t>(i);
      verdict.rule = rule;
      if (!verdict.allowed) return verdict;
    }
  }
  return verdict;
}

void AuthzTable::State::prefetch_lists(const Chain& chain, const AuthzScratch::State& state) const {
  if (chain.lanes.empty()) return;
  for (const uint32_t g : lanes[chain.lanes.back()].groups)
    if (groups[g].has_lists)
      for (const uint32_t test : state.covers) lists.prefetch(g, test);
}

int32_t AuthzTable::State::first_match(const Lane& lane, const Facts& facts, bool tcp,
                                       AuthzScratch::State& state) const {
  uint32_t best = std::numeric_limits<int32_t>::max();
  // Whether the search goes on in the same list.
  const auto later = [&](const Entry& entry) {
    if (entry.rule >= best) return false;
    if (entry.need != kNone && !state.passed.has(entry.need)) return true;
    const bool holds = entry.code == kNone || runs(entry.code, facts, tcp, state);
    if (holds) best = entry.rule;
    return !holds && state.asked < 0;
  };
  const auto search = [&](std::span<const Entry> entries) {
    for (const Entry& entry : entries)
      if (!later(entry)) return;
  };
  for (const uint32_t g : lane.groups) {
    const Group& group = groups[g];
    if (group.has_lists)
      for (const uint32_t test : state.covers) search(lists.find(g, test));
    search(group.always);
    if (group.bitmaps != nullptr) {
      group.bitmaps->candidates(state.passed, state.bits);
      bool on = true;
      for (size_t w = 0; w < group.bitmaps->words() && on; ++w)
        for (uint64_t word = state.bits[w]; word != 0 && on; word &= word - 1)
          on = later(group.in_bitmaps[w * 64 + static_cast<size_t>(std::countr_zero(word))]);
    }
    if (state.asked >= 0) return kNoRule;
  }
  return best == std::numeric_limits<int32_t>::max() ? kNoRule : static_cast<int32_t>(best);
}

bool AuthzTable::State::runs(uint32_t first, const Facts& facts, bool tcp, AuthzScratch::State& state) const {
  for (const authz::Step* step = &code.steps[first];;) {
    const uint32_t number = step->what & ~kWhatMask;
    bool holds = false;
    switch (step->what & kWhatMask) {
      case kTest: holds = state.passed.has(number); break;
      case kLazyTest: holds = tests.holds(number, facts, tcp, state); break;
      case kTestList: {
        const Code::List& list = code.lists[number];
        const uint32_t* begin = code.listed.data() + list.first;
        const auto& passed = state.passed.all();
        holds = list.count <= 2 * passed.size()
                    ? std::any_of(begin, begin + list.count, [&](uint32_t test) { return state.passed.has(test); })
                    : std::any_of(passed.begin(), passed.end(),
                                  [&](uint32_t test) { return std::binary_search(begin, begin + list.count, test); });
        break;
      }
      case kOpaque:
        if (number >= state.answers.size() || state.answers[number] < 0) {
          state.asked = static_cast<int32_t>(number);
          return false;
        }
        holds = state.answers[number] != 0;
        break;
    }
    const uint16_t way = holds ? step->if_true : step->if_false;
    if (way == kHolds) return true;
    if (way == kFails) return false;
    step += way;
  }
}

size_t AuthzTable::steps(uint32_t chain) const { return state_->chains[chain].steps.size(); }
bool AuthzTable::is_tcp(uint32_t chain) const { return state_->chains[chain].tcp; }
size_t AuthzTable::chains() const { return state_->chains.size(); }
void AuthzTable::prepare(Context& context, AuthzScratch& scratch) const {
  state_->tests.prepare(context, scratch.state());
}
const HeaderNames& AuthzTable::header_names() const { return state_->tests.header_names(); }
AuthzTable::Statistics AuthzTable::statistics() const { return state_->statistics; }

void AuthzTable::add_pseudo_headers(RequestView& view, RequestScratch& scratch) const {
  const State& s = *state_;
  if (s.host_slot >= 0) std::erase_if(scratch.lines, [&](const HeaderLine& line) { return line.slot == s.host_slot; });
  const auto add = [&](int32_t slot, std::string_view value, bool there) {
    if (slot >= 0 && there) scratch.lines.push_back({slot, value});
  };
  add(s.method_slot, view.method, true);
  add(s.scheme_slot, view.scheme, !view.scheme.empty());
  add(s.path_slot, view.target, !view.target.empty());
  add(s.authority_slot, view.authority, view.has_authority);
  add(s.host_slot, view.authority, view.has_authority);
  view.headers = scratch.lines;
}

}  // namespace meshsieve::authz
