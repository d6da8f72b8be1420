#include "sae/acceptance_text.h"

#include <array>

namespace saif {
namespace {

constexpr std::array<std::string_view, 6> kTexts = {
    "The harbour was quiet when the first boats came in. Gulls walked along the wall and waited for the nets to be "
    "opened, and an old man who had fished here for forty years counted the crates without looking up. The price of "
    "herring had fallen again, so most of the catch would go to the cannery on the hill, where the machines started "
    "at six and did not stop until the evening.",
    "A battery stores energy in chemical form and gives it back as an electric current. When it is connected to a "
    "lamp, "
    "electrons leave the negative electrode, pass through the wire, and return at the positive one, while ions move "
    "through the electrolyte in between. Recharging drives both reactions backwards; after some hundred cycles the "
    "electrodes have changed so much that less and less of the charge comes back.",
    "In 1847 the town council voted, by nine to four, to build a bridge across the river. The money was to come from a "
    "toll of one penny for each person and three for each cart. Work began two years later, stopped during the flood "
    "of "
    "1851, and was finished in 1854 at almost twice the planned cost. The toll was kept until 1902.",
    "To make the dough, mix 500 g of flour with a teaspoon of salt and half a packet of dried yeast. Add 320 ml of "
    "lukewarm water, stir until no dry flour is left, and knead for ten minutes. Cover the bowl with a cloth. After an "
    "hour the dough should have doubled in size; shape it, let it rest once more, and bake it at 220 degrees.",
    "\"You could have told me,\" she said, and put the letter back on the table. He looked at the window. \"I thought "
    "you knew. Everybody knew.\" Outside a tram went by and made the glasses in the cupboard ring. \"Everybody,\" she "
    "repeated, \"except the one person it was about.\" Then she laughed, which was worse than if she had shouted.",
    "def mean(values):\n    total = 0.0\n    for value in values:\n        total += value\n    return total / "
    "len(values)\n\n\nprint(mean([2, 4, 9]))  # 5.0\n\nThe function above fails on an empty list, because it divides "
    "by zero. A caller that may have no values should check their number first, or the function should raise an error "
    "whose message says what went wrong."};

}  // namespace

std::span<const std::string_view> acceptance_texts() { return kTexts; }

}  // namespace saif
