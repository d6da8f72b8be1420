#include "study/bench.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <set>

#include "base/parallel.h"
#include "kernels/backend.h"
#include "saif/json.h"
#include "saif/machine.h"
#include "study/timing.h"
#include "support/tiny_model.h"

namespace saif {
namespace {

std::string temporary(const std::string& name) {
  return testing::TempDir() + "saif_bench_" + std::to_string(::getpid()) + "_" + name;
}

template <typename F>
Error error_of(const F& f) {
  try {
    f();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "nothing was thrown";
  return {Errc::kInternal, ""};
}

Engine& tiny_engine() {
  static Engine engine(Model::load(test::TinyModel(3).write("bench"), {"f32"}), nullptr);
  return engine;
}

std::string write_job(const std::string& site, const std::string& placement = "post") {
  const std::string path = temporary("job.json");
  write_json_file(path, Json::object({{"site", site},
                                      {"separator", "\n"},
                                      {"d_sae", 64},
                                      {"placement", placement},
                                      {"contents", Json::Array{"a", "b"}},
                                      {"variants", Json::Array{"", "c"}}}));
  return path;
}

TEST(Machine, ReportsRatesAndItsKernels) {
  const Control control;
  const MachineReport report = examine_machine(control, 0.02);
  EXPECT_FALSE(report.cpu.empty());
  EXPECT_EQ(report.isa, make_cpu_backend()->name());
  EXPECT_EQ(report.threads, max_threads());
  EXPECT_EQ(report.onednn.empty(), !LibraryGemm::available());
  for (const double rate : {report.gemm_bf16_gflops, report.gemm_f32_gflops, report.read_gbps}) {
    EXPECT_TRUE(std::isfinite(rate));
    EXPECT_GT(rate, 0);
  }
  const Json json = report.to_json();
  for (const char* key : {"cpu", "threads", "isa", "onednn", "gemm_bf16_gflops", "gemm_f32_gflops", "read_gbps",
                          "read_huge_gbps", "problems"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  EXPECT_EQ(json.at("problems").size(), report.problems.size());
}

TEST(Machine, StopsWhenAsked) {
  Control control;
  control.request_stop();
  EXPECT_EQ(error_of([&] { examine_machine(control); }).code(), Errc::kInterrupted);
}

TEST(Machine, ThreadsAreSetAndRestored) {
  const int before = max_threads();
  use_threads(0);
  EXPECT_EQ(max_threads(), before);
  use_threads(1);
  EXPECT_EQ(max_threads(), 1);
  use_threads(0);
  EXPECT_EQ(max_threads(), before);
  EXPECT_EQ(error_of([] { use_threads(-1); }).code(), Errc::kInvalidArgument);
  EXPECT_EQ(error_of([] { use_threads(100000); }).code(), Errc::kInvalidArgument);
}

TEST(Timing, TheShortestOfSeveralRunsCounts) {
  int runs = 0;
  const double best = best_seconds(0.0, 5, [&] { ++runs; });
  EXPECT_EQ(runs, 6);
  EXPECT_GE(best, 0);
  EXPECT_LT(best, 1);
}

TEST(Bench, EveryRowIsThereAndFinite) {
  BenchOptions options;
  options.seconds = 0.01;
  const std::vector<BenchRow> rows = run_bench(tiny_engine(), options, Control());
  std::vector<std::string> names;
  for (const BenchRow& row : rows) {
    names.push_back(row.name);
    const Json json = row.to_json();
    for (const char* key : {"name", "value", "unit", "roof", "share"}) EXPECT_TRUE(json.contains(key)) << row.name;
    EXPECT_TRUE(std::isfinite(row.value)) << row.name;
    if (row.unit == "%" || row.unit == "MB") continue;  // costs: may be nothing, or less within the noise
    EXPECT_GT(row.value, 0) << row.name;
    EXPECT_GT(row.roof, 0) << row.name;
    EXPECT_NEAR(row.share, row.value / row.roof, 1e-9) << row.name;
  }
  EXPECT_EQ(names,
            (std::vector<std::string>{"prefill 255", "decode 1", "decode 8", "decode 32", "decode 128", "capture",
                                      "steering", "clamp", "sae encode 512", "batch-invariant", "memory"}));
}

TEST(Bench, OnlyTheRowsAskedForRun) {
  BenchOptions options;
  options.seconds = 0.01;
  options.typical = true;
  options.load_seconds = 0.25;
  options.roofs = temporary("roofs.json");
  write_json_file(options.roofs,
                  Json::object({{"gemm_bf16_gflops", 4.0}, {"gemm_f32_gflops", 2.0}, {"read_gbps", 1.0}}));
  options.only = {"decode 3", "load", "prefill 17", "sweep", "memory"};
  const std::vector<BenchRow> rows = run_bench(tiny_engine(), options, Control());
  ASSERT_EQ(rows.size(), options.only.size());
  for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i].name, options.only[i]);
  EXPECT_EQ(rows[1].value, 0.25);
  MachineReport machine;
  machine.gemm_f32_gflops = 2;
  machine.read_gbps = 1;
  const ModelCost cost(tiny_engine().model(), machine);
  EXPECT_DOUBLE_EQ(rows[2].roof, 17 / cost.product_seconds(17, 3, 1));
  EXPECT_EQ(rows[3].unit, "s");
  EXPECT_GT(rows[3].value, 0);
  EXPECT_EQ(rows[3].to_json().at("settings").as_int(), 60);
  EXPECT_NEAR(rows[4].value,
              rows[4].to_json().at("peak_mb").as_double() - rows[4].to_json().at("weights_mb").as_double(), 1e-6);
}

TEST(Bench, RowsOfManyTokensAreMeasuredWithTheirEngine) {
  BenchOptions options;
  options.seconds = 0.01;
  options.only = {"prefill 17", "decode 2", "decode 17", "memory"};
  const auto measured_when = [&](bool many_asked) {
    std::vector<std::string> out;
    bool asked = false;
    Control control;
    control.on_progress = [&](const Progress& p) {
      if (p.stage == "bench" && asked == many_asked) out.push_back(p.note);
    };
    const std::vector<BenchRow> rows = run_bench(tiny_engine(), options, control, [&]() -> Engine& {
      EXPECT_FALSE(asked);
      asked = true;
      return tiny_engine();
    });
    for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i].name, options.only[i]);
    return out;
  };
  EXPECT_EQ(measured_when(false), (std::vector<std::string>{"decode 2", "memory"}));
  EXPECT_EQ(measured_when(true), (std::vector<std::string>{"prefill 17", "decode 17"}));
}

TEST(Bench, UnknownRowsAndRoofsAreRefused) {
  const auto error_with = [](const std::string& row, const std::string& roofs) {
    BenchOptions options;
    options.seconds = 0.01;
    options.only = {row};
    options.roofs = roofs;
    return error_of([&] { run_bench(tiny_engine(), options, Control()); });
  };
  for (const char* row : {"prefill", "prefill 0", "decode -1", "decode 1x", "decode 12345678", "latency", ""}) {
    const Error e = error_with(row, "");
    EXPECT_EQ(e.code(), Errc::kNotFound) << row;
    EXPECT_NE(std::string(e.what()).find("known: prefill N"), std::string::npos) << e.what();
  }
  EXPECT_EQ(error_with("load", "").code(), Errc::kInvalidArgument);
  EXPECT_EQ(error_with("discovery", "").code(), Errc::kInvalidArgument);
  const std::string roofs = temporary("no_roofs.json");
  write_json_file(roofs, Json::object({{"read_gbps", "fast"}}));
  EXPECT_EQ(error_with("decode 1", roofs).code(), Errc::kBadFormat);
}

TEST(Timing, TheTypicalRunIsTheMedian) {
  EXPECT_EQ((Repeat{0, true}.pick({5, 1, 2})), 2);
  EXPECT_EQ((Repeat{0, false}.pick({5, 1, 2})), 1);
  int runs = 0;
  Repeat{0, true}([&] { return ++runs, 1.0; });
  EXPECT_EQ(runs, 1);
  Repeat{0, false}([&] { return ++runs, 1.0; });
  EXPECT_EQ(runs, 3);
}

TEST(Bench, CostsCountTheRealMatrices) {
  MachineReport machine;
  machine.gemm_f32_gflops = 2;
  machine.read_gbps = 4;
  const ModelCost cost(tiny_engine().model(), machine);
  // q 24x24, k and v 12x24, o 24x24, gate, up, down 40x24; the head 50x24.
  const double layer = 2 * 24 * 24 + 2 * 12 * 24 + 3 * 40 * 24, head = 50 * 24;
  EXPECT_DOUBLE_EQ(cost.layer_flops, 2 * layer);
  EXPECT_DOUBLE_EQ(cost.head_bytes, 4 * head);
  EXPECT_DOUBLE_EQ(cost.product_seconds(10, 3, 1), (10 * 3 * 2 * layer + 2 * head) / 2e9);
  EXPECT_DOUBLE_EQ(cost.step_seconds(1), (3 * layer + head) * 4 / 4e9);          // reading takes longer
  EXPECT_DOUBLE_EQ(cost.step_seconds(100), 100 * 2 * (3 * layer + head) / 2e9);  // products do
}

TEST(Bench, TimesHaveSharesTheOtherWayRound) {
  const BenchRow row = time_row("discovery", 4.0, 1.0);
  EXPECT_DOUBLE_EQ(row.share, 0.25);
  EXPECT_DOUBLE_EQ(row.to_json().at("seconds").as_double(), 4.0);
}

TEST(Bench, RandomSaeIsSparse) {
  const auto sae = random_sae(64, 16384, 3.0, "blocks.1.hook_resid_post");
  Tensor x(DType::kF32, {16, 64});
  Rng rng(5);
  for (int64_t i = 0; i < x.elements(); ++i) x.as<float>()[i] = static_cast<float>(3.0 * rng.normal());
  const double l0 = sae->encode(x.f32()).mean_l0();
  EXPECT_GT(l0, 16);
  EXPECT_LT(l0, 256);
}

TEST(Bench, BadOptionsAreRefused) {
  BenchOptions options;
  options.seconds = 0;
  EXPECT_EQ(error_of([&] { run_bench(tiny_engine(), options, Control()); }).code(), Errc::kInvalidArgument);
  options.seconds = std::nan("");
  EXPECT_EQ(error_of([&] { run_bench(tiny_engine(), options, Control()); }).code(), Errc::kInvalidArgument);
}

TEST(Bench, BadJobsAreRefusedBeforeAnythingRuns) {
  const auto code_of = [](const std::string& path) {
    return error_of([&] { read_discovery_job(path, tiny_engine()); }).code();
  };
  EXPECT_EQ(code_of(write_job("blocks.1.hook_resid_post")), Errc::kUnsupported);  // no tokenizer
  EXPECT_EQ(code_of(write_job("blocks.1.hook_resid_post", "between")), Errc::kBadFormat);
  EXPECT_EQ(code_of(write_job("blocks.7.hook_resid_post")), Errc::kNotFound);
  EXPECT_EQ(code_of(write_job("blocks.1.attn.hook_pattern")), Errc::kBadFormat);
  const std::string other = temporary("other.json");
  write_json_file(other, Json::object({{"site", 3}}));
  EXPECT_EQ(code_of(other), Errc::kBadFormat);
}

TEST(Shapes, AnUnknownOneOffersTheNearest) {
  const Error e = error_of([] { make_random_model(testing::TempDir(), "smollm-135m"); });
  EXPECT_EQ(e.code(), Errc::kNotFound);
  EXPECT_NE(std::string(e.what()).find("did you mean \"smollm2-135m\""), std::string::npos) << e.what();
}

TEST(Shapes, ARandomModelLoadsAndRuns) {
  const std::string folder = temporary("shape");
  std::filesystem::create_directories(folder);
  make_random_model(folder, "smollm2-135m");
  {
    const auto model = Model::load(folder);
    EXPECT_EQ(model->architecture().n_layers, 30);
    EXPECT_EQ(model->architecture().d_model, 576);
    Engine engine(model, nullptr);
    GenerateRequest request;
    request.ids = {1, 2, 3};
    request.max_new_tokens = 2;
    request.logprobs = 1;
    const auto results = engine.generate(std::span<const GenerateRequest>(&request, 1), Control());
    ASSERT_EQ(results.at(0).logprobs.size(), 2U);
    EXPECT_TRUE(std::isfinite(results[0].logprobs[0].chosen));
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace saif
