#include <cstdlib>

#include "explaining.h"
#include "verbs.h"

namespace saif::cli {
namespace {

struct Options {
  std::string study, svg;
  bool open = false, explain = false;
};

// The latents that the report shows and that are not explained yet.
void explain_missing(const Context& context, const std::string& folder) {
  const OpenStudy open = open_study(folder, "auto");
  const Json tables = report_of_study(*open.study);
  for (const Json& shown : tables.at("latents").items()) {
    const std::string task = shown.at("task").as_string();
    const std::vector<Discovery> discoveries = open.study->discoveries(task);
    for (const Discovery& d : discoveries) {
      if (d.site != shown.at("site").as_string() || d.placement != shown.at("placement").as_string()) continue;
      std::vector<int32_t> missing;
      for (const Json& latent : shown.at("latents").items()) {
        if (!latent.contains("explained")) missing.push_back(static_cast<int32_t>(latent.at("index").as_int()));
      }
      if (missing.empty()) continue;
      say(context, "explaining " + std::to_string(missing.size()) + " latents of " + task + " at " + d.site);
      explain_and_keep(context, open, task, {{&d, missing}}, "", {});
    }
  }
}

void report(const Context& context, const Options& o) {
  if (o.explain) explain_missing(context, o.study);
  const auto study = Study::open(o.study, Study::Mode::kReadOnly);
  const std::string path = o.study + "/report.html";
  const Json tables = report_of_study(*study);
  write_report(path, tables);
  if (!o.svg.empty()) write_success_plot(o.svg, tables);
  if (context.json) {
    print_json(Json::object({{"path", path}}));
  } else {
    print_line(path);
  }
  if (o.open && std::system(("xdg-open '" + path + "' >/dev/null 2>&1 &").c_str()) != 0) {
    say(context, "no program to open it with was found");
  }
}

}  // namespace

void add_report(CLI::App& root, Context& context) {
  auto o = std::make_shared<Options>();
  CLI::App* verb = add_verb(root, context, "report", "One self-contained report.html of a study");
  verb->add_option("study", o->study, "the study folder")->required();
  verb->add_option("--svg", o->svg, "write the plot of success by method to this file as well");
  verb->add_flag("--explain", o->explain, "first explain every latent shown that saif explain has not explained yet");
  verb->add_flag("--open", o->open, "open it in the browser");
  verb->callback([o, &context] { report(context, *o); });
}

}  // namespace saif::cli
