#include "study/bench.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/rng.h"
#include "saif/vector.h"
#include "study/timing.h"

namespace saif {
namespace {

constexpr int64_t kPrefill = 512;    // tokens of the long prompt
constexpr int64_t kShortPrompt = 8;  // tokens before decoding
constexpr int64_t kMaxSteps = 64;    // decoding steps of one run
constexpr int64_t kLatents = 16384;  // of the random SAE

// Copies every row it is shown of some sites, as a capture does.
class CopyRows : public Observer {
 public:
  CopyRows(std::vector<Site> sites, int64_t values) : sites_(std::move(sites)), copy_(static_cast<size_t>(values)) {}
  bool wants(const Site& site) const override { return std::find(sites_.begin(), sites_.end(), site) != sites_.end(); }
  void observe(const Site&, std::span<const RowInfo> rows, Mat<const float> values) override {
    for (int64_t r = 0; r < values.rows(); ++r) {
      const int64_t at = rows[static_cast<size_t>(r)].position * values.cols();
      std::memcpy(copy_.data() + at, values.row(r), static_cast<size_t>(values.cols()) * sizeof(float));
    }
  }

 private:
  std::vector<Site> sites_;
  std::vector<float> copy_;
};

// Decoding of a fixed number of rows. Only steps after the first token of all rows are timed: no prefill.
class DecodeRun {
 public:
  DecodeRun(Engine& engine, int64_t rows) : engine_(engine), rows_(rows) {
    const Architecture& architecture = engine.model().architecture();
    prompt_ = std::max<int64_t>(1, std::min(kShortPrompt, architecture.context / 2));
    most_steps_ = std::min(kMaxSteps, architecture.context - prompt_ - 1);
    for (int64_t r = 0; r < rows; ++r) {
      GenerateRequest request;
      request.ids = random_ids(architecture, prompt_, 100 + static_cast<uint64_t>(r));
      request.ignore_eos = true;
      requests_.push_back(std::move(request));
    }
  }

  // Every row gets a vector of its own, added at one layer.
  void steer(int layer) {
    const Architecture& architecture = engine_.model().architecture();
    for (size_t r = 0; r < requests_.size(); ++r) requests_[r].edits = {random_edit(architecture, layer, r)};
  }

  // Every row gets this edit.
  void edit(const AppliedEdit& one) {
    for (GenerateRequest& request : requests_) request.edits = {one};
  }

  // Seconds per step; about `budget` seconds long.
  double step_seconds(double budget, const Control& control) {
    if (estimate_ == 0) estimate_ = run(std::min<int64_t>(4, most_steps_), control);
    return run(std::clamp(static_cast<int64_t>(budget / estimate_), std::min<int64_t>(4, most_steps_), most_steps_),
               control);
  }

 private:
  double run(int64_t steps, const Control& control) {
    for (GenerateRequest& request : requests_) request.max_new_tokens = steps + 1;
    int64_t tokens = 0;
    double first = 0, last = 0;
    const Stopwatch watch;
    engine_.generate(requests_, control, [&](size_t, int32_t, const std::string&) {
      ++tokens;
      if (tokens == rows_) first = watch.seconds();
      if (tokens == rows_ * (steps + 1)) last = watch.seconds();
    });
    return std::max(last - first, 1e-9) / static_cast<double>(steps);
  }

  Engine& engine_;
  int64_t rows_, prompt_ = 0, most_steps_ = 0;
  std::vector<GenerateRequest> requests_;
  double estimate_ = 0;
};

MachineReport read_roofs(const std::string& path) {
  const Json json = read_json_file(path);
  MachineReport out;
  try {
    out.gemm_bf16_gflops = json.at("gemm_bf16_gflops").as_double();
    out.gemm_f32_gflops = json.at("gemm_f32_gflops").as_double();
    out.read_gbps = json.at("read_gbps").as_double();
    const Json* huge = json.find("read_huge_gbps");
    out.read_huge_gbps = huge != nullptr ? huge->as_double() : out.read_gbps;
  } catch (const Error& e) {
    throw Error(Errc::kBadFormat, path + ": " + e.what() + "; expected what `saif doctor --json` prints");
  }
  return out;
}

// The number of "prefill N" or "decode N"; 0: another name.
int64_t number_after(const std::string& name, const std::string& word) {
  constexpr size_t kDigits = 6;
  if (!name.starts_with(word + " ") || name.size() > word.size() + 1 + kDigits) return 0;
  const std::string digits = name.substr(word.size() + 1);
  const bool number =
      !digits.empty() && std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
  return number ? std::stoll(digits) : 0;
}

// The names of the rows wanted.
std::vector<std::string> bench_rows(const BenchOptions& options) {
  if (options.only.empty()) {
    std::vector<std::string> names = {"prefill 512",    "decode 1",        "decode 8", "decode 32",
                                      "decode 128",     "capture",         "steering", "clamp",
                                      "sae encode 512", "batch-invariant", "memory"};
    if (options.load_seconds > 0) names.emplace_back("load");
    if (!options.job.empty()) names.emplace_back("discovery");
    return names;
  }
  for (const std::string& name : options.only) {
    if (name == "discovery" && options.job.empty()) {
      throw Error(Errc::kInvalidArgument, "row \"discovery\" needs a job: name its file");
    }
    if (name == "load" && !(options.load_seconds > 0)) {
      throw Error(Errc::kInvalidArgument, "row \"load\" needs a model that was just loaded");
    }
    if (number_after(name, "prefill") > 0 || number_after(name, "decode") > 0) continue;
    const std::vector<std::string> known = {"capture",   "steering", "clamp", "sae encode 512", "batch-invariant",
                                            "discovery", "sweep",    "load",  "memory"};
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    std::string list = "prefill N, decode N";
    for (const std::string& other : known) list += ", " + other;
    throw Error(Errc::kNotFound, "row \"" + name + "\" is unknown; known: " + list);
  }
  return options.only;
}

// Whether a row is of few tokens at a time, or of the model alone: what a chat does, not a study.
bool is_of_few_rows(const std::string& row) {
  constexpr int64_t kFew = 16;
  const int64_t n = number_after(row, "decode");
  return (n > 0 && n <= kFew) || row == "memory" || row == "load";
}

class Bench {
 public:
  Bench(Engine& engine, const BenchOptions& options, const Control& control)
      : engine_(&engine),
        options_(options),
        control_(control),
        repeat_{options.seconds, options.typical},
        names_(bench_rows(options)),
        job_(options.job.empty() ? DiscoveryJob{} : read_discovery_job(options.job, engine)),
        peak_(peak_memory()),
        machine_(options.roofs.empty() ? examine_machine(control, std::min(options.seconds, 0.5))
                                       : read_roofs(options.roofs)),
        cost_(engine.model(), machine_) {}

  std::vector<BenchRow> run(const std::function<Engine&()>& for_many_rows) {
    forget_peak_memory();  // the roofs' arrays are no part of what the model needs
    rows_.resize(names_.size());
    std::vector<size_t> few, many;  // indices into names_
    for (size_t i = 0; i < names_.size(); ++i) {
      (for_many_rows && !is_of_few_rows(names_[i]) ? many : few).push_back(i);
    }
    measure(few);
    if (!many.empty()) {
      engine_ = &for_many_rows();
      cost_ = ModelCost(engine_->model(), machine_);
      measure(many);
    }
    return std::move(rows_);
  }

 private:
  void measure(std::span<const size_t> rows) {
    if (rows.empty()) return;
    warm_up();
    for (const size_t i : rows) {
      control_.check("the benchmark");
      rows_[i] = row(names_[i]);
      control_.report({"bench", ++done_, static_cast<int64_t>(names_.size()), rows_[i].name});
    }
  }

  const Architecture& architecture() const { return engine_->model().architecture(); }

  BenchRow row(const std::string& name) {
    if (const int64_t n = number_after(name, "prefill"); n > 0) return prefill(n);
    if (const int64_t n = number_after(name, "decode"); n > 0) return decode(n);
    if (name == "capture") return capture();
    if (name == "steering") return steering();
    if (name == "clamp") return clamp();
    if (name == "sae encode 512") return sae_encode();
    if (name == "sweep") return bench_sweep(*engine_, cost_, control_);
    if (name == "discovery") return bench_discovery(*engine_, cost_, machine_, job_, control_);
    if (name == "memory") return memory_row(engine_->model(), std::max(peak_, peak_memory()));
    if (name == "load") return rate_row(name, options_.load_seconds, "s", 0);
    BenchRow price = rate_row(name, 0, "%", 0);
    price.extra["note"] = "always on: a row's result never depends on its batch, so there is no other mode to compare";
    return price;
  }

  int64_t fitting(int64_t tokens) const { return std::min(tokens, architecture().context - 1); }
  int64_t long_prompt() const { return fitting(kPrefill); }

  GenerateRequest prompt(int64_t tokens) const {
    GenerateRequest request;
    request.ids = random_ids(architecture(), tokens, 0);
    request.max_new_tokens = 1;
    request.ignore_eos = true;
    return request;
  }
  double generate_seconds(const GenerateRequest& request) {
    return seconds_of([&] { engine_->generate(std::span<const GenerateRequest>(&request, 1), control_); });
  }
  void warm_up() { generate_seconds(prompt(fitting(kShortPrompt))); }

  BenchRow prefill(int64_t wanted) {
    const int64_t tokens = fitting(wanted);
    const GenerateRequest request = prompt(tokens);
    if (!options_.typical) generate_seconds(request);
    const double seconds = repeat_([&] { return generate_seconds(request); });
    const double n = static_cast<double>(tokens);
    return rate_row("prefill " + std::to_string(tokens), n / seconds, "tok/s",
                    n / cost_.product_seconds(tokens, cost_.layers, 1));
  }

  BenchRow decode(int64_t rows) {
    DecodeRun run(*engine_, rows);
    const double seconds = repeat_([&] { return run.step_seconds(options_.seconds / 3, control_); });
    const double n = static_cast<double>(rows);
    return rate_row("decode " + std::to_string(rows), n / seconds, "tok/s", n / cost_.step_seconds(rows));
  }

  // 100 (b / a - 1) of runs of two ways, taken in turn so that both meet the same neighbours.
  template <typename A, typename B>
  BenchRow cost_row(const std::string& name, const A& a, const B& b) {
    std::vector<double> without = {a()}, with = {b()};
    const Stopwatch watch;
    for (int i = 0; i < 2 || watch.seconds() < 2 * options_.seconds; ++i) {
      control_.check("the benchmark");
      without.push_back(a());
      with.push_back(b());
    }
    const double seconds_a = repeat_.pick(std::move(without)), seconds_b = repeat_.pick(std::move(with));
    BenchRow row = rate_row(name, 100 * (seconds_b / seconds_a - 1), "%", 0);
    row.extra["seconds_without"] = seconds_a;
    row.extra["seconds_with"] = seconds_b;
    return row;
  }

  // The last block's output is wanted by both, so that both run all blocks; one of them also copies the middle one's.
  BenchRow capture() {
    const int64_t tokens = long_prompt();
    const std::vector<std::vector<int32_t>> prompts = {random_ids(architecture(), tokens, 1)};
    const int last = static_cast<int>(cost_.layers) - 1;
    const Site deepest{SiteKind::kResidPost, last}, middle{SiteKind::kResidPost, last / 2};
    CopyRows one({deepest}, tokens * architecture().d_model);
    CopyRows two({deepest, middle}, tokens * architecture().d_model);
    Engine::ObserveOptions observe;
    observe.last_only = false;
    const auto time = [&](Observer& observer) {
      return seconds_of([&] { engine_->observe(prompts, observer, observe, control_); });
    };
    return cost_row(
        "capture", [&] { return time(one); }, [&] { return time(two); });
  }

  BenchRow steering() {
    constexpr int64_t kRows = 128;
    DecodeRun plain(*engine_, kRows), steered(*engine_, kRows);
    steered.steer(static_cast<int>(cost_.layers) * 4 / 5);
    const double budget = options_.seconds / 3;
    return cost_row(
        "steering", [&] { return plain.step_seconds(budget, control_); },
        [&] { return steered.step_seconds(budget, control_); });
  }

  // Fifteen latents of one SAE held at a value in every row, the SAE's error kept.
  BenchRow clamp() {
    constexpr int64_t kRows = 128;
    constexpr int32_t kClamped = 15;
    const Site site{SiteKind::kResidPost, static_cast<int>(cost_.layers) * 4 / 5};
    std::vector<LatentTarget> targets;
    for (int32_t j = 0; j < kClamped; ++j) targets.push_back({j * static_cast<int32_t>(kLatents / kClamped), 3.0F});
    DecodeRun plain(*engine_, kRows), clamped(*engine_, kRows);
    clamped.edit(make_latent_edit(random_sae(architecture().d_model, kLatents, 1.0, site.name()), LatentOp::kClamp,
                                  targets, {}, architecture()));
    const double budget = options_.seconds / 3;
    BenchRow row = cost_row(
        "clamp", [&] { return plain.step_seconds(budget, control_); },
        [&] { return clamped.step_seconds(budget, control_); });
    row.extra["d_sae"] = kLatents;
    return row;
  }

  BenchRow sae_encode() {
    const int64_t d_in = architecture().d_model;
    const std::shared_ptr<const Sae> sae = random_sae(d_in, kLatents, 1.0, "");
    Tensor x(DType::kF32, {kPrefill, d_in});
    Rng rng(9);
    for (int64_t i = 0; i < x.elements(); ++i) x.as<float>()[i] = static_cast<float>(rng.normal());
    double l0 = 0;
    const auto encode = [&] { l0 = sae->encode(x.f32()).mean_l0(); };
    encode();
    const double seconds = repeat_([&] { return seconds_of(encode); });
    const double n = static_cast<double>(kPrefill);
    const double flops = 2.0 * static_cast<double>(d_in) * static_cast<double>(kLatents);
    BenchRow row = rate_row("sae encode " + std::to_string(kPrefill), n / seconds, "rows/s",
                            machine_.gemm_f32_gflops * 1e9 / flops);
    row.extra["d_sae"] = kLatents;
    row.extra["l0"] = l0;
    return row;
  }

  Engine* engine_;
  const BenchOptions& options_;
  const Control& control_;
  Repeat repeat_;
  std::vector<std::string> names_;
  DiscoveryJob job_;
  int64_t peak_;  // bytes resident at most until the model was loaded
  MachineReport machine_;
  ModelCost cost_;
  std::vector<BenchRow> rows_;
  int64_t done_ = 0;
};

}  // namespace

ModelCost::ModelCost(const Model& model, const MachineReport& machine) {
  const Architecture& a = model.architecture();
  const bool bf16 = model.dtype() == "bf16";
  const double d = static_cast<double>(a.d_model);
  const double heads = static_cast<double>(a.n_heads * a.d_head),
               kv_heads = static_cast<double>(a.n_kv_heads * a.d_head);
  const double weights = d * (2 * heads + 2 * kv_heads + (a.gated_mlp ? 3.0 : 2.0) * static_cast<double>(a.d_mlp));
  const double head = d * static_cast<double>(a.vocab);
  layer_flops = 2 * weights;
  head_flops = 2 * head;
  layer_bytes = weights * model.bytes_per_weight();
  head_bytes = head * model.bytes_per_weight();
  layers = a.n_layers;
  flops_per_second = (bf16 ? machine.gemm_bf16_gflops : machine.gemm_f32_gflops) * 1e9;
  bytes_per_second = (model.in_own_memory() ? machine.read_huge_gbps : machine.read_gbps) * 1e9;
}

double ModelCost::product_seconds(int64_t rows, int64_t depth, int64_t logit_rows) const {
  return (static_cast<double>(rows) * static_cast<double>(depth) * layer_flops +
          static_cast<double>(logit_rows) * head_flops) /
         flops_per_second;
}

double ModelCost::step_seconds(int64_t rows) const {
  const double reading = (static_cast<double>(layers) * layer_bytes + head_bytes) / bytes_per_second;
  return std::max(reading, product_seconds(rows, layers, rows));
}

BenchRow rate_row(std::string name, double value, std::string unit, double roof) {
  BenchRow row;
  row.name = std::move(name);
  row.value = value;
  row.unit = std::move(unit);
  row.roof = roof;
  row.share = roof > 0 ? value / roof : 0;
  return row;
}

BenchRow time_row(std::string name, double seconds, double roof) {
  BenchRow row = rate_row(std::move(name), seconds, "s", roof);
  row.share = seconds > 0 ? roof / seconds : 0;
  row.extra["seconds"] = seconds;
  return row;
}

std::vector<int32_t> random_ids(const Architecture& architecture, int64_t n, uint64_t stream) {
  Rng rng(7, stream);
  std::vector<int32_t> ids(static_cast<size_t>(n));
  for (int32_t& id : ids) id = static_cast<int32_t>(rng.below(static_cast<uint64_t>(architecture.vocab)));
  return ids;
}

AppliedEdit random_edit(const Architecture& architecture, int layer, uint64_t number) {
  Rng rng(8, number);
  SteeringVector vector;
  vector.site = Site{SiteKind::kResidPost, layer}.name();
  vector.vector.resize(static_cast<size_t>(architecture.d_model));
  for (float& v : vector.vector) v = static_cast<float>(0.1 * rng.normal());
  return make_edit(vector, 1.0, architecture);
}

std::shared_ptr<const Sae> random_sae(int64_t d_in, int64_t d_sae, double rms, const std::string& site) {
  SaeConfig config;
  config.kind = SaeKind::kJumpRelu;
  config.d_in = config.d_out = d_in;
  config.d_sae = d_sae;
  config.apply_b_dec_to_input = false;
  config.site = site;
  SaeWeights weights;
  weights.w_enc = Tensor(DType::kF32, {d_sae, d_in});
  weights.b_enc = Tensor::zeros(DType::kF32, {d_sae});
  weights.b_dec = Tensor::zeros(DType::kF32, {d_in});
  weights.threshold = Tensor(DType::kF32, {d_sae});
  // Uniform directions of variance 1 / d_in: pre-activations are nearly normal with deviation rms, of which 0.39 %
  // exceed 2.66 deviations.
  Rng rng(10);
  const double width = std::sqrt(12.0 / static_cast<double>(d_in));
  float* w = weights.w_enc.as<float>();
  for (int64_t i = 0; i < d_sae * d_in; ++i) w[i] = static_cast<float>(width * (rng.uniform() - 0.5));
  weights.w_dec = weights.w_enc.clone();
  std::fill_n(weights.threshold.as<float>(), d_sae, static_cast<float>(2.66 * rms));
  return Sae::from_weights(std::move(config), std::move(weights));
}

Json BenchRow::to_json() const {
  Json out = Json::object({{"name", name}, {"value", value}, {"unit", unit}, {"roof", roof}, {"share", share}});
  for (const auto& [key, item] : extra.members()) out[key] = item;
  return out;
}

std::vector<BenchRow> run_bench(Engine& engine, const BenchOptions& options, const Control& control,
                                const std::function<Engine&()>& for_many_rows) {
  if (!(options.seconds > 0)) throw Error(Errc::kInvalidArgument, "bench: seconds must be above 0");
  return Bench(engine, options, control).run(for_many_rows);
}

}  // namespace saif
