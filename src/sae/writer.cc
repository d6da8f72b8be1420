#include "sae/writer.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/file.h"
#include "formats/safetensors.h"

namespace saif {

Tensor to_tensor(const std::vector<float>& values) {
  Tensor tensor(DType::kF32, {static_cast<int64_t>(values.size())});
  std::copy(values.begin(), values.end(), tensor.as<float>());
  return tensor;
}

Tensor folded_encoder(const SaeSource& source) {
  Tensor out = to_f32(source.encoder_rows ? transposed(source.w_enc).view() : source.w_enc);
  const Mat<float> w = out.f32();
  for (int64_t r = 0; r < w.rows(); ++r) {
    for (int64_t c = 0; c < w.cols(); ++c) {
      const float latent = source.latent_scale.empty() ? 1.0f : source.latent_scale[static_cast<size_t>(c)];
      w(r, c) *= source.encoder_scale * latent;
    }
  }
  return out;
}

Tensor folded_decoder(const SaeSource& source) {
  Tensor out = to_f32(source.w_dec);
  const Mat<float> w = out.f32();
  for (int64_t r = 0; r < w.rows(); ++r) {
    const float row = source.decoder_row_scale.empty() ? 1.0f : source.decoder_row_scale[static_cast<size_t>(r)];
    for (int64_t c = 0; c < w.cols(); ++c) w(r, c) *= source.decoder_scale * row;
  }
  return out;
}

std::vector<float> folded_bias(const SaeSource& source) {
  std::vector<float> bias = source.b_enc;
  for (size_t j = 0; j < source.latent_scale.size(); ++j) bias[j] *= source.latent_scale[j];
  return bias;
}

void begin_folder(const std::string& folder, DType dtype) {
  if (dtype != DType::kF32 && dtype != DType::kBf16) {
    throw Error(Errc::kUnsupported,
                "an SAE cannot be saved as " + std::string(name_of(dtype)) + "; expected F32 or BF16");
  }
  make_directories(folder);
  const std::string config_file = folder + "/cfg.json";
  if (std::remove(config_file.c_str()) != 0 && errno != ENOENT) {
    throw Error(Errc::kIo, config_file + ": cannot be replaced: " + std::strerror(errno));
  }
}

void write_weights(const std::string& file, const std::vector<std::pair<std::string, Tensor>>& tensors, DType dtype) {
  std::vector<NamedTensor> named;
  named.reserve(tensors.size());
  std::vector<Tensor> converted;
  converted.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) {
    converted.push_back(convert(tensor.view(), dtype));
    named.push_back({name, converted.back().view()});
  }
  write_safetensors(file, named);
}

}  // namespace saif
