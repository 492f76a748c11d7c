"""A worker that pays is killed at random, and the bank loses answers: each order is charged once.

Usage: payments_test.py PAYMENTS_PROGRAM DEDUPCTL

PAYMENTS_KILLS: how often it is killed; the ordinary run has 60.
"""

import collections
import http.server
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import unittest

PAYMENTS, DEDUPCTL = sys.argv[1], sys.argv[2]
KILLS = int(os.environ.get("PAYMENTS_KILLS", "60"))
SEED = int(os.environ.get("PAYMENTS_SEED", str(time.time_ns())))
HANG_SECONDS = 120
ORDERS_A_ROUND = 10


class Bank(http.server.BaseHTTPRequestHandler):
    """Takes many requests at a time, and some payments late: also when their client is dead and the
    bank has been asked for them, but not when the time that they name is over."""

    charges = collections.Counter()
    book = threading.Lock()
    lost = late = 0
    chance = random.Random(SEED)

    def answer(self, status, text=""):
        if self.chance.random() < 0.3:
            type(self).lost += 1
            self.close_connection = True  # the client sees its end, and no answer
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def reference(self):
        return self.path.rsplit("/", 1)[1]

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.chance.random() < 0.1:
            return self.answer(503)
        time.sleep(self.chance.choice([0.003, 0.003, 0.06]) * self.chance.random())
        with self.book:
            if time.time() * 1000 > int(self.headers["Valid-Until"]):
                type(self).late += 1
                return self.answer(410)
            self.charges[self.reference()] += 1  # again, if it is asked again
        time.sleep(self.chance.random() * 0.003)
        return self.answer(200, "receipt of " + self.reference())

    def do_GET(self):
        if self.charges[self.reference()]:
            return self.answer(200, "receipt of " + self.reference())
        return self.answer(404)

    def log_message(self, *arguments):
        pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """A client that was killed takes no answer."""


class Payments(unittest.TestCase):
    def test_no_order_is_charged_twice_and_none_is_stuck(self):
        print(f"PAYMENTS_SEED={SEED}", flush=True)
        chance = random.Random(SEED)
        bank = Server(("127.0.0.1", 0), Bank)
        threading.Thread(target=bank.serve_forever, daemon=True).start()
        self.addCleanup(bank.server_close)
        self.addCleanup(bank.shutdown)
        with tempfile.TemporaryDirectory(prefix="dedup-payments-") as directory:
            store = os.path.join(directory, "store")
            said = collections.Counter()
            kills, orders = 0, []
            while kills < KILLS:
                orders.append([f"o-{len(orders)}-{i}" for i in range(ORDERS_A_ROUND)])
                kills += self.settle(store, bank.server_port, orders[-1], chance, said)
            everything = [order for some in orders for order in some]
            charged = {order: Bank.charges[order] for order in everything}
            self.assertEqual({order: n for order, n in charged.items() if n != 1}, {})
            self.assertEqual(sum(Bank.charges.values()), len(everything))
            held = subprocess.run([DEDUPCTL, "-s", store, "-n", "payments", "held"], check=True,
                                  capture_output=True, timeout=HANG_SECONDS)
            self.assertEqual(held.stdout, b"")
            stats = json.loads(subprocess.run([DEDUPCTL, "-s", store, "--json", "stats"], check=True,
                                              capture_output=True, timeout=HANG_SECONDS).stdout)
            self.assertEqual((stats["completed"], stats["in_flight"]), (len(everything), 0))
        print(f"{len(everything)} orders, {kills} kills, {Bank.lost} answers lost; {dict(said)}")
        # Or the kills have missed what they are for.
        self.assertGreater(said["had been paid"], 0)
        self.assertGreater(said["had not been paid"], 0)

    def settle(self, store, port, orders, chance, said):
        """Starts the worker until it has paid all; gives how often it was killed."""
        kills = 0
        while True:
            worker = subprocess.Popen([PAYMENTS, store, str(port), *orders],
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            try:
                out, err = worker.communicate(timeout=chance.uniform(0.005, 0.08))
                ended = True
            except subprocess.TimeoutExpired:
                worker.kill()
                out, err = worker.communicate(timeout=HANG_SECONDS)
                ended = worker.returncode == 0  # it was just about to
                kills += not ended
            for line in out.splitlines():
                said[line.split(": ", 1)[-1]] += 1
            if ended:
                self.assertEqual((worker.returncode, err), (0, ""))
                return kills


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
