"""dedupctl serve killed under load: what was acknowledged is there, and no key has two winners.

DEDUP_CRASHES says how often it is killed, 5 times unless said otherwise.
"""

import os
import random
import threading

import cli
from resp import Client, Refused

CRASHES = int(os.environ.get("DEDUP_CRASHES", "5"))
CLIENTS = 12
PIPELINE = 16


class Caller(threading.Thread):
    """Claims and completes keys that others want too, until the server is gone. Notes what it was
    told, and what it asked without being told."""

    def __init__(self, path, number, life, keys):
        super().__init__()
        self.path, self.life, self.keys = path, life, keys
        self.random = random.Random(f"{number} {life}")
        self.owner = f"{number}.{life}"
        self.fences = {}      # key: the fence of a claim that was acknowledged
        self.completed = {}   # key: the receipt that was acknowledged
        self.set_first = {}   # key: the value of a SET NX that was acknowledged
        self.asked_set = set()
        self.answered = 0
        self.trouble = None

    def run(self):
        try:
            with Client(self.path) as client:
                while True:
                    self.round(client)
        except (ConnectionError, OSError):
            pass
        except Exception as error:  # pylint: disable=broad-except
            self.trouble = error

    def round(self, client):
        asked = []
        for _ in range(PIPELINE):
            key = f"{self.random.choice(self.keys)}"
            if self.random.random() < 0.5:
                asked.append(("claim", key, ("DEDUP.CLAIM", key, "OWNER", self.owner)))
            else:
                asked.append(("set", key, ("SET", key, self.owner, "NX")))
                self.asked_set.add(key)
        for key, fence in list(self.fences.items()):
            if key not in self.completed:
                asked.append(("complete", key, ("DEDUP.COMPLETE", key, fence, self.owner)))
        client.socket.sendall(b"".join(client.request(*request) for _, _, request in asked))
        for kind, key, _ in asked:
            reply = client.reply()
            if isinstance(reply, Refused):
                raise AssertionError(f"{kind} {key}: {reply}")
            self.answered += 1
            if kind == "claim" and reply[1] == b"claimed":
                self.fences[key] = reply[reply.index(b"claim_sequence") + 1]
            elif kind == "set" and reply == b"OK":
                self.set_first[key] = self.owner
            elif kind == "complete":
                self.completed[key] = self.owner


class Crash(cli.CliTest):
    def test_what_was_acknowledged_is_there(self):
        socket_path = self.store + ".sock"
        fences, completed, first = {}, {}, {}
        answered = 0
        for life in range(CRASHES):
            server = self.serve()
            keys = [f"{life}-{number}" for number in range(2000)]
            callers = [Caller(socket_path, number, life, keys) for number in range(CLIENTS)]
            for caller in callers:
                caller.start()
            self.wait_until(lambda: sum(caller.answered for caller in callers) > 3000,
                            "the server has been busy")
            server.kill()
            server.wait()
            for caller in callers:
                caller.join()
                self.assertIsNone(caller.trouble)
                answered += caller.answered
                for known, told in ((fences, caller.fences), (first, caller.set_first)):
                    twice = known.keys() & told.keys()
                    self.assertFalse(twice, "two winners")
                    known.update(told)
                completed.update(caller.completed)
        self.check(socket_path, fences, completed, first)
        self.assertGreater(answered, 3000 * CRASHES)

    def check(self, socket_path, fences, completed, first):
        server = self.serve()
        with Client(socket_path) as client:
            for key, fence in fences.items():
                found = client.ask_map("DEDUP.LOOKUP", key)
                self.assertEqual(found["claim_sequence"], fence, key)
                if key in completed:
                    self.assertEqual(found["outcome"], b"completed", key)
                    self.assertEqual(found["receipt"].decode(), completed[key], key)
            for key, value in first.items():
                self.assertEqual(client.ask("GET", key).decode(), value, key)
        server.terminate()
        server.communicate(timeout=cli.HANG_SECONDS)
        self.assertEqual(server.returncode, 0)
        self.dedupctl("verify", expect=0)


if __name__ == "__main__":
    cli.main()
