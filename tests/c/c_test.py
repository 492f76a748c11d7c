#!/usr/bin/env python3
"""The C interface: a program that uses every call, and what of it may never change unnoticed.

Usage: c_test.py SOURCE_ROOT LIBRARY

The binary interface is written down in dedup.abi: the library's name, the symbols it exports for C,
the calls as they are declared, the value of each constant, and size and offset of each field. When
it changes on purpose, DEDUP_REFRESH_ABI=1 writes it again; but what programs rely on may go or
change only together with the library's name.

(Debian's abidiff reads the same from debug information, which the builds that are tested often lack;
and it knows neither the values of constants nor the promise that a struct grows at its end alone.)
"""

import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT, LIBRARY = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
HERE = ROOT / "tests/c"
HEADER = ROOT / "include/dedup/dedup.h"
COMPILERS = [name for name in ("gcc", "clang-19") if shutil.which(name)]
FLAGS = ("-std=c11 -pedantic -Wall -Wextra -Werror -Wshadow -Wconversion -Wstrict-prototypes"
         ).split()


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                          timeout=200, **options)
    if done.returncode != 0:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


class Program(unittest.TestCase):
    def test_every_call_does_what_the_header_says(self):
        for compiler in COMPILERS:
            with self.subTest(compiler=compiler), tempfile.TemporaryDirectory() as work:
                program = work + "/dedup_test"
                sources = sorted(HERE.glob("*.c"))
                run(compiler, *FLAGS, "-O1", f"-I{ROOT}/include", *sources, "-o", program,
                    f"-L{LIBRARY.parent}", "-ldedup", f"-Wl,-rpath,{LIBRARY.parent}", "-pthread")
                printed = run(program, work + "/store").split()
                # Each test in the sources is one that runs.
                written = [name for source in sources for name in
                           re.findall(r"^static void (test_\w+)\(", source.read_text(), re.M)]
                self.assertEqual(sorted(printed), sorted(written))

    def test_every_call_is_used_by_the_program(self):
        used = "".join(source.read_text() for source in HERE.glob("*.c"))
        for symbol in symbols():
            self.assertRegex(used, rf"\b{symbol}\(")


def symbols():
    listed = run("nm", "--dynamic", "--defined-only", "--format=posix", LIBRARY)
    return sorted(re.findall(r"^(dedup_\w+) T", listed, re.M))


def without_comments(text):
    return re.sub(r"//[^\n]*", "", text)


def declarations():
    """The calls and the types of functions, as one line each."""
    text = re.sub(r"^#.*", "", without_comments(HEADER.read_text()), flags=re.M)
    text = " ".join(text.split())
    callbacks = re.findall(r"(typedef int \(\*[^;]*);", text)
    return sorted(re.findall(r"DEDUP_C_API ([^;]*);", text) + callbacks)


def layout():
    """Prints, in C, every constant and the place of every field."""
    text = without_comments(HEADER.read_text())
    lines = []
    for body in re.findall(r"enum \{(.*?)\};", text, re.S):
        lines += [f'printf("constant {name} %lld\\n", (long long){name});'
                  for name in re.findall(r"\b(DEDUP_\w+)", body)]
    for name in re.findall(r"#define (DEDUP_\w+) +\S", text):
        if name != "DEDUP_C_API":
            lines.append(f'printf("constant {name} %lld\\n", (long long)({name}));')
    for body, name in re.findall(r"typedef struct \w+ \{(.*?)\} (\w+);", text, re.S):
        lines.append(f'printf("struct {name} %zu\\n", sizeof({name}));')
        for field in re.findall(r"([^;]+);", body):
            field = re.sub(r"\[.*", "", field).split()[-1].lstrip("*")
            lines.append(f'printf("field {name}.{field} %zu %zu\\n", offsetof({name}, {field}), '
                         f"sizeof((({name}*)0)->{field}));")
    return ("#include <dedup/dedup.h>\n#include <stdio.h>\nint main(void) {\n    "
            + "\n    ".join(lines) + "\n    return 0;\n}\n")


@functools.cache
def interface():
    """The whole of it, a line each."""
    soname = re.search(r"\(SONAME\).*\[(.*)\]", run("readelf", "-d", LIBRARY))[1]
    lines = ["library " + soname]
    lines += ["symbol " + symbol for symbol in symbols()]
    lines += ["call " + call for call in declarations()]
    with tempfile.TemporaryDirectory() as work:
        program = work + "/layout"
        run(COMPILERS[0], "-std=c11", f"-I{ROOT}/include", "-x", "c", "-", "-o", program,
            input=layout())
        lines += run(program).splitlines()
    return lines


class BinaryInterface(unittest.TestCase):
    maxDiff = None

    def test_is_what_is_written_down(self):
        written = HERE / "dedup.abi"
        now = interface()
        if os.environ.get("DEDUP_REFRESH_ABI"):
            before = written.read_text().splitlines() if written.exists() else []
            # A struct that begins with its size may grow at its end.
            gone = [line for line in before if line not in now and not line.startswith("struct ")]
            if before and before[0] == now[0]:
                self.assertEqual(gone, [], "programs rely on this; change the library's name too")
            written.write_text("\n".join(now) + "\n")
        self.assertEqual(written.read_text().splitlines(), now)

    def test_what_is_declared_is_exported(self):
        declared = sorted(re.search(r"(dedup_\w+)\(", call)[1] for call in declarations()
                          if not call.startswith("typedef"))
        self.assertEqual(declared, symbols())

    def test_structs_that_callers_fill_begin_with_their_size(self):
        fields = re.findall(r"typedef struct (\w+_options|dedup_error|dedup_view|dedup_resolution) "
                            r"\{\s*(.*?);", without_comments(HEADER.read_text()))
        self.assertEqual(len(fields), 9)
        for name, first in fields:
            self.assertEqual(first, "size_t size", name)

    def test_structs_have_no_holes(self):
        # What lies in a hole is not defined, and a struct could not grow into it.
        at = {}
        for line in interface():
            kind, name, *numbers = line.split()
            if kind == "field":
                struct = name.split(".")[0]
                self.assertEqual(int(numbers[0]), at.get(struct, 0), name)
                at[struct] = int(numbers[0]) + int(numbers[1])
            elif kind == "struct":
                at[name] = 0
                size = int(numbers[0])
                self.assertEqual(size % 8, 0, name)
        for line in interface():
            kind, name, *numbers = line.split()
            if kind == "struct":
                self.assertEqual(int(numbers[0]), at[name], name)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
