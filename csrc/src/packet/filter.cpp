#include "packet/filter.h"

#include <pcap/pcap.h>

#include "meshsieve/errors.h"
#include "packet/record_reader.h"

namespace meshsieve {

namespace {

// Files number some link types (LINKTYPE_) otherwise than libpcap does inside (DLT_, here of Linux).
int dlt_of(uint32_t link_type) {
  switch (link_type) {
    case 50: return DLT_PPP_SERIAL;
    case 51: return DLT_PPP_ETHER;
    case 100: return DLT_ATM_RFC1483;
    case 101: return DLT_RAW;
    case 102: return DLT_SLIP_BSDOS;
    case 103: return DLT_PPP_BSDOS;
    default: return static_cast<int>(link_type);
  }
}

}  // namespace

struct Filter::Program {
  uint32_t link_type;
  bpf_program code{};
  ~Program() { pcap_freecode(&code); }
};

Filter::Filter(std::string expression) : expression_(std::move(expression)) {
  std::string first_refusal;
  for (const uint32_t link_type : {1u, 101u, 127u}) {
    try {
      compile(link_type);
      return;
    } catch (const FilterError& error) {
      if (first_refusal.empty()) first_refusal = error.what();
    }
  }
  throw FilterError(first_refusal);
}

Filter::~Filter() = default;

std::unique_ptr<Filter::Program> Filter::compile(uint32_t link_type) const {
  const std::unique_ptr<pcap_t, void (*)(pcap_t*)> handle(
      pcap_open_dead(dlt_of(link_type), static_cast<int>(kMaxPacketBytes)), pcap_close);
  if (!handle) throw std::bad_alloc();
  auto program = std::make_unique<Program>();
  program->link_type = link_type;
  if (pcap_compile(handle.get(), &program->code, expression_.c_str(), 1, PCAP_NETMASK_UNKNOWN) != 0) {
    const char* name = pcap_datalink_val_to_name(dlt_of(link_type));
    throw FilterError("the filter '" + expression_ + "' cannot be compiled for link type " +
                      (name ? name : std::to_string(link_type)) + ": " + pcap_geterr(handle.get()));
  }
  return program;
}

void Filter::select(uint32_t link_type) {
  current_ = nullptr;
  for (const auto& program : programs_) {
    if (program->link_type == link_type) current_ = program.get();
  }
  if (!current_) {
    programs_.push_back(compile(link_type));
    current_ = programs_.back().get();
  }
  current_link_type_ = link_type;
}

bool Filter::run(const Record& record) const {
  return bpf_filter(current_->code.bf_insns, record.data, record.length, record.captured) != 0;
}

}  // namespace meshsieve
