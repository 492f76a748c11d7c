"""The HTTP example, end to end: with http.client, with curl, and killed while it works.

Usage: http_test.py SERVER_PROGRAM
"""

import http.client
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tests/cli"))
import prometheus_test  # noqa: E402

SERVER = sys.argv[1]
HANG_SECONDS = 120


class HttpExample(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="dedup-http-")
        self.addCleanup(directory.cleanup)
        self.store = directory.name + "/store"
        self.ledger = pathlib.Path(directory.name, "ledger")

    def start(self, *options):
        server = subprocess.Popen([SERVER, self.store, str(self.ledger), "0", *options],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(self.stop, server)
        line = server.stdout.readline()
        self.assertRegex(line, r"^listening on 127\.0\.0\.1:\d+$")
        self.port = int(line.rsplit(":", 1)[1])
        return server

    @staticmethod
    def stop(server):
        server.kill()
        server.wait()
        server.stdout.close()
        server.stderr.close()

    def post(self, key, body=b"10 EUR", path="/payments", headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANG_SECONDS)
        try:
            headers = dict(headers or {})
            if key is not None:
                headers["Idempotency-Key"] = key
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            response.text = response.read().decode()
            return response
        finally:
            connection.close()

    def metrics(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANG_SECONDS)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def paid(self):
        return self.ledger.read_text().splitlines() if self.ledger.exists() else []

    def test_the_first_request_pays_and_a_second_one_gets_the_stored_response(self):
        self.start()
        first = self.post('"k-1"')
        self.assertEqual((first.status, first.text), (201, "paid 10 EUR\n"))
        self.assertIsNone(first.getheader("Idempotency-Replayed"))
        for _ in range(2):
            again = self.post('"k-1"')
            self.assertEqual((again.status, again.text), (201, "paid 10 EUR\n"))
            self.assertEqual(again.getheader("Idempotency-Replayed"), "true")
            for name in ("Content-Type", "Location"):
                self.assertEqual(again.getheader(name), first.getheader(name))
        self.post('"k-2"')
        self.assertEqual(self.paid(), ["k-1 10 EUR attempt 1", "k-2 10 EUR attempt 1"])

    def test_requests_that_the_draft_refuses(self):
        self.start()
        for key, title in ((None, "is missing"), ("bare", "malformed"), ('""', "malformed"),
                           ('"open', "malformed"), ('"a", "b"', "malformed")):
            refused = self.post(key)
            self.assertEqual(refused.status, 400, key)
            self.assertEqual(refused.getheader("Content-Type"), "application/problem+json")
            self.assertIn(title, refused.text)
        self.assertEqual(self.post('"k"').status, 201)
        for body, path in ((b"20 EUR", "/payments"), (b"10 EUR", "/payments?to=me")):
            other = self.post('"k"', body, path)
            self.assertEqual(other.status, 422)
            self.assertIn("another request", other.text)
        self.assertEqual(self.paid(), ["k 10 EUR attempt 1"])

    def test_of_many_at_once_one_pays(self):
        self.start("300")
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(self.post('"k"')))
                   for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        statuses = sorted(answer.status for answer in answers)
        self.assertEqual(statuses.count(201) + statuses.count(409), 8)
        fresh = [answer for answer in answers
                 if answer.status == 201 and not answer.getheader("Idempotency-Replayed")]
        self.assertEqual(len(fresh), 1)
        for answer in answers:
            if answer.status == 409:
                self.assertGreaterEqual(int(answer.getheader("Retry-After")), 1)
                self.assertLessEqual(int(answer.getheader("Retry-After")), 30)
        self.assertEqual(self.paid(), ["k 10 EUR attempt 1"])
        self.assertEqual(self.post('"k"').status, 201)

    def test_killed_while_it_pays(self):
        server = self.start("600000", "3000")
        lost = threading.Thread(target=self.post_and_lose)
        lost.start()
        self.wait_until(lambda: 'outcome="claimed"} 1' in self.metrics(), "it has begun to pay")
        server.kill()
        server.wait()
        lost.join()
        self.start("0", "3000")
        while (answer := self.post('"k"')).status == 409:
            self.assertIn(int(answer.getheader("Retry-After")), (1, 2, 3))
            time.sleep(0.05)
        self.assertEqual((answer.status, answer.text), (201, "paid 10 EUR\n"))
        self.assertIsNone(answer.getheader("Idempotency-Replayed"))
        self.assertEqual(self.paid(), ["k 10 EUR attempt 2"])
        self.assertEqual(self.post('"k"').getheader("Idempotency-Replayed"), "true")

    def post_and_lose(self):
        try:
            self.post('"k"')
        except (http.client.HTTPException, OSError):
            pass

    def wait_until(self, condition, what):
        deadline = time.monotonic() + HANG_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                self.fail(f"waited in vain until {what}")
            time.sleep(0.01)

    def test_a_response_outlives_the_server(self):
        server = self.start()
        self.assertEqual(self.post('"k"').status, 201)
        server.kill()
        server.wait()
        self.start()
        self.assertEqual(self.post('"k"').getheader("Idempotency-Replayed"), "true")
        self.assertEqual(len(self.paid()), 1)

    def test_a_failed_payment_can_be_tried_again(self):
        self.ledger.mkdir()  # cannot be written
        self.start()
        self.assertEqual(self.post('"k"').status, 500)
        self.ledger.rmdir()
        self.assertEqual(self.post('"k"').status, 201)
        self.assertEqual(self.paid(), ["k 10 EUR attempt 2"])

    def test_with_curl(self):
        if not shutil.which("curl"):
            self.skipTest("curl is not installed")
        self.start()
        for replayed in (False, True):
            answer = subprocess.run(
                ["curl", "-si", "-H", 'Idempotency-Key: "from \\"curl\\""', "-d", "5 EUR",
                 f"http://127.0.0.1:{self.port}/payments"],
                capture_output=True, text=True, timeout=HANG_SECONDS).stdout
            self.assertIn("201 Created", answer.splitlines()[0])
            self.assertEqual("Idempotency-Replayed: true" in answer, replayed)
        self.assertEqual(self.paid(), ['from "curl" 5 EUR attempt 1'])

    def test_metrics(self):
        self.start()
        for _ in range(3):
            self.post('"k"')
        page = self.metrics()
        self.assertIn(("dedup_flush_duration_seconds_count", ""), prometheus_test.parse(page))
        for line in ('dedup_claims_total{namespace="payments",outcome="claimed"} 1',
                     'dedup_claims_total{namespace="payments",outcome="duplicate"} 2',
                     'dedup_completions_total{namespace="payments",outcome="completed"} 1',
                     'dedup_store_streams{state="completed"} 1',
                     "dedup_appended_records_total 2"):
            self.assertIn("\n" + line + "\n", page)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
