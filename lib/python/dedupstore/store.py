"""Stores and caches. Any thread may call anything; a forked child gets Closed from every call."""

from __future__ import annotations

import atexit
import ctypes
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from . import _library, outcomes
from ._library import Packed, as_bytes, as_c_string, call, lent, library
from .errors import Code, DedupError, InvalidArgument
from .options import (
    Seconds, Text, _all_bytes, claim_options, complete_options, fence, fences_of, grace_ms,
    milliseconds, options_of,
)
from .outcomes import Claim, ClaimOutcome, InFlight, LookupOutcome, RememberOutcome, Unanswered
from .reports import Stats, SweepReport, stats_of, sweep_report_of

_WAIT_SLICE = 0.25  # seconds within the library, where Ctrl-C is not heard


class _Handle:
    """What the library gave, and gives up when nobody uses it any more; in a fork, too."""

    __slots__ = ("pointer", "__weakref__")

    def __init__(self, free: Callable[[ctypes.c_void_p], None], pointer: ctypes.c_void_p) -> None:
        self.pointer = pointer
        # Not when the interpreter ends: a daemon thread may still be within the library.
        weakref.finalize(self, free, pointer).atexit = False


_open: weakref.WeakSet[_Handle] = weakref.WeakSet()  # stores


def _close_all() -> None:
    for handle in list(_open):
        library.dedup_close(handle.pointer, None)  # whoever is within gets his answer, or `closed`


atexit.register(_close_all)


def init_postgres(url: str) -> bool:
    """Makes the schema that a store in PostgreSQL needs, or brings it up to date. False: it was."""
    changed = ctypes.c_int()
    call(library.dedup_init_postgres, as_c_string(as_bytes(url)), changed)
    return bool(changed.value)


class Store:
    """A store: in a directory, behind a server ("unix:PATH", "tcp://HOST:PORT", "tls://HOST:PORT"),
    in PostgreSQL ("postgresql://..."), or, with None, in memory. Use it with `with`, or close it.

    `lock_timeout`: how long to wait for another process that has the directory open for writing;
    Ctrl-C is heard when that is over. `grace`: behind an expiry; 0 or timedelta(0): none.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        *,
        read_only: bool = False,
        create: bool = True,
        sync: bool = True,
        trust_clock: bool = False,
        flush_interval: Seconds | None = None,
        lock_timeout: Seconds | None = None,
        grace: Seconds | None = None,
        segment_bytes: int = 0,
        keys_max: int = 0,
        bytes_max: int = 0,
        evict_oldest: bool = False,
        mode: int = 0,
    ) -> None:
        options = _library.OpenOptions(
            read_only=read_only,
            must_exist=not create,
            durability=0 if sync else 1,
            trust_clock=trust_clock,
            flush_interval_ms=milliseconds(flush_interval),
            lock_timeout_ms=milliseconds(lock_timeout or None),
            grace_ms=grace_ms(grace),
            segment_bytes=segment_bytes,
            keys_max=keys_max,
            bytes_max=bytes_max,
            evict_oldest=evict_oldest,
            mode=mode,
        )
        pointer = ctypes.c_void_p()
        if path is None:
            call(library.dedup_open_memory, options, pointer)
        else:
            call(library.dedup_open, as_c_string(os.fsencode(path)), options, pointer)
        self._handle = _Handle(library.dedup_store_free, pointer)
        _open.add(self._handle)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives up files and locks; says if that failed. Later calls raise Closed."""
        call(library.dedup_close, self._handle.pointer)

    def flush(self) -> None:
        call(library.dedup_flush, self._handle.pointer)

    def now_ms(self) -> int:
        """The store's time, in milliseconds since 1970."""
        now = ctypes.c_int64()
        call(library.dedup_now, self._handle.pointer, now)
        return now.value

    def cache(
        self,
        ns: Text = "default",
        *,
        ttl: Seconds | None = None,
        unanswered: Unanswered = Unanswered.RERUN,
        attempts_max: int = 0,
    ) -> Cache:
        """A namespace of the store. `ttl`: how long receipts live; None: a day; FOREVER."""
        return Cache(self, ns, ttl=ttl, unanswered=unanswered, attempts_max=attempts_max)

    def sweep(
        self,
        *,
        dry_run: bool = False,
        trust_clock: bool = False,
        compact: bool = False,
        skip_retained: bool = False,
        now_ms: int = 0,
        time_max: Seconds | None = None,
        records_max: int = 0,
        bytes_max: int = 0,
        unanswered_max: int = 0,
        progress: Callable[[int, int], object] | None = None,
    ) -> SweepReport:
        """Removes what has expired. `progress(done, total)` ends it early by giving True.
        `skip_retained`: `retained` may be left at 0 where counting costs a scan.
        """
        raised: list[BaseException] = []

        def step(_: object, done: int, total: int) -> int:
            try:
                return 1 if progress is not None and progress(done, total) else 0
            except BaseException as error:  # must not cross the library
                raised.append(error)
                return 1

        back = _library.Progress(step) if progress is not None else _library.Progress(0)
        options = _library.SweepOptions(
            dry_run=dry_run,
            trust_clock=trust_clock,
            compact=compact,
            skip_retained=skip_retained,
            now_ms=now_ms,
            time_max_ms=milliseconds(time_max),
            records_max=records_max,
            bytes_max=bytes_max,
            unanswered_max=unanswered_max,
            progress=back,
        )
        report = ctypes.POINTER(_library.SweepReport)()
        call(library.dedup_sweep, self._handle.pointer, options, report)
        try:
            if raised:
                raise raised[0]
            return sweep_report_of(report.contents)
        finally:
            library.dedup_sweep_report_free(report)

    def stats(self) -> Stats:
        pointer = ctypes.POINTER(_library.Stats)()
        call(library.dedup_get_stats, self._handle.pointer, pointer)
        try:
            return stats_of(pointer.contents)
        finally:
            library.dedup_stats_free(pointer)


class Cache:
    """A namespace of a store, and the claim protocol in it.

    Keys, receipts and the like are str (UTF-8) or bytes; times are seconds or timedeltas. A cache
    keeps its store open, and needs no closing. The _many calls give DedupErrors among their
    answers, where a single call raises them.
    """

    def __init__(
        self,
        store: Store,
        ns: Text = "default",
        *,
        ttl: Seconds | None = None,
        unanswered: Unanswered = Unanswered.RERUN,
        attempts_max: int = 0,
    ) -> None:
        name = as_bytes(ns)
        if not name:  # in C that is the default
            raise InvalidArgument(Code.INVALID_ARGUMENT, "the namespace is empty")
        options = _library.CacheOptions(
            ns=lent(name), ttl_ms=milliseconds(ttl), unanswered=unanswered,
            attempts_max=attempts_max,
        )
        pointer = ctypes.c_void_p()
        call(library.dedup_cache_new, store._handle.pointer, options, pointer)
        self.store = store
        self._handle = _Handle(library.dedup_cache_free, pointer)
        self._attempts_max = attempts_max  # for once.py
        # Caches of which this is the same are one cache.
        self._same = (store._handle, name, options.ttl_ms, int(unanswered), attempts_max)
        self._lock = threading.Lock()
        self._heartbeats: dict[int, object] = {}  # by lease; see once.py

    def _one(self, function: Any, key: Text, *arguments: object) -> Any:
        name = as_bytes(key)
        outcome = ctypes.c_void_p()
        call(function, self._handle.pointer, name, len(name), *arguments, outcome)
        return outcomes.take_one(outcome, name)

    def claim(self, key: Text, options: _library.ClaimOptions | None = None, **more: Any
              ) -> ClaimOutcome:
        """Claims the key if nobody holds it. For the options see claim_options."""
        return cast(ClaimOutcome, self._one(library.dedup_claim, key,
                                            options_of(options, more)))

    def claim_many(
        self, keys: Iterable[Text], options: _library.ClaimOptions | None = None, **more: Any
    ) -> list[ClaimOutcome | DedupError]:
        """At the cost of one flush. The options are those of each claim."""
        names = _all_bytes(keys)
        packed = Packed(names)
        options = options_of(options, more)
        outcome = ctypes.c_void_p()
        call(library.dedup_claim_many, self._handle.pointer, packed.address, packed.count, options,
             0 if options is None else 1, outcome)
        return outcomes.take_all(outcome, names)

    def complete(
        self, claim: Claim, receipt: Text = b"", *, ttl: Seconds | None = None,
        metadata: Text | None = None,
    ) -> None:
        """Stores the receipt that every later claim of the key gets."""
        kept = as_bytes(receipt)
        call(library.dedup_complete, self._handle.pointer, claim.key, len(claim.key),
             fence(claim.claim_sequence), kept, len(kept), complete_options(ttl, metadata))

    def complete_many(
        self, completions: Sequence[tuple[Claim, Text]], *, ttl: Seconds | None = None,
        metadata: Text | None = None,
    ) -> list[bool | DedupError]:
        completions = list(completions)  # so that nobody changes it meanwhile
        claims = [claim for claim, _ in completions]
        keys = Packed([claim.key for claim in claims])
        receipts = Packed(_all_bytes(receipt for _, receipt in completions))
        fences = fences_of(claims)
        options = complete_options(ttl, metadata)
        outcome = ctypes.c_void_p()
        call(library.dedup_complete_many, self._handle.pointer, keys.address,
             fences.buffer_info()[0], receipts.address, keys.count, options,
             0 if options is None else 1, outcome)
        return outcomes.take_all(outcome, [claim.key for claim in claims])

    def complete_current(self, key: Text, receipt: Text = b"", *, ttl: Seconds | None = None,
                         metadata: Text | None = None) -> None:
        """Completes whatever claim is current, for callers that have none; not of a held key."""
        name, kept = as_bytes(key), as_bytes(receipt)
        call(library.dedup_complete_current, self._handle.pointer, name, len(name), kept, len(kept),
             complete_options(ttl, metadata))

    def release(self, claim: Claim) -> bool:
        """Gives the claim up so that somebody can try again. False: there is nothing to release."""
        released = ctypes.c_int()
        call(library.dedup_release, self._handle.pointer, claim.key, len(claim.key),
             fence(claim.claim_sequence), released)
        return bool(released.value)

    def release_many(self, claims: Sequence[Claim]) -> list[bool | DedupError]:
        return self._on_claims(library.dedup_release_many, claims)

    def release_current(self, key: Text) -> bool:
        """Releases whatever claim is current; not of a held key, which is to be resolved."""
        name, released = as_bytes(key), ctypes.c_int()
        call(library.dedup_release_current, self._handle.pointer, name, len(name), released)
        return bool(released.value)

    def renew(self, claim: Claim, lease: Seconds) -> Claim:
        """Lets the lease run until so long from now, and keeps the fence."""
        deadline = ctypes.c_int64()
        call(library.dedup_renew, self._handle.pointer, claim.key, len(claim.key),
             fence(claim.claim_sequence), milliseconds(lease), deadline)
        return Claim(claim.key, claim.claim_sequence, deadline.value, claim.attempt)

    def renew_many(self, claims: Sequence[Claim], lease: Seconds) -> list[int | DedupError]:
        """Gives the new deadlines, in milliseconds since 1970."""
        return self._on_claims(library.dedup_renew_many, claims, milliseconds(lease))

    def _on_claims(self, function: Any, claims: Sequence[Claim], *arguments: object) -> list[Any]:
        claims = list(claims)  # so that nobody changes it meanwhile
        names = [claim.key for claim in claims]
        keys = Packed(names)
        fences = fences_of(claims)
        outcome = ctypes.c_void_p()
        call(function, self._handle.pointer, keys.address, fences.buffer_info()[0], keys.count,
             *arguments, outcome)
        return outcomes.take_all(outcome, names)

    def note(self, claim: Claim, metadata: Text) -> None:
        """Writes down what the holder is about to do; durable before it returns. Not once the key is
        held."""
        kept = as_bytes(metadata)
        call(library.dedup_note, self._handle.pointer, claim.key, len(claim.key),
             fence(claim.claim_sequence), kept, len(kept))

    def note_many(self, notes: Sequence[tuple[Claim, Text]]) -> list[bool | DedupError]:
        """Pairs of claim and metadata, at the cost of one flush."""
        notes = list(notes)  # so that nobody changes it meanwhile
        names = [claim.key for claim, _ in notes]
        keys, texts = Packed(names), Packed(_all_bytes(metadata for _, metadata in notes))
        fences = fences_of([claim for claim, _ in notes])
        outcome = ctypes.c_void_p()
        call(library.dedup_note_many, self._handle.pointer, keys.address, fences.buffer_info()[0],
             texts.address, keys.count, outcome)
        return outcomes.take_all(outcome, names)

    def hold(self, claim: Claim, reason: Text) -> None:
        """For a holder who cannot say whether its work was done: nobody works until resolve()."""
        kept = as_bytes(reason)
        call(library.dedup_hold, self._handle.pointer, claim.key, len(claim.key),
             fence(claim.claim_sequence), kept, len(kept))

    def resolve(self, key: Text, claim_sequence: int, *, receipt: Text | None, reason: Text,
                by: Text = "", ttl: Seconds | None = None) -> None:
        """Answers for a claim whose holder did not. `receipt`: it was done; None: it was not."""
        name = as_bytes(key)
        kept = b"" if receipt is None else as_bytes(receipt)
        why, who = as_bytes(reason), as_bytes(by)
        resolution = _library.Resolution(
            decision=2 if receipt is None else 1, ttl_ms=milliseconds(ttl), receipt=lent(kept),
            reason=lent(why), by=lent(who),
        )
        call(library.dedup_resolve, self._handle.pointer, name, len(name), fence(claim_sequence),
             resolution)

    def forget(self, key: Text, *, reason: Text, by: Text = "", claim_sequence: int = 0) -> bool:
        """Makes a completed key claimable again. False: it is not completed."""
        name, why, who = as_bytes(key), as_bytes(reason), as_bytes(by)
        forgotten = ctypes.c_int()
        call(library.dedup_forget, self._handle.pointer, name, len(name), fence(claim_sequence),
             lent(why), lent(who), forgotten)
        return bool(forgotten.value)

    def lookup(self, key: Text) -> LookupOutcome:
        """What is known of the key; appends nothing."""
        return cast(LookupOutcome, self._one(library.dedup_lookup, key))

    def lookup_many(self, keys: Iterable[Text]) -> list[LookupOutcome | DedupError]:
        names = _all_bytes(keys)
        packed = Packed(names)
        outcome = ctypes.c_void_p()
        call(library.dedup_lookup_many, self._handle.pointer, packed.address, packed.count, outcome)
        return outcomes.take_all(outcome, names)

    def remember(self, key: Text, receipt: Text = b"", **options: Any) -> RememberOutcome:
        """Claims and completes in one append, for work that is done by recording it."""
        name, kept = as_bytes(key), as_bytes(receipt)
        outcome = ctypes.c_void_p()
        call(library.dedup_remember, self._handle.pointer, name, len(name), kept, len(kept),
             claim_options(**options) if options else None, outcome)
        return cast(RememberOutcome, outcomes.take_one(outcome, name))

    def remember_many(
        self, items: Sequence[tuple[Text, Text]], **options: Any
    ) -> list[RememberOutcome | DedupError]:
        """Pairs of key and receipt."""
        items = list(items)  # so that nobody changes it meanwhile
        names = _all_bytes(key for key, _ in items)
        keys, receipts = Packed(names), Packed(_all_bytes(receipt for _, receipt in items))
        made = claim_options(**options) if options else None
        outcome = ctypes.c_void_p()
        call(library.dedup_remember_many, self._handle.pointer, keys.address, receipts.address,
             keys.count, made, 0 if made is None else 1, outcome)
        return outcomes.take_all(outcome, names)

    def wait(self, key: Text, timeout: Seconds) -> LookupOutcome:
        """Blocks while the key is in flight and its lease runs, at most so long. Ctrl-C ends it."""
        until = time.monotonic() + milliseconds(timeout or None) / 1000
        while True:
            left = max(until - time.monotonic(), 0)
            outcome, over = self._look(key, min(left, _WAIT_SLICE))
            if over or left <= _WAIT_SLICE:
                return outcome

    def _look(self, key: Text, seconds: float = 0) -> tuple[LookupOutcome, bool]:
        """What dedup_wait gives after so long, and whether there is nothing more to wait for."""
        outcome = cast(LookupOutcome,
                       self._one(library.dedup_wait, key, math.ceil(seconds * 1000)))
        if not isinstance(outcome, InFlight) or outcome.held:
            return outcome, True
        return outcome, 0 < outcome.lease_until_ms < self.store.now_ms()
