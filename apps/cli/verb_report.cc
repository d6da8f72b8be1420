#include <cstdlib>

#include "study_tools.h"
#include "verbs.h"

namespace saif::cli {
namespace {

struct Options {
  std::string study, svg;
  bool open = false;
};

void report(const Context& context, const Options& o) {
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
  verb->add_flag("--open", o->open, "open it in the browser");
  verb->callback([o, &context] { report(context, *o); });
}

}  // namespace saif::cli
