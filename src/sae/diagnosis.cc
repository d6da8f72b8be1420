#include "sae/diagnosis.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <optional>

#include "sae/altered.h"
#include "sae/loaders/tensor_set.h"
#include "tensor/rows.h"

namespace saif {
namespace {

constexpr double kMaxL0Ratio = 2.0;
constexpr int64_t kRows = 192;  // tokens that neighbours are judged by
constexpr int kLayersAround = 2;

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value);
  return text;
}

// What an SAE does to rows. `gain`: of x^ - b_dec, the factor that fits best.
struct Fit {
  double l0 = 0, fvu = 0, fvu_with_gain = 0, gain = 1;
};

Fit fit_of(const Sae& sae, Mat<const float> x, Mat<const float> target) {
  const SparseLatents latents = sae.encode(x);
  const Tensor decoded = sae.decode(latents, x);
  SparseLatents none;
  none.row_offsets.assign(static_cast<size_t>(x.rows()) + 1, 0);
  const Tensor silent = sae.decode(none, x);
  const Mat<const float> y = decoded.f32(), base = silent.f32();
  const auto n = static_cast<double>(std::max<int64_t>(1, x.rows()));
  double error = 0, wanted = 0, product = 0, square = 0, variance = 0;
  for (int64_t c = 0; c < target.cols(); ++c) {
    double sum = 0;
    for (int64_t r = 0; r < target.rows(); ++r) sum += target(r, c);
    for (int64_t r = 0; r < target.rows(); ++r) {
      const double t = target(r, c), u = static_cast<double>(y(r, c)) - base(r, c), v = t - base(r, c);
      error += (v - u) * (v - u);
      wanted += v * v;
      product += v * u;
      square += u * u;
      variance += (t - sum / n) * (t - sum / n);
    }
  }
  Fit out;
  out.l0 = latents.mean_l0();
  out.fvu = variance > 0 ? error / variance : INFINITY;
  out.gain = square > 0 ? product / square : 0.0;
  out.fvu_with_gain = variance > 0 ? (wanted - out.gain * product) / variance : INFINITY;
  return out;
}

Tensor scaled(Mat<const float> x, double factor) {
  Tensor out(DType::kF32, {x.rows(), x.cols()});
  for (int64_t r = 0; r < x.rows(); ++r) {
    for (int64_t c = 0; c < x.cols(); ++c) out.f32()(r, c) = static_cast<float>(x(r, c) * factor);
  }
  return out;
}

double mean_norm(Mat<const float> x) {
  double sum = 0;
  for (int64_t r = 0; r < x.rows(); ++r) sum += norm_of(x.row_span(r));
  return sum / static_cast<double>(std::max<int64_t>(1, x.rows()));
}

// Rows of one capture: an even choice of kRows tokens, without the documents' first ones or with all of those.
class Rows {
 public:
  Rows(const Engine::Capture& capture, bool with_first) {
    for (size_t d = 0; d + 1 < capture.row_offsets.size(); ++d) {
      for (int64_t r = capture.row_offsets[d]; r < capture.row_offsets[d + 1]; ++r) {
        const bool first = r == capture.row_offsets[d];
        if (!first || with_first) all_.push_back(r);
      }
    }
    // First tokens are a few of many: their share must be the corpus's own, so that all rows are taken.
    const auto step = with_first ? size_t{1} : std::max<size_t>(1, all_.size() / static_cast<size_t>(kRows));
    for (size_t i = 0; i < all_.size(); i += step) chosen_.push_back(all_[i]);
  }

  Tensor of(Mat<const float> values) const { return rows_of(values, chosen_); }

 private:
  std::vector<int64_t> all_, chosen_;
};

// The pairs (read, reconstructed) around the stated ones: layers within kLayersAround, and the other sites of a block.
struct SitePair {
  Site in, out;
};

std::vector<SitePair> sites_around(const Sae& sae, const Architecture& architecture, const SitePair& stated) {
  const SaeConfig& config = sae.config();
  const bool two = !(stated.in == stated.out);
  std::vector<SitePair> out = {stated};
  const auto offer = [&](SiteKind kind, int layer) {
    SitePair pair{{kind, layer}, {kind, layer}};
    if (two) pair.out = {stated.out.kind, stated.out.layer + layer - stated.in.layer};
    const auto exists = [&](const Site& site) {
      return site.layer < 0 || (site.layer < architecture.n_layers && architecture.computes(site));
    };
    if (layer < 0 || !exists(pair.in) || !exists(pair.out)) return;
    if (architecture.width(pair.in) != config.d_in || architecture.width(pair.out) != config.d_out) return;
    const auto same = [&](const SitePair& p) { return p.in == pair.in && p.out == pair.out; };
    if (std::none_of(out.begin(), out.end(), same)) out.push_back(pair);
  };
  const int from = stated.in.layer < 0 ? 0 : stated.in.layer - kLayersAround;
  const int to = stated.in.layer < 0 ? kLayersAround : stated.in.layer + kLayersAround;
  for (int layer = from; layer <= to; ++layer) offer(stated.in.kind, layer);  // the stated kind's names first
  for (int layer = from; layer <= to; ++layer) {
    for (const SiteKind kind : {SiteKind::kResidPre, SiteKind::kResidMid, SiteKind::kResidPost, SiteKind::kMlpOut,
                                SiteKind::kAttnOut, SiteKind::kLn2, SiteKind::kZ}) {
      offer(kind, layer);
    }
  }
  return out;
}

// The same values under another name: what enters a block is what leaves the one before.
std::string alias_of(const Site& site, const Architecture& architecture) {
  if (site.kind == SiteKind::kResidPre && site.layer > 0) return Site{SiteKind::kResidPost, site.layer - 1}.name();
  if (site.kind == SiteKind::kResidPost && site.layer + 1 < architecture.n_layers) {
    return Site{SiteKind::kResidPre, site.layer + 1}.name();
  }
  return "";
}

class Trial {
 public:
  Trial(const Sae& sae, Engine& engine, const std::vector<std::vector<int32_t>>& documents, const Site& site,
        const Control& control)
      : sae_(sae), engine_(engine), control_(control), documents_(documents) {
    const SaeConfig& config = sae.config();
    const Architecture& architecture = engine.model().architecture();
    stated_ = {site, site};
    if (config.transcoder) stated_.out = Site::parse(config.site_out, static_cast<int>(architecture.n_layers));
    pairs_ = sites_around(sae, architecture, stated_);
    std::vector<Site> sites;
    for (const SitePair& pair : pairs_) {
      for (const Site& s : {pair.in, pair.out}) {
        if (std::find(sites.begin(), sites.end(), s) == sites.end()) sites.push_back(s);
      }
    }
    capture_ = engine.capture(documents, sites, false, control);
  }

  std::vector<Neighbour> run() {
    const Rows rows(capture_, false);
    x_ = rows.of(capture_.at(stated_.in.name()).f32());
    target_ = rows.of(capture_.at(stated_.out.name()).f32());
    try_sites(rows);
    try_first_tokens();
    try_orientations();
    try_normalisations();
    try_scales();
    std::stable_sort(out_.begin(), out_.end(),
                     [&](const Neighbour& a, const Neighbour& b) { return rank(a) < rank(b); });
    return std::move(out_);
  }

 private:
  // Passing neighbours first, then by FVU; where an L0 is published, an octave off it counts as FVU 0.3.
  double rank(const Neighbour& n) const {
    const std::optional<double>& published = sae_.config().published_l0;
    const double octaves = published && *published > 0 ? std::abs(std::log2(std::max(n.l0, 1e-3) / *published)) : 0.0;
    return (passes_check(sae_.config(), n.l0, n.fvu) ? 0.0 : 1e6) + n.fvu + n.doubt + 0.3 * octaves;
  }

  void add(std::string what, std::string advice, double l0, double fvu, double doubt) {
    out_.push_back({std::move(what), std::move(advice), l0, fvu, doubt});
  }

  void try_variant(const std::string& what, const std::string& advice, double doubt,
                   const std::function<void(SaeSource&)>& change) {
    control_.check("looking for the cause");
    const std::shared_ptr<const Sae> variant = altered(sae_, change);
    if (variant == nullptr) return;
    const Fit fit = fit_of(*variant, x_.f32(), target_.f32());
    add(what, advice, fit.l0, fit.fvu, doubt);
  }

  void try_sites(const Rows& rows) {
    const Architecture& architecture = engine_.model().architecture();
    const std::string stated = stated_.in.name(), stated_alias = alias_of(stated_.in, architecture);
    for (const SitePair& pair : pairs_) {
      const std::string name = pair.in.name();
      if (name == stated || name == stated_alias) continue;
      const std::string alias = alias_of(pair.in, architecture);
      const auto seen = [&](const Neighbour& n) { return !alias.empty() && n.what.find(alias) != std::string::npos; };
      if (std::any_of(out_.begin(), out_.end(), seen)) continue;
      control_.check("looking for the cause");
      const Fit fit =
          fit_of(sae_, rows.of(capture_.at(name).f32()).f32(), rows.of(capture_.at(pair.out.name()).f32()).f32());
      add("at " + name + (alias.empty() ? "" : " (= " + alias + ")"),
          "the site " + stated + " is wrong; pass --site " + name, fit.l0, fit.fvu, 0.0);
    }
  }

  void try_first_tokens() {
    const Rows with(capture_, true);
    const Fit fit = fit_of(sae_, with.of(capture_.at(stated_.in.name()).f32()).f32(),
                           with.of(capture_.at(stated_.out.name()).f32()).f32());
    add("with the first token (BOS) of every text counted",
        "the published figures include BOS, which this check leaves out: override it", fit.l0, fit.fvu, 0.02);
    // Texts begun the other way: with BOS where the tokenizer adds none, without where it adds one.
    const std::optional<int32_t> bos = engine_.tokenizer().bos_id();
    if (!bos) return;
    std::vector<std::vector<int32_t>> other = documents_;
    bool had = false;
    for (std::vector<int32_t>& document : other) {
      had = !document.empty() && document.front() == *bos;
      if (had) {
        document.erase(document.begin());
      } else {
        document.insert(document.begin(), *bos);
        if (static_cast<int64_t>(document.size()) > engine_.model().architecture().context) document.pop_back();
      }
    }
    std::vector<Site> sites = {stated_.in};
    if (!(stated_.out == stated_.in)) sites.push_back(stated_.out);
    const Engine::Capture capture = engine_.capture(other, sites, false, control_);
    const Rows rows(capture, false);
    const Fit second = fit_of(sae_, rows.of(capture.at(stated_.in.name()).f32()).f32(),
                              rows.of(capture.at(stated_.out.name()).f32()).f32());
    add(had ? "on texts without BOS before them" : "on texts with BOS before them",
        "it was trained on texts begun this way: give them to the model so", second.l0, second.fvu, 0.02);
  }

  void try_orientations() {
    const SaeConfig& config = sae_.config();
    if (config.kind == SaeKind::kMatchingPursuit) return;
    const auto encoder = [](SaeSource& source) {
      source.encoder_rows = !source.encoder_rows;
      std::swap(source.w_enc.shape[0], source.w_enc.shape[1]);
    };
    const auto decoder = [](SaeSource& source) {
      TensorView other = source.w_dec;
      std::swap(other.shape[0], other.shape[1]);
      set_linear_decoder(source, other);
    };
    const std::string advice = " is stored the other way round: transpose it in the file";
    if (!config.glu) try_variant("with its encoder transposed", "W_enc" + advice, 0.02, encoder);
    try_variant("with its decoder transposed", "W_dec" + advice, 0.02, decoder);
    if (config.glu) return;
    try_variant("with its encoder and decoder transposed", "each" + advice, 0.04, [&](SaeSource& source) {
      encoder(source);
      decoder(source);
    });
  }

  void try_normalisations() {
    const SaeConfig& config = sae_.config();
    for (const char* kind : {"none", "layer_norm", "constant_norm_rescale"}) {
      if (config.normalize == kind) continue;
      const std::string name = kind;
      try_variant(name == "none" ? "without input normalisation" : "with its input normalised by " + name,
                  "normalize_activations is " + config.normalize + ", which contradicts the weights",
                  name == "none" ? 0.02 : 0.08, [&](SaeSource& source) {
                    source.config.normalize = name;
                    source.config.undo_normalization = true;
                  });
    }
    if (config.transcoder) return;
    try_variant(config.apply_b_dec_to_input ? "with b_dec not subtracted from its input"
                                            : "with b_dec subtracted from its input",
                "apply_b_dec_to_input is the wrong way round", 0.03,
                [](SaeSource& source) { source.config.apply_b_dec_to_input ^= true; });
  }

  void try_scales() {
    const Mat<const float> x = x_.f32(), target = target_.f32();
    const Fit plain = fit_of(sae_, x, target);
    add("with its reconstruction times " + number(plain.gain),
        "W_dec is off by that factor: a scale of the activations or of the decoder's norms is missing or applied twice",
        plain.l0, plain.fvu_with_gain, 0.05);
    const double norm = mean_norm(x), root = std::sqrt(static_cast<double>(x.cols()));
    if (!(norm > 0)) return;
    const auto attempt = [&](double scale, const std::string& name, const std::string& advice, double doubt) {
      control_.check("looking for the cause");
      const Tensor in = scaled(x, scale), wanted = scaled(target, scale);
      const Fit fit = fit_of(sae_, in.f32(), wanted.f32());
      add("with activations times " + name, advice, fit.l0, fit.fvu, doubt);
      // Without the scale undone behind it: the encoder alone is off.
      const Fit raw = fit_of(sae_, in.f32(), target);
      add("with the encoder's input times " + name + " and the reconstruction times " + number(raw.gain),
          "its encoder is off by that factor", raw.l0, raw.fvu_with_gain, doubt + 0.04);
    };
    attempt(root / norm, number(root / norm) + " = sqrt(d) / mean norm",
            "it was trained on scaled activations: the file's norm_scaling_factor is missing or was not folded", 0.06);
    attempt(norm / root, number(norm / root) + " = mean norm / sqrt(d)",
            "its weights have the activations' scale folded in already: it is applied twice", 0.06);
    for (int octave = -8; octave <= 8; ++octave) {
      const double scale = std::exp2(octave);
      if (octave != 0) attempt(scale, number(scale), "it was trained on activations of that scale", 0.12);
    }
  }

  const Sae& sae_;
  Engine& engine_;
  const Control& control_;
  const std::vector<std::vector<int32_t>>& documents_;
  SitePair stated_;
  std::vector<SitePair> pairs_;
  Engine::Capture capture_;
  Tensor x_, target_;  // at the stated site
  std::vector<Neighbour> out_;
};

}  // namespace

bool passes_check(const SaeConfig& config, double l0, double fvu) {
  const std::optional<double>& published = config.published_l0;
  if (published && *published > 0 && (l0 > kMaxL0Ratio * *published || l0 * kMaxL0Ratio < *published)) return false;
  return fvu <= kMaxFvu;
}

std::vector<Neighbour> try_neighbours(const Sae& sae, Engine& engine,
                                      const std::vector<std::vector<int32_t>>& documents, const Site& site,
                                      const Control& control) {
  return Trial(sae, engine, documents, site, control).run();
}

std::string likely_cause(const Sae& sae, const std::vector<Neighbour>& tried, const Site& site) {
  if (tried.empty()) return "no neighbour could be tried";
  const Neighbour& best = tried.front();
  const std::string figures = " this SAE gives L0 " + number(best.l0) + " and FVU " + number(best.fvu);
  if (passes_check(sae.config(), best.l0, best.fvu)) return best.what + figures + ": " + best.advice;
  return "none of " + std::to_string(tried.size()) + " neighbours of " + site.name() +
         " fits (layers around it, other sites, scales, BOS, transposed matrices); nearest: " + best.what + figures +
         "; it belongs to another model, or the file is damaged";
}

}  // namespace saif
