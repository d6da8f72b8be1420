#include <cstdlib>

#include "study_tools.h"
#include "verbs.h"

namespace saif::cli {
namespace {

struct Options {
  std::string study;
  bool open = false;
};

void report(const Context& context, const Options& o) {
  const auto study = Study::open(o.study, Study::Mode::kReadOnly);
  const std::string path = o.study + "/report.html";
  write_report(path, report_of_study(*study));
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
  verb->add_flag("--open", o->open, "open it in the browser");
  verb->callback([o, &context] { report(context, *o); });
}

}  // namespace saif::cli
