// The parts of a compiled table.
#pragma once

#include <memory>
#include <vector>

#include "authz/bitmaps.h"
#include "authz/expression.h"
#include "authz/lists.h"
#include "authz/tests.h"
#include "meshsieve/authz_table.h"

namespace meshsieve::authz {

struct AuthzTable::State {
  // Rules that always occur together.
  struct Group {
    bool has_lists = false;
    std::vector<Entry> always;
    std::unique_ptr<Bitmaps> bitmaps;
    std::vector<Entry> in_bitmaps;  // by bit
  };
  // Groups of which the first rule that holds is wanted.
  struct Lane {
    std::vector<uint32_t> groups;
  };
  struct ChainStep {
    StepKind kind;
    uint32_t lane;  // in the chain's lanes
  };
  struct Chain {
    bool tcp;
    std::vector<ChainStep> steps;
    std::vector<uint32_t> lanes;
  };

  Tests tests;
  Code code;
  Lists lists;
  std::vector<Group> groups;
  std::vector<Lane> lanes;
  std::vector<Chain> chains;
  uint32_t first_allow = 0;  // rules from here on allow
  int32_t method_slot = -1, scheme_slot = -1, path_slot = -1, authority_slot = -1, host_slot = -1;  // of pseudo headers
  Statistics statistics;

  // The verdict on a request whose tests are known.
  Verdict judge(const Chain& chain, const Facts& facts, AuthzScratch::State& state, int32_t* found) const;
  // The first rule of a lane that holds, or kNoRule. If state.asked is set, it is void.
  int32_t first_match(const Lane& lane, const Facts& facts, bool tcp, AuthzScratch::State& state) const;
  void prefetch_lists(const Chain& chain, const AuthzScratch::State& state) const;
  bool runs(uint32_t code, const Facts& facts, bool tcp, AuthzScratch::State& state) const;
};

}  // namespace meshsieve::authz
