#include <fcntl.h>
#include <spawn.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

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
        if (!latent.contains("explained")) missing.push_back(latent.at("index").as<int32_t>());
      }
      if (missing.empty()) continue;
      say(context, "explaining " + std::to_string(missing.size()) + " latents of " + task + " at " + d.site);
      explain_and_keep(context, open, task, {{&d, missing}}, "", {});
    }
  }
}

// In the user's browser, which is not waited for. The name is an argument of its own: no shell reads it.
void open_in_browser(const std::string& path) {
  std::string program = "xdg-open", page = std::filesystem::absolute(path);  // which no "-" begins
  char* const argv[] = {program.data(), page.data(), nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);  // a group of its own: Ctrl-C here leaves it alone
  posix_spawnattr_setpgroup(&attributes, 0);
  pid_t child = 0;
  const int failed = posix_spawnp(&child, program.c_str(), &actions, &attributes, argv, environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (failed == 0) return;
  throw Error(failed == ENOENT ? Errc::kNotFound : Errc::kIo,
              path + " is written, but " + program + ", which opens it, cannot be run (" + std::strerror(failed) +
                  "): install xdg-utils, or open the file in a browser yourself");
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
  if (o.open) open_in_browser(path);
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
