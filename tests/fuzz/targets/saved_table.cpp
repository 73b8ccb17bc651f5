// The input is a saved table, whatever its length and checksum say: they are put right first. Oracles: what is accepted
// answers with rules that it has, alike on every backend and one by one, and is accepted again when it is saved again.
#include <algorithm>
#include <string>

#include "fuzz.h"
#include "meshsieve/classifier.h"
#include "saved/archive.h"
#include "simd/backends.h"

using namespace meshsieve;

namespace {

constexpr size_t kPackets = 65;  // one more than what walks together

std::shared_ptr<const Classifier> load(std::span<const uint8_t> image, const std::string& backend) {
  saved::Reader reader(saved::Image::of(image));
  auto classifier = Classifier::load(reader, backend);
  std::vector<std::string> attachments;
  reader("attachments", attachments);
  reader.finish();
  return classifier;
}

std::vector<uint8_t> save(const Classifier& classifier) {
  saved::Writer writer;
  classifier.save(writer);
  writer("attachments", writer.keep(std::vector<std::string>{}));
  std::vector<uint8_t> image(writer.size());
  writer.write(image.data(), saved::Kind::classifier, 0);
  return image;
}

// Packets of both families that lack some fields; their values often lie on bounds of the rules.
struct Packets {
  std::vector<U128> address[2];
  std::vector<uint32_t> value[kFieldCount];
  std::vector<uint32_t> present;

  Packets(const RuleSet& rules, Cuts& random) {
    std::vector<U128> bounds = {{0, 0}, U128::max()};
    for (const ValueSet& set : rules.sets)
      for (const auto* span : {&set.v4, &set.v6})
        for (const Interval& interval : *span) bounds.insert(bounds.end(), {interval.lo, interval.hi});
    for (size_t i = 0; i < kPackets; ++i) {
      for (auto& column : address) column.push_back(bounds[random.below(bounds.size())]);
      for (int f = 2; f < kFieldCount; ++f)
        value[f].push_back(static_cast<uint32_t>(bounds[random.below(bounds.size())].lo & kFields[f].max_value()));
      value[index_of(Field::ip_ver)].back() = random.below(2) == 0 ? 4 : 6;
      present.push_back(random.below(3) == 0 ? static_cast<uint32_t>(random.below(size_t{1} << 31)) : ~uint32_t{0});
    }
  }

  KeyColumns keys() const {
    KeyColumns keys;
    keys.n = kPackets;
    for (int f = 0; f < kFieldCount; ++f) {
      if (f < 2) keys.column[f] = {address[f].data(), 16, 16};
      else keys.column[f] = {value[f].data(), 4, 4};
    }
    keys.present = present.data();
    return keys;
  }
};

std::vector<RuleResult> answers(const Classifier& classifier, const KeyColumns& keys) {
  std::vector<RuleResult> out(keys.n);
  classifier.lookup_batch(keys, out.data());
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  size = size / saved::kAlignment * saved::kAlignment;
  if (size == 0 || size > size_t{1} << 20) return 0;
  std::vector<uint8_t> image(data, data + size);
  saved::seal(image.data(), image.size());
  std::shared_ptr<const Classifier> classifier;
  try {
    classifier = load(image, "auto");
  } catch (const TableError&) {
    return 0;
  }
  Cuts random({data, size});
  const Packets packets(classifier->rules(), random);
  const KeyColumns keys = packets.keys();
  const std::vector<RuleResult> expected = answers(*classifier, keys);
  for (size_t i = 0; i < kPackets; ++i) {
    check(expected[i] == kNoMatch || rule_of(expected[i]) < classifier->rules().size(), "a rule that is not there");
    check(classifier->lookup(keys.key(i)) == expected[i], "one packet is answered otherwise than in a batch");
  }
  for (const simd::Backend* backend : simd::backends())
    if (backend->supported())
      check(answers(*load(image, backend->name), keys) == expected, "two backends differ");
  check(answers(*load(save(*classifier), "auto"), keys) == expected, "saved again, it answers otherwise");
  return 0;
}
