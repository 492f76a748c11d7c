"""The C library as ctypes sees it: dedup/dedup.h, structure by structure.

A test compares every field here with the binary interface that the library writes down.
"""

from __future__ import annotations

import ctypes
import os
import threading
from array import array
from collections.abc import Sequence
from ctypes import POINTER, c_char, c_int, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from itertools import accumulate, chain
from typing import Any

from .errors import DedupError, error_of

# The binary interface that this package speaks: it stands in the library's name.
LIBRARY = "libdedup.so.0.2"


def _load() -> ctypes.CDLL:
    name = os.environ.get("DEDUP_LIBRARY", LIBRARY)
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise ImportError(
            f"dedupstore needs the library {name}: {error}; install it, or name its file in the "
            "environment variable DEDUP_LIBRARY"
        ) from None


library = _load()


_NUMBERS = {c_uint32: range(2**32), c_uint64: range(2**64), c_int64: range(-(2**63), 2**63)}


def checked(name: str, value: int, numbers: range = range(2**64)) -> int:
    """The value, if it is one of the numbers: ctypes would cut it to size."""
    if value not in numbers:
        raise ValueError(f"{name} is {value}; it must be {numbers[0]} to {numbers[-1]}")
    return value


class Filled(ctypes.Structure):
    """A structure that the package fills, all but its size."""

    _numbers: dict[str, range]  # of each field that is a number

    def __init_subclass__(cls) -> None:
        fields: list[Any] = list(cls._fields_)
        cls._numbers = {name: _NUMBERS[kind] for name, kind in fields if kind in _NUMBERS}

    def __init__(self, **fields: Any) -> None:
        for name, value in fields.items():
            if name in self._numbers:
                checked(name, value, self._numbers[name])
        super().__init__(size=ctypes.sizeof(self), **fields)


class Bytes(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("size", c_size_t)]


class Error(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t),
        ("code", c_int32),
        ("os_error", c_int32),
        ("head_sequence", c_uint64),
        ("message", c_char * 2000),
    ]


class OpenOptions(Filled):
    _fields_ = [
        ("size", c_size_t),
        ("read_only", c_uint32),
        ("must_exist", c_uint32),
        ("durability", c_uint32),
        ("trust_clock", c_uint32),
        ("flush_interval_ms", c_int64),
        ("lock_timeout_ms", c_int64),
        ("grace_ms", c_int64),
        ("segment_bytes", c_uint64),
        ("keys_max", c_uint64),
        ("bytes_max", c_uint64),
        ("evict_oldest", c_uint32),
        ("mode", c_uint32),
    ]


class CacheOptions(Filled):
    _fields_ = [
        ("size", c_size_t),
        ("ns", Bytes),
        ("ttl_ms", c_int64),
        ("unanswered", c_uint32),
        ("attempts_max", c_uint32),
    ]


class ClaimOptions(Filled):
    _fields_ = [
        ("size", c_size_t),
        ("lease_ms", c_int64),
        ("ttl_ms", c_int64),
        ("expires_at_ms", c_int64),
        ("reclaim_before_ms", c_int64),
        ("unanswered", c_uint32),
        ("attempts_max", c_uint32),
        ("owner", Bytes),
        ("fingerprint", Bytes),
        ("event_id", Bytes),
        ("metadata", Bytes),
    ]


class CompleteOptions(Filled):
    _fields_ = [
        ("size", c_size_t),
        ("ttl_ms", c_int64),
        ("set_metadata", c_uint32),
        ("reserved", c_uint32),
        ("metadata", Bytes),
    ]


class Resolution(Filled):
    _fields_ = [
        ("size", c_size_t),
        ("decision", c_uint32),
        ("reserved", c_uint32),
        ("ttl_ms", c_int64),
        ("receipt", Bytes),
        ("reason", Bytes),
        ("by", Bytes),
    ]


class QueueOptions(Filled):
    _fields_ = [("size", c_size_t), ("threads", c_uint32), ("requests_max", c_uint32)]


class View(Filled):
    _fields_ = [
        ("size", c_size_t),
        ("count", c_size_t),
        ("answers", c_void_p),
        ("answer_bytes", c_size_t),
        ("texts", c_void_p),
        ("texts_bytes", c_size_t),
        ("previous", c_void_p),
        ("previous_bytes", c_size_t),
    ]


class Previous(ctypes.Structure):
    _fields_ = [
        ("end", c_uint32),
        ("attempt", c_uint32),
        ("claim_sequence", c_uint64),
        ("began_ms", c_int64),
        ("ended_ms", c_int64),
        ("owner", Bytes),
        ("note", Bytes),
        ("event_id", Bytes),
        ("reason", Bytes),
        ("by", Bytes),
    ]


class Answer(ctypes.Structure):
    _fields_ = [
        ("kind", c_uint32),
        ("code", c_int32),
        ("tag", c_uint64),
        ("claim_sequence", c_uint64),
        ("head_sequence", c_uint64),
        ("deadline_ms", c_int64),
        ("since_ms", c_int64),
        ("lease_until_ms", c_int64),
        ("expires_at_ms", c_int64),
        ("conflicts", c_uint64),
        ("attempt", c_uint32),
        ("os_error", c_int32),
        ("unanswered", c_uint32),
        ("held", c_uint32),
        ("completed", c_uint32),
        ("reserved", c_uint32),
        ("receipt", Bytes),
        ("metadata", Bytes),
        ("event_id", Bytes),
        ("owner", Bytes),
        ("fingerprint", Bytes),
        ("message", Bytes),
        ("previous", c_void_p),
    ]


class Counts(ctypes.Structure):
    _fields_ = [("in_flight", c_uint64), ("completed", c_uint64), ("released", c_uint64)]


Progress = ctypes.CFUNCTYPE(c_int, c_void_p, c_uint64, c_uint64)


class SweepOptions(Filled):
    _fields_ = [
        ("size", c_size_t),
        ("dry_run", c_uint32),
        ("trust_clock", c_uint32),
        ("compact", c_uint32),
        ("skip_retained", c_uint32),
        ("now_ms", c_int64),
        ("time_max_ms", c_int64),
        ("records_max", c_uint64),
        ("bytes_max", c_uint64),
        ("unanswered_max", c_uint64),
        ("progress", Progress),
        ("context", c_void_p),
    ]


class SweptNamespace(ctypes.Structure):
    _fields_ = [("ns", Bytes), ("removed", Counts), ("retained", Counts)]


class Unanswered(ctypes.Structure):
    _fields_ = [
        ("ns", Bytes),
        ("key", Bytes),
        ("owner", Bytes),
        ("claim_sequence", c_uint64),
        ("claimed_at_ms", c_int64),
        ("expired_at_ms", c_int64),
        ("attempt", c_uint32),
        ("reserved", c_uint32),
        ("event_id", Bytes),
        ("note", Bytes),
    ]


class SweepReport(ctypes.Structure):
    _fields_ = [
        ("now_ms", c_int64),
        ("dry_run", c_uint32),
        ("finished", c_uint32),
        ("withheld", c_uint32),
        ("withheld_by_reset", c_uint32),
        ("withheld_jump_from_ms", c_int64),
        ("withheld_since_ms", c_int64),
        ("withheld_until_ms", c_int64),
        ("removed", Counts),
        ("retained", Counts),
        ("evicted", c_uint64),
        ("next_expiry_ms", c_int64),
        ("segments_dropped", c_uint64),
        ("segments_compacted", c_uint64),
        ("records_dropped", c_uint64),
        ("records_moved", c_uint64),
        ("bytes_before", c_uint64),
        ("bytes_after", c_uint64),
        ("longest_pause_us", c_uint64),
        ("duration_us", c_uint64),
        ("damaged", c_uint64),
        ("damage", Bytes),
        ("namespaces_count", c_size_t),
        ("namespaces", POINTER(POINTER(SweptNamespace))),
        ("unanswered_count", c_size_t),
        ("unanswered", POINTER(POINTER(Unanswered))),
    ]


class Stats(ctypes.Structure):
    _fields_ = [
        ("store_id", Bytes),
        ("streams", Counts),
        ("records", c_uint64),
        ("last_sequence", c_uint64),
        ("time_high_ms", c_int64),
        ("clock_ms", c_int64),
        ("withheld", c_uint32),
        ("catalog_rebuilt", c_uint32),
        ("withheld_until_ms", c_int64),
        ("segments_sealed", c_uint64),
        ("segments_unsealed", c_uint64),
        ("log_bytes", c_uint64),
        ("catalog_bytes", c_uint64),
        ("tail_bytes", c_uint64),
        ("memory_bytes", c_uint64),
        ("torn_bytes_dropped", c_uint64),
        ("evicted", c_uint64),
        ("last_sweep_ms", c_int64),
        ("damaged", c_uint64),
        ("damage", Bytes),
        ("background_error", Bytes),
        ("sweep_error", Bytes),
        ("write_error", Bytes),
    ]


# By their names in dedup.h, for the test that compares them.
STRUCTS = {
    "dedup_bytes": Bytes,
    "dedup_error": Error,
    "dedup_open_options": OpenOptions,
    "dedup_cache_options": CacheOptions,
    "dedup_claim_options": ClaimOptions,
    "dedup_complete_options": CompleteOptions,
    "dedup_resolution": Resolution,
    "dedup_queue_options": QueueOptions,
    "dedup_view": View,
    "dedup_previous": Previous,
    "dedup_answer": Answer,
    "dedup_counts": Counts,
    "dedup_sweep_options": SweepOptions,
    "dedup_swept_namespace": SweptNamespace,
    "dedup_unanswered": Unanswered,
    "dedup_sweep_report": SweepReport,
    "dedup_stats": Stats,
}

_KEY = [ctypes.c_char_p, c_size_t]  # that of a bytes object, which may have zeros in it
_OUT = POINTER(c_void_p)
_FLAG = POINTER(c_int)
_ERROR = POINTER(Error)
_ANY = c_void_p

# The calls that give a code and take an error, without that error.
_CALLS: dict[str, list[object]] = {
    "dedup_open": [ctypes.c_char_p, POINTER(OpenOptions), _OUT],
    "dedup_open_memory": [POINTER(OpenOptions), _OUT],
    "dedup_init_postgres": [ctypes.c_char_p, _FLAG],
    "dedup_close": [_ANY],
    "dedup_flush": [_ANY],
    "dedup_now": [_ANY, POINTER(c_int64)],
    "dedup_cache_new": [_ANY, POINTER(CacheOptions), _OUT],
    "dedup_outcome_view": [_ANY, POINTER(View)],
    "dedup_claim": [_ANY, *_KEY, POINTER(ClaimOptions), _OUT],
    "dedup_claim_many": [_ANY, _ANY, c_size_t, POINTER(ClaimOptions), c_size_t, _OUT],
    "dedup_complete": [_ANY, *_KEY, c_uint64, *_KEY, POINTER(CompleteOptions)],
    "dedup_complete_many": [
        _ANY, _ANY, _ANY, _ANY, c_size_t, POINTER(CompleteOptions), c_size_t, _OUT,
    ],
    "dedup_complete_current": [_ANY, *_KEY, *_KEY, POINTER(CompleteOptions)],
    "dedup_release": [_ANY, *_KEY, c_uint64, _FLAG],
    "dedup_release_many": [_ANY, _ANY, _ANY, c_size_t, _OUT],
    "dedup_release_current": [_ANY, *_KEY, _FLAG],
    "dedup_renew": [_ANY, *_KEY, c_uint64, c_int64, POINTER(c_int64)],
    "dedup_renew_many": [_ANY, _ANY, _ANY, c_size_t, c_int64, _OUT],
    "dedup_note": [_ANY, *_KEY, c_uint64, *_KEY],
    "dedup_note_many": [_ANY, _ANY, _ANY, _ANY, c_size_t, _OUT],
    "dedup_hold": [_ANY, *_KEY, c_uint64, *_KEY],
    "dedup_resolve": [_ANY, *_KEY, c_uint64, POINTER(Resolution)],
    "dedup_forget": [_ANY, *_KEY, c_uint64, Bytes, Bytes, _FLAG],
    "dedup_lookup": [_ANY, *_KEY, _OUT],
    "dedup_lookup_many": [_ANY, _ANY, c_size_t, _OUT],
    "dedup_remember": [_ANY, *_KEY, *_KEY, POINTER(ClaimOptions), _OUT],
    "dedup_remember_many": [
        _ANY, _ANY, _ANY, c_size_t, POINTER(ClaimOptions), c_size_t, _OUT,
    ],
    "dedup_wait": [_ANY, *_KEY, c_int64, _OUT],
    "dedup_queue_new": [_ANY, POINTER(QueueOptions), _OUT],
    "dedup_queue_claim": [_ANY, c_uint64, *_KEY, POINTER(ClaimOptions)],
    "dedup_queue_complete": [_ANY, c_uint64, *_KEY, c_uint64, *_KEY, POINTER(CompleteOptions)],
    "dedup_queue_release": [_ANY, c_uint64, *_KEY, c_uint64],
    "dedup_queue_take": [_ANY, _OUT],
    "dedup_sweep": [_ANY, POINTER(SweepOptions), POINTER(POINTER(SweepReport))],
    "dedup_get_stats": [_ANY, POINTER(POINTER(Stats))],
}
for _name, _arguments in _CALLS.items():
    _function = getattr(library, _name)
    _function.argtypes = [*_arguments, _ERROR]
    _function.restype = c_int

for _name in ("store", "cache", "outcome", "queue", "sweep_report", "stats"):
    _function = getattr(library, f"dedup_{_name}_free")
    _function.argtypes = [_ANY]
    _function.restype = None
library.dedup_outcome_at.argtypes = [_ANY, c_size_t]
library.dedup_outcome_at.restype = c_void_p
library.dedup_queue_descriptor.argtypes = [_ANY]
library.dedup_queue_descriptor.restype = c_int
library.dedup_version.restype = ctypes.c_char_p


class _PerThread(threading.local):
    def __init__(self) -> None:
        self.error = Error(size=ctypes.sizeof(Error))
        self.reference = ctypes.pointer(self.error)


_per_thread = _PerThread()


def call(function: object, *arguments: object) -> None:
    """Calls the library; an error becomes an exception."""
    mine = _per_thread
    if function(*arguments, mine.reference) != 0:  # type: ignore[operator]
        raise last_error(mine.error)


def last_error(error: Error) -> DedupError:
    message = error.message.decode("utf-8", "replace")
    return error_of(error.code, message, error.os_error, error.head_sequence)


def as_bytes(text: str | bytes) -> bytes:
    """What a text is in a store. Bytes that are no UTF-8 come back as they were."""
    if isinstance(text, str):
        return text.encode("utf-8", "surrogateescape")
    if isinstance(text, (bytes, bytearray, memoryview)):
        return bytes(text)
    # bytes(17) would be 17 zeros.
    raise TypeError(f"{text!r} is of type {type(text).__name__}; it must be a str or bytes")


def as_c_string(text: bytes) -> bytes:
    """For what C reads up to the first zero byte: a path or a URL."""
    if 0 in text:
        raise ValueError(f"{text!r} has a zero byte in it")
    return text


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def taken(value: Bytes) -> bytes:
    """What a structure that the library has filled points to."""
    return ctypes.string_at(value.data, value.size) if value.size else b""


def lent(data: bytes) -> Bytes:
    """For the time that `data` lives."""
    return Bytes(ctypes.cast(ctypes.c_char_p(data), c_void_p), len(data))


class Packed:
    """Many byte strings as an array of dedup_bytes, by a join and a list of places."""

    def __init__(self, items: Sequence[bytes]) -> None:
        self._joined = b"".join(items)
        first = ctypes.cast(ctypes.c_char_p(self._joined), c_void_p).value or 0
        sizes = list(map(len, items))
        self._places = array("Q", chain.from_iterable(zip(accumulate(sizes, initial=first), sizes)))
        self.address = self._places.buffer_info()[0]
        self.count = len(sizes)
