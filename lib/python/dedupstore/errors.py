"""What goes wrong, as exceptions. Outcomes that a caller plans for are none: see outcomes."""

from __future__ import annotations

import enum


class Code(enum.IntEnum):
    """The numbers are pinned: they never change their meaning."""

    INVALID_ARGUMENT = 1
    IO = 2
    OUT_OF_SPACE = 3
    CORRUPTION = 4
    UNSUPPORTED_VERSION = 5
    BUSY = 6
    READ_ONLY = 7
    CLOSED = 8
    FAILED = 9
    SEQUENCE_CONFLICT = 10
    STALE_CLAIM = 11
    NOT_CLAIMED = 12
    RECEIPT_MISMATCH = 13
    OUTCOME_UNKNOWN = 14
    UNAVAILABLE = 15


class DedupError(Exception):
    """A call that failed: `code`, and a message that names the thing and the way out."""

    def __init__(self, code: int, message: str, os_error: int = 0, head_sequence: int = 0) -> None:
        super().__init__(code, message, os_error, head_sequence)
        self.code = Code(code) if code in Code._value2member_map_ else code
        self.message = message
        self.os_error = os_error  # errno of the call that failed, or 0
        self.head_sequence = head_sequence

    def __str__(self) -> str:
        name = self.code.name.lower() if isinstance(self.code, Code) else str(self.code)
        return f"{name}: {self.message}"


class InvalidArgument(DedupError, ValueError):
    """The call itself is wrong; nothing was done."""


class Busy(DedupError):
    """Another process holds the store, or a lease still runs."""


class ReadOnly(DedupError):
    """The store was opened without the right to write."""


class Closed(DedupError):
    """The store was closed, or this process is a fork of the one that opened it."""


class StaleClaim(DedupError):
    """The claim was taken over, released or has expired."""


class NotClaimed(DedupError):
    """There is no claim on this key to complete."""


class ReceiptMismatch(DedupError):
    """The key is completed with other bytes."""


class OutcomeUnknown(DedupError):
    """It may or may not have been done: look the key up."""


class Unavailable(DedupError):
    """A service that the store depends on cannot be reached now."""


class Corruption(DedupError):
    """Stored bytes are not what was written."""


class Failed(DedupError):
    """An earlier write or flush failed: reopen the store to go on."""


_CLASSES: dict[int, type[DedupError]] = {
    Code.INVALID_ARGUMENT: InvalidArgument,
    Code.BUSY: Busy,
    Code.READ_ONLY: ReadOnly,
    Code.CLOSED: Closed,
    Code.STALE_CLAIM: StaleClaim,
    Code.NOT_CLAIMED: NotClaimed,
    Code.RECEIPT_MISMATCH: ReceiptMismatch,
    Code.OUTCOME_UNKNOWN: OutcomeUnknown,
    Code.UNAVAILABLE: Unavailable,
    Code.CORRUPTION: Corruption,
    Code.FAILED: Failed,
}


def error_of(code: int, message: str, os_error: int = 0, head_sequence: int = 0) -> DedupError:
    return _CLASSES.get(code, DedupError)(code, message, os_error, head_sequence)
