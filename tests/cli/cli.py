"""Drives the built dedupctl as a person would: a command line in, output and exit code out."""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

# Whoever runs the tests may ignore these, as nohup does; what we start must not inherit that.
for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
    signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

DEDUPCTL = os.environ.get("DEDUPCTL", "dedupctl")

OK, ERROR, USAGE, IN_FLIGHT, COMPLETED, MISMATCH, ABSENT, STALE = 0, 1, 2, 10, 11, 12, 13, 14
DONE_ERROR, BUSY, UNAVAILABLE, HELD, TIMEOUT, EXEC_ERROR = 3, 15, 16, 17, 124, 125

# What holds a store's lock, as a writer does.
HOLDER = """
import fcntl, os, sys
files = [os.open(os.path.join(sys.argv[1], name), os.O_RDWR if name else os.O_RDONLY)
         for name in ("LOCK", "")]
for file in files:
    fcntl.flock(file, fcntl.LOCK_EX)
os.ftruncate(files[0], 0)
os.pwrite(files[0], b"%d\\n" % os.getpid(), 0)
print("held", flush=True)
sys.stdin.read()
"""

# No test depends on how long anything takes; this only ends one that hangs.
HANG_SECONDS = 120


class Result:
    def __init__(self, arguments, done):
        self.arguments, self.code, self.out, self.err = (
            arguments, done.returncode, done.stdout, done.stderr)

    @property
    def text(self):
        return self.out.decode()

    @property
    def error(self):
        return self.err.decode()

    @property
    def json(self):
        lines = self.out.splitlines()
        if len(lines) != 1:
            raise AssertionError(f"not one line of JSON:\n{self}")
        return json.loads(lines[0])

    def __str__(self):
        return (f"dedupctl {self.arguments}\n  exit {self.code}\n"
                f"  stdout {self.out!r}\n  stderr {self.err!r}")


class CliTest(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="dedup-cli-")
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.store = os.path.join(self.dir, "store")

    def path(self, name):
        return os.path.join(self.dir, name)

    def environment(self):
        return dict(os.environ, DEDUP_STORE=self.store, DEDUP_CONFIG="/dev/null", LC_ALL="C.UTF-8")

    def start(self, *arguments, **options):
        """A running dedupctl; killed when the test ends, if it still runs."""
        options.setdefault("env", self.environment())
        options.setdefault("cwd", self.dir)
        process = subprocess.Popen([DEDUPCTL, *arguments], **options)
        self.addCleanup(self.stop, process)
        return process

    @staticmethod
    def stop(process):
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass

    def dedupctl(self, *arguments, stdin=b"", expect=None, **options):
        """Runs to the end; fails the test if the exit code is not `expect`."""
        options.setdefault("env", self.environment())
        options.setdefault("cwd", self.dir)
        options.setdefault("stdout", subprocess.PIPE)
        done = subprocess.run([DEDUPCTL, *arguments], input=stdin, stderr=subprocess.PIPE,
                              timeout=HANG_SECONDS, **options)
        result = Result(arguments, done)
        if expect is not None:
            self.assertEqual(result.code, expect, result)
        return result

    def assertInError(self, parts, result):
        """Everything a person needs is in the message, and it says who is speaking."""
        self.assertTrue(result.error.startswith("dedupctl: "), result)
        for part in [parts] if isinstance(parts, str) else parts:
            self.assertIn(part, result.error, result)

    def wait_until(self, condition, what):
        deadline = time.monotonic() + HANG_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                self.fail(f"waited in vain until {what}")
            time.sleep(0.01)

    def hold_store(self):
        """A process that holds the store for writing until its stdin is closed."""
        self.dedupctl("filter", stdin=b"held\n", expect=OK)
        holder = subprocess.Popen([sys.executable, "-c", HOLDER, self.store],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(self.stop, holder)
        self.assertEqual(holder.stdout.readline(), b"held\n")
        return holder

    def write_beside(self):
        """A filter that writes each line that it is given; closed with its stdin."""
        writer = self.start("filter", "-q", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)
        self.write_line(writer, b"first\n")
        return writer

    def write_line(self, writer, line):
        """Passes a line on, and waits until it is remembered."""
        writer.stdin.write(line)
        writer.stdin.flush()
        self.assertEqual(writer.stdout.readline(), line)
        self.wait_until(lambda: self.dedupctl("done", line.rstrip()).code == OK, "it is known")

    def serve(self, *options, **how):
        """A server of the store; its standard error is what it logs."""
        how.setdefault("stderr", subprocess.PIPE)
        server = self.start("serve", *options, **how)
        while b"listening" not in (line := server.stderr.readline()):
            self.assertNotEqual(line, b"", "the server has ended")  # a new store is said first
        return server

    def mount(self, *arguments):
        """Mounts onto the store's directory; False if that is not permitted."""
        os.makedirs(self.store, exist_ok=True)
        if arguments[0] == "--bind":
            commands = [["mount", "--bind", self.store, self.store],
                        ["mount", "-o", "remount,bind,ro", self.store]]
        else:
            commands = [["mount", *arguments, self.store]]
        for number, command in enumerate(commands):
            if subprocess.run(command, stderr=subprocess.DEVNULL).returncode != 0:
                return False
            if number == 0:
                self.addCleanup(subprocess.run, ["umount", "-l", self.store])
        return True

    @staticmethod
    def lines(first, last):
        return b"".join(b"line %06d\n" % number for number in range(first, last))


def b64(data):
    return base64.b64encode(data).decode()


def main():
    unittest.main(verbosity=2)
