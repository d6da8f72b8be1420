// Training written densely and plainly, in float64, for tests: every gradient is a full matrix, every kind a few lines
// from its paper.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "formats/safetensors.h"
#include "saif/sae.h"

namespace saif::test {

class DenseReference {
 public:
  using Vector = std::vector<double>;
  DenseReference(const DenseReference&) = delete;
  DenseReference& operator=(const DenseReference&) = delete;

  // From a trainer's state file.
  DenseReference(const std::string& state, const SaeTrainOptions& options, int64_t total, bool transcoder)
      : o_(options), total_(total), transcoder_(transcoder) {
    const SafetensorsFile file = SafetensorsFile::open(state);
    for (const char* name :
         {"w_enc", "b_enc", "w_dec", "b_dec", "w_skip", "kind.threshold", "kind.r_mag", "kind.b_mag"}) {
      const bool optional = std::string(name).starts_with("kind.") || std::string(name) == "w_skip";
      if (optional && !has(name)) continue;
      const TensorView& view = file.at(name);
      const auto* data = static_cast<const float*>(view.data);
      p_[name] = Vector(data, data + view.elements());
      m_[name] = v_[name] = g_[name] = Vector(p_[name].size(), 0.0);
    }
    scale_ = *static_cast<const double*>(file.at("scale").data);
    encoder_scale_ = *static_cast<const double*>(file.at("encoder_scale").data);
    s_ = static_cast<int64_t>(p_["b_enc"].size());
    d_ = static_cast<int64_t>(p_["w_enc"].size()) / s_;
    e_ = static_cast<int64_t>(p_["b_dec"].size());
    since_.assign(static_cast<size_t>(s_), 0);
    w_enc_ = &p_["w_enc"];
    w_dec_ = &p_["w_dec"];
    g_enc_ = &g_["w_enc"];
    g_dec_ = &g_["w_dec"];
    g_center_ = &g_["b_dec"];
    ends_ = {s_};
    if (!o_.kind.starts_with("matryoshka")) return;
    ends_.clear();
    for (const double share : o_.prefixes) ends_.push_back(std::llround(share * static_cast<double>(s_)));
    ends_.push_back(s_);
  }

  // Forward and backward; the gradients stay in gradients().
  double forward(Mat<const float> x, Mat<const float> y) {
    n_ = x.rows();
    unit_ = static_cast<double>(n_) * scale_ * scale_;
    for (auto& [name, g] : g_) std::fill(g.begin(), g.end(), 0.0);
    std::vector<bool> dead(since_.size());
    for (size_t j = 0; j < dead.size(); ++j) dead[j] = since_[j] >= o_.dead_after;
    encode(x);
    gh_.assign(static_cast<size_t>(n_ * s_), 0.0);
    magnitude_ = gh_;
    const double loss = reconstruct(x, y) + penalty() + via_gate(x, y) + auxiliary(y, dead);
    backward_encoder();
    return loss;
  }

  double step(Mat<const float> x, Mat<const float> y) {
    const double loss = forward(x, y);
    for (int64_t j = 0; j < s_; ++j) {
      bool fired = false;
      for (int64_t r = 0; r < n_; ++r) fired = fired || a_[at(r, j)] > 0;
      since_[static_cast<size_t>(j)] = fired ? 0 : since_[static_cast<size_t>(j)] + n_;
    }
    apply();
    return loss;
  }

  std::map<std::string, Vector>& parameters() { return p_; }
  const std::map<std::string, Vector>& gradients() const { return g_; }
  const std::map<std::string, Vector>& first_moments() const { return m_; }
  double auxiliary_loss() const { return auxiliary_; }

 private:
  bool has(const std::string& name) const {
    if (name == "w_skip") return o_.skip;
    if (name == "kind.threshold") return o_.kind == "jumprelu";
    return o_.kind == "gated";
  }
  size_t at(int64_t r, int64_t j) const { return static_cast<size_t>(r * s_ + j); }
  double& enc(int64_t j, int64_t c) { return (*w_enc_)[static_cast<size_t>(j * d_ + c)]; }
  double& dec(int64_t j, int64_t c) { return (*w_dec_)[static_cast<size_t>(j * e_ + c)]; }
  double warmth() const {
    const double warm = o_.sparsity_warmup * static_cast<double>(total_);
    return warm > 0 ? std::min(1.0, static_cast<double>(steps_ + 1) / warm) : 1.0;
  }

  void encode(Mat<const float> x) {
    z_.assign(static_cast<size_t>(n_ * d_), 0.0);
    h_.assign(static_cast<size_t>(n_ * s_), 0.0);
    a_ = h_;
    for (int64_t r = 0; r < n_; ++r) {
      for (int64_t c = 0; c < d_; ++c) z_[r * d_ + c] = x(r, c) - (transcoder_ ? 0.0 : p_["b_dec"][c]);
      for (int64_t j = 0; j < s_; ++j) {
        double h = p_["b_enc"][j];
        for (int64_t c = 0; c < d_; ++c) h += z_[r * d_ + c] * enc(j, c);
        h_[at(r, j)] = h;
      }
    }
    if (o_.kind == "topk" || o_.kind == "matryoshka-topk") {
      for (int64_t r = 0; r < n_; ++r) keep_largest(r * s_, s_, o_.k);
    } else if (o_.kind == "batchtopk" || o_.kind == "matryoshka") {
      keep_largest(0, n_ * s_, n_ * o_.k);
    } else {
      for (int64_t r = 0; r < n_; ++r) {
        for (int64_t j = 0; j < s_; ++j) a_[at(r, j)] = activation(j, h_[at(r, j)]);
      }
    }
  }

  double activation(int64_t j, double h) {
    if (o_.kind == "jumprelu") return h > p_["kind.threshold"][j] ? h : 0.0;
    if (h <= 0) return 0.0;
    if (o_.kind == "relu") return h;
    return std::max(0.0, std::exp(p_["kind.r_mag"][j]) * (h - p_["b_enc"][j]) + p_["kind.b_mag"][j]);
  }

  void keep_largest(int64_t begin, int64_t count, int64_t k) {
    std::vector<int64_t> order(static_cast<size_t>(count));
    std::iota(order.begin(), order.end(), begin);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return h_[a] > h_[b]; });
    for (int64_t i = 0; i < std::min(k, count); ++i) a_[order[i]] = std::max(0.0, h_[order[i]]);
  }

  // b_dec, the skip connection and a's latents below `end`, for row r.
  Vector decode(const Vector& a, Mat<const float> x, int64_t r, int64_t end) {
    Vector out = p_["b_dec"];
    for (int64_t c = 0; c < e_ && o_.skip; ++c) {
      for (int64_t i = 0; i < d_; ++i) out[c] += p_["w_skip"][c * d_ + i] * x(r, i);
    }
    for (int64_t j = 0; j < end; ++j) {
      for (int64_t c = 0; c < e_ && a[at(r, j)] != 0; ++c) out[c] += a[at(r, j)] * dec(j, c);
    }
    return out;
  }

  double reconstruct(Mat<const float> x, Mat<const float> y) {
    double loss = 0;
    left_.assign(static_cast<size_t>(n_ * e_), 0.0);
    const auto prefixes = static_cast<double>(ends_.size());
    Vector ga(static_cast<size_t>(n_ * s_), 0.0);
    for (const int64_t end : ends_) {
      for (int64_t r = 0; r < n_; ++r) {
        Vector out = decode(a_, x, r, end);
        for (int64_t c = 0; c < e_; ++c) {
          const double error = out[c] - y(r, c);
          left_[r * e_ + c] = -error;
          loss += error * error / unit_ / prefixes;
          out[c] = 2 * error / unit_ / prefixes;
          g_["b_dec"][c] += out[c];
          for (int64_t i = 0; i < d_ && o_.skip; ++i) g_["w_skip"][c * d_ + i] += out[c] * x(r, i);
        }
        for (int64_t j = 0; j < end; ++j) {
          for (int64_t c = 0; c < e_; ++c) {
            ga[at(r, j)] += out[c] * dec(j, c);
            (*g_dec_)[j * e_ + c] += a_[at(r, j)] * out[c];
          }
        }
      }
    }
    through_activation(ga);
    return loss;
  }

  // d loss / d activation to d loss / d pre-activation and the kinds' own parameters.
  void through_activation(const Vector& ga) {
    for (int64_t r = 0; r < n_; ++r) {
      for (int64_t j = 0; j < s_; ++j) {
        const size_t i = at(r, j);
        if (a_[i] > 0) gh_[i] += ga[i];
        if (o_.kind == "jumprelu") pull_threshold(r, j, p_["kind.threshold"][j] * ga[i]);
        if (o_.kind != "gated" || a_[i] <= 0) continue;
        const double stretch = std::exp(p_["kind.r_mag"][j]);
        gh_[i] += ga[i] * stretch - ga[i];
        magnitude_[i] = ga[i] * stretch;
        g_["kind.b_mag"][j] += ga[i];
        g_["kind.r_mag"][j] += ga[i] * stretch * (h_[i] - p_["b_enc"][j]);
      }
    }
  }

  void pull_threshold(int64_t r, int64_t j, double weight) {
    const double width = o_.bandwidth * scale_ / std::sqrt(static_cast<double>(d_)), h = h_[at(r, j)];
    if (h > 0 && std::abs(h - p_["kind.threshold"][j]) < width / 2) g_["kind.threshold"][j] -= weight / width;
  }

  double penalty() {
    const auto rows = static_cast<double>(n_), k = static_cast<double>(o_.k);
    if (o_.kind == "relu" || o_.kind == "gated") {
      const double weight = o_.l1_coefficient * warmth() / (rows * scale_);
      double sum = 0;
      for (size_t i = 0; i < h_.size(); ++i) {
        if (h_[i] <= 0) continue;
        sum += h_[i];
        gh_[i] += weight;
      }
      return weight * sum;
    }
    if (o_.kind != "jumprelu") return 0;
    const auto active = std::count_if(a_.begin(), a_.end(), [](double v) { return v > 0; });
    const double share = static_cast<double>(active) / rows / k, weight = o_.l0_coefficient * warmth();
    const bool linear = o_.l0_penalty == "linear";
    const double slope = weight * (linear ? 1.0 : 2 * (share - 1)) / (k * rows);
    for (int64_t r = 0; r < n_; ++r) {
      for (int64_t j = 0; j < s_; ++j) pull_threshold(r, j, slope);
    }
    return weight * (linear ? share : (share - 1) * (share - 1));
  }

  double via_gate(Mat<const float> x, Mat<const float> y) {
    if (o_.kind != "gated") return 0;
    Vector gate = h_;
    for (double& v : gate) v = std::max(0.0, v);
    double loss = 0;
    for (int64_t r = 0; r < n_; ++r) {
      Vector out = decode(gate, x, r, s_);
      for (int64_t c = 0; c < e_; ++c) {
        out[c] -= y(r, c);
        loss += out[c] * out[c] / unit_;
      }
      for (int64_t j = 0; j < s_; ++j) {
        for (int64_t c = 0; c < e_ && gate[at(r, j)] > 0; ++c) gh_[at(r, j)] += 2 * out[c] * dec(j, c) / unit_;
      }
    }
    return loss;
  }

  double auxiliary(Mat<const float> y, const std::vector<bool>& dead) {
    auxiliary_ = 0;
    if (std::none_of(dead.begin(), dead.end(), [](bool b) { return b; })) return 0;
    const int64_t k = o_.auxiliary_k > 0 ? o_.auxiliary_k : std::max<int64_t>(1, d_ / 2);
    for (int64_t r = 0; r < y.rows(); ++r) {
      std::vector<int64_t> order;
      for (int64_t j = 0; j < s_; ++j) {
        if (dead[j] && h_[at(r, j)] > 0) order.push_back(j);
      }
      std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return h_[at(r, a)] > h_[at(r, b)]; });
      order.resize(std::min<size_t>(order.size(), static_cast<size_t>(k)));
      Vector difference(static_cast<size_t>(e_));
      for (int64_t c = 0; c < e_; ++c) {
        for (const int64_t j : order) difference[c] += h_[at(r, j)] * dec(j, c);
        difference[c] -= left_[r * e_ + c];
        auxiliary_ += difference[c] * difference[c] / unit_;
        difference[c] *= 2 * o_.auxiliary_weight / unit_;
      }
      for (const int64_t j : order) {
        for (int64_t c = 0; c < e_; ++c) {
          gh_[at(r, j)] += difference[c] * dec(j, c);
          (*g_dec_)[j * e_ + c] += h_[at(r, j)] * difference[c];
        }
      }
    }
    return o_.auxiliary_weight * auxiliary_;
  }

  void backward_encoder() {
    for (int64_t r = 0; r < n_; ++r) {
      for (int64_t j = 0; j < s_; ++j) {
        const double g = gh_[at(r, j)];
        if (g == 0) continue;
        g_["b_enc"][j] += g - magnitude_[at(r, j)];
        for (int64_t c = 0; c < d_; ++c) {
          (*g_enc_)[j * d_ + c] += g * z_[r * d_ + c];
          if (!transcoder_) (*g_center_)[c] -= g * enc(j, c);
        }
      }
    }
  }

  void apply() {
    for (int64_t j = 0; j < s_; ++j) {
      double along = 0;
      for (int64_t c = 0; c < e_; ++c) along += g_["w_dec"][j * e_ + c] * dec(j, c);
      for (int64_t c = 0; c < e_; ++c) g_["w_dec"][j * e_ + c] -= along * dec(j, c);
    }
    const auto done = static_cast<double>(steps_), total = static_cast<double>(total_);
    double rate = o_.lr * std::min(1.0, (done + 1) / std::max(1.0, o_.warmup * total));
    if (total - done < o_.decay * total) rate *= (total - done) / (o_.decay * total);
    const double t = done + 1;
    for (auto& [name, p] : p_) {
      const bool length = name == "b_enc" || name == "b_dec" || name == "kind.threshold" || name == "kind.b_mag";
      const double steps = length ? scale_ : name == "w_enc" || name == "w_skip" ? encoder_scale_ : 1.0;
      const double natural = name == "w_enc" || name == "w_skip" ? 1.0 : steps;
      Vector &m = m_[name], &v = v_[name];
      for (size_t q = 0; q < p.size(); ++q) {
        const double g = g_[name][q] * natural;
        m[q] = o_.beta1 * m[q] + (1 - o_.beta1) * g;
        v[q] = o_.beta2 * v[q] + (1 - o_.beta2) * g * g;
        const double mean = m[q] / (1 - std::pow(o_.beta1, t)), square = v[q] / (1 - std::pow(o_.beta2, t));
        p[q] -= steps * rate * mean / (std::sqrt(square) + o_.adam_eps);
      }
    }
    for (int64_t j = 0; j < s_; ++j) {
      double norm = 0;
      for (int64_t c = 0; c < e_; ++c) norm += dec(j, c) * dec(j, c);
      for (int64_t c = 0; c < e_; ++c) dec(j, c) /= std::sqrt(norm);
    }
    ++steps_;
  }

  SaeTrainOptions o_;
  int64_t total_, d_ = 0, e_ = 0, s_ = 0, n_ = 0, steps_ = 0;
  bool transcoder_;
  double scale_ = 1, encoder_scale_ = 1, unit_ = 1, auxiliary_ = 0;
  std::map<std::string, Vector> p_, m_, v_, g_;
  Vector *w_enc_ = nullptr, *w_dec_ = nullptr, *g_enc_ = nullptr, *g_dec_ = nullptr, *g_center_ = nullptr;
  std::vector<int64_t> since_, ends_;
  Vector z_, h_, a_, gh_, left_;
  Vector magnitude_;  // gated: the part of gh_ that b_enc does not see
};

}  // namespace saif::test
