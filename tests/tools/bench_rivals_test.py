"""The page and the choice of rows of `make bench-rivals`, without measuring anything."""

import argparse
import sys
import unittest
import xml.etree.ElementTree as xml
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench" / "rivals"))
import page  # noqa: E402
import run  # noqa: E402

RESULTS = {
    "machine": {"cpu": "a processor", "threads": 2},
    "versions": {"saif": "abc"},
    "notes": {"135m bf16": {"flash attention (prefill, decode)": [0, 1], "transformers": {"torch": "2"}},
              "135m q8_0": {}},
    "doctor": {"135m bf16": [{"gemm_bf16_gflops": 900.0, "gemm_f32_gflops": 450.0, "read_gbps": 40.0}]},
    "rows": {
        "135m bf16 prefill 512": {"saif": [300, 310, 290], "roof": [400, 400, 400], "llama.cpp": [100, 120, 90],
                                  "transformers": [200, 150, 210], "when": "2026-01-02"},
        "135m bf16 load warm": {"saif": [2.0], "llama.cpp": [1.0], "when": "2026-01-03"},
        "135m bf16 memory": {"saif": [-3.0], "llama.cpp": [50.0], "when": "2026-01-03"},
        "135m q8_0 decode 1": {"saif": [50.0], "llama.cpp": [50.0], "when": "2026-01-03"},
        "135m q8_0 decode 8": {"saif": [50.0], "when": "2026-01-03"},
        "1b bf16 decode 8": {"llama.cpp": [50.0], "when": "2026-01-03"},
    },
}


def options(**values):
    return argparse.Namespace(**{"quick": False, "only": "", **values})


class PageTest(unittest.TestCase):
    def test_rates_and_times_compare_the_right_way_round(self):
        rows = RESULTS["rows"]
        self.assertEqual(page.ratio("prefill 512", rows["135m bf16 prefill 512"]), (1.5, "transformers"))
        self.assertEqual(page.ratio("load warm", rows["135m bf16 load warm"]), (0.5, "llama.cpp"))
        self.assertIsNone(page.ratio("decode 8", rows["135m q8_0 decode 8"]))
        self.assertIsNone(page.ratio("decode 8", rows["1b bf16 decode 8"]))

    def test_the_better_of_saifs_modes_counts(self):
        entry = {"saif": [40.0], "saif tuned": [60.0], "llama.cpp": [50.0]}
        self.assertEqual(page.ratio("decode 1", entry), (1.2, "llama.cpp"))
        self.assertEqual(page.ratio("decode 1", entry, ("saif",)), (0.8, "llama.cpp"))
        self.assertIsNone(page.ratio("decode 1", {"saif tuned": [60.0]}))

    def test_the_readme_has_the_few_rows_that_tell_most(self):
        readme = f"before\n<!-- bench/rivals benchmarks: begin -->\nold\n<!-- bench/rivals benchmarks: end -->\nafter\n"
        text = page.with_brief(readme, RESULTS)
        self.assertIn("| 135M bf16 | **300** / - / 100 / 200 | - | - |", text.splitlines())
        self.assertNotIn("old", text)
        self.assertTrue(text.startswith("before\n") and text.endswith("\nafter\n"))
        self.assertEqual(page.with_brief(text, RESULTS), text)
        self.assertEqual(page.with_brief(text, {"rows": {}}, "benchmarks_other"), text)  # has no part of that machine

    def test_rows_behind_are_bold_and_named(self):
        text = page.text(RESULTS)
        lines = text.splitlines()
        self.assertIn("| bf16 | prefill, 512 tokens | tok/s | 300 [290, 310] | 75 % | - | 100 [90.0, 120] | "
                      "200 [150, 210] | 1.50 |", lines)
        self.assertIn("| **bf16** | **first token, file in memory** | **s** | **2.00** |  | - | **1.00** | - | "
                      "**0.50** |", lines)
        # A tie is not ahead.
        self.assertIn("ahead of the better rival in 2 of 4 rows, as it comes, without options, in 2.", text)
        self.assertIn("* **135M Q8_0, decode, 1 row: 1.00 of llama.cpp**", lines)
        self.assertIn("| bf16 | memory beyond the weights | MB | -3.00 |  | - | 50.0 | - | none needed |", lines)
        self.assertIn("2026-01-02 to 2026-01-03", text)
        self.assertIn("135M bf16 off/on", text)

    def test_plot_is_xml_with_a_mark_per_comparison(self):
        for results in (RESULTS, {"rows": {}}):
            picture = xml.fromstring(page.plot(results))
            marks = [e for e in picture.iter("{http://www.w3.org/2000/svg}circle") if "stroke" in e.attrib]
            self.assertEqual(len(marks), 3 if results is RESULTS else 0)

    def test_a_page_of_nothing_says_so(self):
        self.assertIn("Not measured.", page.text({"rows": {}}))


class RowsTest(unittest.TestCase):
    def test_filters_take_whole_words(self):
        self.assertEqual(run.wanted_rows(options(only="1b bf16 decode 1, 2.6b q8_0 memory")),
                         {("1b", "bf16"): ["decode 1"], ("2.6b", "q8_0"): ["memory"]})
        self.assertEqual(run.wanted_rows(options(only="nothing")), {})

    def test_quick_is_a_part_of_all(self):
        every, quick = run.wanted_rows(options()), run.wanted_rows(options(quick=True))
        self.assertEqual(len(every), 9)
        for unit, rows in quick.items():
            self.assertLessEqual(set(rows), set(every[unit]))
        self.assertLess(sum(map(len, quick.values())), sum(map(len, every.values())) / 2)

    def test_every_row_has_a_place_on_the_page(self):
        for shape, kind, row in run.all_rows():
            self.assertIn(shape, page.SHAPES)
            self.assertIn(kind, page.TYPES)
            self.assertIn(row, page.ROWS)

    def test_rivals_are_asked_for_what_they_have(self):
        self.assertEqual(run.rows_of("transformers", "q8_0", ["decode 1"]), [])
        self.assertEqual(run.rows_of("saif tuned", "bf16", ["decode 1", "load warm"]), ["decode 1"])
        self.assertEqual(run.rows_of("saif tuned", "q8_0", ["decode 1", "memory", "load warm"]), ["decode 1", "memory"])
        self.assertEqual(run.rows_of("llama.cpp", "bf16", ["decode 1", "discovery"]), ["decode 1"])


if __name__ == "__main__":
    unittest.main()
