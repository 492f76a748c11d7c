"""What a call answers. Receipts, notes and metadata are bytes; names of things are str."""

from __future__ import annotations

import ctypes
import enum
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, Union

from . import _library
from .errors import DedupError, error_of


Number = TypeVar("Number", bound=enum.IntEnum)


class Unanswered(enum.IntEnum):
    """What becomes of a claim that nobody answers before its lease runs out."""

    RERUN = 1  # the next claim takes it over and works again
    HOLD = 2  # the key waits for a decision: Cache.resolve


class End(enum.IntEnum):
    """How a claim came to its end, or why it waits."""

    LEASE_RAN_OUT = 1
    EXPIRED = 2
    RELEASED = 3
    RESOLVED = 4
    FORGOTTEN = 5
    HELD = 6
    RESTARTED = 7


@dataclass(slots=True)
class Claim:
    """Whoever has it works. A key and its fence are all that counts: it may be stored anywhere."""

    key: bytes
    claim_sequence: int
    deadline_ms: int = 0  # when it may be lost; 0: never, or not known
    attempt: int = 1


@dataclass(slots=True)
class Previous:
    """The claim before this one."""

    end: End | int
    attempt: int
    claim_sequence: int
    began_ms: int  # 0: not known
    ended_ms: int
    owner: str
    note: bytes
    event_id: str
    reason: str
    by: str


@dataclass(slots=True)
class Claimed:
    claim: Claim
    previous: Previous | None = None


@dataclass(slots=True)
class Completed:
    receipt: bytes
    completed_at_ms: int
    expires_at_ms: int  # 0: never
    claim_sequence: int
    attempt: int
    event_id: str
    metadata: bytes


@dataclass(slots=True)
class InFlight:
    owner: str
    since_ms: int
    lease_until_ms: int  # 0: no lease
    expires_at_ms: int  # 0: never
    claim_sequence: int
    attempt: int
    event_id: str
    metadata: bytes
    unanswered: Unanswered | int
    held: bool  # nobody works: it waits for a decision


@dataclass(slots=True)
class Mismatch:
    """The key is known with another fingerprint."""

    fingerprint: str
    completed: bool
    since_ms: int
    conflicts: int


@dataclass(slots=True)
class Held:
    """Nobody answered the last claim, and nobody works."""

    previous: Previous


@dataclass(slots=True)
class Absent:
    pass


@dataclass(slots=True)
class New:
    claim_sequence: int
    previous: Previous | None = None


ClaimOutcome = Union[Claimed, Completed, InFlight, Mismatch, Held]
LookupOutcome = Union[Absent, Completed, InFlight]
RememberOutcome = Union[New, Completed, InFlight, Mismatch, Held]

_ERROR, _CLAIMED, _COMPLETED, _IN_FLIGHT, _MISMATCH = range(5)
_HELD, _ABSENT, _NEW, _DONE, _NOTHING = range(5, 10)

# A dedup_answer, and the places of what is read from it.
_ROW = "IiQQQqqqqQIiIIII" + 6 * "QQ" + "Q"
_KIND, _CODE, _TAG, _FENCE, _HEAD, _DEADLINE, _SINCE, _LEASE, _EXPIRES, _CONFLICTS = range(10)
_ATTEMPT, _OS_ERROR, _UNANSWERED, _IS_HELD, _IS_COMPLETED = range(10, 15)
_RECEIPT, _METADATA, _EVENT_ID, _OWNER, _FINGERPRINT, _MESSAGE = range(16, 28, 2)
_PREVIOUS = 28
ROW_BYTES = struct.calcsize(_ROW)

_rows: dict[int, struct.Struct] = {}
Text = Callable[[int, int], bytes]


def _row_of(row_bytes: int) -> struct.Struct:
    """A newer library's answers are longer."""
    if row_bytes not in _rows:
        _rows[row_bytes] = struct.Struct(f"{_ROW}{row_bytes - ROW_BYTES}x")
    return _rows[row_bytes]


def _known(kind: type[Number], number: int) -> Number | int:
    """A newer library may give a number that has no name here."""
    return kind(number) if number in kind._value2member_map_ else number


def _previous(address: int) -> Previous:
    from_c = _library.Previous.from_address(address)
    taken, text = _library.taken, _library.text_of
    return Previous(
        _known(End, from_c.end),
        from_c.attempt,
        from_c.claim_sequence,
        from_c.began_ms,
        from_c.ended_ms,
        text(taken(from_c.owner)),
        taken(from_c.note),
        text(taken(from_c.event_id)),
        text(taken(from_c.reason)),
        text(taken(from_c.by)),
    )


def _str(row: tuple[int, ...], at: int, text: Text) -> str:
    return _library.text_of(text(row[at], row[at + 1])) if row[at + 1] else ""


def _bytes(row: tuple[int, ...], at: int, text: Text) -> bytes:
    return text(row[at], row[at + 1]) if row[at + 1] else b""


def decode(row: tuple[int, ...], text: Text, key: bytes) -> object:
    """The answer about `key`; an error is given, not raised. True for done, False for nothing."""
    kind = row[_KIND]
    if kind == _ABSENT:
        return Absent()
    if kind == _COMPLETED:
        return Completed(
            _bytes(row, _RECEIPT, text),
            row[_SINCE],
            row[_EXPIRES],
            row[_FENCE],
            row[_ATTEMPT],
            _str(row, _EVENT_ID, text),
            _bytes(row, _METADATA, text),
        )
    if kind == _CLAIMED:
        claim = Claim(key, row[_FENCE], row[_DEADLINE], row[_ATTEMPT])
        return Claimed(claim, _previous(row[_PREVIOUS]) if row[_PREVIOUS] else None)
    if kind == _DONE:
        return row[_DEADLINE] or True
    if kind == _NOTHING:
        return False
    if kind == _NEW:
        return New(row[_FENCE], _previous(row[_PREVIOUS]) if row[_PREVIOUS] else None)
    if kind == _IN_FLIGHT:
        return InFlight(
            _str(row, _OWNER, text),
            row[_SINCE],
            row[_LEASE],
            row[_EXPIRES],
            row[_FENCE],
            row[_ATTEMPT],
            _str(row, _EVENT_ID, text),
            _bytes(row, _METADATA, text),
            _known(Unanswered, row[_UNANSWERED]),
            bool(row[_IS_HELD]),
        )
    if kind == _MISMATCH:
        return Mismatch(
            _str(row, _FINGERPRINT, text), bool(row[_IS_COMPLETED]), row[_SINCE], row[_CONFLICTS]
        )
    if kind == _HELD:
        return Held(_previous(row[_PREVIOUS]))
    message = _bytes(row, _MESSAGE, text).decode("utf-8", "replace")
    return error_of(row[_CODE], message, row[_OS_ERROR], row[_HEAD])


def take_one(outcome: ctypes.c_void_p, key: bytes) -> object:
    """The only answer of `outcome`, which is freed."""
    try:
        answer = _library.library.dedup_outcome_at(outcome, 0)
        row = struct.unpack(_ROW, ctypes.string_at(answer, ROW_BYTES))
        return decode(row, ctypes.string_at, key)
    finally:
        _library.library.dedup_outcome_free(outcome)


def take_rows(outcome: ctypes.c_void_p) -> tuple[list[tuple[int, ...]], Text]:
    """All answers of `outcome`, which lives on, as rows, and what gives their texts."""
    view = _library.View()
    _library.call(_library.library.dedup_outcome_view, outcome, view)
    if not view.count:
        return [], ctypes.string_at
    texts = ctypes.string_at(view.texts, view.texts_bytes)
    first = view.texts
    packed = ctypes.string_at(view.answers, view.count * view.answer_bytes)
    rows = list(_row_of(view.answer_bytes).iter_unpack(packed))
    return rows, lambda at, size: texts[at - first : at - first + size]


def take_all(outcome: ctypes.c_void_p, keys: list[bytes]) -> list[Any]:
    """The answers about `keys`. `outcome` is freed."""
    try:
        rows, text = take_rows(outcome)
        return [decode(row, text, key) for row, key in zip(rows, keys)]
    finally:
        _library.library.dedup_outcome_free(outcome)


def take_tagged(
    outcome: ctypes.c_void_p, key_of: Callable[[int], bytes]
) -> list[tuple[int, object]]:
    """Each answer of a queue with its tag. `outcome` is freed."""
    try:
        rows, text = take_rows(outcome)
        return [(row[_TAG], decode(row, text, key_of(row[_TAG]))) for row in rows]
    finally:
        _library.library.dedup_outcome_free(outcome)


__all__ = [
    "Absent", "Claim", "ClaimOutcome", "Claimed", "Completed", "DedupError", "End", "Held",
    "InFlight", "LookupOutcome", "Mismatch", "New", "Previous", "RememberOutcome", "Unanswered",
]
