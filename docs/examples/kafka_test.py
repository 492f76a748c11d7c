"""kafka_consumer is killed at random: every event has its effect once, and no offset is left out."""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

BROKER, CONSUMER, DEDUPCTL, SUPPORT = sys.argv[1:]
sys.path.insert(0, SUPPORT)

from postgres_server import BIN, Server  # noqa: E402

EVENTS = int(os.environ.get("DEDUP_KAFKA_EVENTS", "150"))


def main():
    if not BIN:
        print("no PostgreSQL server is installed: run tools/setup")
        return 77
    server = Server()
    directory = tempfile.mkdtemp()
    broker = subprocess.Popen([BROKER, str(EVENTS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True)
    try:
        url = f"postgresql://dedup@/postgres?host={server.directory}"
        subprocess.run([DEDUPCTL, "-s", url, "init"], check=True)
        server.sql("CREATE TABLE payment (event_id text PRIMARY KEY, payload text); CREATE TABLE "
                   "next_offset (kafka_partition int PRIMARY KEY, kafka_offset bigint NOT NULL)")
        brokers = broker.stdout.readline().strip()
        offset, kills, last, began = 0, 0, None, time.monotonic()
        while offset < 2 * EVENTS:
            if time.monotonic() - began > 240:
                raise TimeoutError(f"{offset} of {2 * EVENTS} messages were consumed")
            with open(os.path.join(directory, "log"), "ab") as log:
                consumer = subprocess.Popen([CONSUMER, brokers, "payments", url], stderr=log)
            time.sleep(random.uniform(0.1, 0.7))
            consumer.kill()
            consumer.wait()
            kills += 1
            offset = int(server.sql("SELECT coalesce(max(kafka_offset), 0) FROM next_offset"))
            if last is not None and offset < last:
                raise AssertionError(f"the offset went back from {last} to {offset}")
            last = offset
        effects = server.sql("SELECT count(*), count(DISTINCT payload) FROM payment")
        print(f"{kills} kills, {effects} effects of {EVENTS} events")
        with open(os.path.join(directory, "log"), encoding="utf-8") as log:
            complaints = log.read()
        # A second insert would be refused by the primary key, and said so.
        assert "duplicate key" not in complaints, complaints
        assert effects == f"{EVENTS}|{EVENTS}", effects
        return 0
    finally:
        broker.communicate(input="")
        server.close()
        shutil.rmtree(directory)


if __name__ == "__main__":
    sys.exit(main())
