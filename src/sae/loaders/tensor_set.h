// What the loaders share: the named tensors and the configuration of one SAE, each read as a closed world. A tensor or
// key that no loader asked for is an error that names it, never a silent default.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <regex>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/safetensors.h"
#include "sae/source.h"
#include "saif/json.h"
#include "saif/tensor.h"

namespace saif {

// Not thread-safe. Views handed out live as long as the file that they came from.
class TensorSet {
 public:
  TensorSet(std::string path, std::vector<std::pair<std::string, TensorView>> tensors)
      : path_(std::move(path)), tensors_(std::move(tensors)) {}
  explicit TensorSet(const SafetensorsFile& file);

  const std::string& path() const { return path_; }
  bool contains(std::string_view name) const { return find(name) != nullptr; }
  // [rows, columns] of a matrix, to take d_in and d_sae from where no configuration says them.
  std::pair<int64_t, int64_t> size_of_matrix(const std::string& name) const;

  // Floating-point data of exactly this shape. `reason` ends the message when the tensor is missing.
  TensorView matrix(const std::string& name, const std::vector<int64_t>& shape, const std::string& reason = "");
  // Finite values, as float32.
  std::vector<float> vector(const std::string& name, int64_t size, const std::string& reason = "");
  float scalar(const std::string& name);                   // of one element, whatever its rank
  std::vector<int64_t> integers(const std::string& name);  // a scalar or vector of an integer type
  int64_t integer(const std::string& name);                // of one element

  void ignore(const std::string& name) { used_.insert(name); }  // it cannot change a result
  bool all_ones(const std::string& name) const;                 // to 1e-5
  // Throws kUnsupported naming the first tensor that was neither read nor ignored.
  void finish() const;

 private:
  const TensorView* find(std::string_view name) const;
  const TensorView& require(const std::string& name, const std::string& reason);

  std::string path_;
  std::vector<std::pair<std::string, TensorView>> tensors_;
  std::set<std::string, std::less<>> used_;
};

// A JSON object of options. Messages begin with the file's name.
class KeySet {
 public:
  KeySet(std::string file, Json json);

  const std::string& file() const { return file_; }
  const Json* find(const std::string& key);  // marks it used; nullptr when absent or null
  bool contains(const std::string& key) const;
  bool is_null(const std::string& key) const;  // given as null, which `find` takes for absent
  int64_t size(const std::string& key);        // required, 1 to 2^30
  int64_t size(const std::string& key, int64_t otherwise);
  double number(const std::string& key);  // required, finite
  double number(const std::string& key, double otherwise);
  bool boolean(const std::string& key, bool otherwise);
  std::string string(const std::string& key);  // required
  std::string string(const std::string& key, const std::string& otherwise);
  // Throws kUnsupported unless the key is absent or has this value.
  void require_value(const std::string& key, const Json& value, const std::string& why);

  // Keys without effect on a result; those present go into `metadata`.
  void ignore(const std::vector<std::string>& keys, Json& metadata);
  // Throws kUnsupported naming the first key that was neither read nor ignored.
  void finish() const;
  [[noreturn]] void fail(Errc code, const std::string& message) const;

 private:
  std::string file_;
  Json json_;
  std::set<std::string, std::less<>> used_;
};

// Sets the decoder from torch's Linear weight, [d_out, d_sae]: a copy [d_sae, d_out] that the source owns.
void set_linear_decoder(SaeSource& source, const TensorView& weight);

// Where a pattern occurs last in a text, which must outlive the answer: of a path's names the nearest to the file
// count.
std::optional<std::smatch> last_match(const std::string& text, const std::regex& pattern);

// TransformerLens' name of "model.layers.7.output", "layers.6", "layers.3.mlp" and the like; "" when it is not known.
std::string site_of_module(const std::string& module);

}  // namespace saif
