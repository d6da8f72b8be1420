// A reader of pickles that runs nothing: it knows plain values, OrderedDict and the rebuilding of tensors, and refuses
// every other global by name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "saif/error.h"
#include "saif/tensor.h"

namespace saif {

// What a pickle describes, as a graph: values refer to each other by their place in `nodes`. A value may be shared, and
// a hostile pickle may hold cycles: walk to a bounded depth only.
struct Pickle {
  enum class Kind { kNone, kBool, kInt, kFloat, kString, kTuple, kList, kDict, kGlobal, kStorage, kTensor, kMark };
  struct Node {
    Kind kind = Kind::kNone;
    int64_t integer = 0;                  // kBool, kInt; kStorage: its number of elements; kTensor: offset in elements
    double number = 0;                    // kFloat
    std::string text;                     // kString; kGlobal: "torch.FloatStorage"; kStorage: its key in the archive
    DType dtype = DType::kF32;            // kStorage, kTensor
    std::vector<uint32_t> children;       // elements; kDict: key, value, key, value, ...; kTensor: its storage
    std::vector<int64_t> shape, strides;  // kTensor, in elements
  };
  std::vector<Node> nodes;
  uint32_t root = 0;

  const Node& at(uint32_t index) const { return nodes[index]; }
  // The value of a string key of a dictionary, which has each at most once; nullptr when there is none.
  const Node* find(const Node& dictionary, const std::string& key) const;
};

// Pure. Memory is linear in the bytes. kRefused names a global that is not admitted; a string key given twice in a
// dictionary and a tensor with a negative or conjugate bit are errors.
Result<Pickle> parse_pickle(std::span<const std::byte> bytes);

}  // namespace saif
