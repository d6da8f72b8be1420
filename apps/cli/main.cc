// saif: finds the SAE latents that make a language model follow an instruction, steers with them, proves what they do.
// Exit codes: 0 done, 1 failed (one line on stderr), 2 wrong usage.
#include <csignal>
#include <cstdio>
#include <new>

#include "saif/machine.h"
#include "spinning.h"
#include "verbs.h"

namespace {

using namespace saif;
using namespace saif::cli;

Control* g_control = nullptr;  // for the signal handler only

// The first Ctrl-C asks; the second one is the system's own.
extern "C" void on_interrupt(int signal) {
  if (g_control) g_control->request_stop();
  std::signal(signal, SIG_DFL);
}

using AddVerb = void (*)(CLI::App&, Context&);
constexpr AddVerb kVerbs[] = {add_demo,   add_run,     add_find, add_explain, add_vector,   add_eval,   add_sweep,
                              add_report, add_capture, add_sae,  add_inspect, add_tokenize, add_doctor, add_bench};

int fail(const std::string& message, int code) {
  std::string line = message;
  for (char& c : line) {
    if (c == '\n' || c == '\r') c = ' ';
  }
  std::fprintf(stderr, "saif: error: %s\n", line.c_str());
  return code;
}

const CLI::App* deepest(const CLI::App* app) {
  for (;;) {
    const auto chosen = app->get_subcommands();
    if (chosen.empty()) return app;
    app = chosen.front();
  }
}

// "unknown flag --topk; did you mean --top-k?"
std::string usage_message(const CLI::App& root, const CLI::ParseError& error) {
  const CLI::App* verb = deepest(&root);
  const std::string help = "; see saif " + (verb == &root ? std::string() : verb->get_name() + " ") + "--help";
  std::vector<std::string> extras = root.remaining(true);
  if (extras.empty()) return std::string(error.what()) + help;
  std::vector<std::string> names;
  for (const CLI::App* sub : verb->get_subcommands({})) names.push_back(sub->get_name());
  for (const CLI::Option* option : verb->get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  const std::string what = extras.front().starts_with("-") ? "unknown flag " : "unknown word ";
  const std::string near = nearest_name(extras.front().substr(0, extras.front().find('=')), names);
  return what + extras.front() + (near.empty() ? "" : "; did you mean " + near + "?") + help;
}

int parse_and_run(CLI::App& root, int argc, char** argv) {
  try {
    root.parse(argc, argv);
    return 0;
  } catch (const CLI::CallForHelp& e) {
    return root.exit(e);
  } catch (const CLI::CallForVersion& e) {
    return root.exit(e);
  } catch (const CLI::ParseError& e) {
    return fail(usage_message(root, e), 2);
  } catch (const UsageError& e) {
    return fail(e.what(), 2);
  } catch (const Error& e) {
    return fail(e.what(), 1);
  } catch (const std::bad_alloc&) {
    return fail("memory is exhausted; use fewer prompts at a time or a smaller model", 1);
  } catch (const std::exception& e) {
    return fail(std::string("unexpected: ") + e.what(), 1);
  }
}

}  // namespace

int main(int argc, char** argv) {
  limit_spinning(argv);
  Context context;
  g_control = &context.control;
  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
  std::signal(SIGPIPE, SIG_IGN);
  install_progress(context);

  CLI::App root(
      "saif finds the SAE latents that make a language model follow an instruction, steers the model with them,\n"
      "and proves the effect. Start with: saif demo",
      "saif");
  root.set_version_flag("--version", "saif " SAIF_VERSION);
  root.require_subcommand(1);
  root.failure_message(CLI::FailureMessage::simple);
  for (const AddVerb add : kVerbs) add(root, context);
  for (CLI::App* verb : root.get_subcommands({})) {
    verb->parse_complete_callback([&context] { use_threads(context.threads); });
  }
  return parse_and_run(root, argc, argv);
}
