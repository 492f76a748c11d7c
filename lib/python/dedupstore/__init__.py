"""Has this idempotency key been handled? A durable dedup store.

    from dedupstore import Store, idempotent

    with Store("/var/lib/payments") as store:
        cache = store.cache("orders")

        @idempotent(cache, key=lambda order: order.id, lease=30)
        def pay(order):
            return bank.pay(order.amount)      # runs once per order, however often it is called

The package needs the library, libdedup, and nothing else. It is called dedupstore because `dedup`
on PyPI is another program.
"""

from ._library import library as _c
from .aio import AsyncCache
from .errors import (
    Busy, Closed, Code, Corruption, DedupError, Failed, InvalidArgument, NotClaimed, OutcomeUnknown,
    ReadOnly, ReceiptMismatch, StaleClaim, Unavailable,
)
from .once import (
    Attempt, NotRun, OnHold, OtherRequest, StillInFlight, current_attempt, idempotent, per_process,
)
from .options import FOREVER, NEVER, claim_options
from .outcomes import (
    Absent, Claim, Claimed, ClaimOutcome, Completed, End, Held, InFlight, LookupOutcome, Mismatch,
    New, Previous, RememberOutcome, Unanswered,
)
from .reports import Counts, Stats, SweepReport, SweptNamespace, UnansweredClaim
from .store import Cache, Store, init_postgres

__version__: str = _c.dedup_version().decode()

__all__ = [
    "FOREVER", "NEVER", "Absent", "AsyncCache", "Attempt", "Busy", "Cache", "Claim", "ClaimOutcome",
    "Claimed", "Closed", "Code", "Completed", "Corruption", "Counts", "DedupError", "End", "Failed",
    "Held", "InFlight", "InvalidArgument", "LookupOutcome", "Mismatch", "New", "NotClaimed",
    "NotRun", "OnHold", "OtherRequest", "OutcomeUnknown", "Previous", "ReadOnly", "ReceiptMismatch",
    "RememberOutcome", "StaleClaim", "Stats", "StillInFlight", "Store", "SweepReport",
    "SweptNamespace", "Unanswered", "UnansweredClaim", "Unavailable", "claim_options",
    "current_attempt", "idempotent", "init_postgres", "per_process",
]
