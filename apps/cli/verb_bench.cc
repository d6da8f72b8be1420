#include "saif/machine.h"
#include "verbs.h"

namespace saif::cli {
namespace {

struct Options {
  std::string model = "smollm2", dtype = "auto";
  BenchOptions bench;
};

void bench(const Context& context, const Options& o) {
  const Loaded loaded = load_engine(o.model, o.dtype);
  const std::vector<BenchRow> rows = run_bench(*loaded.engine, o.bench, context.control);
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
  verb->add_option("--shape", o->bench.shape, "random weights of a real model's shape in place of a model");
  verb->add_option("--job", o->bench.job, "a discovery job (JSON): contents x variants, latents at a site");
  verb->add_option("--seconds", o->bench.seconds, "per measurement, about")->capture_default_str();
  add_dtype_flag(verb, o->dtype);
  verb->callback([o, &context] { bench(context, *o); });
}

}  // namespace saif::cli
