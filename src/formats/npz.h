// numpy's .npy and .npz. Arrays are numbers: an object array, which is a pickle, is refused.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "saif/error.h"
#include "saif/tensor.h"

namespace saif {

struct NpyView {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  bool column_major = false;
  size_t begin = 0;  // of the data, from the start of the bytes
};

// Pure. The data that the header promises lies in `bytes`.
Result<NpyView> parse_npy(std::span<const std::byte> bytes);

// Named tensors of one file and what keeps them alive.
struct TensorArchive {
  std::vector<std::pair<std::string, TensorView>> tensors;
  std::shared_ptr<const void> owner;
};

// Row-major arrays that lie aligned in the file stay mapped; deflated and other ones are copied. Throws Error naming
// file and array. `verify`: checksums, which reads the whole file; those of deflated arrays are always verified.
TensorArchive open_npz(const std::string& path, bool verify = true);

}  // namespace saif
