"""dedupctl serve as a service: its sockets, its log, how it begins and ends."""

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import cli
from cli import ABSENT, COMPLETED, BUSY, ERROR, OK, UNAVAILABLE, USAGE
from resp import Client, Refused


class Serve(cli.CliTest):
    def setUp(self):
        super().setUp()
        self.socket_path = self.store + ".sock"

    def client(self):
        client = Client(self.socket_path)
        self.addCleanup(client.close)
        return client

    def end(self, server, number=signal.SIGTERM):
        server.send_signal(number)
        _, log = server.communicate(timeout=cli.HANG_SECONDS)
        return log.decode()

    def test_it_serves_until_it_is_told_to_stop(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            server = self.serve()
            self.assertEqual(self.client().ask("SET", "k", "v"), b"OK")
            log = self.end(server, number)
            self.assertEqual(server.returncode, OK, log)
            self.assertIn("event=stopping", log)
            self.assertIn("event=stopped", log)
            self.assertFalse(os.path.exists(self.socket_path))
        self.assertEqual(self.dedupctl("-n", "redis:0", "lookup", "k", expect=COMPLETED).out,
                         b"v")

    def lingering(self):
        """A server whose end waits for a client that does not take its replies."""
        server = self.serve()
        client = self.client()
        self.assertEqual(client.ask("SET", "k", b"v" * 1_000_000), b"OK")
        for _ in range(20):
            client.send("GET", "k")
        client.socket.recv(1, socket.MSG_PEEK)  # the server has more for it than fits in between
        return server

    def test_a_signal_that_comes_twice_is_meant_once(self):
        server = self.lingering()
        server.send_signal(signal.SIGTERM)
        server.send_signal(signal.SIGINT)
        _, log = server.communicate(timeout=cli.HANG_SECONDS)
        self.assertEqual(server.returncode, OK, log)
        self.assertFalse(os.path.exists(self.socket_path))

    def test_a_later_signal_ends_it_at_once(self):
        server = self.lingering()
        while server.poll() is None:
            server.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        self.assertEqual(server.returncode, 128 + signal.SIGTERM)

    def test_what_a_client_claims_is_what_dedupctl_sees(self):
        server = self.serve()
        claimed = self.client().ask_map("DEDUP.CLAIM", "k", "OWNER", "me", "LEASE", "60000")
        shown = self.dedupctl("--json", "lookup", "k").json
        self.assertEqual(claimed["outcome"], b"claimed")
        self.assertEqual(shown["claim_sequence"], claimed["claim_sequence"])
        self.assertEqual(shown["owner"], "me")
        self.assertEqual(self.client().ask_map("DEDUP.COMPLETE", "k", claimed["claim_sequence"],
                                               b"\x00\xff")["receipt"], b"\x00\xff")
        self.end(server)
        self.assertEqual(self.dedupctl("lookup", "k", expect=COMPLETED).out, b"\x00\xff")

    def test_the_words_are_those_of_json(self):
        server = self.serve()
        client = self.client()
        client.ask("DEDUP.CLAIM", "held", "OWNER", "o")
        client.ask("DEDUP.REMEMBER", "done", "r", "EVENT", "e", "METADATA", "m")
        for key in ("held", "done", "none"):
            words = set(client.ask_map("DEDUP.LOOKUP", key))
            shown = self.dedupctl("--json", "lookup", key).json
            self.assertEqual(words, {name for name in shown if not name.endswith("_base64")}, key)
        for word in ("waits", "before"):
            hold = ("--hold",) if word == "waits" else ()
            self.end(server)
            self.dedupctl("claim", word, "--owner", "o", "--lease", "1ms", *hold, expect=OK)
            server = self.serve()
            client = self.client()
            time.sleep(0.01)
            answer = client.ask_map("DEDUP.CLAIM", word)
            self.assertEqual(answer["outcome"], b"held" if hold else b"claimed")
            previous = dict(zip(answer["previous"][::2], answer["previous"][1::2]))
            self.assertEqual((previous[b"owner"], previous[b"end"]), (b"o", b"lease_ran_out"))
        stats = set(client.ask_map("DEDUP.STATS"))
        self.assertLessEqual(stats, set(self.dedupctl("--json", "stats").json))
        history = client.ask("DEDUP.HISTORY", "done")[0][::2]
        shown = self.dedupctl("--json", "inspect", "done").json["records"][0]
        self.assertEqual({word.decode() for word in history},
                         {name for name in shown if not name.endswith("_base64")})
        self.end(server)

    def test_an_operator_works_beside_the_service(self):
        """Commands that write go through the server that holds the store."""
        server = self.serve()
        writer = self.dedupctl("--json", "who", expect=OK).json["writer"]
        self.assertEqual(writer["socket"], self.store + ".sock")
        self.assertIn("serves the store at", self.dedupctl("who", expect=OK).text)
        held = self.client().ask_map("DEDUP.CLAIM", "stuck", "OWNER", "crashed")
        quickly = ("--lock-timeout", "0s")
        self.dedupctl(*quickly, "complete", "stuck", "--claim", str(held["claim_sequence"]),
                      "--receipt", "by hand", expect=OK)
        self.assertIn(b"by hand", self.client().ask("DEDUP.LOOKUP", "stuck"))
        self.dedupctl(*quickly, "claim", "other", expect=OK)
        self.dedupctl(*quickly, "release", "other", expect=OK)
        late = str(self.dedupctl(*quickly, "--json", "claim", "late", expect=OK).json["claim_sequence"])
        self.dedupctl(*quickly, "hold", "late", "--claim", late, "--reason", "asking", expect=OK)
        self.assertEqual(self.client().ask_map("DEDUP.CLAIM", "late")["outcome"], b"held")
        self.dedupctl(*quickly, "complete", "late", expect=cli.STALE)
        self.dedupctl(*quickly, "resolve", "late", "--claim", late, "--not-done", "--reason", "no", expect=OK)
        self.dedupctl(*quickly, "remember", "seen", "--receipt", "r", expect=OK)
        self.assertEqual(self.dedupctl(*quickly, "filter", stdin=b"a\nb\na\n", expect=OK).out,
                         b"a\nb\n")
        ran = self.dedupctl(*quickly, "exec", "--key", "job", "--", "echo", "done", expect=OK)
        self.assertEqual(ran.out, b"done\n")
        self.assertEqual(self.dedupctl(*quickly, "exec", "--key", "job", "--", "false", expect=OK).out,
                         b"done\n")
        swept = self.dedupctl(*quickly, "--json", "sweep", expect=OK).json
        self.assertTrue(swept["finished"])
        self.assertEqual(self.client().ask_map("DEDUP.STATS")["completed"], 5)
        self.end(server)
        self.assertEqual(self.dedupctl("lookup", "job", expect=COMPLETED).out, b"done\n")

    def test_a_socket_beside_the_store_that_is_not_its_own_is_left_alone(self):
        self.dedupctl("init")
        other = self.serve("--unix", self.socket_path, env=dict(self.environment(),
                                                                DEDUP_STORE=self.path("other")))
        self.dedupctl("claim", "k", expect=OK)
        self.assertEqual(self.client().ask_map("DEDUP.STATS")["streams"], 0)
        self.end(other, signal.SIGKILL)
        self.dedupctl("claim", "k2", expect=OK)  # nobody listens there any more
        self.assertEqual(self.dedupctl("--json", "stats").json["in_flight"], 2)

    def test_the_store_behind_a_server_is_one(self):
        server = self.serve()
        on = ("-s", "unix:" + self.socket_path)
        self.dedupctl(*on, "claim", "k", "--lease", "1h", expect=OK)
        self.dedupctl(*on, "remember", "done", "--receipt", "r", expect=OK)
        self.assertEqual(self.dedupctl(*on, "lookup", "done", expect=COMPLETED).out, b"r")
        listed = self.dedupctl(*on, "--json", "ls", expect=OK).out
        self.assertEqual(listed, self.dedupctl("--json", "ls", expect=OK).out)
        self.assertEqual(self.dedupctl(*on, "--json", "inspect", "k", expect=OK).json,
                         self.dedupctl("--json", "inspect", "k", expect=OK).json)
        exported = self.dedupctl(*on, "export", expect=OK).out
        self.assertEqual(exported.splitlines()[1:-1],  # the first and last have the time
                         self.dedupctl("export", expect=OK).out.splitlines()[1:-1])
        self.dedupctl("-s", self.path("copy"), "import", stdin=exported, expect=OK)
        self.assertEqual(self.dedupctl(*on, "--json", "stats", expect=OK).json["streams"], 2)
        self.dedupctl(*on, "sweep", "--dry-run", expect=OK)
        self.dedupctl(*on, "clock", expect=OK)
        self.dedupctl(*on, "init", expect=OK)
        self.dedupctl(*on, "migrate", self.path("moved"), expect=USAGE)
        self.dedupctl("migrate", on[1], self.path("moved"), expect=OK)
        self.assertEqual(self.dedupctl("-s", self.path("moved"), "lookup", "done",
                                       expect=COMPLETED).out, b"r")
        for command in (("verify",), ("repair", "x"), ("who",), ("clock", "--reset"), ("bench",)):
            refused = self.dedupctl(*on, *command, expect=USAGE)
            self.assertInError("is behind a server", refused)
        self.end(server)
        refused = self.dedupctl(*on, "lookup", "k", expect=UNAVAILABLE)
        self.assertInError(["no server answers at", self.socket_path], refused)

    def test_a_password_for_clients(self):
        with open(self.path("secret"), "wb") as file:
            file.write(b"open sesame, please\r\n")  # an editor of another system wrote it
        server = self.serve("--tcp", "127.0.0.1:0", "--password-file", self.path("secret"))
        at = f"127.0.0.1:{self.port_of(server)}"
        known = dict(self.environment(), DEDUP_PASSWORD="open sesame, please")
        self.dedupctl("-s", f"tcp://default:open%20sesame%2C%20please@{at}", "claim", "a", expect=OK)
        self.dedupctl("-s", f"tcp://{at}", "claim", "b", env=known, expect=OK)
        self.dedupctl("claim", "c", env=known, expect=OK)
        for store in (f"tcp://default:wrong@{at}", f"tcp://{at}", self.store):
            refused = self.dedupctl("-s", store, "claim", "d", expect=ERROR)
            self.assertInError(["wants a password", "DEDUP_PASSWORD"], refused)
            self.assertNotIn("wrong", refused.error)
        self.end(server)

    def test_a_second_server_is_told_who_holds_the_store(self):
        server = self.serve()
        second = self.dedupctl("--lock-timeout", "0s", "serve", expect=BUSY)
        self.assertInError([self.store, f"process {server.pid}"], second)
        other = self.dedupctl("-s", self.path("other"), "serve", "--unix", self.socket_path,
                              expect=BUSY)
        self.assertInError(["another process listens at", self.socket_path], other)
        self.assertEqual(self.client().ask("PING"), b"PONG")
        self.end(server)

    def test_a_socket_that_a_killed_server_left_is_replaced(self):
        server = self.serve()
        self.client().ask("SET", "k", "v")
        server.kill()
        server.wait()
        self.assertTrue(os.path.exists(self.socket_path))
        server = self.serve()
        self.assertEqual(self.client().ask("GET", "k"), b"v")
        self.end(server)

    def test_nothing_but_a_socket_is_replaced(self):
        with open(self.socket_path, "wb") as file:
            file.write(b"precious")
        self.assertInError([self.socket_path, "is no socket"], self.dedupctl("serve", expect=ERROR))
        with open(self.socket_path, "rb") as file:
            self.assertEqual(file.read(), b"precious")

    def test_its_mode_follows_the_umask(self):
        server = self.serve(umask=0o077)
        self.assertEqual(os.stat(self.socket_path).st_mode & 0o777, 0o700)
        self.end(server)

    def test_usage(self):
        for arguments, words in (
                (("--no-unix",), "nowhere to listen"),
                (("--no-unix", "--tcp", "nonsense"), "host:port"),
                (("--no-unix", "--tcp", "0.0.0.0:0"), "needs a password"),
                (("--unix", "x" * 200,), "at most 107"),
                (("--password-file", self.path("none")), "--password-file: cannot read")):
            self.assertInError(words, self.dedupctl("serve", *arguments, expect=ERROR))
        for arguments in (("--connections", "0"), ("--sweep-every", "1"), ("--unix", ""),
                          ("--no-unix", "--unix", "x")):
            self.dedupctl("serve", *arguments, expect=USAGE)
        self.dedupctl("-s", "postgresql://host/db", "serve", expect=USAGE)
        self.assertInError("--namespace is not for serve",
                           self.dedupctl("-n", "foo", "serve", expect=USAGE))

    def test_tcp_and_a_password(self):
        with open(self.path("secret"), "w", encoding="ascii") as file:
            file.write("open sesame, please\n")
        server = self.serve("--no-unix", "--tcp", "127.0.0.1:0", "--password-file",
                            self.path("secret"), "--log-connections")
        # The line that serve() has read named the port; so does the one of a first connection.
        port = self.port_of(server)
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"PING\r\nAUTH open\r\n" + Client.request("AUTH", "open sesame, please") +
                           b"PING\r\n")
            replies = client.makefile("rb")
            self.assertTrue(replies.readline().startswith(b"-NOAUTH"))
            self.assertTrue(replies.readline().startswith(b"-WRONGPASS"))
            self.assertEqual(replies.readline(), b"+OK\r\n")
            self.assertEqual(replies.readline(), b"+PONG\r\n")
        log = self.end(server)
        self.assertIn("event=connected connection=1", log)
        self.assertNotIn("sesame", log)

    def port_of(self, server):
        with open(f"/proc/{server.pid}/net/tcp", encoding="ascii") as table:
            inodes = {os.readlink(f"/proc/{server.pid}/fd/{fd}")
                      for fd in os.listdir(f"/proc/{server.pid}/fd")}
            for line in table.readlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                    return int(fields[1].split(":")[1], 16)
        return self.fail("it listens on no port")

    def test_users(self):
        """A file of users, which SIGHUP has the server read again."""
        def line(name, *options):
            made = self.dedupctl("--json", "user", name, *options, expect=OK).json
            return made["line"] + "\n", made["secret"]
        users = self.path("users")
        (a_line, a_secret), (b_line, b_secret) = (
            line("default", "--rights", "all"),
            line("b", "--namespaces", "redis:0"))
        with open(users, "w", encoding="ascii") as file:
            file.write(a_line)
        server = self.serve("--users", users)
        client = self.client()
        with self.assertRaisesRegex(Refused, "WRONGPASS"):
            client.ask("AUTH", "b", b_secret)
        with open(users, "a", encoding="ascii") as file:
            file.write(b_line)
        server.send_signal(signal.SIGHUP)
        self.assertIn(b"event=login_failed", server.stderr.readline())
        self.assertIn(b"event=users_reloaded", server.stderr.readline())
        self.assertEqual(client.ask("AUTH", "b", b_secret), b"OK")
        self.assertEqual(client.ask("SET", "k", "v"), b"OK")
        with self.assertRaisesRegex(Refused, "NOPERM"):
            client.ask("DEDUP.STATS")
        with open(users, "w", encoding="ascii") as file:
            file.write("nonsense\n")
        server.send_signal(signal.SIGHUP)
        kept = server.stderr.readline()
        self.assertIn(b"event=users_kept", kept)
        self.assertIn(b"line 1", kept)
        self.assertEqual(client.ask("GET", "k"), b"v")
        # An operator is the user "default", on the socket beside the store and by its address.
        known = dict(self.environment(), DEDUP_PASSWORD=a_secret)
        self.dedupctl("claim", "c", env=known, expect=OK)
        self.dedupctl("-s", "unix:" + self.socket_path, "stats", env=known, expect=OK)
        refused = self.dedupctl("claim", "d", expect=ERROR)
        self.assertInError("wants a password", refused)
        # Another user's secret, without saying whose it is: the error says how to.
        b_knows = dict(self.environment(), DEDUP_PASSWORD=b_secret)
        refused = self.dedupctl("-s", "unix:" + self.socket_path, "-n", "redis:0", "claim", "d",
                                env=b_knows, expect=ERROR)
        self.assertInError(["not that of the user 'default'", f"unix:{self.socket_path}?user=NAME"],
                           refused)
        self.dedupctl("-s", f"unix:{self.socket_path}?user=b", "-n", "redis:0", "lookup", "d",
                      env=b_knows, expect=ABSENT)
        log = self.end(server)
        self.assertEqual(server.returncode, OK)
        for secret in (a_secret, b_secret):
            self.assertNotIn(secret, log)

    def test_hangup(self):
        """SIGHUP ends nothing, and has every secret read again."""
        server = self.serve()
        server.send_signal(signal.SIGHUP)
        self.assertEqual(self.client().ask("PING"), b"PONG")
        self.assertNotIn("event=password", self.end(server))
        self.assertEqual(server.returncode, OK)
        # Nor does one that comes together with what does end it.
        server = self.serve()
        for number in (signal.SIGSTOP, signal.SIGHUP, signal.SIGTERM, signal.SIGCONT):
            server.send_signal(number)
        self.assertEqual(server.wait(cli.HANG_SECONDS), OK)

        def write(name, text):
            with open(self.path(name), "w", encoding="ascii") as file:
                file.write(text)
            return self.path(name)
        old, new = "the first of secrets", "the second of secrets"
        files = (write("secret", old + "\n"), write("token", old + "\n"))
        server = self.serve("--password-file", files[0], "--http", "127.0.0.1:0",
                            "--http-token-file", files[1])
        at = re.search(r"http://127.0.0.1:0 \(port (\d+)", server.stderr.readline().decode())

        def page(token):
            asked = urllib.request.Request(f"http://127.0.0.1:{at.group(1)}/stats.json",
                                           headers={"Authorization": "Bearer " + token})
            try:
                with urllib.request.urlopen(asked) as answer:
                    return answer.status
            except urllib.error.HTTPError as error:
                return error.code

        def hang_up():
            server.send_signal(signal.SIGHUP)
            return [re.search(r"event=\w+", server.stderr.readline().decode()).group()
                    for _ in files]

        first = self.client()
        self.assertEqual(first.ask("AUTH", old), b"OK")
        self.assertEqual(page(old), 200)
        self.assertEqual(hang_up(), ["event=password_reloaded", "event=http_token_reloaded"])
        self.assertEqual(first.ask("PING"), b"PONG")
        for name in ("secret", "token"):
            write(name, new + "\n")
        self.assertEqual(hang_up(), ["event=password_reloaded", "event=http_token_reloaded"])
        with self.assertRaises(ConnectionError):
            first.reply()
        second = self.client()
        self.assertEqual(second.ask("AUTH", new), b"OK")
        self.assertEqual((page(old), page(new)), (401, 200))
        write("secret", "\n")
        os.unlink(files[1])
        self.assertEqual(hang_up(), ["event=password_kept", "event=http_token_kept"])
        self.assertEqual(second.ask("PING"), b"PONG")
        self.assertEqual(page(new), 200)
        self.assertNotIn("of secrets", self.end(server))

    def test_a_worker_works_through_the_server(self):
        """With the rights that `dedupctl user` gives, and no more."""
        made = self.dedupctl("--json", "user", "bob", expect=OK).json
        with open(self.path("users"), "w", encoding="ascii") as file:
            file.write(made["line"] + "\n")
        server = self.serve("--users", self.path("users"))
        bob = ("-s", f"unix:{self.socket_path}?user=bob")
        known = dict(self.environment(), DEDUP_PASSWORD=made["secret"])
        fence = self.dedupctl(*bob, "--json", "claim", "k", env=known,
                              expect=OK).json["claim_sequence"]
        self.dedupctl(*bob, "complete", "k", "--claim", str(fence), "--receipt", "r", env=known,
                      expect=OK)
        self.assertEqual(self.dedupctl(*bob, "lookup", "k", env=known, expect=COMPLETED).out, b"r")
        self.dedupctl(*bob, "claim", "other", env=known, expect=OK)
        self.dedupctl(*bob, "release", "other", env=known, expect=OK)
        self.assertEqual(self.dedupctl(*bob, "filter", stdin=b"a\nb\na\n", env=known,
                                       expect=OK).out, b"a\nb\n")
        refused = self.dedupctl(*bob, "forget", "k", "--reason", "why", env=known, expect=ERROR)
        self.assertInError(["lacks admin", "dedupctl user"], refused)
        self.end(server)

    def test_making_a_user(self):
        with open(self.path("secret"), "w", encoding="ascii") as file:
            file.write("a secret from elsewhere\n")
        done = self.dedupctl("user", "ada", "--secret-file", self.path("secret"), "--rights", "read",
                             "--namespaces", "a,b-*", expect=OK)
        self.assertRegex(done.text, "^ada sha256:[0-9a-f]+:[0-9a-f]{64} rights=read "
                                    "namespaces=a,b-\\*\n$")
        self.assertEqual(done.error, "")
        made = self.dedupctl("user", "ada", expect=OK)
        self.assertRegex(made.error, "secret.*[0-9a-f]{40}")
        for arguments in (("a b",), ("ada", "--rights", "write"), ("ada", "--namespaces", "a b")):
            self.dedupctl("user", *arguments, expect=USAGE)
        self.assertInError("there is no user", self.dedupctl("serve", "--users", os.devnull,
                                                             expect=ERROR))

    def test_only_known_users_of_the_system(self):
        server = self.serve("--allow-uid", f"{os.getuid()},4294967")
        self.assertEqual(self.client().ask("PING"), b"PONG")
        self.end(server)
        server = self.serve("--allow-uid", str(os.getuid() + 1))
        with self.assertRaises((ConnectionError, BrokenPipeError)):
            self.client().ask("PING")
        self.assertIn("may not connect", self.end(server))

    def test_sockets_of_a_service_manager(self):
        """It listens, starts the server with the first client, and keeps the clients that come while
        there is none."""
        with socket.socket(socket.AF_UNIX) as unix, socket.create_server(("127.0.0.1", 0)) as tcp, \
                socket.create_server(("127.0.0.1", 0)) as web:
            unix.bind(self.socket_path)
            unix.listen()
            early = self.client()
            early.send("PING")
            given = {3: unix, 4: tcp, 5: web}

            def hand_over():
                # High first, so that none is overwritten before it is copied.
                copies = [fcntl.fcntl(one.fileno(), fcntl.F_DUPFD, 100) for one in given.values()]
                for fd, copy in zip(given, copies):
                    os.dup2(copy, fd)

            command = (f"export LISTEN_PID=$$ LISTEN_FDS=3 LISTEN_FDNAMES=a:b:http; "
                       f"exec {cli.DEDUPCTL} serve")
            for round_number in range(2):
                server = subprocess.Popen(
                    ["sh", "-c", command], env=self.environment(), cwd=self.dir,
                    stderr=subprocess.PIPE, preexec_fn=hand_over, pass_fds=list(given))
                self.addCleanup(self.stop, server)
                self.assertEqual(early.reply(), b"PONG")
                with socket.create_connection(tcp.getsockname()) as client:
                    client.sendall(b"PING\r\n")
                    self.assertEqual(client.recv(100), b"+PONG\r\n")
                with urllib.request.urlopen(
                        f"http://127.0.0.1:{web.getsockname()[1]}/readyz") as answer:
                    self.assertEqual(answer.read(), b"ready\n")
                log = self.end(server)
                self.assertIn(self.socket_path, log)
                self.assertTrue(os.path.exists(self.socket_path))
                early = self.client()
                early.send("PING")
            for options in (("--unix", "x"), ("--no-unix",), ("--tcp", "127.0.0.1:0"),
                            ("--http", "127.0.0.1:0")):
                done = subprocess.run(["sh", "-c", " ".join([command, *options])],
                                      env=self.environment(), cwd=self.dir, capture_output=True,
                                      preexec_fn=hand_over, pass_fds=list(given), check=False)
                self.assertEqual(done.returncode, USAGE, done.stderr)

    def test_a_service_manager_is_told(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(self.path("notify"))
            manager.settimeout(cli.HANG_SECONDS)
            server = self.serve(env=dict(self.environment(), NOTIFY_SOCKET=self.path("notify")))
            self.assertEqual(manager.recv(100),
                             b"STATUS=opening the store\nEXTEND_TIMEOUT_USEC=30000000")
            self.assertEqual(manager.recv(100), b"READY=1\nSTATUS=serving the store")
            self.assertEqual(self.client().ask("PING"), b"PONG")
            self.end(server)
            self.assertEqual(manager.recv(100), b"STOPPING=1")

    def test_it_sweeps(self):
        server = self.serve("--sweep-every", "20ms")
        self.assertEqual(self.client().ask("SET", "k", "v", "PX", "1"), b"OK")
        self.wait_until(lambda: self.client().ask_map("DEDUP.STATS")["streams"] == 0,
                        "the key is swept")
        self.assertIn("event=swept", self.end(server))

    def test_the_log_as_json(self):
        server = self.start("--json", "serve", stderr=subprocess.PIPE)
        for said in (("created", self.store), ("listening", self.socket_path)):
            line = json.loads(server.stderr.readline())
            self.assertEqual((line["event"], line["detail"]), said)
        events = [json.loads(line)["event"] for line in self.end(server).splitlines()]
        self.assertEqual(events, ["stopping", "stopped"])

    def test_few_open_files_leave_enough_for_the_store(self):
        server = self.start("serve", preexec_fn=lambda: limit_files(100), stderr=subprocess.PIPE)
        limited = server.stderr.readline() + server.stderr.readline()  # a new store is said, too
        self.assertRegex(limited, rb"event=limited .*36 connections at most.*raise LimitNOFILE")
        self.wait_until(lambda: os.path.exists(self.socket_path), "it listens")
        client = self.client()
        self.assertEqual(client.ask("PING"), b"PONG")
        others = [self.client() for _ in range(80)]
        for number in range(20):  # segments are begun
            self.assertEqual(client.ask("SET", f"k{number}", b"x" * 4_000_000), b"OK")
        client.ask("DEDUP.SWEEP")
        refused = others[-1].reply()
        self.assertIn("max number of clients", str(refused))
        self.assertNotIn("cannot accept", self.end(server))
        few = self.dedupctl("serve", "--http", "127.0.0.1:0", expect=ERROR,
                            preexec_fn=lambda: limit_files(100))
        self.assertInError(["100 files may be open", "raise LimitNOFILE"], few)

    def test_a_log_that_nobody_reads_holds_up_nobody(self):
        server = self.start("serve", "--log-connections", stderr=subprocess.PIPE)
        fcntl.fcntl(server.stderr.fileno(), fcntl.F_SETPIPE_SZ, 4096)
        self.wait_until(lambda: os.path.exists(self.socket_path), "it listens")
        for _ in range(300):
            with Client(self.socket_path) as client:
                client.socket.settimeout(cli.HANG_SECONDS)
                client.socket.sendall(b"*x\r\n")
                self.assertIsInstance(client.reply(), Refused)
        self.assertEqual(self.client().ask("SET", "k", "v"), b"OK")
        server.send_signal(signal.SIGTERM)
        self.assertEqual(server.wait(timeout=cli.HANG_SECONDS), OK)

    def test_the_log_says_what_it_has_lost(self):
        server = self.start("serve", "--log-connections", stderr=subprocess.PIPE)
        self.wait_until(lambda: os.path.exists(self.socket_path), "it listens")
        for _ in range(2000):
            self.client_that_has_gone()
        log = self.end(server)
        lost = sum(int(count) for count in re.findall(r"event=log_lost detail=\"(\d+) lines", log))
        self.assertGreater(lost, 0)
        told = log.count("connected connection=")
        self.assertIn(lost + told, range(4000, 4003))  # "stopping" and "stopped" may be lost, too

    def client_that_has_gone(self):
        with Client(self.socket_path) as client:
            self.assertEqual(client.ask("PING"), b"PONG")

    def test_strangers_do_not_fill_the_log(self):
        server = self.serve()
        for _ in range(500):
            with Client(self.socket_path) as client:
                client.socket.sendall(b"*x\r\n")
                client.reply()
        log = self.end(server)
        told = log.count("Protocol error")
        self.assertLess(told, 400)
        more = sum(int(count) for count in re.findall(r"detail=\"(\d+) more", log))
        self.assertEqual(told + more, 500)

    def test_a_quote_in_the_log_is_escaped(self):
        self.dedupctl("init")
        self.socket_path = self.path('a "socket')
        server = self.start("serve", "--unix", self.socket_path, stderr=subprocess.PIPE)
        self.assertIn(b'a \\"socket"', server.stderr.readline())
        self.end(server)

    def test_a_store_that_fails_is_said_and_reads_go_on(self):
        # Nothing larger than this can be written, and the kernel says so at each write.
        server = self.serve(preexec_fn=limit_file_size)
        client = self.client()
        self.assertEqual(client.ask("SET", "before", "v"), b"OK")
        with self.assertRaises(Refused) as refused:
            for number in range(64):
                client.ask("SET", f"k{number}", b"x" * 1_000_000)
        self.assertIn(str(refused.exception).split()[0],
                      ("OOM", "IO", "OUTCOME_UNKNOWN", "FAILED"))
        self.assertEqual(client.ask("GET", "before"), b"v")
        self.assertIn("event=store_failed", self.end(server))
        self.assertEqual(self.dedupctl("-n", "redis:0", "lookup", "before", expect=COMPLETED).out,
                         b"v")

    def test_a_claim_can_be_answered_beside_a_waiting_client(self):
        server = self.serve()
        waiting, other = self.client(), self.client()
        other.ask("DEDUP.CLAIM", "k")
        waiting.send("DEDUP.WAIT", "k", 100_000_000)
        other.ask("DEDUP.COMPLETE", "k", "CURRENT", "r")
        self.assertIn(b"r", waiting.reply())
        self.end(server)
        self.dedupctl("lookup", "none", expect=ABSENT)

    def test_dedupctl_waits_for_the_servers_word(self):
        """It does not look again and again: the server counts what it was asked."""
        self.dedupctl("init", expect=OK)
        for store in (self.store, "unix:" + self.socket_path):
            server = self.serve()
            client = self.client()
            client.ask("DEDUP.CLAIM", store)
            calls = lambda command: int(dict(re.findall(
                r"cmdstat_(\S+):calls=(\d+)", client.ask("INFO", "commandstats").decode()))
                .get(command, 0))
            waiting = self.start("-s", store, "claim", store, "--wait", "1h",
                                 stdout=subprocess.PIPE)
            while calls("dedup.heads") < 2:
                time.sleep(0.01)
            client.ask("DEDUP.COMPLETE", store, "CURRENT", "at last")
            out, _ = waiting.communicate(timeout=cli.HANG_SECONDS)
            self.assertEqual((waiting.returncode, out), (COMPLETED, b"at last"))
            self.assertEqual(calls("dedup.wait"), 1)
            self.end(server)


def limit_files(count):
    import resource  # pylint: disable=import-outside-toplevel
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


def limit_file_size():
    import resource  # pylint: disable=import-outside-toplevel
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (24 << 20, 24 << 20))


if __name__ == "__main__":
    cli.main()
