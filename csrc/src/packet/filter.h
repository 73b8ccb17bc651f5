// A tcpdump filter expression, compiled by libpcap for each link type that occurs and applied to raw records.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "meshsieve/packet.h"

struct bpf_program;

namespace meshsieve {

class Filter {
 public:
  // Throws FilterError if libpcap refuses the expression for every common link type.
  explicit Filter(std::string expression);
  ~Filter();
  Filter(const Filter&) = delete;
  Filter& operator=(const Filter&) = delete;

  // Throws FilterError if the expression cannot be asked of the record's link type.
  bool matches(const Record& record) {
    if (record.link_type != current_link_type_ || !current_) select(record.link_type);
    return run(record);
  }

 private:
  struct Program;
  void select(uint32_t link_type);
  bool run(const Record& record) const;
  std::unique_ptr<Program> compile(uint32_t link_type) const;

  std::string expression_;
  std::vector<std::unique_ptr<Program>> programs_;
  uint32_t current_link_type_ = 0;
  const Program* current_ = nullptr;
};

}  // namespace meshsieve
