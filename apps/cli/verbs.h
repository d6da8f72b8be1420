// One function per verb: registers it with its flags and what it does.
#pragma once

#include "app.h"

namespace saif::cli {

void install_progress(Context& context);

void add_doctor(CLI::App& root, Context& context);
void add_inspect(CLI::App& root, Context& context);
void add_tokenize(CLI::App& root, Context& context);
void add_run(CLI::App& root, Context& context);
void add_capture(CLI::App& root, Context& context);
void add_sae(CLI::App& root, Context& context);
void add_find(CLI::App& root, Context& context);
void add_explain(CLI::App& root, Context& context);
void add_vector(CLI::App& root, Context& context);
void add_eval(CLI::App& root, Context& context);
void add_sweep(CLI::App& root, Context& context);
void add_report(CLI::App& root, Context& context);
void add_demo(CLI::App& root, Context& context);
void add_bench(CLI::App& root, Context& context);

}  // namespace saif::cli
