#include <chrono>
#include <cstdlib>
#include <filesystem>

#include "saif/machine.h"
#include "verbs.h"

namespace saif::cli {
namespace {

constexpr double kBytesOfBf16 = 2;

struct Options {
  std::string model = "smollm2";
  LoadOptions load;
  BenchOptions bench;
};

// A new folder under the system's temporary one, removed with all it holds.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "saif-bench-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr)
      throw Error(Errc::kIo, name + ": cannot be made; set TMPDIR to a writable folder");
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// The folder may go once the model is loaded: the mapping keeps the weights.
Loaded load_shape(const Context& context, const Options& o) {
  const TemporaryFolder folder;
  say(context, "making random weights of " + o.bench.shape);
  make_random_model(folder.path(), o.bench.shape);
  Loaded out;
  out.model = Model::load(folder.path(), o.load);
  out.engine = std::make_unique<Engine>(out.model, nullptr);
  return out;
}

// Only a job needs a tokenizer.
Loaded load_model(const Options& o, bool many_rows) {
  Loaded out;
  LoadOptions load = o.load;
  load.many_rows = many_rows;
  out.model = Model::load(o.model, load);
  try {
    out.tokenizer = Tokenizer::load(out.model->path());
  } catch (const Error&) {
    if (!o.bench.job.empty()) throw;
  }
  out.engine = std::make_unique<Engine>(out.model, out.tokenizer);
  return out;
}

// Each row with the model loaded as the verbs of its kind load it.
std::vector<BenchRow> bench_model(const Context& context, Options& o) {
  const auto start = std::chrono::steady_clock::now();
  Loaded loaded = load_model(o, false);
  o.bench.load_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const bool two_ways = o.load.quantised == "auto" && loaded.model->bytes_per_weight() < kBytesOfBf16;
  if (!two_ways) return run_bench(*loaded.engine, o.bench, context.control);
  return run_bench(*loaded.engine, o.bench, context.control, [&]() -> Engine& {
    loaded = load_model(o, true);
    return *loaded.engine;
  });
}

std::vector<BenchRow> bench_shape(const Context& context, const Options& o) {
  const Loaded loaded = load_shape(context, o);
  return run_bench(*loaded.engine, o.bench, context.control);
}

void bench(const Context& context, Options& o) {
  const std::vector<BenchRow> rows = o.bench.shape.empty() ? bench_model(context, o) : bench_shape(context, o);
  if (context.json) {
    Json out = Json::array();
    for (const BenchRow& row : rows) out.push_back(row.to_json());
    return print_json(Json::object({{"rows", out}}));
  }
  std::vector<std::vector<std::string>> table = {{"what", "value", "unit", "roof", "share"}};
  for (const BenchRow& row : rows) {
    table.push_back({row.name, format_number(row.value, 2), row.unit, row.roof > 0 ? format_number(row.roof, 1) : "",
                     row.roof > 0 ? format_number(100 * row.share, 0) + "%" : ""});
  }
  print_line(format_table(table));
}

}  // namespace

void add_bench(CLI::App& root, Context& context) {
  auto o = std::make_shared<Options>();
  CLI::App* verb = add_verb(root, context, "bench", "Speed against the measured roofs of this machine");
  verb->add_option("--model", o->model, "folder, .gguf file or short name")->capture_default_str();
  std::string shapes;
  for (const std::string& shape : model_shapes()) shapes += (shapes.empty() ? "" : ", ") + shape;
  verb->add_option("--shape", o->bench.shape, "random weights in place of a model: " + shapes);
  verb->add_option("--job", o->bench.job, "a discovery job (JSON): contents x variants, latents at a site");
  verb->add_option("--seconds", o->bench.seconds, "per measurement, about")->capture_default_str();
  verb->add_option(
          "--only", o->bench.only,
          "rows wanted: prefill N, decode N, capture, steering, clamp, sae encode 512, discovery, sweep, load, memory")
      ->delimiter(',');
  verb->add_flag("--typical", o->bench.typical, "the median of the runs in place of the best");
  verb->add_option("--roofs", o->bench.roofs, "the roofs, as `saif doctor --json` printed them; else measured");
  add_load_flags(verb, o->load);
  verb->callback([o, &context] { bench(context, *o); });
}

}  // namespace saif::cli
