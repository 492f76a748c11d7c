"""What calls are given, as the library takes it: texts, times, fences, options."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, Union

from . import _library
from ._library import as_bytes, checked, lent
from .outcomes import Claim, Unanswered

Text = Union[str, bytes]
Seconds = Union[float, timedelta]

FOREVER = math.inf  # as a time to live: never expires
NEVER = 2**32 - 1  # as attempts_max: no limit, whatever the cache says
_FOREVER_MS = 2**63 - 1


def milliseconds(time: Seconds | None) -> int:
    """At least 1; None is 0, the default. What is too short for a millisecond is refused."""
    if time is None:
        return 0
    seconds = time.total_seconds() if isinstance(time, timedelta) else time
    if math.isinf(seconds) and seconds > 0:
        return _FOREVER_MS
    if not 0.001 <= seconds < 1e15:
        raise ValueError(f"{seconds} seconds: it must be at least 0.001")
    return round(seconds * 1000)


def grace_ms(grace: Seconds | None) -> int:
    """0 is the default, so none has a number of its own."""
    return -1 if grace is not None and not grace else milliseconds(grace)


def claim_options(
    *,
    lease: Seconds | None = None,
    ttl: Seconds | None = None,
    expires_at_ms: int = 0,
    reclaim_before_ms: int = 0,
    unanswered: Unanswered | None = None,
    attempts_max: int = 0,
    owner: Text = "",
    fingerprint: Text = "",
    event_id: Text = "",
    metadata: Text = b"",
) -> _library.ClaimOptions:
    """The options of a claim, made once for many of them."""
    texts = {
        "owner": as_bytes(owner),
        "fingerprint": as_bytes(fingerprint),
        "event_id": as_bytes(event_id),
        "metadata": as_bytes(metadata),
    }
    options = _library.ClaimOptions(
        lease_ms=milliseconds(lease),
        ttl_ms=milliseconds(ttl),
        expires_at_ms=expires_at_ms,
        reclaim_before_ms=reclaim_before_ms,
        unanswered=unanswered or 0,
        attempts_max=attempts_max,
        **{name: lent(text) for name, text in texts.items()},
    )
    options.texts = texts  # they live as long as the options
    return options


def options_of(
    made: _library.ClaimOptions | None, single: dict[str, Any]
) -> _library.ClaimOptions | None:
    """Of a claim that may be given them made, or one by one."""
    if made is not None and single:
        raise TypeError(f"options are given, and {', '.join(single)} as well: put all into one")
    return claim_options(**single) if single else made


def complete_options(
    ttl: Seconds | None, metadata: Text | None
) -> _library.CompleteOptions | None:
    if ttl is None and metadata is None:
        return None
    kept = b"" if metadata is None else as_bytes(metadata)
    options = _library.CompleteOptions(
        ttl_ms=milliseconds(ttl), set_metadata=metadata is not None, metadata=lent(kept)
    )
    options.texts = [kept]
    return options


def fence(claim_sequence: int) -> int:
    return checked("claim_sequence", claim_sequence)


def fences_of(claims: Sequence[Claim]) -> array[int]:
    try:
        return array("Q", [claim.claim_sequence for claim in claims])
    except OverflowError as error:
        raise ValueError(f"the claim_sequence of one of {len(claims)} claims: {error}") from None


def _all_bytes(keys: Iterable[Text]) -> list[bytes]:
    if isinstance(keys, str):
        raise TypeError(f"{keys!r} is one text; many are wanted")
    return [key if type(key) is bytes else as_bytes(key) for key in keys]
