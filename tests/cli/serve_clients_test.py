"""What existing code sends to Redis, sent to `dedupctl serve`: by redis-py, by redis-cli, and by us
with Redis beside it, whose answers must be the same.

Debian's packages python3-redis, redis-tools and redis-server have them; a test without its client
is skipped, which tools/setup prevents.
"""

import json
import os
import random
import shutil
import socket
import subprocess
import threading
import time
import unittest

import cli
from cli import COMPLETED
from redis_py import redis
from resp import Client, Refused

# How many random commands are compared with Redis' answers.
COMMANDS = int(os.environ.get("DEDUP_REDIS_COMMANDS", "1500"))


class Served(cli.CliTest):
    def setUp(self):
        super().setUp()
        self.socket_path = self.store + ".sock"
        self.server = self.serve()


@unittest.skipUnless(redis, "no redis-py; tools/setup installs it")
class RedisPy(Served):
    def setUp(self):
        super().setUp()
        self.redis = redis.Redis(unix_socket_path=self.socket_path, client_name="test",
                                 socket_timeout=cli.HANG_SECONDS)
        self.addCleanup(self.redis.close)

    def test_a_first_request_and_its_duplicates(self):
        # As idempotency layers do it: a marker, then the response in its place.
        self.assertTrue(self.redis.set("order-17", "in progress", nx=True, ex=30))
        self.assertIsNone(self.redis.set("order-17", "in progress", nx=True, ex=30))
        self.assertEqual(self.redis.get("order-17"), b"in progress")
        response = json.dumps({"status": 201, "body": "\u00e9"}).encode()
        self.assertTrue(self.redis.set("order-17", response, ex=86400))
        self.assertEqual(self.redis.get("order-17"), response)
        self.assertTrue(86390 <= self.redis.ttl("order-17") <= 86400)
        found = self.dedupctl("-n", "redis:0", "lookup", "order-17", expect=COMPLETED)
        self.assertEqual(found.out, response)

    def test_of_concurrent_duplicates_one_wins(self):
        won = []

        def work():
            client = redis.Redis(unix_socket_path=self.socket_path)
            for number in range(50):
                if client.set(f"k{number}", threading.get_ident(), nx=True, px=60_000):
                    won.append(number)
            client.close()

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(won), list(range(50)))

    def test_a_failure_gives_the_key_back_and_an_orphan_expires(self):
        self.redis.set("k", "in progress", nx=True, ex=30)
        self.assertEqual(self.redis.delete("k"), 1)
        self.assertTrue(self.redis.set("k", "in progress", nx=True, px=1))
        self.wait_until(lambda: self.redis.set("k", "again", nx=True, ex=30), "the orphan expires")

    def test_locks(self):
        lock = self.redis.lock("lock", timeout=30)
        other = self.redis.lock("lock", timeout=30)
        self.assertTrue(lock.acquire(blocking=False))
        self.assertFalse(other.acquire(blocking=False))
        self.assertTrue(lock.owned())
        self.assertTrue(lock.extend(30))
        self.assertTrue(30_000 < self.redis.pttl("lock") <= 60_000)
        self.assertTrue(lock.extend(20, replace_ttl=True))
        self.assertTrue(0 < self.redis.pttl("lock") <= 20_000)
        self.assertTrue(lock.reacquire())
        self.assertTrue(20_000 < self.redis.pttl("lock") <= 30_000)
        lock.release()
        self.assertTrue(other.acquire(blocking=False))
        self.redis.set("lock", "somebody else")
        for action in (other.release, other.reacquire, lambda: other.extend(1)):
            other.local.token = other.local.token or b"lost"
            with self.assertRaises(redis.exceptions.LockError):
                action()
        with self.redis.lock("scope", timeout=30):
            self.assertIsNotNone(self.redis.get("scope"))
        self.assertIsNone(self.redis.get("scope"))

    def test_pipelines_scans_databases_and_the_rest(self):
        pipe = self.redis.pipeline()
        pipe.set("both", "v", nx=True).expire("both", 60).get("both")
        self.assertEqual(pipe.execute(), [True, True, b"v"])
        pipe = self.redis.pipeline(transaction=False)
        for number in range(300):
            pipe.set(f"k{number}", number, nx=True, ex=60).get(f"k{number}")
        self.assertEqual(pipe.execute()[-2:], [True, b"299"])
        self.assertEqual({key for key in self.redis.scan_iter("k1*", count=50)},
                         {b"k1"} | {b"k1%d" % n for n in range(10)} |
                         {b"k1%02d" % n for n in range(100)})
        other = redis.Redis(unix_socket_path=self.socket_path, db=5)
        self.assertIsNone(other.get("k1"))
        other.close()
        self.assertEqual(self.redis.client_getname(), "test")
        self.assertEqual(self.redis.info()["role"], "master")
        self.assertEqual(self.redis.mget("k1", "none"), [b"1", None])
        self.assertEqual(self.redis.unlink("k1", "none"), 1)
        self.assertEqual(self.redis.getdel("k2"), b"2")
        self.assertEqual(self.redis.getex("k3", ex=5), b"3")
        with self.assertRaisesRegex(redis.exceptions.ResponseError, "unknown command"):
            self.redis.hset("h", "f", "v")
        with self.assertRaises(redis.exceptions.NoScriptError):
            self.redis.eval("return 1", 0)

    def test_native_commands(self):
        claimed = self.redis.execute_command("DEDUP.CLAIM", "k", "OWNER", "me")
        fence = claimed[claimed.index(b"claim_sequence") + 1]
        self.redis.execute_command("DEDUP.COMPLETE", "k", fence, "receipt")
        self.assertIn(b"receipt", self.redis.execute_command("DEDUP.LOOKUP", "k"))


@unittest.skipUnless(shutil.which("redis-cli"), "no redis-cli; tools/setup installs it")
class RedisCli(Served):
    def redis_cli(self, *arguments):
        done = subprocess.run(["redis-cli", "-s", self.socket_path, *arguments], check=False,
                              capture_output=True, timeout=cli.HANG_SECONDS)
        return done.stdout.decode().rstrip("\n")

    def test_what_people_type(self):
        self.assertEqual(self.redis_cli("ping"), "PONG")
        self.assertEqual(self.redis_cli("set", "k", "v", "nx"), "OK")
        self.assertEqual(self.redis_cli("set", "k", "v", "nx"), "")
        self.assertEqual(self.redis_cli("-3", "--json", "dedup.lookup", "k", "ns", "redis:0")[:25],
                         '{"outcome":"completed","n')
        self.assertIn("unknown command 'hset'", self.redis_cli("hset", "h", "f", "v"))
        self.assertEqual(self.redis_cli("--scan"), "k")


@unittest.skipUnless(shutil.which("node") and os.environ.get("DEDUP_NODE_MODULES"),
                     "DEDUP_NODE_MODULES names no directory with the packages of npm")
class NodeClients(cli.CliTest):
    def test_what_libraries_of_node_send(self):
        with socket.socket() as probe:  # free now, and likely to stay so for a moment
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.serve("--tcp", f"127.0.0.1:{port}")
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "serve_node_clients.mjs")
        done = subprocess.run(
            ["node", script, self.store + ".sock", str(port), os.environ["DEDUP_NODE_MODULES"]],
            check=False, capture_output=True, timeout=cli.HANG_SECONDS)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        self.assertEqual(done.stdout.split(),
                         [b"ioredis", b"nodeRedis", b"nodeIdempotency", b"powertools"])


def random_command(rng):
    key = rng.choice("abc")
    value = rng.choice(["x", "y", "", "10"])
    seconds = rng.choice(["100", "1000", "0", "-5", "nonsense", "9223372036854775807",
                          "9223372036854775"])
    ms = rng.choice(["100000", "1000000", "0", "x", "-1", "9223372036854775807"])
    at = str(int(time.time()) + rng.choice([1000, 5000, -1000]))
    return rng.choice([
        lambda: ["SET", key, value] + rng.sample(
            ["NX", "XX", "GET", "KEEPTTL", "nx", "Get", "bogus"], rng.choice([0, 0, 1, 1, 2])),
        lambda: ["SET", key, value, rng.choice(["EX", "ex"]), seconds] + rng.choice(
            [[], ["NX"], ["XX"], ["GET"], ["KEEPTTL"], ["PX", "5"], ["PX"]]),
        lambda: ["SET", key, value, "PX", ms],
        lambda: ["SET", key, value, "EXAT", at],
        lambda: ["SETNX", key, value],
        lambda: ["SETEX", key, seconds, value],
        lambda: ["PSETEX", key, ms, value],
        lambda: ["GET", key],
        lambda: ["GET"],
        lambda: ["MGET", key, "b", "none"],
        lambda: ["DEL", key, rng.choice("abc")],
        lambda: ["UNLINK", key],
        lambda: ["EXISTS", key, key, "b"],
        lambda: ["GETDEL", key],
        lambda: ["GETEX", key] + rng.choice([[], ["PERSIST"], ["EX", "100"], ["BOGUS"],
                                             ["EX", "5", "PERSIST"]]),
        lambda: ["EXPIRE", key, seconds] + rng.choice(
            [[], ["NX"], ["XX"], ["GT"], ["LT"], ["XX", "GT"], ["NX", "GT"], ["GT", "LT"],
             ["BOGUS"]]),
        lambda: ["PEXPIRE", key, ms],
        lambda: ["EXPIREAT", key, at],
        lambda: ["PERSIST", key],
        lambda: ["TTL", key],
        lambda: ["EXPIRETIME", key],
        lambda: ["STRLEN", key],
        lambda: ["TYPE", key],
        lambda: ["ECHO", value],
        lambda: ["PING", value],
        lambda: ["PING", value, value],
        lambda: ["SELECT", rng.choice(["0", "1", "99", "x"])],
        lambda: ["SCRIPT", "EXISTS", "0" * 40],
        lambda: ["WAIT", "0", "0"],
    ])()


def random_commands(rng, count):
    for _ in range(count):
        if rng.random() < 0.97:
            yield random_command(rng)
            continue
        yield ["MULTI"]
        for _ in range(rng.randrange(6)):
            key = rng.choice("abc")
            yield rng.choice([["SET", key, "x"], ["SET", key, "y", "NX", "EX", "1000"],
                              ["GET", key], ["DEL", "a", "b"], ["MGET", "a", "b", "c"],
                              ["PERSIST", key], ["EXPIRE", key, "1000", "NX"], ["MULTI"],
                              ["GETDEL", key], ["EXPIRE", key, "-1"], ["ECHO", "e"]])
        yield [rng.choice(["EXEC", "EXEC", "EXEC", "DISCARD"])]
    yield ["EXEC"]


@unittest.skipUnless(shutil.which("redis-server"), "no redis-server; tools/setup installs it")
class BesideRedis(Served):
    def setUp(self):
        super().setUp()
        path = self.path("redis.sock")
        process = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", path, "--dir", self.dir, "--save", ""],
            stdout=subprocess.DEVNULL)
        self.addCleanup(self.stop, process)
        self.wait_until(lambda: os.path.exists(path), "Redis listens")
        self.theirs = Client(path)
        self.ours = Client(self.socket_path)
        self.addCleanup(self.theirs.close)
        self.addCleanup(self.ours.close)

    @staticmethod
    def comparable(reply, command):
        if isinstance(reply, Refused):
            return ("refused", str(reply))
        if command[0] in ("TTL", "EXPIRETIME") and reply > 0:
            return ("about", True)  # a second may have passed between the two
        return reply

    def test_wrong_options_get_the_errors_of_redis(self):
        for line in ("SET k v", "GETEX k EX abc", "GETEX k EX 0", "GETEX k EX", "GETEX k PXAT x",
                     "WAIT abc def", "WAIT 0 abc", "WAIT 0 -5", "WAIT -1 0", "WAIT 0",
                     "SCRIPT FLUSH", "SCRIPT FLUSH ASYNC", "SCRIPT FLUSH sync", "SCRIPT FLUSH WHAT",
                     "SCRIPT FLUSH SYNC X", "CLIENT NO-EVICT on", "CLIENT NO-EVICT maybe",
                     "CONFIG GET", "INFO a b", "INFO nope", "SETEX k abc v", "SET k v EX abc"):
            replies = []
            for client in (self.theirs, self.ours):
                client.send(*line.split())
                replies.append(self.comparable(client.reply(), line.split()))
            self.assertEqual(*replies, line)

    def test_the_answers_are_those_of_redis(self):
        seed = random.randrange(1 << 32)
        rng = random.Random(seed)
        done = []
        for command in random_commands(rng, COMMANDS):
            done.append(command)
            replies = []
            for client in (self.theirs, self.ours):
                client.send(*command)
                replies.append(self.comparable(client.reply(), command))
            self.assertEqual(replies[0], replies[1],
                             f"seed {seed}: Redis and we differ upon {done[-12:]}")


if __name__ == "__main__":
    cli.main()
