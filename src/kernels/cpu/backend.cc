#include "kernels/backend.h"

namespace saif {

std::unique_ptr<Backend> make_cpu_backend(const std::string& /*isa*/) { return make_ref_backend(); }
std::vector<std::string> supported_isas() { return {"generic"}; }

}  // namespace saif
