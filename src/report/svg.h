// The report's pictures, drawn as SVG of fixed view boxes. Colours are classes: style.h says what they look like in the
// light and the dark scheme. Lengths are in CSS pixels.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "report/html.h"
#include "saif/stats.h"

namespace saif::report {

struct Range {  // of the values on an axis, and of the pixels they are drawn on
  double low = 0, high = 1;
  double from = 0, to = 1;
  double at(double value) const;  // clamped to the pixels
};

std::string pixels(double x);  // one decimal at most

struct Label {
  double x = 0, y = 0;
  std::string_view anchor = "start";  // start, middle or end
  std::string_view style = "";        // a class
};
void draw_text(Html& svg, const Label& at, std::string_view text);
void draw_line(Html& svg, double x1, double y1, double x2, double y2, std::string_view style);
// A mark of one of the shapes (circle, ring, square, diamond, triangle, cross, ...) that goes with a method or a line.
void draw_marker(Html& svg, std::string_view shape, double x, double y, double radius);

inline constexpr size_t kWideTitle = 36;  // letters of a title that stands beside its group

// A value between 0 and 1 with its interval on a horizontal axis.
struct Dot {
  std::string style;  // class that sets the colour: "m-saif"
  std::string shape;
  std::string tip;  // shown on hovering, read aloud
  double value = 0;
  std::optional<Interval> ci;
};
struct DotGroup {  // a task
  std::string title;
  std::vector<Dot> dots;
};
struct DotPlot {
  std::string id, title, description, axis;
  double width = 900, label_width = 205;  // label_width 0: titles stand above their groups
  double row = 15;                        // height of one dot's row
  std::vector<std::pair<std::string, std::pair<std::string, std::string>>> legend;  // text, (style, shape)
  std::vector<DotGroup> groups;
};
// Writes <svg ...>; `attributes` go onto the element.
void draw_dot_plot(Html& out, const DotPlot& plot, const std::string& extra_class, bool standalone = false);

struct HeatMap {
  std::string id, title, x_label, y_label;
  std::vector<std::string> columns, rows;
  std::vector<std::vector<std::optional<double>>> cells;  // [row][column] between 0 and 1
};
void draw_heat_map(Html& out, const HeatMap& map);

struct Line {
  std::string name, style, shape;
  std::vector<std::pair<double, double>> points;  // x ascending, y between 0 and 1
};
struct LinePlot {
  std::string id, title, x_label;
  std::vector<Line> lines;
};
void draw_line_plot(Html& out, const LinePlot& plot);

}  // namespace saif::report
