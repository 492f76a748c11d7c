"""asyncio: claims and completions of many tasks share their flushes, and no thread waits for one.

A queue of the library carries them out; its descriptor tells the event loop when there are answers.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import weakref
from typing import Any, cast

from . import _library, outcomes
from ._library import as_bytes, call, library
from .errors import DedupError
from .outcomes import Claim, ClaimOutcome, Claimed, LookupOutcome
from .store import Cache, Seconds, Text, _complete_options, _Handle, claim_options

_POLL_MIN, _POLL_MAX = 0.005, 0.25


class AsyncCache:
    """The claim protocol for the tasks of one event loop. Make it within that loop.

    Calls are those of Cache. A task that is cancelled while it waits for a claim does not keep it:
    the claim is released when its answer comes.
    """

    def __init__(self, cache: Cache, *, threads: int = 2, requests_max: int = 65_536) -> None:
        self.cache = cache
        loop = asyncio.get_running_loop()
        self._loop = weakref.ref(loop)
        options = _library.QueueOptions(
            ctypes.sizeof(_library.QueueOptions), threads, requests_max
        )
        pointer = ctypes.c_void_p()
        call(library.dedup_queue_new, cache._handle.pointer, options, pointer)
        self._handle: _Handle | None = _Handle(library.dedup_queue_free, pointer)
        self._descriptor = library.dedup_queue_descriptor(pointer)
        self._requests_max = requests_max
        self._freed = asyncio.Event()  # there may be room again
        self._tags = itertools.count(1)
        self._waiting: dict[int, tuple[bytes, asyncio.Future[Any] | None]] = {}
        reference = weakref.ref(self)  # the loop does not keep it
        loop.add_reader(self._descriptor, lambda: _answers_came(reference))

    async def __aenter__(self) -> AsyncCache:
        return self

    async def __aexit__(self, *unused: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Waits for what has been asked, and ends the queue."""
        while self._waiting:
            await asyncio.sleep(_POLL_MIN)
        self._end()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self._end()

    def _end(self) -> None:
        loop = self._loop()
        if self._handle is not None and loop is not None and not loop.is_closed():
            loop.remove_reader(self._descriptor)
        self._handle = None

    def _pointer(self) -> ctypes.c_void_p:
        if self._handle is None:
            raise RuntimeError("this AsyncCache is closed")
        return self._handle.pointer

    async def _ask(self, function: Any, key: bytes, *arguments: object) -> Any:
        while len(self._waiting) >= self._requests_max:
            self._freed.clear()
            await self._freed.wait()
        tag = next(self._tags)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[tag] = (key, future)
        try:
            call(function, self._pointer(), tag, key, len(key), *arguments)
        except BaseException:
            del self._waiting[tag]
            raise
        try:
            answer = await future
        except BaseException:
            # Cancelled in the turn of the loop in which the answer came: nobody gets it.
            if future.done() and not future.cancelled() and isinstance(future.result(), Claimed):
                self._give_back(future.result().claim)
            raise
        if isinstance(answer, DedupError):
            raise answer
        return answer

    def _take(self) -> None:
        outcome = ctypes.c_void_p()
        call(library.dedup_queue_take, self._pointer(), outcome)
        for tag, answer in outcomes.take_tagged(outcome, lambda tag: self._waiting[tag][0]):
            _, future = self._waiting.pop(tag)
            if future is not None and not future.done():
                future.set_result(answer)
            elif future is not None and isinstance(answer, Claimed):
                self._give_back(answer.claim)
        self._freed.set()

    def _give_back(self, claim: Claim) -> None:
        """Nobody works on it: its task was cancelled."""
        tag = next(self._tags)
        self._waiting[tag] = (claim.key, None)
        try:
            call(library.dedup_queue_release, self._pointer(), tag, claim.key, len(claim.key),
                 claim.claim_sequence)
        except (DedupError, RuntimeError):
            del self._waiting[tag]  # it runs out by itself

    async def claim(
        self, key: Text, options: _library.ClaimOptions | None = None, **more: Any
    ) -> ClaimOutcome:
        return cast(ClaimOutcome, await self._ask(
            library.dedup_queue_claim, as_bytes(key), claim_options(**more) if more else options))

    async def complete(
        self, claim: Claim, receipt: Text = b"", *, ttl: Seconds | None = None,
        metadata: Text | None = None,
    ) -> None:
        kept = as_bytes(receipt)
        await self._ask(library.dedup_queue_complete, claim.key, claim.claim_sequence, kept,
                        len(kept), _complete_options(ttl, metadata))

    async def release(self, claim: Claim) -> bool:
        return bool(await self._ask(library.dedup_queue_release, claim.key, claim.claim_sequence))

    async def lookup(self, key: Text) -> LookupOutcome:
        return await asyncio.to_thread(self.cache.lookup, key)

    async def note(self, claim: Claim, metadata: Text) -> None:
        await asyncio.to_thread(self.cache.note, claim, metadata)

    async def hold(self, claim: Claim, reason: Text) -> None:
        await asyncio.to_thread(self.cache.hold, claim, reason)

    async def claim_or_wait(
        self, key: Text, timeout: float, options: _library.ClaimOptions | None = None
    ) -> ClaimOutcome:
        """As claim; while the key is in flight, asks again for at most so many seconds."""
        now = asyncio.get_running_loop().time
        until = now() + timeout
        pause = _POLL_MIN
        while True:
            outcome = await self.claim(key, options)
            left = until - now()
            if not isinstance(outcome, outcomes.InFlight) or outcome.held or left <= 0:
                return outcome
            await asyncio.sleep(min(pause, left))
            pause = min(2 * pause, _POLL_MAX)


def _answers_came(reference: weakref.ref[AsyncCache]) -> None:
    queue = reference()
    if queue is not None and queue._handle is not None:
        queue._take()
