#include "sae/trainer_state.h"

#include <cstring>
#include <vector>

#include "formats/safetensors.h"

namespace saif {
namespace {

constexpr const char* kFormat = "saif_sae_training_state_1";

struct Field {
  const char* name;
  Tensor* tensor;
};

std::vector<Field> fields_of(TrainerState& s) {
  return {{"w_enc", &s.weights.w_enc},         {"b_enc", &s.weights.b_enc},        {"w_dec", &s.weights.w_dec},
          {"b_dec", &s.weights.b_dec},         {"w_enc.m", &s.encoder.first},      {"w_enc.v", &s.encoder.second},
          {"w_dec.m", &s.decoder.first},       {"w_dec.v", &s.decoder.second},     {"b_enc.m", &s.encoder_bias.first},
          {"b_enc.v", &s.encoder_bias.second}, {"b_dec.m", &s.decoder_bias.first}, {"b_dec.v", &s.decoder_bias.second},
          {"since_fired", &s.since_fired}};
}

}  // namespace

void TrainerState::allocate(int64_t d_in, int64_t d_sae) {
  const auto moments = [](const std::vector<int64_t>& shape) {
    return Moments{Tensor::zeros(DType::kF32, shape), Tensor::zeros(DType::kF32, shape)};
  };
  weights.w_enc = Tensor::zeros(DType::kF32, {d_sae, d_in});
  weights.w_dec = Tensor::zeros(DType::kF32, {d_sae, d_in});
  weights.b_enc = Tensor::zeros(DType::kF32, {d_sae});
  weights.b_dec = Tensor::zeros(DType::kF32, {d_in});
  encoder = moments({d_sae, d_in});
  decoder = moments({d_sae, d_in});
  encoder_bias = moments({d_sae});
  decoder_bias = moments({d_in});
  since_fired = Tensor::zeros(DType::kI64, {d_sae});
}

void TrainerState::save(const std::string& file, const std::string& identity) const {
  std::vector<NamedTensor> tensors;
  for (const Field& field : fields_of(const_cast<TrainerState&>(*this))) {
    tensors.push_back({field.name, field.tensor->view()});
  }
  tensors.push_back({"scale", {DType::kF64, {1}, &scale}});
  tensors.push_back({"steps", {DType::kI64, {1}, &steps}});
  write_safetensors(file, tensors, {{"format", kFormat}, {"identity", identity}});
}

void TrainerState::load(const std::string& file, const std::string& identity) {
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
  const auto read = [&](const char* name, void* to, const TensorView& expected) {
    const TensorView& view = stored.at(name);
    if (view.dtype != expected.dtype || view.shape != expected.shape) {
      throw Error(Errc::kBadFormat, file + ": tensor " + name + " is " + name_of(view.dtype) + " " + view.shape_text() +
                                        "; expected " + name_of(expected.dtype) + " " + expected.shape_text());
    }
    std::memcpy(to, view.data, view.bytes());
  };
  for (const Field& field : fields_of(*this)) read(field.name, field.tensor->data(), field.tensor->view());
  read("scale", &scale, {DType::kF64, {1}, nullptr});
  read("steps", &steps, {DType::kI64, {1}, nullptr});
}

}  // namespace saif
