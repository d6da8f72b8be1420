// Sections that are mostly tables: placement, latents, training.
#include "report/sections.h"
#include "report/style.h"
#include "report/svg.h"
#include "report/values.h"

namespace saif::report {
namespace {

DotPlot placement_plot(const Json& report, const std::string& id) {
  DotPlot plot;
  plot.id = id;
  plot.title = "Success by placement of the instruction with 95 % intervals";
  plot.description = "The numbers are in the table below.";
  plot.axis = "strict share of answers";
  std::vector<std::string> labels;  // of all tasks, in order of appearance: a label keeps its colour
  for (const Json& task : list(report, "placement")) {
    DotGroup& group = plot.groups.emplace_back();
    group.title = title_of(task);
    for (const Json& row : list(task, "rows")) {
      const std::string label = text(row, "label", "?");
      size_t i = 0;
      while (i < labels.size() && labels[i] != label) ++i;
      const MethodLook look = look_of_line(i);
      if (i == labels.size()) {
        labels.push_back(label);
        plot.legend.push_back({label, {std::string(look.style), std::string(look.shape)}});
      }
      const auto strict = number(row, "strict");
      if (!strict) continue;
      const auto ci = interval(row, "strict_ci");
      group.dots.push_back(
          {std::string(look.style), std::string(look.shape), label + ": " + share_text(*strict, ci), *strict, ci});
    }
  }
  return plot;
}

void token_list(Html& page, const Json& latent, std::string_view key) {
  page.open("td", {{"class", "l wrap"}});
  for (const Json& entry : list(latent, key)) {
    const auto logit = number(entry, "logit");
    page.element("span", visible_token(text(entry, "token")),
                 {{"class", "token"}, {"title", logit ? "logit " + fixed(*logit, 2) : ""}});
    page.raw(" ");
  }
  page.close();
}

void latent_row(Html& page, const Json& latent) {
  const auto cell = [&](const std::string& value) { page.element("td", value); };
  page.open("tr").element("th", short_number(number(latent, "index")), {{"scope", "row"}});
  const Json* explained = latent.find("explained");  // which knows the tokens of every latent
  token_list(page, list(latent, "top").empty() && explained ? *explained : latent, "top");
  const auto sensitivity = number(latent, "sensitivity");
  cell(sensitivity ? share_text(*sensitivity, interval(latent, "ci")) : std::string(kAbsent));
  cell(fixed(number(latent, "specificity"), 2));
  cell(fixed(number(latent, "mean"), 2));
  cell(fixed(number(latent, "density"), 4));
  page.open("td", {{"class", "l flag"}});
  std::string flags;
  for (const Json& flag : list(latent, "flags")) {
    if (flag.is_string()) flags += (flags.empty() ? "" : ", ") + flag.as_string();
  }
  page.text(flags).close().close().line();
}

}  // namespace

void placement_section(Html& page, const Json& report) {
  if (list(report, "placement").empty()) return;
  open_section(
      page, "placement", "Before or after",
      "Whether the instruction stands before the content (pre) or after it (post): of the prompts in which the "
      "latents were found, and of prompting itself.");
  DotPlot plot = placement_plot(report, "placement-plot");
  page.open("figure", {{"class", "card"}});
  draw_dot_plot(page, plot, "wide");
  plot.id += "-narrow";
  plot.width = 360;
  plot.label_width = 0;
  draw_dot_plot(page, plot, "narrow");
  page.close().line();
  open_table(page, "Success by placement", {{"task", true}, {"instruction", true}, {"n"}, {"strict [95 %]"}});
  for (const Json& task : list(report, "placement")) {
    const auto& rows = list(task, "rows");
    for (size_t r = 0; r < rows.size(); ++r) {
      page.open("tr", {{"class", r == 0 ? "first" : ""}});
      if (r == 0) {
        page.element("th", title_of(task),
                     {{"scope", "rowgroup"}, {"class", "l"}, {"rowspan", std::to_string(rows.size())}});
      }
      const auto strict = number(rows[r], "strict");
      page.element("td", text(rows[r], "label", "?"), {{"class", "l"}});
      page.element("td", short_number(number(rows[r], "n")));
      page.element("td", strict ? share_text(*strict, interval(rows[r], "strict_ci")) : std::string(kAbsent));
      page.close().line();
    }
  }
  close_table(page);
  page.close().line();
}

void latents_section(Html& page, const Json& report) {
  if (list(report, "latents").empty()) return;
  open_section(page, "latents", "The latents behind each instruction",
               "Sensitivity: the share of prompts on which a latent is active with the instruction and not without. "
               "Specificity: the same, less what unrelated instructions do. Density: the share of ordinary tokens on "
               "which it is active. Tokens are those that the latent makes likelier; a dot is a space.");
  for (const Json& task : list(report, "latents")) {
    const std::string site = text(task, "site");
    page.open("details", {{"open", "open"}}).open("summary").text(title_of(task));
    if (!site.empty()) page.raw(" ").element("code", site, {{"class", "dim"}});
    page.close();
    open_table(page, "Latents of " + title_of(task),
               {{"latent", true},
                {"makes likelier", true},
                {"sensitivity [95 %]"},
                {"specificity"},
                {"mean"},
                {"density"},
                {"flags", true}});
    for (const Json& latent : list(task, "latents")) latent_row(page, latent);
    close_table(page);
    for (const Json& latent : list(task, "latents")) latent_page(page, latent);
    page.close().line();
  }
  page.close().line();
}

void training_section(Html& page, const Json& report) {
  if (list(report, "training").empty()) return;
  open_section(page, "training", "The dictionaries",
               "Sparse autoencoders on held-out text. L0: latents active on a token. FVU: variance left unexplained. "
               "Dead: the share of latents that never fire. Loss recovered: 1 is the model's own loss, 0 that with the "
               "site set to zero.");
  open_table(page, "Dictionaries", {{"site", true}, {"latents"}, {"k"}, {"L0"}, {"FVU"}, {"dead"}, {"loss recovered"}});
  for (const Json& sae : list(report, "training")) {
    page.open("tr").element("th", text(sae, "site", kAbsent), {{"scope", "row"}});
    page.element("td", short_number(number(sae, "d_sae"))).element("td", short_number(number(sae, "k")));
    page.element("td", fixed(number(sae, "l0"), 1)).element("td", fixed(number(sae, "fvu"), 3));
    page.element("td", fixed(number(sae, "dead"), 3)).element("td", fixed(number(sae, "loss_recovered"), 3));
    page.close().line();
  }
  close_table(page);
  page.close().line();
}

}  // namespace saif::report
