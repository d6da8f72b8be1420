// Any bytes: parse_pickle runs nothing, and its graph refers to its own nodes only and is linear in the input.
#include <cstdint>
#include <cstdlib>

#include "formats/pickle.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parsed = saif::parse_pickle(std::as_bytes(std::span(data, size)));
  if (!parsed.ok()) return 0;
  const saif::Pickle& pickle = parsed.value();
  if (pickle.root >= pickle.nodes.size() || pickle.nodes.size() > 4 * size + 16) std::abort();
  size_t edges = 0;
  for (const auto& node : pickle.nodes) {
    for (const uint32_t child : node.children) {
      if (child >= pickle.nodes.size()) std::abort();
    }
    edges += node.children.size();
    if (node.kind == saif::Pickle::Kind::kTensor && node.children.empty()) std::abort();
    if (node.kind == saif::Pickle::Kind::kDict) (void)pickle.find(node, "state_dict");
  }
  if (edges > 4 * size + 16) std::abort();
  return 0;
}
