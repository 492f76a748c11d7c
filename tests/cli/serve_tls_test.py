"""TLS of dedupctl serve: by redis-cli, redis-py and dedupctl itself, with certificates that openssl
makes here."""

import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import unittest

import cli
from cli import ERROR, OK
from redis_py import redis
from resp import Client, Refused

SECRET = "a secret of some length"


class TlsClient(Client):
    """As Client, over TLS."""

    def __init__(self, port, context):
        plain = socket.create_connection(("127.0.0.1", port), timeout=cli.HANG_SECONDS)
        try:
            self.socket = context.wrap_socket(plain, server_hostname="localhost")
        except BaseException:
            plain.close()
            raise
        self.input = self.socket.makefile("rb")


@unittest.skipUnless(shutil.which("openssl"), "no openssl to make certificates with")
class Tls(cli.CliTest):
    def setUp(self):
        super().setUp()
        if b"without TLS" in self.dedupctl("-s", "tls://localhost:1", "lookup", "k").err:
            self.skipTest("this dedupctl was built without TLS")
        self.authority("ca")
        self.certificate("server", "ca", "some server", "DNS:localhost,IP:127.0.0.1")

    def openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.dir, check=True, capture_output=True,
                       timeout=cli.HANG_SECONDS)

    def authority(self, name):
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                     "-nodes", "-keyout", name + ".key", "-out", name + ".pem", "-days", "2",
                     "-subj", "/CN=" + name)

    def certificate(self, name, authority, common_name, alternatives="DNS:none"):
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                     "-keyout", name + ".key", "-out", name + ".csr", "-subj", "/CN=" + common_name)
        with open(self.path("extensions"), "w", encoding="ascii") as file:
            file.write("subjectAltName=" + alternatives)
        self.openssl("x509", "-req", "-in", name + ".csr", "-CA", authority + ".pem", "-CAkey",
                     authority + ".key", "-CAcreateserial", "-days", "2", "-extfile", "extensions",
                     "-out", name + ".pem")

    def begin(self, *options, address="127.0.0.1:0"):
        server = self.serve("--tcp", address, "--tls-cert", "server.pem", "--tls-key",
                            "server.key", *options)
        line = server.stderr.readline().decode()
        self.port = int(re.search(r"tls://[0-9.]+:0 \(port (\d+)\)", line).group(1))
        return server

    def end(self, server):
        server.send_signal(signal.SIGTERM)
        _, log = server.communicate(timeout=cli.HANG_SECONDS)
        self.assertEqual(server.returncode, OK)
        return log.decode()

    def context(self, authority="ca", certificate=None):
        context = ssl.create_default_context(cafile=self.path(authority + ".pem"))
        if certificate:
            context.load_cert_chain(self.path(certificate + ".pem"), self.path(certificate + ".key"))
        return context

    def client(self, authority="ca", certificate=None):
        client = TlsClient(self.port, self.context(authority, certificate))
        self.addCleanup(client.close)
        return client

    def url(self, host="localhost", **query):
        pairs = "&".join(f"{name}={self.path(file)}" for name, file in query.items())
        return f"tls://{host}:{self.port}" + ("?" + pairs if pairs else "")

    def is_refused(self, **how):
        """With TLS 1.3 a client learns of it when it first reads."""
        try:
            self.client(**how).ask("PING")
        except (ssl.SSLError, ConnectionError):
            return True
        return False

    def test_redis_cli(self):
        if not shutil.which("redis-cli"):
            self.skipTest("no redis-cli; tools/setup installs it")
        server = self.begin()
        done = subprocess.run(["redis-cli", "--tls", "--cacert", self.path("ca.pem"), "-h",
                               "localhost", "-p", str(self.port), "SET", "k", "v"],
                              capture_output=True, timeout=cli.HANG_SECONDS, check=True)
        self.assertEqual(done.stdout, b"OK\n")
        self.end(server)

    @unittest.skipUnless(redis, "no redis-py; tools/setup installs it")
    def test_redis_py(self):
        server = self.begin()
        with redis.Redis(host="localhost", port=self.port, ssl=True, socket_timeout=cli.HANG_SECONDS,
                         ssl_ca_certs=self.path("ca.pem")) as client:
            for size in (0, 1, 16384, 65536, 65537, 5_000_000):  # around TLS's records and reads
                value = os.urandom(size)
                self.assertTrue(client.set("k", value))
                self.assertEqual(client.get("k"), value)
            with client.pipeline(transaction=False) as pipeline:
                for number in range(5000):
                    pipeline.set(f"key {number}", "v" * 100, nx=True)
                self.assertEqual(pipeline.execute(), [True] * 5000)
        self.end(server)

    def test_dedupctl(self):
        server = self.begin()
        url = self.url(ca="ca.pem")
        self.dedupctl("-s", url, "remember", "k", "--receipt", "r" * 100_000, expect=OK)
        self.dedupctl("-s", self.url(host="127.0.0.1", ca="ca.pem"), "done", "k", expect=OK)
        lines = b"".join(b"%d\n" % number for number in range(20_000))
        self.assertEqual(self.dedupctl("-s", url, "filter", stdin=lines, expect=OK).out, lines)
        self.assertEqual(self.dedupctl("-s", url, "filter", stdin=lines, expect=OK).out, b"")
        for wrong, what in ((self.url(), "issuer"),  # the system does not know the authority
                            (self.url(ca="server.pem"), "issuer"),
                            (self.url(ca="ca.key"), "ca.key"), (self.url(ca="none"), "none"),
                            (self.url(ca="ca.pem", cert="server.pem"), "both cert= and key="),
                            (url + "&x=y", "unknown"),
                            (url.replace("tls:", "tcp:"), "unknown")):
            self.assertInError(what, self.dedupctl("-s", wrong, "lookup", "k", expect=ERROR))
        self.certificate("server", "ca", "localhost", "DNS:elsewhere")
        server.send_signal(signal.SIGHUP)
        self.assertIn(b"certificates_reloaded", self.line_with(server, b"certificates_"))
        self.assertInError("hostname mismatch",
                           self.dedupctl("-s", url, "lookup", "k", expect=ERROR))
        self.end(server)

    def test_a_port_with_tls_has_tls_only(self):
        server = self.begin()
        with socket.create_connection(("127.0.0.1", self.port), timeout=cli.HANG_SECONDS) as plain:
            plain.sendall(b"PING\r\n")
            with contextlib.suppress(OSError):  # it has gone already
                plain.shutdown(socket.SHUT_WR)
                self.assertNotIn(b"PONG", plain.makefile("rb").read())
        with Client(self.store + ".sock") as client:  # the Unix socket has none
            self.assertEqual(client.ask("PING"), b"PONG")
        self.assertRegex(self.end(server), r"refused connection=1 detail=.TLS: ")

    def test_who_begins_and_does_not_go_on(self):
        server = self.begin("--stall-timeout", "300ms", "--log-connections")
        with socket.create_connection(("127.0.0.1", self.port), timeout=cli.HANG_SECONDS) as silent, \
             socket.create_connection(("127.0.0.1", self.port), timeout=cli.HANG_SECONDS) as slow:
            slow.sendall(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a greeting
            client = self.client()
            for _ in range(100):
                self.assertEqual(client.ask("PING"), b"PONG")
            self.assertEqual(slow.recv(1), b"")
            self.assertEqual(silent.recv(1), b"")
            self.assertEqual(client.ask("PING"), b"PONG")  # who is known may stay
        self.assertEqual(self.end(server).count("did not finish TLS's handshake"), 2)

    def test_who_says_that_it_ends_and_is_gone_ends_nobody_else(self):
        server = self.begin()
        client = self.client()
        client.ask("SET", "k", b"x" * 1_000_000)
        for requests in (1, 2, 64):
            for _ in range(5):
                inside, outside = ssl.MemoryBIO(), ssl.MemoryBIO()
                session = self.context().wrap_bio(inside, outside, server_hostname="localhost")
                plain = socket.create_connection(("127.0.0.1", self.port),
                                                 timeout=cli.HANG_SECONDS)
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                while True:
                    try:
                        session.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        plain.sendall(outside.read())
                        inside.write(plain.recv(65536))
                session.write(Client.request("GET", "k") * requests)
                with self.assertRaises(ssl.SSLWantReadError):
                    session.unwrap()
                plain.sendall(outside.read())
                if requests == 2:  # the server has begun to answer
                    plain.recv(1)
                plain.close()  # with a reset
                self.assertEqual(client.ask("PING"), b"PONG")
        self.end(server)

    def test_who_has_gone_does_not_get_the_claim_that_it_waited_for(self):
        server = self.begin("--log-connections")
        holder = self.client()
        fence = holder.ask_map("DEDUP.CLAIM", "k")["claim_sequence"]
        with TlsClient(self.port, self.context()) as gone:
            gone.send("DEDUP.CLAIM", "k", "OWNER", "gone", "WAIT", 600_000)
        self.line_with(server, b"disconnected")
        self.assertIn(b"released", holder.ask("DEDUP.RELEASE", "k", fence))
        self.assertIn(b"absent", holder.ask("DEDUP.LOOKUP", "k"))
        self.end(server)

    def test_many_who_begin_leave_room_for_others(self):
        server = self.begin("--stall-timeout", "1h")
        silent = []
        for _ in range(600):
            silent.append(socket.create_connection(("127.0.0.1", self.port),
                                                   timeout=cli.HANG_SECONDS))
            self.addCleanup(silent[-1].close)
        client = self.client()
        self.assertEqual(client.ask("PING"), b"PONG")
        self.assertEqual(silent[0].recv(1), b"")  # the oldest have gone
        silent[-1].settimeout(0.05)
        with self.assertRaises(socket.timeout):
            silent[-1].recv(1)
        self.end(server)

    def test_certificates_say_who_a_user_is(self):
        self.authority("clients")
        for name in ("billing", "nobody"):
            self.certificate(name, "clients", name)
        with open(self.path("secret"), "w", encoding="ascii") as file:
            file.write(SECRET)
        with open(self.path("users"), "w", encoding="utf-8") as file:
            for name in ("billing", "other"):
                file.write(self.dedupctl("user", name, "--rights", "read,claim", "--namespaces",
                                         name, "--secret-file", "secret", expect=OK).text)
        server = self.begin("--users", "users", "--tls-client-ca", "clients.pem",
                            address="0.0.0.0:0")
        self.assertTrue(self.is_refused())  # no certificate
        self.assertTrue(self.is_refused(certificate="server"))  # of another authority
        billing = self.client(certificate="billing")
        self.assertIn(b"claimed", billing.ask("DEDUP.CLAIM", "k", "NS", "billing"))
        for _ in range(2):
            with self.assertRaisesRegex(Refused, "NOPERM"):
                billing.ask("DEDUP.CLAIM", "k", "NS", "other")
            self.assertEqual(billing.ask("RESET"), b"RESET")
        billing.ask("AUTH", "other", SECRET)  # who knows another's secret may be that
        self.assertIn(b"claimed", billing.ask("DEDUP.CLAIM", "k", "NS", "other"))

        nobody = self.client(certificate="nobody")
        with self.assertRaisesRegex(Refused, "NOAUTH"):
            nobody.ask("DEDUP.CLAIM", "k", "NS", "billing")
        url = self.url(ca="ca.pem", cert="billing.pem", key="billing.key")
        self.assertInError("permissions",
                           self.dedupctl("-s", url, "-n", "other", "lookup", "k", expect=ERROR))
        self.assertNotEqual(self.dedupctl("-s", url, "-n", "billing", "lookup", "k").code, ERROR)
        self.assertInError("cert=", self.dedupctl("-s", self.url(ca="ca.pem"), "lookup", "k"))

        # Whoever came by a certificate needs no secret, so another one changes nothing.
        certified = self.client(certificate="billing")
        with open(self.path("secret"), "a", encoding="ascii") as file:
            file.write("!")
        with open(self.path("users"), encoding="utf-8") as file:
            others = [line for line in file if not line.startswith("billing")]
        with open(self.path("users"), "w", encoding="utf-8") as file:
            file.write(self.dedupctl("user", "billing", "--rights", "read,claim", "--namespaces",
                                     "billing", "--secret-file", "secret", expect=OK).text)
            file.writelines(others)
        server.send_signal(signal.SIGHUP)
        self.assertIn(b"users_reloaded", self.line_with(server, b"users_"))
        self.line_with(server, b"certificates_")
        self.assertIn(b"in_flight", certified.ask("DEDUP.CLAIM", "k", "NS", "billing"))

        self.authority("clients")  # with another key: whom the old one vouched for is unknown
        server.send_signal(signal.SIGHUP)
        self.assertIn(b"users_reloaded", self.line_with(server, b"users_"))
        self.assertIn(b"certificates_reloaded", self.line_with(server, b"certificates_"))
        self.assertTrue(self.is_refused(certificate="billing"))
        self.assertIn(b"claimed", billing.ask("DEDUP.CLAIM", "open", "NS", "other"))
        os.unlink(self.path("server.key"))
        server.send_signal(signal.SIGHUP)
        self.assertIn(b"users_reloaded", self.line_with(server, b"users_"))
        self.assertIn(b"server.key", self.line_with(server, b"certificates_kept"))
        self.end(server)

    def line_with(self, server, words):
        while words not in (line := server.stderr.readline()):
            self.assertNotEqual(line, b"", "the server has ended")
        return line

    def test_what_is_wrong_is_said(self):
        for options, what in ((("--tls-cert", "server.pem"), "both"),
                              (("--tls-cert", "none.pem", "--tls-key", "server.key"), "none.pem"),
                              (("--tls-cert", "server.pem", "--tls-key", "ca.key"), "ca.key"),
                              (("--tls-cert", "server.pem", "--tls-key", "server.key",
                                "--tls-client-ca", "server.key"), "server.key")):
            self.assertInError(what, self.dedupctl("serve", "--tcp", "127.0.0.1:0", *options,
                                                   expect=ERROR))
        self.assertInError("TCP", self.dedupctl("serve", "--tls-cert", "server.pem", "--tls-key",
                                                "server.key", expect=ERROR))
        self.assertInError("password", self.dedupctl(
            "serve", "--tcp", "0.0.0.0:0", "--tls-cert", "server.pem", "--tls-key", "server.key",
            expect=ERROR))


if __name__ == "__main__":
    cli.main()
