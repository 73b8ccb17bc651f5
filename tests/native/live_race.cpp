// Readers and writers of one LiveTable, then of one PrefixTable (prefix_race.cpp), for ThreadSanitizer: `make race`
// (docs/reliability.md).
//
// Two lists whose answers never agree are published in turn, a few rules at a time and in bulk; readers take whatever
// is published, look up a batch and single packets, and keep some versions for a while. Every batch must be wholly of
// one list. Now and then slots are numbered anew. Exit status 1 where a batch is not; a data race is ThreadSanitizer's
// to report.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <thread>
#include <vector>

#include "l4/live_table.h"
#include "prefix_race.h"

using namespace meshsieve;

namespace {

constexpr int kReaders = 8;
constexpr uint32_t kPorts = 64;
constexpr size_t kBatch = 256;

// One rule a destination port.
std::shared_ptr<RuleSet> rules_of_ports(uint32_t first, uint32_t last) {
  auto rules = std::make_shared<RuleSet>();
  rules->sets.resize(1);
  rules->alternative_begin.push_back(0);
  for (uint32_t port = first; port <= last; ++port) {
    Match match{};
    match[index_of(Field::dport)] = static_cast<SetId>(rules->sets.size());
    rules->sets.push_back({{{{0, port}, {0, port}}}, {}});
    rules->common.push_back(match);
    rules->alternative_begin.push_back(0);
    rules->action.push_back(Action::Allow);
    rules->skip_to.push_back(-1);
    rules->certain.push_back(1);
  }
  return rules;
}

// Of the list with `shift` rules in front of those of the ports.
bool is_wholly(const std::vector<RuleResult>& answers, int32_t shift) {
  for (size_t i = 0; i < answers.size(); ++i)
    if (answers[i] != static_cast<int32_t>(i % kPorts) + shift) return false;
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const int swaps = argc > 1 ? std::atoi(argv[1]) : 10'000;
  live::LiveTable table(rules_of_ports(0, kPorts - 1), {"forest", "auto", 0}, {});
  std::vector<uint16_t> ports(kBatch);
  for (size_t i = 0; i < kBatch; ++i) ports[i] = static_cast<uint16_t>(i % kPorts);
  const uint8_t tcp = 6, four = 4;
  KeyColumns keys;
  keys.n = kBatch;
  keys[Field::dport] = {ports.data(), 2, 2};
  keys[Field::proto] = {&tcp, 1, 0};
  keys[Field::ip_ver] = {&four, 1, 0};

  std::atomic<bool> stop = false;
  std::atomic<uint64_t> mixed = 0, batches = 0;
  const auto read = [&] {
    std::deque<live::Published> kept;
    std::vector<RuleResult> answers(kBatch);
    while (!stop) {
      const live::Published now = table.published();
      now.classifier->lookup_batch(keys, answers.data());
      int32_t shift = answers[0];
      const RuleResult one = now.classifier->lookup(keys.key(1));
      mixed += (shift != 0 && shift != 1 && shift != 3) || !is_wholly(answers, shift) || one != 1 + shift;
      if (++batches % 64 == 0) kept.push_back(now);
      if (kept.size() > 2) kept.pop_front();
    }
  };
  std::vector<std::thread> readers;
  for (int i = 0; i < kReaders; ++i) readers.emplace_back(read);

  const std::shared_ptr<const RuleSet> one = rules_of_ports(1000, 1000), three = rules_of_ports(2000, 2002);
  const auto write = [&](int turns) {
    for (int i = 0; i < turns; ++i) {
      const bool bulk = i % 2 == 1;
      table.apply({{}, bulk ? std::vector<int32_t>{0, 0, 0} : std::vector<int32_t>{0}, bulk ? three : one}, nullptr);
      table.apply({bulk ? std::vector<int32_t>{0, 1, 2} : std::vector<int32_t>{0}, {}, nullptr}, nullptr);
      if (i % 16 == 0) table.renumber();
    }
  };
  write(swaps / 2);
  stop = true;
  for (std::thread& reader : readers) reader.join();
  std::printf("%d publications, %llu batches in %d readers, %llu mixed\n", swaps, (unsigned long long)batches, kReaders,
              (unsigned long long)mixed);
  return mixed != 0 || !prefixes_are_never_mixed(swaps);
}
