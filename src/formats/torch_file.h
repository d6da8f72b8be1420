// torch's .pt and .pth: a zip archive of one pickle and the storages that its tensors lie in.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "formats/npz.h"
#include "saif/json.h"

namespace saif {

// Cheap to copy: copies share the mapping. Contiguous, aligned tensors stay mapped; others are copied, together never
// more than the file's size.
class TorchFile {
 public:
  // Throws Error naming file and what is wrong; nothing in the file is executed. `verify`: the checksums of all
  // members, which reads the whole file; a checksum of 0 was never written (torch.serialization.set_crc32_options).
  static TorchFile open(const std::string& path, bool verify = true);

  const std::string& path() const;
  bool has_dictionary(const std::string& key) const;
  // The dictionary under a key of this one.
  TorchFile dictionary(const std::string& key) const;
  // The tensors of this dictionary, by its string keys; those inside of further dictionaries are left out.
  TensorArchive tensors() const;
  // The keys of what else is in this dictionary. kUnsupported where a key is no string.
  std::vector<std::string> others() const;
  // Everything else in it as JSON, to a depth of four: null where that cannot say it.
  Json plain() const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
  uint32_t node_ = 0;
};

}  // namespace saif
