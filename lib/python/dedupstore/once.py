"""Runs a function once per key, however often it is called: in any thread, task or process."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import json
import os
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar, Union

from . import _library
from .aio import AsyncCache
from .errors import DedupError, OutcomeUnknown, StaleClaim
from .options import Seconds, Text, claim_options, milliseconds
from .outcomes import Claim, ClaimOutcome, Claimed, Completed, Held, InFlight, Mismatch, Previous
from .store import Cache

Work = TypeVar("Work", bound=Callable[..., Any])
CacheSource = Union[Cache, Callable[[], Cache]]


class NotRun(Exception):
    """The function did not run, and there is no result of another run: `outcome` says why."""

    def __init__(self, key: bytes, outcome: InFlight | Held | Mismatch, why: str) -> None:
        super().__init__(key, outcome, why)  # what a copy in another process is made of
        self.key = key
        self.outcome = outcome

    def __str__(self) -> str:
        key, _, why = self.args
        return f"{key!r} {why}"


class StillInFlight(NotRun):
    """Somebody else works on the key, and did not finish in time."""


class OnHold(NotRun):
    """Nobody answered the last claim of the key: it waits for Cache.resolve."""


class OtherRequest(NotRun):
    """The key is known with another fingerprint."""


class Attempt:
    """One run of the function, for the function itself: see current_attempt()."""

    def __init__(self, cache: Cache, claim: Claim, previous: Previous | None) -> None:
        self.claim = claim
        self.previous = previous  # the run before, if that did not answer
        self.lost = False  # the lease ran out and somebody else works now
        self._cache = cache
        self._may_have_begun = False

    def note(self, what: Text) -> None:
        """Says what the function is about to do; durable before it returns. If it fails behind
        that, the key is held, as nobody knows what was done, and not released. A note that was not
        written changes nothing. In a coroutine await note_async(), which lets the others go on.
        """
        text = _library.as_bytes(what)
        written = True
        try:
            self._cache.note(self.claim, text)
        except DedupError as error:
            written = isinstance(error, OutcomeUnknown)
            raise
        finally:
            self._may_have_begun = self._may_have_begun or written

    async def note_async(self, what: Text) -> None:
        """As note(), in a thread. One that is cancelled may have been written."""
        try:
            await asyncio.to_thread(self.note, what)
        except asyncio.CancelledError:
            self._may_have_begun = True
            raise


_attempt: contextvars.ContextVar[Attempt | None] = contextvars.ContextVar("attempt", default=None)


def current_attempt() -> Attempt:
    """That of the function that runs now. LookupError outside of one."""
    attempt = _attempt.get()
    if attempt is None:
        raise LookupError("no function decorated with @idempotent runs here")
    return attempt


class _Heartbeat:
    """Renews the leases of what runs, every third of a lease. Its thread ends when nothing does."""

    def __init__(self, cache: Cache, lease: Seconds) -> None:
        self._cache = weakref.ref(cache)
        self._lease = lease
        self._pause = min(milliseconds(lease) / 3000, threading.TIMEOUT_MAX)
        self._changed = threading.Condition()
        self._attempts: set[Attempt] = set()
        self._runs = False

    def add(self, attempt: Attempt) -> None:
        with self._changed:
            self._attempts.add(attempt)
            if not self._runs:
                threading.Thread(target=self._run, name="dedup-heartbeat", daemon=True).start()
                self._runs = True

    def remove(self, attempt: Attempt) -> None:
        with self._changed:
            self._attempts.discard(attempt)
            self._changed.notify()

    def _run(self) -> None:
        try:
            self._beat()
        except BaseException:
            with self._changed:
                self._runs = False  # the next one to come starts another
            raise

    def _beat(self) -> None:
        next_beat = time.monotonic() + self._pause
        while True:
            with self._changed:
                while self._attempts and time.monotonic() < next_beat:
                    self._changed.wait(next_beat - time.monotonic())
                if not self._attempts:
                    self._runs = False
                    return
                attempts = list(self._attempts)
            next_beat = time.monotonic() + self._pause
            cache = self._cache()
            if cache is not None:
                self._renew(cache, attempts)

    def _renew(self, cache: Cache, attempts: list[Attempt]) -> None:
        try:
            answers = cache.renew_many([attempt.claim for attempt in attempts], self._lease)
        except Exception:
            return  # tried again at the next beat; the lease lasts for two more
        for attempt, answer in zip(attempts, answers):
            if isinstance(answer, StaleClaim):
                attempt.lost = True
                self.remove(attempt)


def _heartbeat(cache: Cache, lease: Seconds) -> _Heartbeat:
    with cache._lock:
        beat = cache._heartbeats.get(milliseconds(lease))
        if not isinstance(beat, _Heartbeat):
            beat = cache._heartbeats[milliseconds(lease)] = _Heartbeat(cache, lease)
        return beat


# Of each loop, which keeps them: the queues of the caches that are used in it.
_Queues = weakref.WeakValueDictionary[tuple[object, ...], AsyncCache]
_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Queues] = weakref.WeakKeyDictionary()


def _async_cache(cache: Cache) -> AsyncCache:
    """The one of this loop: of all caches that are the same, however often they are made."""
    of_loop = _loops.setdefault(asyncio.get_running_loop(), weakref.WeakValueDictionary())
    found = of_loop.get(cache._same)
    if found is None:
        found = of_loop[cache._same] = AsyncCache(cache)
        found.live_with_loop()
    return found


def per_process(make: Callable[[], Cache]) -> Callable[[], Cache]:
    """A cache that each process opens for itself, when it first needs it: for programs that fork.

        cache = per_process(lambda: Store("unix:/run/dedup.sock").cache("orders"))
    """
    lock = threading.Lock()
    made: list[tuple[int, Cache]] = []

    def get() -> Cache:
        nonlocal lock
        pid = os.getpid()
        if made and made[-1][0] == pid:
            return made[-1][1]
        with lock:
            if not made or made[-1][0] != pid:
                made.append((pid, make()))  # a parent's stays: the child leaves it alone
            return made[-1][1]

    def forked() -> None:
        nonlocal lock
        lock = threading.Lock()  # a thread of the parent may have held it

    os.register_at_fork(after_in_child=forked)
    return get


class _Once:
    """What a decorated function does around its body."""

    def __init__(self, cache: CacheSource, key: Callable[..., Text], lease: Seconds, wait: float,
                 dumps: Callable[[Any], Text], loads: Callable[[bytes], Any],
                 ttl: Seconds | None, fingerprint: Callable[..., Text] | None,
                 options: dict[str, Any]) -> None:
        self._source = cache
        self._key = key
        self._lease = lease
        self._wait = wait
        self._dumps = dumps
        self._loads = loads
        self._ttl = ttl
        self._fingerprint = fingerprint
        self._options = options

    def cache(self) -> Cache:
        return self._source if isinstance(self._source, Cache) else self._source()

    def key(self, args: Any, kwargs: Any) -> bytes:
        return _library.as_bytes(self._key(*args, **kwargs))

    def claim_options(self, args: Any, kwargs: Any) -> _library.ClaimOptions:
        more = dict(self._options)
        if self._fingerprint is not None:
            more["fingerprint"] = self._fingerprint(*args, **kwargs)
        return claim_options(lease=self._lease, ttl=self._ttl, **more)

    def claim(self, cache: Cache, key: bytes, options: _library.ClaimOptions) -> ClaimOutcome:
        until = time.monotonic() + self._wait
        while True:
            outcome = cache.claim(key, options)
            left = until - time.monotonic()
            if not isinstance(outcome, InFlight) or outcome.held or left <= 0:
                return outcome
            cache.wait(key, max(left, 0.001))

    def result(self, key: bytes, outcome: ClaimOutcome) -> Any:
        """Of another run; raises if there is none."""
        if isinstance(outcome, Completed):
            return self._loads(outcome.receipt)
        if isinstance(outcome, Mismatch):
            raise OtherRequest(key, outcome, "is known with another fingerprint")
        if isinstance(outcome, Held) or (isinstance(outcome, InFlight) and outcome.held):
            raise OnHold(key, outcome, "is held: nobody knows whether its work was done")
        assert isinstance(outcome, InFlight)
        raise StillInFlight(key, outcome, f"is in flight, by {outcome.owner!r}")

    def refuse_awaitable(self, attempt: Attempt, result: Any) -> None:
        if isinstance(result, Coroutine):
            result.close()  # nothing of it has run, so the key is free
        elif inspect.isawaitable(result):
            attempt._may_have_begun = True  # a task may be at work
        else:
            return
        raise TypeError(f"the function returned a {type(result).__name__} that nobody awaits: "
                        "decorate an `async def` that does")

    def kept(self, attempt: Attempt, result: Any) -> tuple[bytes, Any]:
        """The receipt, and what it gives to this caller as to every later one."""
        self.refuse_awaitable(attempt, result)
        attempt._may_have_begun = True  # whatever fails from now on, the work has been done
        receipt = _library.as_bytes(self._dumps(result))
        return receipt, self._loads(receipt)

    def was_last(self, cache: Cache, attempt: Attempt) -> bool:
        most = self._options.get("attempts_max") or cache._attempts_max
        return 0 < most <= attempt.claim.attempt

    def give_up(self, cache: Cache, attempt: Attempt, error: BaseException) -> None:
        """What has failed is free at once, unless it may have had its effect, or never shall be
        tried again.
        """
        try:
            if attempt._may_have_begun or self.was_last(cache, attempt):
                reason = f"{type(error).__name__}: {error}".encode("utf-8", "replace")
                cache.hold(attempt.claim, reason[:4096])
            else:
                cache.release(attempt.claim)
        except DedupError:
            pass  # the lease runs out by itself; the function's own exception says more

    @contextlib.contextmanager
    def running(self, cache: Cache, attempt: Attempt) -> Iterator[None]:
        """The attempt is the current one, and its lease is renewed."""
        try:
            # Not before the claim, which a fork is refused: a thread of the parent may have had the
            # lock that this takes.
            beat = _heartbeat(cache, self._lease)
            beat.add(attempt)
        except BaseException as error:
            self.give_up(cache, attempt, error)
            raise
        token = _attempt.set(attempt)
        try:
            yield
        finally:
            beat.remove(attempt)
            with contextlib.suppress(ValueError):  # a task that is destroyed ends in no context
                _attempt.reset(token)

    def run(self, work: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        cache, key = self.cache(), self.key(args, kwargs)
        outcome = self.claim(cache, key, self.claim_options(args, kwargs))
        if not isinstance(outcome, Claimed):
            return self.result(key, outcome)
        attempt = Attempt(cache, outcome.claim, outcome.previous)
        with self.running(cache, attempt):
            try:
                receipt, result = self.kept(attempt, work(*args, **kwargs))
                cache.complete(attempt.claim, receipt)
                return result
            except BaseException as error:
                self.give_up(cache, attempt, error)
                raise

    async def run_async(self, work: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        cache, key = self.cache(), self.key(args, kwargs)
        queue = _async_cache(cache)
        outcome = await queue.claim_or_wait(key, self._wait, self.claim_options(args, kwargs))
        if not isinstance(outcome, Claimed):
            return self.result(key, outcome)
        attempt = Attempt(cache, outcome.claim, outcome.previous)
        with self.running(cache, attempt):
            try:
                receipt, result = self.kept(attempt, await work(*args, **kwargs))
                await queue.complete(attempt.claim, receipt)
                return result
            except GeneratorExit as error:
                self.give_up(cache, attempt, error)  # the loop has ended: it awaits nothing more
                raise
            except BaseException as error:
                await asyncio.shield(asyncio.to_thread(self.give_up, cache, attempt, error))
                raise


def _is(kind: Callable[[Any], bool], work: Callable[..., Any]) -> bool:
    """Also of an object that is called."""
    return kind(work) or kind(getattr(work, "__call__", None))


def idempotent(
    cache: CacheSource,
    *,
    key: Callable[..., Text],
    lease: Seconds = 30.0,
    wait: float = 0.0,
    ttl: Seconds | None = None,
    fingerprint: Callable[..., Text] | None = None,
    dumps: Callable[[Any], Text] = json.dumps,
    loads: Callable[[bytes], Any] = json.loads,
    **options: Any,
) -> Callable[[Work], Work]:
    """The decorated function, or coroutine function, runs once per key.

    `key` gets the call's arguments. The result of the first run is kept as JSON, and every caller
    gets loads(dumps(result)): the first one, too. While it runs, a thread renews its lease; a
    process that dies frees the key when the lease runs out (in seconds), or holds it with
    unanswered=Unanswered.HOLD. Callers meanwhile wait for at most `wait` seconds, and get
    StillInFlight then. A function that raises frees its key at once; behind
    current_attempt().note(...), or at attempt `attempts_max`, it holds it. Other options are those
    of a claim. `cache` may be a function that gives one: see per_process. Coroutines that run in
    one loop share a queue for each store and namespace, which ends as the loop is closed.
    """
    if milliseconds(lease) < 3:
        raise ValueError("the lease must be at least 0.003 seconds")
    once = _Once(cache, key, lease, wait, dumps, loads, ttl, fingerprint, options)

    def decorate(work: Work) -> Work:
        if _is(inspect.isgeneratorfunction, work) or _is(inspect.isasyncgenfunction, work):
            raise TypeError("a generator has not run when it is called: give a function that "
                            "runs to its end and returns its result")
        if _is(inspect.iscoroutinefunction, work):

            @functools.wraps(work)
            async def run_async(*args: Any, **kwargs: Any) -> Any:
                return await once.run_async(work, args, kwargs)

            return run_async  # type: ignore[return-value]

        @functools.wraps(work)
        def run(*args: Any, **kwargs: Any) -> Any:
            return once.run(work, args, kwargs)

        return run  # type: ignore[return-value]

    return decorate
