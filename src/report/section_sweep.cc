// The search for the best setting: heat maps of layer by k, lines of strength and beta.
#include <algorithm>
#include <map>
#include <set>

#include "report/sections.h"
#include "report/style.h"
#include "report/svg.h"
#include "report/values.h"

namespace saif::report {
namespace {

struct Cell {
  double layer = 0, k = 0, beta = 0, scale = 0, strict = 0;
};

std::vector<Cell> cells_of(const Json& task, const std::string& method) {
  std::vector<Cell> out;
  for (const Json& cell : list(task, "cells")) {
    const auto layer = number(cell, "layer"), strict = number(cell, "strict");
    if (!layer || !strict || text(cell, "method", "saif") != method) continue;
    out.push_back({*layer, number(cell, "k").value_or(0), number(cell, "beta").value_or(0),
                   number(cell, "scale").value_or(1), *strict});
  }
  return out;
}

// The best strict share for every pair of values of two settings.
using Best = std::map<double, std::map<double, double>>;
Best best_by(const std::vector<Cell>& cells, double Cell::*first, double Cell::*second) {
  Best out;
  for (const Cell& cell : cells) {
    const auto [at, added] = out[cell.*first].emplace(cell.*second, cell.strict);
    if (!added) at->second = std::max(at->second, cell.strict);
  }
  return out;
}

void layer_by_k(Html& page, const std::vector<Cell>& cells, const std::string& id, const std::string& title) {
  const Best best = best_by(cells, &Cell::layer, &Cell::k);
  std::set<double> ks;
  for (const Cell& cell : cells) ks.insert(cell.k);
  HeatMap map{id, title + ": best strict share by block and k", "k (latents)", "block", {}, {}, {}};
  for (const double k : ks) map.columns.push_back(short_number(k));
  for (const auto& [layer, row] : best) {
    map.rows.push_back(short_number(layer));
    auto& shown = map.cells.emplace_back();
    for (const double k : ks) {
      const auto found = row.find(k);
      shown.push_back(found == row.end() ? std::nullopt : std::optional(found->second));
    }
  }
  page.open("figure");
  draw_heat_map(page, map);
  page.close().line();
}

void lines_by_layer(Html& page, const std::vector<Cell>& cells, double Cell::*axis, LinePlot plot) {
  std::set<double> values;
  for (const Cell& cell : cells) values.insert(cell.*axis);
  if (values.size() < 2) return;  // not searched
  size_t i = 0;
  for (const auto& [layer, points] : best_by(cells, &Cell::layer, axis)) {
    const MethodLook look = look_of_line(i++);
    plot.lines.push_back({"block " + short_number(layer),
                          std::string(look.style),
                          std::string(look.shape),
                          {points.begin(), points.end()}});
  }
  page.open("figure");
  draw_line_plot(page, plot);
  page.close().line();
}

void panels(Html& page, const Json& task, const std::string& method, const std::string& id) {
  const std::vector<Cell> cells = cells_of(task, method);
  if (cells.empty()) return;
  const std::string title = title_of(task);
  page.open("h3").text(title);
  if (method != "saif") page.element("span", " · " + std::string(look_of(method).name), {{"class", "dim"}});
  page.close();
  const Cell& top =
      *std::max_element(cells.begin(), cells.end(), [](const Cell& a, const Cell& b) { return a.strict < b.strict; });
  std::string best = "Best of " + std::to_string(cells.size()) + " settings: block " + short_number(top.layer);
  if (method == "saif") best += ", k " + short_number(top.k) + ", β " + short_number(top.beta);
  best += ", × " + short_number(top.scale) + ", strict " + fixed(top.strict, 2) + ".";
  page.element("p", best, {{"class", "note"}});
  page.open("div",
            {{"class", "panels card"}, {"tabindex", "0"}, {"role", "region"}, {"aria-label", "Sweep of " + title}});
  if (method == "saif") layer_by_k(page, cells, id + "-k", title);
  lines_by_layer(page, cells, &Cell::scale, {id + "-scale", title + ": strict against strength", "strength", {}});
  if (method == "saif") {
    lines_by_layer(page, cells, &Cell::beta, {id + "-beta", title + ": strict against beta", "β", {}});
  }
  page.close().line();
}

}  // namespace

void sweep_section(Html& page, const Json& report) {
  const auto& tasks = list(report, "sweep");
  if (tasks.empty()) return;
  open_section(
      page, "sweep", "The search for a setting",
      "Strict share on the tuning split, which shares no prompt with the test split. Each value is the best over "
      "the settings that the picture does not show; a dash was not tried.");
  for (size_t t = 0; t < tasks.size(); ++t) {
    panels(page, tasks[t], "saif", "sweep-" + std::to_string(t));
    panels(page, tasks[t], "diffmean", "sweep-diffmean-" + std::to_string(t));
  }
  page.close().line();
}

}  // namespace saif::report
