// Weighted round robin, two ways that give the same shares in different orders. Each is a small copyable state: the
// answer is exact for a given start, and a start offset s means that the first s picks are dropped.
//
//   EdfRotation     Envoy's: earliest deadline first. A queue ordered by (deadline, order of insertion); host i is due
//                   every 1/weight. Deadlines are kept as fractions k/weight and compared exactly, since sums of doubles
//                   would break the ties and with them the cycle.      5,1,1 -> aaaabca
//   SmoothRotation  nginx's: every step each host gains its weight, the richest is taken (first on ties) and pays the
//                   total.                                              5,1,1 -> aabacaa
//
// Cost    Edf: log n a pick. Smooth: n a pick.
// Limits  weights 1 .. 2^32-1, otherwise BalanceError; their sum may pass 2^32, as in Envoy. No host: kNoHost.
// Source  envoyproxy/envoy edf_scheduler.h; nginx commit 52327e0 (upstream: smooth weighted balancing).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace meshsieve::balance {

class EdfRotation {
 public:
  explicit EdfRotation(const std::vector<uint64_t>& weights);
  int32_t next() noexcept;

 private:
  struct Due {
    uint64_t turns;  // deadline = turns / weight
    uint64_t weight;
    uint64_t inserted;
    int32_t host;
  };
  static bool later(const Due& a, const Due& b) noexcept;

  std::vector<Due> queue_;  // heap, earliest on top
  uint64_t insertions_ = 0;
};

class SmoothRotation {
 public:
  explicit SmoothRotation(const std::vector<uint64_t>& weights);
  int32_t next() noexcept;

 private:
  std::vector<int64_t> weight_;
  std::vector<int64_t> current_;
  int64_t total_ = 0;
};

}  // namespace meshsieve::balance
