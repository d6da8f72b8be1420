#include "saif/vector.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/check.h"
#include "base/file.h"
#include "formats/safetensors.h"
#include "sae/normalize.h"
#include "saif/options.h"
#include "tensor/rows.h"

namespace saif {
namespace {

const std::vector<std::string> kOps = {"add", "project"};
const std::vector<std::string> kPositions = {"generated", "all", "last"};

size_t index_of(const std::vector<std::string>& names, const std::string& name, const std::string& where) {
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i] == name) return i;
  }
  std::string message = where + " is \"" + name + "\"; expected one of";
  for (const std::string& n : names) message += " " + n;
  throw Error(Errc::kBadFormat, message);
}

double number_in(const std::string& text, const std::string& where) {
  double value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) {
    throw Error(Errc::kBadFormat, where + " is \"" + text + "\"; expected a number");
  }
  return value;
}

// h' scaled back to the norm h had before the edit.
void restore_norm(std::span<float> h, double before) {
  const double after = norm_of(h);
  if (after <= 0) return;
  const auto factor = static_cast<float>(before / after);
  for (float& x : h) x *= factor;
}

class VectorEdit : public RowEdit {
 public:
  VectorEdit(SteeringVector vector, double scale) : vector_(std::move(vector)), scale_(scale * vector_.scale) {
    norm_ = vector_.norm();
  }

  void apply(Mat<float> h, std::span<const int64_t> steps) const override {
    for (int64_t r = 0; r < h.rows(); ++r) edit_row(h.row_span(r), steps[static_cast<size_t>(r)]);
  }

 private:
  void edit_row(std::span<float> h, int64_t step) const {
    const double before = vector_.norm_preserving ? norm_of(h) : 0.0;
    const double t = static_cast<double>(std::max<int64_t>(step, 0));
    const double strength =
        vector_.decay > 0 ? scale_ * std::pow(1.0 + vector_.decay * t, -vector_.decay_power) : scale_;
    if (vector_.op == EditOp::kAdd) {
      add(h, static_cast<float>(strength));
    } else if (norm_ > 0) {
      double along = 0;  // h . u
      for (size_t i = 0; i < h.size(); ++i) along += static_cast<double>(h[i]) * vector_.vector[i];
      along /= norm_;
      add(h, static_cast<float>((strength * norm_ - along) / norm_));
    }
    if (vector_.norm_preserving) restore_norm(h, before);
  }
  void add(std::span<float> h, float factor) const {
    for (size_t i = 0; i < h.size(); ++i) h[i] += factor * vector_.vector[i];
  }

  SteeringVector vector_;
  double scale_, norm_ = 0;
};

// The error term stays. The latents of the whole SAE are computed only where a latent's value depends on the others.
class LatentEdit : public RowEdit {
 public:
  LatentEdit(std::shared_ptr<const Sae> sae, LatentOp op, std::vector<LatentTarget> targets)
      : sae_(std::move(sae)), op_(op), targets_(std::move(targets)) {
    std::vector<int32_t> indices;
    for (const LatentTarget& t : targets_) indices.push_back(t.latent);
    rows_ = sae_->decoder_rows(indices);
    if (auto alone = sae_->subset(indices)) {
      sae_ = std::move(alone);
      for (size_t i = 0; i < targets_.size(); ++i) targets_[i].latent = static_cast<int32_t>(i);
    }
  }

  void apply(Mat<float> h, std::span<const int64_t>) const override {
    const SparseLatents latents = sae_->encode(h);
    for (int64_t r = 0; r < h.rows(); ++r) {
      const auto scale = static_cast<float>(undo_factor(sae_->config().normalize, h.row_span(r)));
      for (size_t i = 0; i < targets_.size(); ++i) {
        const float now = value_of(latents, r, targets_[i].latent);
        const float delta = scale * (target(targets_[i].value, now) - now);
        if (delta == 0.0f) continue;
        const float* row = rows_.f32().row(static_cast<int64_t>(i));
        for (int64_t c = 0; c < h.cols(); ++c) h(r, c) += delta * row[c];
      }
    }
  }

 private:
  float target(float value, float now) const {
    switch (op_) {
      case LatentOp::kClamp:
        return value;
      case LatentOp::kMinClamp:
        return std::max(now, value);
      case LatentOp::kAblate:
        return 0.0f;
    }
    return now;
  }
  static float value_of(const SparseLatents& latents, int64_t row, int32_t latent) {
    const auto begin = latents.indices.begin() + latents.row_offsets[static_cast<size_t>(row)];
    const auto end = latents.indices.begin() + latents.row_offsets[static_cast<size_t>(row) + 1];
    const auto found = std::lower_bound(begin, end, latent);
    if (found == end || *found != latent) return 0.0f;
    return latents.values[static_cast<size_t>(found - latents.indices.begin())];
  }

  std::shared_ptr<const Sae> sae_;
  LatentOp op_;
  std::vector<LatentTarget> targets_;
  Tensor rows_;  // [targets, d_model]
};

Site checked_site(const std::string& name, int64_t width, const std::string& what, const Architecture& architecture) {
  const Site site = Site::parse(name, static_cast<int>(architecture.n_layers));
  if (architecture.width(site) != width) {
    throw Error(Errc::kMismatch, what + " is " + std::to_string(width) + " wide, but " + name + " of this model is " +
                                     std::to_string(architecture.width(site)) + " wide; it was made for another model");
  }
  return site;
}

}  // namespace

EditOp parse_edit_op(const std::string& name, const std::string& where) {
  return static_cast<EditOp>(index_of(kOps, name, where));
}

double SteeringVector::norm() const { return norm_of(vector); }

SteeringVector SteeringVector::load(const std::string& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  const TensorView* tensor = file.find("vector");
  if (!tensor) throw Error(Errc::kBadFormat, path + ": no tensor \"vector\"; a steering vector file holds one");
  if (tensor->dtype != DType::kF32 || tensor->shape.size() != 1) {
    throw Error(Errc::kBadFormat, path + ": tensor \"vector\" is " + name_of(tensor->dtype) + " " +
                                      tensor->shape_text() + "; expected F32 [d_model]");
  }
  SteeringVector out;
  const Mat<const float> values(static_cast<const float*>(tensor->data), 1, tensor->elements());
  out.vector.assign(values.data(), values.data() + values.cols());
  for (const float x : out.vector) {
    if (!std::isfinite(x)) throw Error(Errc::kBadFormat, path + ": tensor \"vector\" holds NaN or infinity");
  }
  for (const auto& [key, value] : file.metadata()) {
    const std::string where = path + ": metadata " + key;
    if (key == "saif.site") out.site = value;
    if (key == "saif.op") out.op = parse_edit_op(value, where);
    if (key == "saif.positions") out.positions = static_cast<EditPositions>(index_of(kPositions, value, where));
    if (key == "saif.norm_preserving") out.norm_preserving = value == "true";
    if (key == "saif.decay") out.decay = number_in(value, where);
    if (key == "saif.decay_power") out.decay_power = number_in(value, where);
    if (key == "saif.scale") out.scale = number_in(value, where);
    if (key == "saif.origin") out.origin = parse_json(value).value();
  }
  if (out.site.empty()) {
    throw Error(Errc::kBadFormat, path +
                                      ": metadata saif.site is missing; it says where the vector is added, for "
                                      "instance blocks.24.hook_resid_post");
  }
  return out;
}

void SteeringVector::save(const std::string& path) const {
  const NamedTensor tensor{"vector", {DType::kF32, {static_cast<int64_t>(vector.size())}, vector.data()}};
  write_safetensors(path, {&tensor, 1},
                    {{"saif.site", site},
                     {"saif.op", kOps[static_cast<size_t>(op)]},
                     {"saif.positions", kPositions[static_cast<size_t>(positions)]},
                     {"saif.norm_preserving", norm_preserving ? "true" : "false"},
                     {"saif.decay", Json(decay).dump()},
                     {"saif.decay_power", Json(decay_power).dump()},
                     {"saif.scale", Json(scale).dump()},
                     {"saif.origin", origin.dump()}});
}

SteerArgument parse_steer(std::string_view text) {
  SteerArgument out{std::string(text), 1.0};
  const size_t colon = text.rfind(':');
  if (file_exists(out.path) || colon == std::string_view::npos) return out;
  out.path = std::string(text.substr(0, colon));
  try {
    out.scale = number_in(std::string(text.substr(colon + 1)), "scale");
  } catch (const Error&) {
    throw Error(Errc::kInvalidArgument, "--steer " + std::string(text) +
                                            ": the scale after the colon is not a number; " +
                                            "expected FILE or FILE:SCALE, and no such file exists");
  }
  return out;
}

AppliedEdit make_edit(const SteeringVector& vector, double scale, const Architecture& architecture) {
  const Site site =
      checked_site(vector.site, static_cast<int64_t>(vector.vector.size()), "the steering vector", architecture);
  return {site, vector.positions, std::make_shared<VectorEdit>(vector, scale)};
}

AppliedEdit make_latent_edit(std::shared_ptr<const Sae> sae, LatentOp op, std::vector<LatentTarget> targets,
                             EditPositions positions, const Architecture& architecture) {
  const SaeConfig& config = sae->config();
  if (config.transcoder) {
    throw Error(Errc::kUnsupported, sae->path() + ": is a transcoder, whose latents are read at " + config.site +
                                        " and written elsewhere; only an autoencoder's latents can be edited in place");
  }
  const Site site = checked_site(config.site, config.d_in, "the SAE", architecture);
  return {site, positions, std::make_shared<LatentEdit>(std::move(sae), op, std::move(targets))};
}

}  // namespace saif
