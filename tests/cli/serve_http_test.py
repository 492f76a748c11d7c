"""The HTTP port of dedupctl serve: its pages, for programs, for people, and in a browser."""

import html.parser
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import urllib.parse
import zlib

import cli
from cli import ERROR, OK, USAGE
from resp import Client, Refused

ALERTS = pathlib.Path(__file__).parents[2] / "docs/examples/alerts.yml"
SCRIPT = "<script>document.title='run'</script>&\"'"


class Page(html.parser.HTMLParser):
    """What is on a page; fails where tags do not match, and at whatever is not of the page's own."""

    VOID = {"meta", "br", "link", "input"}

    def __init__(self, page):
        super().__init__()
        self.open = []
        self.tags = []
        self.links = []
        self.words = ""
        self.feed(page)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        assert tag not in ("script", "img", "iframe", "style", "object"), tag
        assert not any(name.startswith("on") or name in ("src", "style") for name in attrs), attrs
        for name in ("href", "action"):
            assert attrs.get(name, "/").startswith(("/", "#")), attrs
        if "href" in attrs:
            self.links.append(attrs["href"])
        if tag == "th":
            assert attrs["scope"] == "col", attrs
        if tag == "svg":
            assert attrs["role"] == "img" and attrs["aria-label"], attrs
        if tag == "input":
            assert "label" in self.open, self.open
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open)
        self.open.pop()

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_data(self, data):
        self.words += data + " "


class ServeHttp(cli.CliTest):
    def begin(self, *options):
        server = self.serve("--http", "127.0.0.1:0", *options)
        line = server.stderr.readline().decode()
        self.port = int(re.search(r"http://127.0.0.1:0 \(port (\d+)\)", line).group(1))
        return server

    def end(self, server):
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=cli.HANG_SECONDS)
        self.assertEqual(server.returncode, OK)

    def get(self, path, status=200, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=cli.HANG_SECONDS)
        self.addCleanup(connection.close)
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        self.assertEqual(answer.status, status, path)
        return answer.read().decode()

    def some_keys(self):
        self.dedupctl("remember", "done", "--receipt", "secret receipt", expect=OK)
        noted = self.dedupctl("--json", "claim", "noted", expect=OK).json["claim_sequence"]
        self.dedupctl("note", "noted", "--claim", str(noted), "a secret note", expect=OK)
        self.dedupctl("release", "noted", "--claim", str(noted), expect=OK)
        self.dedupctl("claim", SCRIPT, "--lease", "1ms", "--owner", "</table><b>o", expect=OK)
        self.dedupctl("claim", b"bytes\xff\xfe", "--owner", b"\xff", expect=OK)
        self.dedupctl("-n", "pay", "claim", "waits", "--lease", "1ms", "--hold", expect=OK)

    def test_a_key_with_many_versions(self):
        """A page has the newest: it is made in memory."""
        server = self.begin()
        with Client(self.store + ".sock") as client:
            client.ask("SET", "k", "v")
            for _ in range(997):
                client.ask("EXPIRE", "k", "1000")
            self.assertNotIn("These are the newest", self.get("/key?ns=redis:0&key=k"))
            for _ in range(10):
                client.ask("EXPIRE", "k", "1000")
        page = self.get("/key?ns=redis:0&key=k")
        self.assertIn("These are the newest 1,000 versions", page)
        self.assertEqual(page.count("<tr>"), 1001)
        self.end(server)

    def test_what_programs_ask(self):
        self.some_keys()
        server = self.begin()
        self.assertEqual(self.get("/healthz"), "alive\n")
        self.assertEqual(self.get("/readyz"), "ready\n")
        stats = json.loads(self.get("/stats.json"))
        shown = self.dedupctl("--json", "stats", expect=OK).json
        self.assertEqual(set(shown) - {"next_sweep"} | {"commands"}, set(stats))
        self.assertEqual(stats["in_flight"], 3)

        def metrics():
            lines = self.get("/metrics").splitlines()
            names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
            self.assertEqual(len(names), len(set(names)))
            return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        self.wait_until(lambda: metrics().get('dedup_open_claims{namespace="default"}') == "2",
                        "the claims are counted")
        self.assertEqual(metrics()['dedup_open_claims_held{namespace="pay"}'], "1")
        with Client(self.store + ".sock") as client:
            client.ask("SET", "k", "v")
            self.assertEqual(metrics()["dedup_server_connections"], "1")
            self.assertEqual(metrics()["dedup_server_requests_total"], "1")
            counted = 'dedup_server_command_duration_seconds_count{command="set"}'
            self.assertEqual(metrics()[counted], "1")
            asked = re.findall(r"\bdedup_server_\w+", ALERTS.read_text(encoding="utf-8"))
            self.assertLessEqual(set(asked), {name.split("{")[0] for name in metrics()})
            times = json.loads(self.get("/stats.json"))["commands"]
            self.assertEqual(set(times), {"set"})
            self.assertEqual(times["set"]["count"], 1)
            self.assertGreaterEqual(times["set"]["p99_us"], times["set"]["median_us"])
            self.assertIn("set", Page(self.get("/")).words.split("since the server began")[1])
        self.get("/none", status=404)
        self.end(server)

    def test_the_page(self):
        self.some_keys()
        server = self.begin()
        self.wait_until(lambda: "1 of these past" in " ".join(Page(self.get("/")).words.split()),
                        "a lease has run out")
        page = Page(self.get("/"))
        for tag in ("main", "nav", "header", "h1", "table", "svg"):
            self.assertIn(tag, page.tags)
        for words in (SCRIPT, "</table><b>o", "bytes\\xff\\xfe", "Claims in-flight by owner"):
            self.assertIn(words, page.words)
        self.assertLess(page.words.index("wait for a decision"), page.words.index("worked on"))
        links = [link for link in page.links if link.startswith("/key?")]
        self.assertEqual(len(links), 3)  # held, with a lease that has run out, and with none
        for link in links:
            self.assertIn(" in-flight ", Page(self.get(link)).words)
        self.end(server)

    def test_a_key(self):
        self.some_keys()
        server = self.begin()
        found = Page(self.get("/key?key=done"))
        self.assertIn("14 B", found.words)
        self.assertNotIn("secret", found.words)
        self.assertNotIn("secret", self.get("/key?key=noted"))
        self.assertIn(SCRIPT, Page(self.get("/key?" + urllib.parse.urlencode({"key": SCRIPT}))).words)
        self.assertIn("bytes\\xff\\xfe", Page(self.get("/key?key=bytes%ff%fe")).words)
        for query, status in (("", 200), ("?key=none", 404), ("?key=" + "x" * 1100, 400),
                              ("?ns=%00&key=k", 400), ("?ns=pay&key=done", 404), ("?key=%f", 400)):
            page = self.get("/key" + query, status=status)
            if query != "?key=%f":
                Page(page)
        self.end(server)

    def test_many_namespaces_crowd_out_nobody(self):
        """Whoever may make namespaces of one beginning fills rows of that beginning alone."""
        many = 3000
        server = self.begin()
        with Client(self.store + ".sock") as client:
            for ns in ("b-orders", "pay", "a"):
                client.ask("DEDUP.CLAIM", "k", "NS", ns)
            client.socket.sendall(b"".join(
                client.request("DEDUP.CLAIM", "k", "NS", f"a-{number * 7919 % many:04}")
                for number in range(many)))
            for _ in range(many):
                self.assertNotIsInstance(client.reply(), Refused)

        def open_claims():
            lines = [line for line in self.get("/metrics").splitlines()
                     if line.startswith("dedup_open_claims{")]
            return {line.split('"')[1]: int(line.rsplit(" ", 1)[1]) for line in lines}
        self.wait_until(lambda: sum(open_claims().values()) == many + 3, "all are counted")
        counted = open_claims()
        self.assertLessEqual(len(counted), 1000)
        self.assertEqual({name: count for name, count in counted.items()
                          if not name.startswith("a-")}, {"b-orders": 1, "pay": 1, "a": 1})
        page = self.get("/")
        self.assertIn("<td>b-orders</td>", page)
        self.assertLess(page.count("<td>a-"), 1100)  # some are listed as claims, too
        self.end(server)
        report = self.dedupctl("--json", "report", expect=OK).json["namespaces"]
        self.assertEqual({row["namespace"]: row["in_flight"] for row in report}, counted)

    def test_owners_beyond_the_table_are_counted(self):
        many = 10_003
        server = self.begin()
        with Client(self.store + ".sock") as client:
            for first in range(0, many, 1000):
                numbers = range(first, min(first + 1000, many))
                client.socket.sendall(b"".join(
                    client.request("DEDUP.CLAIM", f"k-{number}", "OWNER", f"o-{number}")
                    for number in numbers))
                for _ in numbers:
                    self.assertNotIsInstance(client.reply(), Refused)

        def words():
            return " ".join(Page(self.get("/")).words.split())
        self.wait_until(lambda: "9,950 more owners" in words(), "the claims are counted")
        self.wait_until(lambda: "beyond 10,000 owners: 3 in-flight" in words(), "and the others")
        self.end(server)

    def test_a_token(self):
        self.some_keys()
        with open(self.path("token"), "w", encoding="ascii") as file:
            file.write("open sesame, please\n")
        server = self.begin("--http-token-file", self.path("token"))
        for path in ("/", "/key?key=done", "/stats.json", "/metrics", "/style.css"):
            self.get(path, status=401)
            self.get(path, Authorization="Bearer open sesame, please")
        self.get("/", status=401, Authorization="Bearer sesame")
        self.assertIn("secret receipt",
                      self.get("/key?key=done", Authorization="Bearer open sesame, please"))
        self.assertIn("a secret note",
                      self.get("/key?key=noted", Authorization="Bearer open sesame, please"))
        self.end(server)

    def test_usage(self):
        self.assertInError("needs a token", self.dedupctl("serve", "--http", "0.0.0.0:0",
                                                          expect=ERROR))
        self.assertInError("host:port", self.dedupctl("serve", "--http", "8080", expect=ERROR))
        self.dedupctl("serve", "--http-token-file", "x", expect=USAGE)

    def test_a_browser(self):
        browser = shutil.which("chromium")
        if browser is None:
            self.skipTest("there is no chromium: nobody has looked at the page")
        self.some_keys()
        server = self.begin()

        def browse(path, *options):
            done = subprocess.run(
                [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                 "--enable-logging=stderr", "--user-data-dir=" + self.path("profile"), *options,
                 f"http://localhost:{self.port}{path}"],
                capture_output=True, timeout=cli.HANG_SECONDS, check=True)
            log = done.stderr.decode(errors="replace")
            self.assertNotIn("CONSOLE", log)  # such as what the content security policy refuses
            return done.stdout.decode()
        colours = []
        for scheme in ("0", "1"):  # dark, light
            path = self.path("page.png")
            shown = browse("/", "--dump-dom", "--screenshot=" + path, "--hide-scrollbars",
                           "--window-size=400,600",
                           "--blink-settings=preferredColorScheme=" + scheme)
            self.assertIn("<title>dedup store</title>", shown)
            self.assertIn("&lt;script&gt;", shown)
            self.assertNotIn("<script", shown)
            colours.append(first_pixel(path))
        self.assertEqual(colours, [(0x14, 0x18, 0x1d), (0xff, 0xff, 0xff)])
        self.end(server)


def first_pixel(path):
    """Of a PNG with 8 bits a colour: so the style was taken, and follows the reader's."""
    with open(path, "rb") as file:
        data = file.read()
    os.unlink(path)
    packed, at = b"", 8
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        packed += data[at + 8:at + 8 + size] if kind == b"IDAT" else b""
        at += size + 12
    return tuple(zlib.decompress(packed)[1:4])


if __name__ == "__main__":
    cli.main()
