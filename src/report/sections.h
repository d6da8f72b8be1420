// The sections of the report, in the order of the page. Each writes nothing when the report has none of its data.
#pragma once

#include <string>
#include <vector>

#include "report/html.h"
#include "saif/json.h"

namespace saif::report {

void tasks_section(Html& page, const Json& report);
void examples_section(Html& page, const Json& report);
void claims_section(Html& page, const Json& report);
void placement_section(Html& page, const Json& report);
void sweep_section(Html& page, const Json& report);
void latents_section(Html& page, const Json& report);
void training_section(Html& page, const Json& report);
void manifest_section(Html& page, const Json& report);

// What a latent stands for, folded up; nothing where the latent has no "explained".
void latent_page(Html& page, const Json& latent);

// The sentence that says who wins a task and whether that is beyond chance.
std::string verdict_on(const Json& task);

// --- what sections share --------------------------------------------------------------------------------------------

std::string title_of(const Json& entry);  // its title, else its task
void open_section(Html& page, const std::string& id, std::string_view title, std::string_view lead);

struct Column {
  std::string_view title;
  bool left = false;
};
void open_table(Html& page, std::string_view label, const std::vector<Column>& columns);  // ends within <tbody>
void close_table(Html& page);

}  // namespace saif::report
