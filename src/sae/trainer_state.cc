#include "sae/trainer_state.h"

#include <cstring>
#include <vector>

#include "formats/safetensors.h"

namespace saif {
namespace {

constexpr const char* kFormat = "saif_sae_training_state_2";

struct Field {
  std::string name;
  Tensor* tensor;
};

std::vector<Field> fields_of(TrainerState& s, const std::vector<KindVector*>& vectors) {
  std::vector<Field> fields = {{"w_enc", &s.weights.w_enc},
                               {"b_enc", &s.weights.b_enc},
                               {"w_dec", &s.weights.w_dec},
                               {"b_dec", &s.weights.b_dec},
                               {"since_fired", &s.since_fired}};
  const auto add_moments = [&](const std::string& name, Moments& moments) {
    fields.push_back({name + ".m", &moments.first});
    fields.push_back({name + ".v", &moments.second});
  };
  add_moments("w_enc", s.encoder);
  add_moments("w_dec", s.decoder);
  add_moments("b_enc", s.encoder_bias);
  add_moments("b_dec", s.decoder_bias);
  if (!s.weights.w_skip.empty()) {
    fields.push_back({"w_skip", &s.weights.w_skip});
    add_moments("w_skip", s.skip);
  }
  for (KindVector* v : vectors) {
    fields.push_back({"kind." + v->name, &v->value});
    if (v->unit != 0) add_moments("kind." + v->name, v->moments);
  }
  return fields;
}

}  // namespace

void TrainerState::allocate(int64_t d_in, int64_t d_out, int64_t d_sae, bool with_skip) {
  const auto zeros = [](const std::vector<int64_t>& shape) { return Tensor::zeros(DType::kF32, shape); };
  const auto moments = [&](const std::vector<int64_t>& shape) { return Moments{zeros(shape), zeros(shape)}; };
  weights.w_enc = zeros({d_sae, d_in});
  weights.w_dec = zeros({d_sae, d_out});
  weights.b_enc = zeros({d_sae});
  weights.b_dec = zeros({d_out});
  encoder = moments({d_sae, d_in});
  decoder = moments({d_sae, d_out});
  encoder_bias = moments({d_sae});
  decoder_bias = moments({d_out});
  since_fired = Tensor::zeros(DType::kI64, {d_sae});
  if (!with_skip) return;
  weights.w_skip = zeros({d_out, d_in});
  skip = moments({d_out, d_in});
}

void TrainerState::save(const std::string& file, const std::string& identity,
                        const std::vector<KindVector*>& vectors) const {
  std::vector<NamedTensor> tensors;
  for (const Field& field : fields_of(const_cast<TrainerState&>(*this), vectors)) {
    tensors.push_back({field.name, field.tensor->view()});
  }
  tensors.push_back({"scale", {DType::kF64, {1}, &scale}});
  tensors.push_back({"encoder_scale", {DType::kF64, {1}, &encoder_scale}});
  tensors.push_back({"steps", {DType::kI64, {1}, &steps}});
  write_safetensors(file, tensors, {{"format", kFormat}, {"identity", identity}});
}

void TrainerState::load(const std::string& file, const std::string& identity, const std::vector<KindVector*>& vectors) {
  const SafetensorsFile stored = SafetensorsFile::open(file);
  const SafetensorsMetadata& metadata = stored.metadata();
  const auto format = metadata.find("format"), owner = metadata.find("identity");
  if (format == metadata.end() || format->second != kFormat || owner == metadata.end()) {
    throw Error(Errc::kBadFormat, file + ": not a training state of this version of saif; start in another folder");
  }
  if (owner->second != identity) {
    throw Error(Errc::kMismatch, file + ": written with other options (" + owner->second + " where this run has " +
                                     identity + "); use the same options or start in another folder");
  }
  const auto read = [&](const std::string& name, void* to, const TensorView& expected) {
    const TensorView& view = stored.at(name);
    if (view.dtype != expected.dtype || view.shape != expected.shape) {
      throw Error(Errc::kBadFormat, file + ": tensor " + name + " is " + name_of(view.dtype) + " " + view.shape_text() +
                                        "; expected " + name_of(expected.dtype) + " " + expected.shape_text());
    }
    std::memcpy(to, view.data, view.bytes());
  };
  for (const Field& field : fields_of(*this, vectors)) read(field.name, field.tensor->data(), field.tensor->view());
  read("scale", &scale, {DType::kF64, {1}, nullptr});
  read("encoder_scale", &encoder_scale, {DType::kF64, {1}, nullptr});
  read("steps", &steps, {DType::kI64, {1}, nullptr});
}

}  // namespace saif
