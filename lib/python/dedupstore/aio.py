"""asyncio: claims and completions of many tasks share their flushes, and no thread waits for one.

A queue of the library carries them out; its descriptor tells the event loop when there are answers.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import select
import weakref
from typing import Any, cast

from . import _library, outcomes
from ._library import as_bytes, call, library
from .errors import DedupError
from .options import Seconds, Text, complete_options, fence, milliseconds, options_of
from .outcomes import Claim, ClaimOutcome, Claimed, LookupOutcome, RememberOutcome
from .store import Cache

_POLL_MIN, _POLL_MAX = 0.005, 0.25


class AsyncCache:
    """The claim protocol for the tasks of one event loop. Make it within that loop.

    Calls are those of Cache, one key each. Claims, completions and releases share a queue and take
    no thread; the others run in a thread of asyncio.to_thread. A task that is cancelled while it
    waits for a claim does not keep it: the claim is released when its answer comes, if need be
    after the loop has ended.
    """

    def __init__(self, cache: Cache, *, threads: int = 2, requests_max: int = 65_536) -> None:
        self.cache = cache
        loop = asyncio.get_running_loop()
        options = _library.QueueOptions(threads=threads, requests_max=requests_max)
        self._queue = ctypes.c_void_p()
        call(library.dedup_queue_new, cache._handle.pointer, options, self._queue)
        self._descriptor = library.dedup_queue_descriptor(self._queue)
        self._requests_max = requests_max
        self._freed = asyncio.Event()  # there may be room again
        self._tags = itertools.count(1)
        self._keys: dict[int, bytes] = {}  # by tag: what has been asked and not answered
        # The tasks that wait for an answer. They keep the loop, so _finish must not keep them.
        self._futures: dict[int, asyncio.Future[Any]] = {}
        self._end = weakref.finalize(self, _finish, self._queue, self._descriptor, self._keys,
                                     weakref.ref(loop))
        self._end.atexit = False  # see _Handle
        reference = weakref.ref(self)  # the loop does not keep it
        loop.add_reader(self._descriptor, lambda: _answers_came(reference))

    def live_with_loop(self) -> None:
        """From now on the loop keeps it, until that is closed."""
        asyncio.get_running_loop().add_reader(self._descriptor, self._take)

    async def __aenter__(self) -> AsyncCache:
        return self

    async def __aexit__(self, *unused: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Waits for what has been asked, and ends the queue."""
        while self._keys and self._end.alive:
            await asyncio.sleep(_POLL_MIN)
        self._end()

    async def _ask(self, function: Any, key: bytes, *arguments: object) -> Any:
        while len(self._keys) >= self._requests_max:
            self._freed.clear()
            await self._freed.wait()
        if not self._end.alive:
            raise RuntimeError("this AsyncCache is closed")
        tag = next(self._tags)
        call(function, self._queue, tag, key, len(key), *arguments)
        self._keys[tag] = key
        future = self._futures[tag] = asyncio.get_running_loop().create_future()
        try:
            answer = await future
        except BaseException:
            # Cancelled in the turn of the loop in which the answer came: nobody gets it.
            if future.done() and not future.cancelled() and isinstance(future.result(), Claimed):
                _give_back(self._queue, self._keys, tag, future.result().claim)
            raise
        finally:
            self._futures.pop(tag, None)
        if isinstance(answer, DedupError):
            raise answer
        return answer

    def _take(self) -> None:
        if not self._end.alive:
            return
        for tag, answer in _answers_of(self._queue, self._keys):
            future = self._futures.pop(tag, None)
            if future is not None and not future.done():
                future.set_result(answer)
            elif isinstance(answer, Claimed):
                _give_back(self._queue, self._keys, tag, answer.claim)
        self._freed.set()

    async def claim(
        self, key: Text, options: _library.ClaimOptions | None = None, **more: Any
    ) -> ClaimOutcome:
        return cast(ClaimOutcome, await self._ask(
            library.dedup_queue_claim, as_bytes(key), options_of(options, more)))

    async def complete(
        self, claim: Claim, receipt: Text = b"", *, ttl: Seconds | None = None,
        metadata: Text | None = None,
    ) -> None:
        kept = as_bytes(receipt)
        await self._ask(library.dedup_queue_complete, claim.key, fence(claim.claim_sequence),
                        kept, len(kept), complete_options(ttl, metadata))

    async def release(self, claim: Claim) -> bool:
        return bool(await self._ask(library.dedup_queue_release, claim.key,
                                    fence(claim.claim_sequence)))

    async def lookup(self, key: Text) -> LookupOutcome:
        return await asyncio.to_thread(self.cache.lookup, key)

    async def note(self, claim: Claim, metadata: Text) -> None:
        await asyncio.to_thread(self.cache.note, claim, metadata)

    async def hold(self, claim: Claim, reason: Text) -> None:
        await asyncio.to_thread(self.cache.hold, claim, reason)

    async def renew(self, claim: Claim, lease: Seconds) -> Claim:
        return await asyncio.to_thread(self.cache.renew, claim, lease)

    async def remember(self, key: Text, receipt: Text = b"", **options: Any) -> RememberOutcome:
        return await asyncio.to_thread(self.cache.remember, key, receipt, **options)

    async def resolve(self, key: Text, claim_sequence: int, *, receipt: Text | None, reason: Text,
                      by: Text = "", ttl: Seconds | None = None) -> None:
        await asyncio.to_thread(self.cache.resolve, key, claim_sequence, receipt=receipt,
                                reason=reason, by=by, ttl=ttl)

    async def forget(self, key: Text, *, reason: Text, by: Text = "", claim_sequence: int = 0
                     ) -> bool:
        return await asyncio.to_thread(self.cache.forget, key, reason=reason, by=by,
                                       claim_sequence=claim_sequence)

    async def wait(self, key: Text, timeout: Seconds) -> LookupOutcome:
        """As Cache.wait; looks again after 5 to 250 ms, and keeps no thread meanwhile."""
        pauses = _Pauses(milliseconds(timeout or None) / 1000)
        while True:
            outcome, over = await asyncio.to_thread(self.cache._look, key)
            if over or not await pauses.sleep():
                return outcome

    async def claim_or_wait(
        self, key: Text, timeout: float, options: _library.ClaimOptions | None = None, **more: Any
    ) -> ClaimOutcome:
        """As claim; while the key is in flight, asks again for at most so many seconds."""
        options = options_of(options, more)
        pauses = _Pauses(timeout)
        while True:
            outcome = await self.claim(key, options)
            if (not isinstance(outcome, outcomes.InFlight) or outcome.held
                    or not await pauses.sleep()):
                return outcome


class _Pauses:
    """Growing ones between one look and the next, until the time is over."""

    def __init__(self, timeout: float) -> None:
        self._now = asyncio.get_running_loop().time
        self._until = self._now() + timeout
        self._next = _POLL_MIN

    async def sleep(self) -> bool:
        """False, at once: the time is over."""
        left = self._until - self._now()
        if left <= 0:
            return False
        await asyncio.sleep(min(self._next, left))
        self._next = min(2 * self._next, _POLL_MAX)
        return True


def _answers_came(reference: weakref.ref[AsyncCache]) -> None:
    queue = reference()
    if queue is not None:
        queue._take()


def _answers_of(queue: ctypes.c_void_p, keys: dict[int, bytes]) -> list[tuple[int, object]]:
    """What the queue has answered, by tag."""
    outcome = ctypes.c_void_p()
    call(library.dedup_queue_take, queue, outcome)
    return outcomes.take_tagged(outcome, keys.pop)


def _give_back(queue: ctypes.c_void_p, keys: dict[int, bytes], tag: int, claim: Claim) -> None:
    """Nobody works on it: its task was cancelled."""
    try:
        call(library.dedup_queue_release, queue, tag, claim.key, len(claim.key),
             claim.claim_sequence)
    except DedupError:
        return  # it runs out by itself
    keys[tag] = claim.key


def _finish(queue: ctypes.c_void_p, descriptor: int, keys: dict[int, bytes],
            loop_reference: weakref.ref[asyncio.AbstractEventLoop]) -> None:
    """Frees the queue when its AsyncCache or its loop has gone, and gives back what it claims."""
    loop = loop_reference()
    if loop is not None and not loop.is_closed():
        loop.remove_reader(descriptor)
    try:
        _give_back_all(queue, descriptor, keys)
    except DedupError:
        pass  # a fork of the process that asked, for one
    finally:
        library.dedup_queue_free(queue)


def _give_back_all(queue: ctypes.c_void_p, descriptor: int, keys: dict[int, bytes]) -> None:
    answers = select.poll()
    answers.register(descriptor, select.POLLIN)
    while keys:
        for tag, answer in _answers_of(queue, keys):
            if isinstance(answer, Claimed):
                _give_back(queue, keys, tag, answer.claim)
        if keys:
            answers.poll()
