"""filter: every line at least once, and once only unless something crashed."""

import json
import os
import shutil
import signal
import subprocess

import cli
from cli import ERROR, OK, USAGE


class Filter(cli.CliTest):
    def filter(self, lines, *options, expect=OK):
        return self.dedupctl("filter", *options, stdin=lines, expect=expect)

    def test_lines_come_once_in_one_run_and_across_runs(self):
        first = self.filter(b"a\nb\na\nc\nb\n")
        self.assertEqual(first.out, b"a\nb\nc\n")
        self.assertInError("5 lines read: 3 new, 2 repeated", first)
        self.assertEqual(self.filter(b"c\nd\na\n").out, b"d\n")

    def test_files_in_the_order_given(self):
        for name, text in (("one", b"a\nlast"), ("[two]", b"b\na\n")):
            with open(self.path(name), "wb") as file:
                file.write(text)
        found = self.dedupctl("filter", "one", "-", "./[two]", stdin=b"c\n", expect=OK)
        # "last" has no newline of its own and must not run into the next line.
        self.assertEqual(found.out, b"a\nlast\nc\nb\n")

    def test_odd_lines_keep_their_bytes(self):
        odd = b"nul\0nul\ncrlf\r\n\xff\xfe\nno newline"
        self.assertEqual(self.filter(odd).out, odd)
        self.assertEqual(self.filter(odd).out, b"")
        self.assertEqual(self.filter(b"crlf\n").out, b"crlf\n", "\\r is part of the line")
        self.assertEqual(self.filter(b"").out, b"")

    def test_bytes_that_are_not_utf8_are_matched_as_bytes(self):
        # By characters a match would end at the first such byte, and make one key of two lines.
        lines = b"id f\xfcr 1\nid f\xe4r 2\nid f\xfcr 1\n"
        self.assertEqual(self.filter(lines, "--regex", "id (.*)").out, b"id f\xfcr 1\nid f\xe4r 2\n")
        self.assertEqual(self.filter("a\u00fcb\na\u00e4b\n".encode(), "--regex", "^a.b$").out,
                         "a\u00fcb\na\u00e4b\n".encode(), "of UTF-8, a dot is a character")
        self.assertEqual(self.filter(b"x\xff1\nx\xff1\n", "--regex", b"x\xff.").out, b"x\xff1\n")

    def test_keys_without_blanks_and_case(self):
        lines = b"Key\n key\t\nKEY\r\nother\n"
        self.assertEqual(self.filter(lines, "--trim", "--ignore-case").out, b"Key\nother\n")
        self.assertEqual(self.filter(b"b 1\nB 2\n", "--field", "1", "--ignore-case").out, b"b 1\n")

    def test_lines_that_end_with_a_nul(self):
        self.assertEqual(self.filter(b"a\nb\0c\0a\nb\0", "-0").out, b"a\nb\0c\0")

    def test_counts_and_repeats(self):
        found = self.filter(b"a\nb\na\na\n", "--count", "--repeats")
        self.assertEqual(found.out, b"2\n")
        self.assertIn("2\ta\n", found.error)
        self.assertEqual(self.filter(b"a\nc\n", "--count").out, b"1\n")

    def test_what_is_counted_is_remembered_as_the_help_says(self):
        self.assertRegex(self.dedupctl("help", "filter", expect=OK).text,
                         r"not the lines;\s+remembers\s+all\s+the\s+same")
        self.filter(b"a\n", "--count")
        self.assertEqual(self.filter(b"a\nb\n").out, b"b\n")

    def test_lines_that_could_not_be_printed_are_counted(self):
        with open("/dev/full", "wb") as full:
            found = self.dedupctl("filter", stdin=b"a\nb\na\n", stdout=full, expect=ERROR)
            shown = self.dedupctl("--json", "filter", stdin=b"a\nb\na\n", stdout=full, expect=ERROR)
        self.assertInError(["3 lines read: 2 new, 1 repeated",
                            "the last 2 new lines may come again in the next run"], found)
        self.assertEqual(json.loads(shown.err.splitlines()[0])["not_remembered"], 2)
        self.assertEqual(self.filter(b"a\nb\n").out, b"a\nb\n")

    def test_lines_without_a_key_can_be_an_error(self):
        self.assertEqual(self.filter(b"\na\n", "--strict", expect=ERROR).out, b"\na\n")
        self.filter(b"a\nb\n", "--strict", expect=OK)

    def test_an_idle_stream_leaves_the_store_to_others(self):
        running = self.write_beside()
        for number in range(3):
            self.dedupctl("remember", f"between {number}", expect=OK)
            self.write_line(running, b"line %d\n" % number)
        self.write_line(running, b"last\n")
        # What others remember meanwhile counts.
        self.dedupctl("remember", "theirs", expect=OK)
        running.stdin.write(b"theirs\nmine\n")
        running.stdin.close()
        self.assertEqual(running.stdout.read(), b"mine\n")
        self.assertEqual(running.wait(cli.HANG_SECONDS), OK)

    def test_a_line_waits_for_another_writer_however_long(self):
        running = self.write_beside()
        holder = self.hold_store()
        running.stdin.write(b"later\n")
        running.stdin.flush()
        holder.stdin.close()
        self.assertEqual(running.stdout.readline(), b"later\n")

    def test_a_store_that_is_replaced_is_not_written_to(self):
        running = self.write_beside()
        self.dedupctl("remember", "another", expect=OK)  # which waits until it is let go
        shutil.rmtree(self.store)
        self.dedupctl("remember", "another", expect=OK)
        running.stdin.write(b"line\n")
        running.stdin.close()
        self.assertEqual(running.wait(cli.HANG_SECONDS), ERROR)
        self.assertEqual(running.stdout.read(), b"")
        self.assertIn(b"was replaced", running.stderr.read())

    def test_lines_that_cannot_be_remembered_are_printed_each_time(self):
        for expected in (b"\na\n", b"\n"):
            found = self.filter(b"\na\n")
            self.assertEqual(found.out, expected)
            self.assertInError("1 line without a key: printed, not remembered", found)

    def test_lines_longer_than_a_key_come_once(self):
        lines = b"x" * 1025 + b"\n" + b"y" * 1024 + b"\n" + b"z" * 5_000_000 + b"\n"
        other = lines.replace(b"z\n", b"y\n")
        self.assertEqual(self.filter(lines + lines).out, lines)
        self.assertEqual(self.filter(other).out, other.splitlines(keepends=True)[2])
        fields = b"".join(b"%d " % i + b"x" * 2000 + b"\n" for i in range(3))
        self.assertEqual(self.filter(fields, "--field", "2").out, fields[:2003])

    def test_lines_are_remembered_for_good(self):
        self.assertEqual(self.filter(b"a\n").out, b"a\n")
        found = self.dedupctl("--json", "ls", expect=OK).json
        self.assertIsNone(found["expires_at_ms"])

    def test_a_line_that_does_not_end_is_an_error(self):
        # Guards against memory that grows with it.
        with open(self.path("before"), "wb") as file:
            file.write(b"a\nb\n")
        found = self.dedupctl("filter", "before", "/dev/zero", expect=ERROR)
        self.assertEqual(found.out, b"a\nb\n")
        self.assertInError("line 1 of /dev/zero is longer than 16.0 MiB", found)
        self.assertEqual(self.filter(b"a\nb\n").out, b"", "what stood before it is remembered")

    def test_a_line_whose_key_is_claimed_is_not_lost(self):
        self.dedupctl("claim", "held", expect=OK)
        for _ in range(2):
            self.assertEqual(self.filter(b"held\nheld\n").out, b"held\nheld\n")

    def test_fields_as_awk_counts_them(self):
        lines = b"  1 x a\n1\tx\tb\n2 y a\nshort\n"
        self.assertEqual(self.filter(lines, "--field", "2").out, b"  1 x a\n2 y a\nshort\n")

    def test_fields_between_delimiters(self):
        lines = b"a,,1\nb,,2\nc,x,3\nd\n"
        self.assertEqual(self.filter(lines, "--field", "2", "--delimiter", ",").out,
                         b"a,,1\nb,,2\nc,x,3\nd\n", "an empty field is no key")
        self.assertEqual(self.filter(b"a\t1\nb\t1\n", "--field", "2", "--delimiter", "\\t").out,
                         b"a\t1\n")

    def test_json_pointers(self):
        lines = (b'{"u":{"id":"x"},"n":1}\n'
                 b'{"n":2, "u" : {"id" : "x"}}\n'
                 b'{"u":{"id":12345678901234567890123}}\n'
                 b'{"u":{"id":12345678901234567890124}}\n'  # equal as doubles, not as text
                 b'{"u":{"id":[1, {"a": "\xc3\xa9"}]}}\n'
                 b'{"u":{"id":[1,{"a":"\\u00e9"}]}}\n'
                 b'{"u":{"id":true}}\n'
                 b'{"u":{"id":null}}\n'
                 b'{"u":[]}\n'
                 b'not json\n')
        found = self.filter(lines, "--json", "/u/id")
        kept = [0, 2, 3, 4, 6, 7, 8, 9]
        self.assertEqual(found.out, b"".join(lines.splitlines(True)[i] for i in kept))
        self.assertInError("3 lines without a key", found)
        self.assertEqual(self.filter(b'[[1],[2]]\n[[3],[2]]\n', "--json", "/1/0").out,
                         b'[[1],[2]]\n')
        self.assertEqual(self.filter(b'{"a/b":{"~":7}}\n', "--json", "/a~1b/~0").out,
                         b'{"a/b":{"~":7}}\n')

    def test_json_nested_without_end_breaks_nothing(self):
        deep = b"[" * 200_000 + b"]" * 200_000 + b"\n"
        found = self.filter(deep + b'{"a":' + deep[:-1] + b"}\n", "--json", "/a")
        self.assertInError(["2 lines read: 1 new", "1 line without a key"], found)

    def test_regular_expressions(self):
        lines = b"id=1 first\nid=1 again\nid=2\nnone\n"
        self.assertEqual(self.filter(lines, "--regex", r"id=(\d+)").out, b"id=1 first\nid=2\nnone\n")
        self.assertEqual(self.filter(b"ab1\nab2\n", "--regex", "[a-z]+").out, b"ab1\n")
        # Exponential in an engine that backtracks, and deep in one that recurses.
        long = b"a" * 200_000 + b"b\n"
        self.assertEqual(self.filter(long, "--regex", "(?:a|aa)+$").out, long)

    def test_wrong_options_are_usage_errors(self):
        for options, what in ((("--field", "0"), "--field"), (("--field", "x"), "--field"),
                              (("--delimiter", ","), "--field"),
                              (("--field", "1", "--delimiter", "ab"), "one character"),
                              (("--json", "id"), "not a JSON pointer"),
                              (("--regex", "("), "--regex"),
                              (("--regex", "a", "--field", "1"), "--field"),
                              (("--ttl", "1"), "no unit")):
            self.assertInError(what, self.filter(b"x\n", *options, expect=USAGE))
        self.assertFalse(os.path.exists(self.store), "a usage error makes no store")
        missing = self.dedupctl("filter", "no-such-file", expect=ERROR)
        self.assertInError("no-such-file: No such file", missing)

    def test_a_time_to_live_forgets(self):
        self.filter(b"a\n", "--ttl", "1ms")
        self.wait_until(lambda: self.filter(b"a\n", "--ttl", "1ms").out == b"a\n", "it expires")

    def test_a_line_is_passed_on_as_it_comes(self):
        running = self.start("filter", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        for number in range(3):
            line = b"event %d\n" % number
            running.stdin.write(line)
            running.stdin.flush()
            self.assertEqual(running.stdout.readline(), line)

    def test_many_lines_through_a_pipe(self):
        lines = self.lines(0, 100_000)
        self.assertEqual(self.filter(lines + lines).out, lines)
        self.assertEqual(self.filter(lines).out, b"")

    def test_into_head_forgets_what_was_not_passed_on(self):
        lines = self.lines(0, 200_000)
        with open(self.path("lines"), "wb") as file:
            file.write(lines)
        running = self.start("filter", "lines", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        running.stdout.readline()
        running.stdout.close()
        self.assertEqual(running.wait(cli.HANG_SECONDS), ERROR)
        self.assertNotIn(b"rror", running.stderr.read())
        # At most what the pipe took was remembered; the end surely was not.
        self.assertTrue(self.filter(lines).out.endswith(b"line 199999\n"))

    def interrupted(self, number, expect):
        """A filter that has passed one line on, waits for more, and gets a signal."""
        running = self.start("filter", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        lines = self.lines(0, 1000)
        running.stdin.write(lines)
        running.stdin.flush()
        seen = b"".join(running.stdout.readline() for _ in range(1000))
        self.assertEqual(seen, lines)
        running.send_signal(number)
        self.assertEqual(running.wait(cli.HANG_SECONDS), expect)
        self.assertIn(b"1,000 new", running.stderr.read())
        self.assertEqual(self.filter(self.lines(0, 1500)).out, self.lines(1000, 1500))

    def test_ctrl_c_loses_and_repeats_nothing(self):
        self.interrupted(signal.SIGINT, 130)

    def test_sigterm_loses_and_repeats_nothing(self):
        self.interrupted(signal.SIGTERM, 143)

    def test_ctrl_c_in_the_middle_of_a_file(self):
        lines = self.lines(0, 300_000)
        with open(self.path("lines"), "wb") as file:
            file.write(lines)
        with open(self.path("first"), "wb") as first:
            running = self.start("filter", "lines", stdout=first, stderr=subprocess.PIPE)
            self.wait_until(lambda: os.path.getsize(self.path("first")) > 0
                            or running.poll() is not None, "it has printed something")
            running.send_signal(signal.SIGINT)
            self.assertIn(running.wait(cli.HANG_SECONDS), (130, OK))
        with open(self.path("first"), "rb") as first:
            seen = first.read()
        self.assertEqual(seen + self.filter(lines).out, lines)

    def test_kill_9_repeats_but_never_loses(self):
        lines = self.lines(0, 300_000)
        with open(self.path("lines"), "wb") as file:
            file.write(lines)
        seen = set()
        for run in range(5):
            with open(self.path("out"), "wb") as out:
                running = self.start("filter", "lines", stdout=out, stderr=subprocess.PIPE)
                self.wait_until(lambda: os.path.getsize(self.path("out")) > 0
                                or running.poll() is not None, "it has printed something")
                running.kill()
                running.wait()
            with open(self.path("out"), "rb") as out:
                seen.update(line for line in out.read().splitlines(True) if line[-1:] == b"\n")
        rest = self.filter(lines).out
        self.assertEqual(seen | set(rest.splitlines(True)), set(lines.splitlines(True)))
        self.assertEqual(self.filter(lines).out, b"")
        self.dedupctl("verify", expect=OK)


if __name__ == "__main__":
    cli.main()
