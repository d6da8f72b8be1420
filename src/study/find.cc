// Discovery (He et al. 2025, section 3; docs/method.md): which latents are active at the last prompt token with the
// instruction and not without it, and what else is known about them.
#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "base/check.h"
#include "sae/fit.h"
#include "sae/normalize.h"
#include "saif/stats.h"
#include "saif/study.h"
#include "study/contrast.h"

namespace saif {
namespace {

const std::vector<std::string> kRanks = {"sensitivity", "specificity", "specific_mean", "mean_difference"};

void check_rank(const std::string& rank) {
  if (std::find(kRanks.begin(), kRanks.end(), rank) != kRanks.end()) return;
  std::string message = "rank \"" + rank + "\" is unknown; expected one of";
  for (const std::string& r : kRanks) message += " " + r;
  throw Error(Errc::kInvalidArgument, message);
}

double score_of(const LatentStats& s, const std::string& rank) {
  if (rank == "sensitivity") return s.sensitivity;
  if (rank == "specificity") return s.specificity;
  if (rank == "specific_mean") return s.specificity * s.mean;
  return s.mean - s.mean_neg;
}

// Larger score first; ties by mean activation, then by index.
bool before(const LatentStats& a, const LatentStats& b) {
  if (a.score != b.score) return a.score > b.score;
  if (a.mean != b.mean) return a.mean > b.mean;
  return a.index < b.index;
}

// All prompts of a call, each distinct text once.
class PromptTable {
 public:
  explicit PromptTable(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  int64_t add(const std::string& message) {
    const auto [it, fresh] = rows_.emplace(message, static_cast<int64_t>(ids_.size()));
    if (fresh) ids_.push_back(prompt_ids(tokenizer_, message));
    return it->second;
  }
  const std::vector<std::vector<int32_t>>& ids() const { return ids_; }

 private:
  const Tokenizer& tokenizer_;
  std::map<std::string, int64_t> rows_;
  std::vector<std::vector<int32_t>> ids_;
};

struct Plan {
  PromptSet plain;
  struct PerTask {
    std::vector<PromptSet> pos, unrelated;  // per placement
    int64_t wordings = 0;
  };
  std::vector<PerTask> tasks;
};

std::vector<Placement> parse_placements(const std::string& text) {
  std::vector<Placement> out;
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const Placement placement = parse_placement(text.substr(begin, end - begin));
    if (std::find(out.begin(), out.end(), placement) != out.end()) {
      throw Error(Errc::kInvalidArgument, "placement names " + std::string(name_of(placement)) + " twice");
    }
    out.push_back(placement);
    if (out.back() == Placement::kNone) {
      throw Error(Errc::kInvalidArgument, "placement none holds no instruction; expected post, pre or post,pre");
    }
    begin = end + 1;
  }
  return out;
}

Plan make_plan(PromptTable& table, std::span<const Task> tasks, std::span<const Content> contents,
               std::span<const Placement> placements, const FindOptions& options) {
  const auto rows_for = [&](const std::vector<std::string>& texts, Placement placement) {
    PromptSet set;
    set.wordings = static_cast<int64_t>(texts.size());
    for (const Content& c : contents) {
      for (const std::string& text : texts) set.rows.push_back(table.add(place(c.text, text, placement)));
    }
    return set;
  };
  Plan plan;
  plan.plain = rows_for({""}, Placement::kNone);
  for (const Task& task : tasks) {
    std::vector<std::string> wordings;
    for (const Variant& v : task.variants) {
      if (options.variants <= 0 || static_cast<int>(wordings.size()) < options.variants) wordings.push_back(v.text);
    }
    Plan::PerTask& out = plan.tasks.emplace_back();
    out.wordings = static_cast<int64_t>(wordings.size());
    for (const Placement placement : placements) {
      out.pos.push_back(rows_for(wordings, placement));
      out.unrelated.push_back(rows_for(task.unrelated, placement));
    }
  }
  return plan;
}

// Share of ordinary tokens (contents in the chat template, first tokens left out) on which each latent is active.
class DensityObserver : public Observer {
 public:
  DensityObserver(std::span<const std::shared_ptr<const Sae>> saes, std::span<const Site> sites)
      : saes_(saes), sites_(sites.begin(), sites.end()), counts_(saes.size()), tokens_(saes.size(), 0) {
    for (size_t i = 0; i < saes.size(); ++i) counts_[i].resize(static_cast<size_t>(saes[i]->config().d_sae), 0);
  }
  bool wants(const Site& site) const override { return std::find(sites_.begin(), sites_.end(), site) != sites_.end(); }
  void observe(const Site& site, std::span<const RowInfo> rows, Mat<const float> values) override {
    for (size_t i = 0; i < sites_.size(); ++i) {
      if (!(sites_[i] == site)) continue;
      const SparseLatents latents = saes_[i]->encode(values);
      for (int64_t r = 0; r < latents.rows(); ++r) {
        if (rows[static_cast<size_t>(r)].position == 0) continue;
        ++tokens_[i];
        for (int64_t e = latents.row_offsets[static_cast<size_t>(r)];
             e < latents.row_offsets[static_cast<size_t>(r) + 1]; ++e) {
          if (latents.values[static_cast<size_t>(e)] > 0) {
            ++counts_[i][static_cast<size_t>(latents.indices[static_cast<size_t>(e)])];
          }
        }
      }
    }
  }
  double density(size_t sae, int32_t latent) const {
    return tokens_[sae]
               ? static_cast<double>(counts_[sae][static_cast<size_t>(latent)]) / static_cast<double>(tokens_[sae])
               : 0.0;
  }

 private:
  std::span<const std::shared_ptr<const Sae>> saes_;
  std::vector<Site> sites_;
  std::vector<std::vector<int64_t>> counts_;
  std::vector<int64_t> tokens_;
};

LatentStats stats_of(int32_t index, const LatentSums& s, const Contrast& c) {
  LatentStats out;
  const auto n = static_cast<double>(c.n_pos);
  const auto n_neg = static_cast<double>(c.n_neg);
  const auto n_unrelated = static_cast<double>(std::max<int64_t>(c.n_unrelated, 1));
  out.index = index;
  out.sensitivity = static_cast<double>(s.pairs) / n;
  out.rate_pos = static_cast<double>(s.pos) / n;
  out.rate_neg = static_cast<double>(s.neg) / n_neg;
  out.rate_unrelated = static_cast<double>(s.unrelated) / n_unrelated;
  out.sensitivity_unrelated = static_cast<double>(s.unrelated_pairs) / n_unrelated;
  out.specificity = out.sensitivity - out.sensitivity_unrelated;
  out.mean = s.sum / n;
  out.std = std::sqrt(std::max(0.0, s.sum_squares / n - out.mean * out.mean));
  if (s.pos > 0) {
    const auto active = static_cast<double>(s.pos);
    out.mean_active = s.sum / active;
    out.std_active = std::sqrt(std::max(0.0, s.sum_squares / active - out.mean_active * out.mean_active));
  }
  out.mean_neg = s.sum_neg / n_neg;
  return out;
}

// The union of the best `keep` by every ranking, so that a study can be re-ranked without the model.
std::vector<LatentStats> keep_best(std::vector<LatentStats> all, const FindOptions& options) {
  std::set<int32_t> kept;
  for (const std::string& rank : kRanks) {
    for (LatentStats& s : all) s.score = score_of(s, rank);
    const size_t n = std::min(all.size(), static_cast<size_t>(options.keep));
    std::partial_sort(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(n), all.end(), before);
    for (size_t i = 0; i < n; ++i) kept.insert(all[i].index);
  }
  std::erase_if(all, [&](const LatentStats& s) { return !kept.contains(s.index); });
  for (LatentStats& s : all) s.score = score_of(s, options.rank);
  std::sort(all.begin(), all.end(), before);
  return all;
}

// Every latent that fires with the instruction and is not too dense. Without q-values.
std::vector<LatentStats> all_stats(const Contrast& c, const DensityObserver& density, size_t sae,
                                   const FindOptions& options) {
  std::vector<LatentStats> out;
  for (size_t j = 0; j < c.sums.size(); ++j) {
    if (c.sums[j].pos == 0) continue;
    LatentStats s = stats_of(static_cast<int32_t>(j), c.sums[j], c);
    s.density = density.density(sae, s.index);
    if (s.density > options.max_density) continue;
    if (s.density > 0.01) s.flags.emplace_back("dense");
    if (s.sensitivity_unrelated > 0.5 * s.sensitivity) s.flags.emplace_back("unspecific");
    out.push_back(std::move(s));
  }
  return out;
}

// Corrected over all latents of the dictionary. Contents are the units: the wordings of one are not independent.
void add_q_values(std::vector<LatentStats>& stats, std::span<const int64_t> differences, size_t d_sae) {
  const size_t contents = differences.size() / d_sae;
  std::vector<double> p(d_sae);
  for (size_t j = 0; j < d_sae; ++j) p[j] = sign_flip_test(differences.subspan(j * contents, contents));
  const std::vector<double> q = benjamini_hochberg(p);
  for (LatentStats& s : stats) s.q_value = q[static_cast<size_t>(s.index)];
}

// The k best of the ranking, when only these prompts are looked at.
std::vector<int32_t> best_of(std::vector<LatentStats> all, const FindOptions& options) {
  for (LatentStats& s : all) s.score = score_of(s, options.rank);
  const size_t n = std::min(all.size(), static_cast<size_t>(options.k));
  std::partial_sort(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(n), all.end(), before);
  std::vector<int32_t> out;
  for (size_t i = 0; i < n; ++i) out.push_back(all[i].index);
  return out;
}

std::vector<float> mean_rows(Mat<const float> h, std::span<const int64_t> rows) {
  std::vector<double> sum(static_cast<size_t>(h.cols()), 0.0);
  for (const int64_t r : rows) {
    for (int64_t c = 0; c < h.cols(); ++c) sum[static_cast<size_t>(c)] += h(r, c);
  }
  std::vector<float> out(sum.size());
  for (size_t c = 0; c < sum.size(); ++c) out[c] = static_cast<float>(sum[c] / static_cast<double>(rows.size()));
  return out;
}

// Bootstrap over contents. Where all contents agree it would be a point, however few they are: then Wilson's interval
// of that many contents.
Interval interval_of_shares(const std::vector<double>& shares, const BootstrapOptions& bootstrap) {
  const auto [least, most] = std::minmax_element(shares.begin(), shares.end());
  if (*least < *most) {
    const Interval drawn = bootstrap_mean(shares, bootstrap);
    return {drawn.low, std::min(drawn.high, 1.0)};  // sums of wordings' shares round
  }
  const auto n = static_cast<int64_t>(shares.size());
  const Interval wilson = wilson_interval(std::llround(*least * static_cast<double>(n)), n, bootstrap.level);
  return {std::min(wilson.low, *least), std::max(wilson.high, *least)};
}

// Everything about one task, one SAE and one placement except the logit lens.
Discovery discover(const Sae& sae, size_t sae_number, const SparseLatents& latents, Mat<const float> h,
                   const Plan& plan, const Plan::PerTask& task, size_t placement, const DensityObserver& density,
                   const FindOptions& options) {
  const PromptSet &pos = task.pos[placement], &unrelated = task.unrelated[placement];
  const int64_t d_sae = sae.config().d_sae;
  const Contrast c = contrast(latents, d_sae, pos, plan.plain, unrelated);
  std::vector<LatentStats> all = all_stats(c, density, sae_number, options);
  if (c.n_unrelated > 0) {
    add_q_values(all, rate_differences(latents, d_sae, pos, unrelated), static_cast<size_t>(d_sae));
  }
  Discovery out;
  out.site = sae.config().site;
  out.sae_path = sae.path();
  out.sae_sha256 = sae.sha256();
  out.rank = options.rank;
  out.stats = options.stats;
  out.contents = c.n_neg;
  out.variants = task.wordings;
  out.pairs = c.n_pos;
  out.latents = keep_best(std::move(all), options);
  const auto chosen_from = [&](const PromptSet& some, const PromptSet& plain, const PromptSet& others) {
    return best_of(all_stats(contrast(latents, d_sae, some, plain, others), density, sae_number, options), options);
  };
  const auto half = [&](size_t first) {
    return chosen_from(every_other_content(pos, first), every_other_content(plan.plain, first),
                       every_other_content(unrelated, first));
  };
  if (c.n_neg > 1) out.stability_contents = jaccard(half(0), half(1));
  if (pos.wordings > 1) {
    const auto worded = [&](size_t first) {
      return chosen_from(every_other_wording(pos, first), plan.plain, unrelated);
    };
    out.stability_wordings = jaccard(worded(0), worded(1));
  }
  std::vector<int32_t> chosen;
  for (const LatentStats& s : out.latents) chosen.push_back(s.index);
  const auto shares = pair_shares(latents, chosen, pos, plan.plain);
  for (size_t i = 0; i < out.latents.size(); ++i) {
    BootstrapOptions bootstrap;
    bootstrap.resamples = 400;
    bootstrap.seed = static_cast<uint64_t>(options.seed);
    out.latents[i].ci = interval_of_shares(shares[i], bootstrap);
  }
  out.row_scale = 0;
  for (const int64_t row : pos.rows) {
    const double factor = sae.config().undo_normalization ? undo_factor(sae.config().normalize, h.row_span(row)) : 1.0;
    out.row_scale += factor / static_cast<double>(pos.rows.size());
  }
  out.mean_neg = mean_rows(h, plan.plain.rows);
  out.diffmean = mean_rows(h, pos.rows);
  for (size_t i = 0; i < out.diffmean.size(); ++i) out.diffmean[i] -= out.mean_neg[i];
  out.firing_rate.resize(c.sums.size());
  for (size_t j = 0; j < c.sums.size(); ++j) {
    out.firing_rate[j] = static_cast<float>(c.sums[j].pos) / static_cast<float>(c.n_pos);
  }
  return out;
}

void add_lens(const Engine& engine, const Sae& sae, Discovery& discovery, int k) {
  const size_t n = std::min(discovery.latents.size(), static_cast<size_t>(std::max(k, 0)));
  std::vector<int32_t> indices;
  for (size_t i = 0; i < n; ++i) indices.push_back(discovery.latents[i].index);
  if (indices.empty() || sae.config().d_out != engine.model().architecture().d_model) return;
  const Tensor rows = sae.decoder_rows(indices);
  std::vector<LogitLens> lenses = logit_lens(engine, rows.f32(), 8);
  for (size_t i = 0; i < n; ++i) {
    discovery.latents[i].top = std::move(lenses[i].top);
    discovery.latents[i].bottom = std::move(lenses[i].bottom);
  }
}

std::vector<Site> checked_sites(const Engine& engine, std::span<const std::shared_ptr<const Sae>> saes,
                                const FindOptions& options) {
  std::vector<Site> sites;
  for (const auto& sae : saes) {
    const SaeConfig& config = sae->config();
    sites.push_back(require_fit(*sae, engine, "", false));
    if (options.k > config.d_sae) {
      throw Error(Errc::kInvalidArgument, "k is " + std::to_string(options.k) + ", but the dictionary of " +
                                              sae->path() + " has " + std::to_string(config.d_sae) + " latents");
    }
  }
  if (saes.empty()) throw Error(Errc::kInvalidArgument, "no SAE was given; name at least one");
  return sites;
}

}  // namespace

void check_find(const Engine& engine, std::span<const std::shared_ptr<const Sae>> saes,
                std::span<const Content> contents, const FindOptions& options) {
  const auto refuse = [](const std::string& what) { throw Error(Errc::kInvalidArgument, what); };
  check_rank(options.rank);
  if (options.stats != "all" && options.stats != "active") {
    refuse("stats \"" + options.stats + "\" is unknown; expected all or active");
  }
  if (options.k < 1) refuse("k is " + std::to_string(options.k) + "; expected 1 or more");
  if (options.contents < 0)
    refuse("contents is " + std::to_string(options.contents) + "; expected 1 or more, or 0 for all");
  if (options.variants < 0)
    refuse("variants is " + std::to_string(options.variants) + "; expected 1 or more, or 0 for all");
  if (options.keep < 1) refuse("keep is " + std::to_string(options.keep) + "; expected 1 or more");
  if (!(options.max_density > 0)) {
    refuse("max-density is " + Json(options.max_density).dump() + "; expected a share above 0, 1 for no limit");
  }
  parse_placements(options.placement);
  std::map<int, std::string> at_layer;
  for (const Site& site : checked_sites(engine, saes, options)) {
    const auto [other, added] = at_layer.emplace(site.layer, site.name());
    if (!added) {
      refuse("two SAEs at layer " + std::to_string(site.layer) + ", at " + other->second + " and at " + site.name() +
             "; a setting names a layer, so make a study for each");
    }
  }
  if (contents.empty()) refuse("no content to find latents on");
}

std::vector<FindResult> find_latents(Engine& engine, std::span<const std::shared_ptr<const Sae>> saes,
                                     std::span<const Task> tasks, std::span<const Content> contents,
                                     const FindOptions& options, const Control& control) {
  check_find(engine, saes, contents, options);
  const std::vector<Site> sites = checked_sites(engine, saes, options);
  const std::vector<Placement> placements = parse_placements(options.placement);
  const size_t n =
      options.contents > 0 ? std::min(contents.size(), static_cast<size_t>(options.contents)) : contents.size();

  PromptTable table(engine.tokenizer());
  const Plan plan = make_plan(table, tasks, contents.first(n), placements, options);
  std::vector<Site> distinct;
  for (const Site& s : sites) {
    if (std::find(distinct.begin(), distinct.end(), s) == distinct.end()) distinct.push_back(s);
  }
  const Engine::Capture captured = engine.capture(table.ids(), distinct, true, control);

  DensityObserver density(saes, sites);
  std::vector<std::vector<int32_t>> plain_ids;
  for (const int64_t row : plan.plain.rows) plain_ids.push_back(table.ids()[static_cast<size_t>(row)]);
  Engine::ObserveOptions every_token;
  every_token.last_only = false;
  engine.observe(plain_ids, density, every_token, control);

  std::vector<FindResult> results(tasks.size());
  for (size_t s = 0; s < saes.size(); ++s) {
    control.check("discovery");
    const Mat<const float> h = captured.at(sites[s].name()).f32();
    const SparseLatents latents = saes[s]->encode(h);
    for (size_t t = 0; t < tasks.size(); ++t) {
      for (size_t p = 0; p < placements.size(); ++p) {
        Discovery d = discover(*saes[s], s, latents, h, plan, plan.tasks[t], p, density, options);
        d.task = tasks[t].name;
        d.placement = name_of(placements[p]);
        add_lens(engine, *saes[s], d, options.k);
        results[t].discoveries.push_back(std::move(d));
      }
      results[t].tokens = captured.tokens;
    }
  }
  return results;
}

void rank_latents(Discovery& discovery, const std::string& rank) {
  check_rank(rank);
  for (LatentStats& s : discovery.latents) s.score = score_of(s, rank);
  std::sort(discovery.latents.begin(), discovery.latents.end(), before);
  discovery.rank = rank;
}

std::vector<LogitLens> logit_lens(const Engine& engine, Mat<const float> rows, int n_tokens) {
  const int64_t vocab = engine.model().architecture().vocab;
  Tensor logits(DType::kF32, {rows.rows(), vocab});
  engine.model().unembed(rows, true, logits.f32());
  std::vector<LogitLens> out;
  std::vector<int32_t> order(static_cast<size_t>(vocab));
  for (int64_t r = 0; r < rows.rows(); ++r) {
    const float* row = logits.f32().row(r);
    const auto n = std::min<std::ptrdiff_t>(n_tokens, vocab);
    LogitLens& lens = out.emplace_back();
    for (const bool top : {true, false}) {
      std::iota(order.begin(), order.end(), 0);
      std::partial_sort(order.begin(), order.begin() + n, order.end(), [&](int32_t a, int32_t b) {
        if (row[a] != row[b]) return top ? row[a] > row[b] : row[a] < row[b];
        return a < b;
      });
      for (std::ptrdiff_t i = 0; i < n; ++i) {
        const int32_t id = order[static_cast<size_t>(i)];
        (top ? lens.top : lens.bottom).push_back({engine.tokenizer().bytes(id), row[id]});
      }
    }
  }
  return out;
}

}  // namespace saif
