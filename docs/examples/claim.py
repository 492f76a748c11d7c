#!/usr/bin/env python3
"""Sends an invoice once, however often and from however many processes it is asked to; in Python.

    claim.py STORE INVOICE

STORE is a directory, unix:PATH or tcp://HOST:PORT of a server, or postgresql://... The first run
does the work; every later one gets its result. Exit status: 0 sent, now or earlier; 1 an error;
2 a usage error; 10 somebody else is at it; 17 nobody knows what became of it, and somebody has to
decide.
"""

import sys

from dedupstore import DedupError, OnHold, StillInFlight, Store, idempotent


def main(path, invoice):
    sent = []
    # One process at a time has a store in a directory open for writing; the others wait for it.
    with Store(path, lock_timeout=10) as store:

        # The lease is renewed while the function runs. If it raises, the key is free at once.
        @idempotent(store.cache(), key=lambda invoice: invoice, lease=30, owner="mailer")
        def send(invoice):
            print("sending", invoice, flush=True)
            sent.append(invoice)
            return f"sent {invoice}"

        receipt = send(invoice)
    print("completed:" if sent else "replayed:", receipt)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        print("usage: claim.py STORE INVOICE", file=sys.stderr)
        sys.exit(2)
    try:
        main(*sys.argv[1:])
    except StillInFlight as outcome:
        print(f"claim: {outcome}; try again later", file=sys.stderr)
        sys.exit(10)
    except OnHold as outcome:
        print(f"claim: {outcome}; see `dedupctl held`", file=sys.stderr)
        sys.exit(17)
    except (DedupError, OSError) as error:
        print(f"claim: {error}", file=sys.stderr)
        sys.exit(1)
