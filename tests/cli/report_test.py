"""report: counted right, on a page that a browser takes whatever the keys are."""

import html.parser
import json
import os
import re
import shutil
import subprocess

import cli
from cli import ERROR, OK

# The width, the widths of tables that are cut, and what becomes of what does not fit.
PROBE = """<pre id="probe"></pre><script>
document.getElementById("probe").textContent = JSON.stringify([
    window.innerWidth,
    [...document.querySelectorAll(".scroll")].map(box => box.firstElementChild.getBoundingClientRect().right)
        .filter(right => right > window.innerWidth),
    getComputedStyle(document.querySelector(".scroll")).overflowX]);
</script>"""

VOID = {"meta", "br"}


class Parsed(html.parser.HTMLParser):
    """What is on a page; fails where tags do not match."""

    def __init__(self, page):
        super().__init__()
        self.open = []
        self.tags = set()
        self.words = ""
        self.feed(page)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert tag not in ("script", "link", "img", "iframe"), tag
        assert not {"src", "href", "onload", "onclick"} & {name for name, _ in attrs}, attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open)
        self.open.pop()

    def handle_data(self, data):
        self.words += data + " "


class Report(cli.CliTest):
    def some_keys(self):
        for key in ("a", "b"):
            self.dedupctl("remember", key, expect=OK)
        self.dedupctl("claim", "gone", expect=OK)
        self.dedupctl("release", "gone", expect=OK)
        self.dedupctl("-n", "pay", "claim", "works", "--fingerprint", "f", expect=OK)
        for other in ("g", "h"):
            self.dedupctl("-n", "pay", "claim", "works", "--fingerprint", other, expect=cli.MISMATCH)
        self.dedupctl("-n", "pay", "claim", "<script>alert(1)</script>&\"'", "--lease", "1ms",
                      "--owner", "</table><b>o", expect=OK)
        self.wait_until(lambda: self.report()["keys"]["stuck"] == 1, "its lease has run out")

    def report(self, *arguments):
        return self.dedupctl("--json", "report", *arguments, expect=OK).json

    def test_counts(self):
        self.some_keys()
        report = self.report()
        self.assertEqual(report["keys"], {"in_flight": 2, "stuck": 1, "held": 0, "completed": 2, "released": 1,
                                          "expired": 0})
        self.assertEqual([row["namespace"] for row in report["namespaces"]], ["default", "pay"])
        for what in ("ages", "hours"):
            for state, count in (("completed", 2), ("in_flight", 2), ("released", 1)):
                self.assertEqual(sum(row[state] for row in report[what]), count, (what, state))
        self.assertEqual(report["conflicts"], 2)
        self.assertEqual([(row["key"], row["conflicts"]) for row in report["disputed"]],
                         [("works", 2)])
        self.assertEqual([row["owner"] for row in report["stuck"]], ["</table><b>o"])
        self.assertEqual(self.report("-n", "default")["keys"]["in_flight"], 0)
        text = self.dedupctl("report", expect=OK).text
        self.assertIn("lease has run out unanswered: 1", text)

    def test_what_was_taken_back(self):
        self.assertEqual(self.report_of("forgotten", "taken_back"), (0, []))
        for key in ("paid", "again", "<b>"):
            self.dedupctl("remember", key, expect=OK)
            self.dedupctl("forget", key, "--reason", f"no {key}", "--by", "ada", expect=OK)
        self.dedupctl("claim", "again", expect=OK)  # so nobody waits for it
        count, rows = self.report_of("forgotten", "taken_back")
        self.assertEqual(count, 2)
        self.assertEqual(
            {(row["key"], row["verdict"]["by"], row["verdict"]["reason"]) for row in rows},
            {("paid", "ada", "no paid"), ("<b>", "ada", "no <b>")})
        text = self.dedupctl("report", expect=OK).text
        self.assertIn("taken back, and not claimed since: 2", text)
        self.assertIn("no paid", text)
        self.assertIn("no <b>", Parsed(self.dedupctl("report", "--html", "-", expect=OK).text).words)

    def report_of(self, *names):
        self.dedupctl("init", expect=OK)
        report = self.report()
        return tuple(report[name] for name in names)

    def test_the_page(self):
        self.some_keys()
        self.dedupctl("remember", "short", "--ttl", "1ms", expect=OK)
        self.wait_until(lambda: self.report()["keys"]["expired"] == 1, "a key has expired")
        self.dedupctl("sweep", expect=OK)
        path = self.path("report.html")
        self.dedupctl("report", "--html", path, expect=OK)
        with open(path, encoding="utf-8") as file:
            page = file.read()
        parsed = Parsed(page)
        self.assertLessEqual({"svg", "table", "details"}, parsed.tags)
        self.assertIn("<script>alert(1)</script>&\"'", parsed.words)  # as text
        command = re.search(r"dedupctl -s .*inspect -- .*alert\S*", parsed.words).group(0)
        self.assertIn("-n pay", command)
        self.assertEqual(self.dedupctl("report", "--html", "-", expect=OK).text[:15], page[:15])
        self.assertFalse(os.path.exists(path + ".unfinished"))

    def test_it_fits_on_paper(self):
        browser = shutil.which("chromium")
        if browser is None:
            self.skipTest("there is no chromium: nobody has looked at the page")
        for option in ("--hold", "--attempts-max=9"):
            self.dedupctl("-n", "n" * 90, "claim", f"for{option}-" + "key" * 40, "--lease", "1ms",
                          option, "--owner", "w" * 40, expect=OK)
        self.wait_until(lambda: self.report()["keys"]["stuck"] == 1, "its lease has run out")
        page = self.dedupctl("report", "--html", "-", expect=OK).text
        self.assertIn("<li><b>2</b>in-flight</li>", page)
        self.assertNotIn("in flight", page)
        # A4 has 739 px between margins. Paper's rules for a screen, and what does not fit there.
        with open(self.path("page.html"), "w", encoding="utf-8") as file:
            file.write(page.replace("@media print", "@media all").replace("</body>", PROBE + "</body>"))
        done = subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--user-data-dir=" + self.path("profile"), "--window-size=739,900", "--dump-dom",
             "file://" + self.path("page.html")], capture_output=True, timeout=cli.HANG_SECONDS, check=True)
        self.assertIn('<pre id="probe">[739,[],"visible"]</pre>', done.stdout.decode())

    def test_an_empty_store(self):
        self.dedupctl("init", expect=OK)
        self.assertEqual(self.report()["keys"]["completed"], 0)
        Parsed(self.dedupctl("report", "--html", "-", expect=OK).text)

    def test_a_page_that_cannot_be_written(self):
        self.dedupctl("init", expect=OK)
        done = self.dedupctl("report", "--html", "/dev/full", expect=ERROR)
        self.assertIn("No space left", done.error)
        done = self.dedupctl("--json", "report", "--html", "/nowhere/at/all", expect=ERROR)
        self.assertEqual(json.loads(done.text)["error"]["code"], "io")


if __name__ == "__main__":
    cli.main()
