#include <algorithm>
#include <cmath>

#include "saif/task.h"
#include "saif/text.h"
#include "study/bench.h"
#include "study/timing.h"

namespace saif {
namespace {

std::string message_of(const DiscoveryJob& job, const std::string& content, const std::string& variant) {
  if (variant.empty()) return content;
  return job.post ? content + job.separator + variant : variant + job.separator + content;
}

double rms_of(Mat<const float> x) {
  double sum = 0;
  for (int64_t r = 0; r < x.rows(); ++r) {
    for (int64_t c = 0; c < x.cols(); ++c) sum += static_cast<double>(x(r, c)) * static_cast<double>(x(r, c));
  }
  return std::sqrt(sum / static_cast<double>(x.rows() * x.cols()));
}

}  // namespace

DiscoveryJob read_discovery_job(const std::string& path, const Engine& engine) {
  const Json json = read_json_file(path);
  const auto refuse = [&path](const std::string& what) { throw Error(Errc::kBadFormat, path + ": " + what); };
  DiscoveryJob job;
  std::string placement;
  try {
    job.site = json.at("site").as_string();
    job.separator = json.at("separator").as_string();
    job.d_sae = json.at("d_sae").as_int();
    placement = json.at("placement").as_string();
    for (const Json& text : json.at("contents").items()) job.contents.push_back(text.as_string());
    for (const Json& text : json.at("variants").items()) job.variants.push_back(text.as_string());
  } catch (const Error& e) {
    refuse(std::string("not a discovery job: ") + e.what());
  }
  if (placement != "post" && placement != "pre") refuse("placement \"" + placement + "\", expected post or pre");
  job.post = placement == "post";
  if (job.contents.empty() || job.variants.empty()) refuse("no contents or no variants, expected one of each or more");
  constexpr int64_t kMost = int64_t{1} << 20;
  if (job.d_sae < 1 || job.d_sae > kMost) {
    refuse("d_sae " + std::to_string(job.d_sae) + ", expected 1 to " + std::to_string(kMost));
  }
  const Architecture& architecture = engine.model().architecture();
  if (architecture.width(Site::parse(job.site, static_cast<int>(architecture.n_layers))) == 0) {
    refuse("site " + job.site + " has rows of no fixed width; name another");
  }
  if (engine.tokenizer_ptr() == nullptr) {
    throw Error(
        Errc::kUnsupported,
        path + ": a discovery job needs a tokenizer, and a model of random weights has none; leave --shape out");
  }
  return job;
}

BenchRow bench_discovery(Engine& engine, const ModelCost& cost, const MachineReport& machine, const DiscoveryJob& job,
                         const Control& control) {
  const Architecture& architecture = engine.model().architecture();
  const Site site = Site::parse(job.site, static_cast<int>(architecture.n_layers));

  const Stopwatch tokenizing;
  std::vector<std::vector<int32_t>> prompts;
  for (const std::string& content : job.contents) {
    for (const std::string& variant : job.variants) {
      prompts.push_back(prompt_ids(engine.tokenizer(), message_of(job, content, variant)));
    }
  }
  const double tokenize_seconds = tokenizing.seconds();

  // Not timed: one prompt, which also tells how large activations are, and the random SAE.
  const std::span<const Site> sites(&site, 1);
  const Engine::Capture probe = engine.capture(std::span(prompts).first(1), sites, true, control);
  const std::shared_ptr<const Sae> sae =
      random_sae(architecture.width(site), job.d_sae, rms_of(probe.at(site.name()).f32()), site.name());
  sae->encode(probe.at(site.name()).f32());

  TokenCounts tokens;
  double model_seconds = 0, l0 = 0;
  const double seconds = seconds_of([&] {
    const Stopwatch watch;
    const Engine::Capture capture = engine.capture(prompts, sites, true, control);
    model_seconds = watch.seconds();
    tokens = capture.tokens;
    l0 = sae->encode(capture.at(site.name()).f32()).mean_l0();
  });

  const int64_t depth = site.layer < 0 ? architecture.n_layers : site.layer + 1;
  const double latent_flops =
      2.0 * static_cast<double>(architecture.width(site) * job.d_sae) * static_cast<double>(prompts.size());
  const double roof = cost.product_seconds(tokens.computed, depth, 0) + latent_flops / (machine.gemm_f32_gflops * 1e9);
  BenchRow row = time_row("discovery", seconds, roof);
  row.extra["tokens_naive"] = tokens.naive;
  row.extra["tokens_computed"] = tokens.computed;
  row.extra["prompts"] = static_cast<int64_t>(prompts.size());
  row.extra["model_seconds"] = model_seconds;
  row.extra["sae_seconds"] = seconds - model_seconds;
  row.extra["tokenize_seconds"] = tokenize_seconds;
  row.extra["l0"] = l0;
  return row;
}

}  // namespace saif
