"""Counts the single test cases in the log of a `meson test` run.

Usage: count_tests.py BUILD_DIR [TEST...]

BUILD_DIR/meson-logs/testlog.json should hold one run of the named tests, or of all. Prints a table,
what the failed tests printed and, as the last line, "PASSED FAILED SKIPPED".

To meson one program is one test. The cases inside are counted from what doctest and unittest
print at their end; any other program counts as one. Whatever did not end well and does not say
how many of its cases failed (a crash, a timeout, a case that called exit) counts as one failure,
and so does a program that ran no case, and a test that the log lacks.
"""

import json
import pathlib
import re
import subprocess
import sys

SANITIZER = re.compile(r"(ERROR|WARNING): \w+Sanitizer|: runtime error: ")
DOCTEST_START = re.compile(r"^\[doctest\] doctest version is", re.MULTILINE)
DOCTEST_END = re.compile(
    r"^\[doctest\] test cases: *(\d+) *\| *(\d+) passed *\| *(\d+) failed *\|(?: *(\d+) skipped)?",
    re.MULTILINE,
)
UNITTEST_END = re.compile(
    r"^Ran (\d+) tests? in [^\n]*\n\n(?:OK|FAILED|NO TESTS RAN)(?: \(([^)]*)\))?", re.MULTILINE
)


def cases(text):
    """(passed, failed, skipped) as the program said, or None if it did not."""
    ends = DOCTEST_END.findall(text)
    if ends or DOCTEST_START.search(text):
        return tuple(sum(int(end[column] or 0) for end in ends) for column in (1, 2, 3))
    ends = UNITTEST_END.findall(text)
    if not ends:
        return None
    total = failed = skipped = 0
    for ran, notes in ends:
        numbers = dict(re.findall(r"([a-z ]+)=(\d+)", notes.replace(", ", ",")))
        total += int(ran)
        skipped += int(numbers.get("skipped", 0))
        failed += sum(
            int(numbers.get(what, 0)) for what in ("failures", "errors", "unexpected successes")
        )
    # A failure of a subtest or of a set-up is not one of the tests that ran.
    return max(0, total - failed - skipped), failed, skipped


def output(test):
    return test.get("stdout", "") + "\n" + test.get("stderr", "")


def count(test):
    """(passed, failed, skipped) of one entry of the log."""
    ended_well = test["result"] in ("OK", "EXPECTEDFAIL")
    if test["result"] == "SKIP":
        return 0, 0, 1
    said = cases(output(test))
    if said is None:
        return (1, 0, 0) if ended_well else (0, 1, 0)
    passed, failed, skipped = said
    if failed == 0 and (not ended_well or passed + skipped == 0):
        failed = 1
    return passed, failed, skipped


def excerpt(test):
    """The part of a failed test's output that says what went wrong."""
    lines = output(test).strip().splitlines()
    for number, line in enumerate(lines):
        if SANITIZER.search(line):
            return lines[number : number + 60]
    return lines[-100:]


def expected_tests(build_dir):
    listed = subprocess.run(
        ["meson", "introspect", "--tests", build_dir], check=True, capture_output=True, text=True
    )
    return [test["name"] for test in json.loads(listed.stdout)]


def main(build_dir, names):
    log = pathlib.Path(build_dir) / "meson-logs" / "testlog.json"
    lines = log.read_text().splitlines() if log.exists() else []
    # meson calls a test "project:suite / name" or just "name".
    tests = {(test := json.loads(line))["name"].split(" / ")[-1]: test for line in lines}

    sums = [0, 0, 0]
    failed = []
    print(f"  {'':24}{'passed':>8}{'failed':>8}{'skipped':>8}{'seconds':>9}")
    for name in names or expected_tests(build_dir):
        test = tests.get(name)
        counts = count(test) if test else (0, 1, 0)
        note = "" if test is None or test["result"] == "OK" else "  " + test["result"].lower()
        seconds = f"{test['duration']:9.1f}" if test else "  did not run"
        print(f"  {name:24}" + "".join(f"{n:8}" for n in counts) + seconds + note)
        sums = [total + n for total, n in zip(sums, counts)]
        if test and counts[1]:
            failed.append(test)
    for test in failed:
        print(f"\n  ---- {test['name']}: {test['result'].lower()}, from its output:")
        print("\n".join("  | " + line for line in excerpt(test)))
    print(*sums)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
