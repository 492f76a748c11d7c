"""A store in a cluster that loses its primary, in every way: nothing acknowledged is lost.

Writers claim, complete and release without a pause while faults happen; see writer.cpp for what
they check in the end. DEDUP_FAILOVER_ROUNDS: how many faults, 2 unless it says otherwise; each kind
once are 7. DEDUP_FAILOVER_SEED chooses where they begin.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

import cluster

ROUNDS = int(os.environ.get("DEDUP_FAILOVER_ROUNDS", "2"))
SEED = int(os.environ.get("DEDUP_FAILOVER_SEED", "0"))


def kill_primary(c, _):
    node = c.leader()
    node.kill()
    c.wait(lambda: c.leader() not in (None, node), 90, "another primary")
    node.start()


def freeze_primary(c, _):
    """It believes to be the primary when it wakes up, and another one is."""
    node = c.leader()
    node.signal(signal.SIGSTOP)
    c.wait(lambda: c.leader() not in (None, node), 90, "another primary")
    time.sleep(2)
    node.signal(signal.SIGCONT)


def kill_standby(c, rng):
    node = rng.choice([each for each in c.nodes if each is not c.leader()])
    node.kill()
    time.sleep(3)
    node.start()


def terminate_sessions(c, _):
    for _ in range(10):
        c.sql(c.leader(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE "
              "datname = 'postgres' AND pid <> pg_backend_pid() AND random() < 0.5 "
              "AND application_name <> 'Patroni'")
        time.sleep(0.3)


def cancel_waits(c, _, seconds=4):
    """The server says that a commit is done which no standby has."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        c.sql(c.leader(), "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE "
              "wait_event = 'SyncRep'")


def cancel_waits_then_kill(c, rng):
    """And then a standby leads that has not got them. (Patroni promotes none that it has written off
    by then, and the old primary leads on.)"""
    node = c.leader()
    others = [each for each in c.nodes if each is not node]
    for other in others:
        other.kill()
    cancel_waits(c, rng, 1.5)
    node.kill()
    for other in others:
        other.start()
    time.sleep(cluster.TTL + 10)
    node.start()


def cut_network(c, _):
    node = c.leader()
    node.proxy.cut.set()
    time.sleep(4)
    node.proxy.drop()
    node.proxy.cut.clear()


FAULTS = (cancel_waits_then_kill, kill_primary, freeze_primary, cut_network, terminate_sessions,
          cancel_waits, kill_standby)


def main():
    writer_program, dedupctl = sys.argv[1:]
    lacks = cluster.missing()
    if lacks is not None:
        print(lacks)
        return 77  # meson: skipped
    rng = random.Random(SEED)
    c = cluster.Cluster()
    good = False
    writer = None
    try:
        subprocess.run([dedupctl, "-s", c.url(), "init"], check=True)
        writer = subprocess.Popen([writer_program, c.url()], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, text=True)
        time.sleep(2)
        for number in range(ROUNDS):
            fault = FAULTS[(SEED + number) % len(FAULTS)]
            print(f"round {number + 1}: {fault.__name__}", flush=True)
            fault(c, rng)
            c.wait(c.healthy, 180, f"the cluster to recover from {fault.__name__}")
            time.sleep(2)
            if writer.poll() is not None:
                break
        output, _ = writer.communicate(input="", timeout=180)  # the end of its input ends it
        print(output)
        good = writer.returncode == 0
        if good:
            counts = json.loads(output.splitlines()[-1])
            # A run in which nothing was written, or nothing was disturbed, shows nothing.
            good = counts["completed"] > 100 and (counts["failed"] + counts["unknown"] > 0)
    finally:
        if writer is not None and writer.poll() is None:
            writer.kill()  # or it would look for each of its keys in a cluster that is gone
        c.close(keep=not good)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
