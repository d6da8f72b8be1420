"""Each rule of tools/check_architecture.py, shown on a small tree that breaks it and on one that keeps it."""

import importlib.util
import tempfile
import unittest
from pathlib import Path
from unittest import mock

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "check_architecture.py"
spec = importlib.util.spec_from_file_location("check_architecture", SCRIPT)
arch = importlib.util.module_from_spec(spec)
spec.loader.exec_module(arch)

ROOMS = "saif_room(base)\nsaif_room(tensor)\nsaif_room(kernels)\nsaif_room(formats)\nsaif_room(text)\nsaif_room(model)\n"


class ArchitectureTest(unittest.TestCase):
    def findings(self, check, files):
        with tempfile.TemporaryDirectory() as folder:
            for name, text in {"CMakeLists.txt": ROOMS, **files}.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(text if isinstance(text, bytes) else text.encode())
            return list(check(arch.Tree(folder)))

    def refuses(self, check, files, *words):
        found = self.findings(check, files)
        self.assertEqual(len(found), 1, found)
        for word in words:
            self.assertIn(word, found[0])

    def accepts(self, check, files):
        self.assertEqual(self.findings(check, files), [])

    def test_tables_name_files_that_exist(self):
        tree = {"include/saif/json.h": "", "src/base/json.cc": "", "src/kernels/cpu/dot.cc": ""}
        third_party = {"nlohmann/*": ["src/base/json.cc"], "hwy/*": ["src/kernels/cpu/*"]}

        def with_tables(check, headers, third_party, *words):
            with mock.patch.object(arch, "PUBLIC_HEADERS", headers), mock.patch.object(arch, "THIRD_PARTY", third_party):
                check(arch.check_tables, tree, *words)

        with_tables(self.accepts, {"json.h": "base"}, third_party)
        with_tables(self.refuses, {"json.h": "base", "report.h": "report"}, third_party, "include/saif/report.h",
                    "check_architecture.py", "does not exist")
        with_tables(self.refuses, {"json.h": "base"}, {**third_party, "mpi.h": ["src/sweep/mpi.cc"]}, "src/sweep/mpi.cc",
                    "mpi.h", "does not exist")
        with_tables(self.refuses, {"json.h": "base"}, {**third_party, "zlib.h": ["src/base/json.cc", "src/formats/*"]},
                    "src/formats/*", "zlib.h")

    def test_machine_belongs_to_the_study(self):
        rooms = ROOMS + "saif_room(engine)\nsaif_room(study)\nsaif_room(sweep)\n"
        files = {"CMakeLists.txt": rooms, "include/saif/machine.h": ""}
        for room in ("engine", "text"):
            self.refuses(arch.check_directions, {**files, f"src/{room}/a.cc": '#include "saif/machine.h"\n'}, "upward")
        for room in ("study", "sweep"):
            self.accepts(arch.check_directions, {**files, f"src/{room}/a.cc": '#include "saif/machine.h"\n'})

    def test_upward_include(self):
        files = {"src/tensor/a.h": "", "src/model/b.h": "", "include/saif/model.h": ""}
        self.refuses(arch.check_directions, {**files, "src/tensor/c.cc": '// first\n#include "model/b.h"\n'},
                     "src/tensor/c.cc:2", "model/b.h", "upward", "base, tensor")
        self.accepts(arch.check_directions, {**files, "src/model/c.cc": '#include "tensor/a.h"\n#include "b.h"\n'})
        self.accepts(arch.check_directions, {**files, "src/tensor/c.cc": '// #include "model/b.h"\n'})

    def test_upward_include_through_a_public_header(self):
        files = {"include/saif/model.h": "", "include/saif/error.h": ""}
        self.refuses(arch.check_directions, {**files, "src/base/a.cc": '#include "saif/model.h"\n'}, "a.cc:1", "upward")
        self.refuses(arch.check_directions, {**files, "include/saif/json.h": '#include "saif/model.h"\n'}, "json.h:1")
        self.accepts(arch.check_directions, {**files, "src/model/a.cc": '#include "saif/error.h"\n'})

    def test_file_without_a_room(self):
        self.refuses(arch.check_directions, {"src/attic/a.cc": ""}, "src/attic/a.cc", "no room")
        self.refuses(arch.check_directions, {"include/saif/misc.h": ""}, "misc.h", "PUBLIC_HEADERS")

    def test_third_party_header_outside_its_file(self):
        cases = {
            "nlohmann/json.hpp": ("src/base/json.cc", "src/base/options.cc"),
            "oneapi/dnnl/dnnl.hpp": ("src/kernels/cpu/onednn.cc", "src/kernels/cpu/dot.cc"),
            "hwy/highway.h": ("src/kernels/cpu/dot.cc", "src/kernels/ref/dot.cc"),
            "zlib.h": ("src/formats/zip.cc", "src/formats/npz.cc"),
            "text/language_c.h": ("src/text/language.cc", "src/text/hf.cc"),
            "sqlite3.h": ("src/sweep/store.cc", "src/sweep/plan.cc"),
            "CLI/CLI.hpp": ("apps/cli/main.cc", "src/base/options.cc"),
            "gtest/gtest.h": ("src/base/json_test.cc", "src/base/json.cc"),
            "omp.h": ("src/base/parallel.h", "src/model/forward.cc"),
        }
        for header, (home, elsewhere) in cases.items():
            with self.subTest(header):
                self.accepts(arch.check_third_party, {home: f"#include <{header}>\n"})
                self.refuses(arch.check_third_party, {elsewhere: f"#include <{header}>\n"}, elsewhere, header, "only in")
        self.accepts(arch.check_third_party, {"src/text/hf_c.h": "", "src/text/hf.cc": '#include "hf_c.h"\n'})

    def test_unknown_header(self):
        self.refuses(arch.check_third_party, {"src/base/a.cc": "#include <boost/any.hpp>\n"}, "boost", "THIRD_PARTY")
        self.refuses(arch.check_third_party, {"src/base/a.cc": '#include "base/lost.h"\n'}, "base/lost.h", "no file")
        self.accepts(arch.check_third_party, {"src/base/a.cc": "#include <vector>\n#include <sys/mman.h>\n"})

    def test_public_headers(self):
        self.refuses(arch.check_public_headers, {"include/saif/json.h": '#include "base/file.h"\n'}, "json.h:1")
        self.refuses(arch.check_public_headers, {"include/saif/json.h": "#include <unistd.h>\n"}, "unistd.h")
        self.accepts(arch.check_public_headers, {"include/saif/json.h": '#include <string>\n#include "saif/error.h"\n'})
        many = {f"include/saif/h{i}.h": "" for i in range(17)}
        self.refuses(arch.check_public_headers, many, "17 public headers")
        self.refuses(arch.check_public_headers, {"include/saif/json.h": "\n" * 2501}, "2501 lines")

    def test_programs_use_public_headers_only(self):
        files = {"src/base/file.h": "", "apps/cli/verbs.h": "", "include/saif/error.h": ""}
        self.refuses(arch.check_apps, {**files, "apps/cli/run.cc": '#include "base/file.h"\n'}, "run.cc:1", "src/")
        self.accepts(arch.check_apps, {**files, "apps/cli/run.cc": '#include "verbs.h"\n#include "saif/error.h"\n'})

    def test_library_prints_or_ends(self):
        for code in ("std::cout << 1;", "std::cerr << 1;", 'printf("x");', 'std::printf("x");', 'fprintf(f, "x");',
                     "abort();", "std::abort();", "exit(1);", "std::exit(1);", "std::terminate();", "assert(x);",
                     'puts("x");', "_exit(1);"):
            with self.subTest(code):
                self.refuses(arch.check_library_is_quiet, {"src/base/a.cc": f"\n{code}\n"}, "a.cc:2", "never prints")
        for code in ('snprintf(b, 1, "x");', "static_assert(true);", "// printf(1)", "/* abort(); */", 'f("exit(1)");',
                     "set_exit(1);", 'auto s = R"(abort())";', "int n = 1'000'000; // abort()", "early.exit();"):
            with self.subTest(code):
                self.accepts(arch.check_library_is_quiet, {"src/base/a.cc": code})
        self.accepts(arch.check_library_is_quiet, {"src/base/a_test.cc": "abort();", "apps/cli/main.cc": "exit(1);"})

    def test_file_lengths(self):
        self.refuses(arch.check_lengths, {"src/base/a.cc": "\n" * 701}, "701 lines", "at most")
        found = self.findings(arch.check_lengths, {"src/base/a.cc": "\n" * 501})
        self.assertTrue(found[0].startswith("warning: src/base/a.cc"), found)
        self.accepts(arch.check_lengths, {"src/base/a.cc": "\n" * 500})

    def test_names_of_a_workplace(self):
        path, machine = "/wor" + "k/main", "far" + "m-7"
        self.refuses(arch.check_workplace_names, {"docs/a.md": f"x\nsee {path}/x\n"}, "docs/a.md:2")
        self.refuses(arch.check_workplace_names, {"tools/a.sh": f"ssh {machine}\n"}, "tools/a.sh:1")
        self.refuses(arch.check_workplace_names, {"data/tasks/a.json": path}, "data/tasks/a.json")
        self.accepts(arch.check_workplace_names, {"data/tasks/a.json": "a far" + "m-house in Wales", "b.md": "net" + path[1:]})
        self.accepts(arch.check_workplace_names, {"models/a.safetensors": b"\0\0" + path.encode()})

    def test_links(self):
        page = "# The Rooms, ranked\n\n## Twice\n\n## Twice\n\n```\n# not a heading\n```\n"
        for link in ("b.md", "b.md#the-rooms-ranked", "b.md#twice-1", "../README.md", "/README.md", "https://x.org/y",
                     "#own", "../docs"):
            with self.subTest(link):
                self.accepts(arch.check_links, {"README.md": "", "docs/b.md": page, "docs/a.md": f"# Own\n[x]({link})\n"})
        for link in ("c.md", "b.md#rooms", "b.md#not-a-heading", "#theirs", "b.md#twice-2"):
            with self.subTest(link):
                self.refuses(arch.check_links, {"docs/b.md": page, "docs/a.md": f"# Own\n\n[x]({link})\n"},
                             "docs/a.md:3", link)
        self.refuses(arch.check_links, {"README.md": '<img src="docs/demo.png" alt="">\n'}, "docs/demo.png")
        self.accepts(arch.check_links, {"README.md": "`[x](y.md)`\n```\n[x](y.md)\n```\n"})


if __name__ == "__main__":
    unittest.main()
