"""What a sweep and the statistics of a store say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._library import taken, text_of


@dataclass(slots=True)
class Counts:
    in_flight: int
    completed: int
    released: int


@dataclass(slots=True)
class SweptNamespace:
    removed: Counts
    retained: Counts


@dataclass(slots=True)
class UnansweredClaim:
    """A claim that expired in flight: nobody said what became of the work."""

    ns: str
    key: bytes
    owner: str
    claim_sequence: int
    claimed_at_ms: int
    expired_at_ms: int
    attempt: int  # 0: not known, in the report of an older version
    event_id: str
    note: bytes  # the last one, or the metadata that it was claimed with: 256 bytes of it


@dataclass(slots=True)
class SweepReport:
    now_ms: int
    dry_run: bool
    finished: bool  # False: a limit left space that the next sweep gives back
    withheld: bool  # nothing was removed for having expired, as the clock jumped
    withheld_by_reset: bool
    withheld_jump_from_ms: int
    withheld_since_ms: int
    withheld_until_ms: int
    removed: Counts
    retained: Counts
    namespaces: dict[str, SweptNamespace]  # those from which streams were removed
    unanswered: list[UnansweredClaim]
    evicted: int
    next_expiry_ms: int  # 0: nothing expires
    segments_dropped: int
    segments_compacted: int
    records_dropped: int
    records_moved: int
    bytes_before: int  # of the log
    bytes_after: int
    longest_pause_us: int
    duration_us: int
    damaged: int
    damage: str


@dataclass(slots=True)
class Stats:
    store_id: str
    streams: Counts
    records: int
    last_sequence: int
    time_high_ms: int
    clock_ms: int
    withheld: bool  # a sweep would remove nothing now, as the clock jumped
    catalog_rebuilt: bool  # by the last opening
    withheld_until_ms: int
    segments_sealed: int
    segments_unsealed: int
    log_bytes: int
    catalog_bytes: int
    tail_bytes: int
    memory_bytes: int
    torn_bytes_dropped: int
    evicted: int
    last_sweep_ms: int
    damaged: int
    damage: str
    background_error: str
    sweep_error: str
    write_error: str


def _counts(from_c: Any) -> Counts:
    return Counts(from_c.in_flight, from_c.completed, from_c.released)


def sweep_report_of(from_c: Any) -> SweepReport:
    namespaces = [from_c.namespaces[i].contents for i in range(from_c.namespaces_count)]
    unanswered = [from_c.unanswered[i].contents for i in range(from_c.unanswered_count)]
    return SweepReport(
        now_ms=from_c.now_ms,
        dry_run=bool(from_c.dry_run),
        finished=bool(from_c.finished),
        withheld=bool(from_c.withheld),
        withheld_by_reset=bool(from_c.withheld_by_reset),
        withheld_jump_from_ms=from_c.withheld_jump_from_ms,
        withheld_since_ms=from_c.withheld_since_ms,
        withheld_until_ms=from_c.withheld_until_ms,
        removed=_counts(from_c.removed),
        retained=_counts(from_c.retained),
        namespaces={
            text_of(taken(each.ns)): SweptNamespace(_counts(each.removed), _counts(each.retained))
            for each in namespaces
        },
        unanswered=[
            UnansweredClaim(
                text_of(taken(each.ns)),
                taken(each.key),
                text_of(taken(each.owner)),
                each.claim_sequence,
                each.claimed_at_ms,
                each.expired_at_ms,
                each.attempt,
                text_of(taken(each.event_id)),
                taken(each.note),
            )
            for each in unanswered
        ],
        evicted=from_c.evicted,
        next_expiry_ms=from_c.next_expiry_ms,
        segments_dropped=from_c.segments_dropped,
        segments_compacted=from_c.segments_compacted,
        records_dropped=from_c.records_dropped,
        records_moved=from_c.records_moved,
        bytes_before=from_c.bytes_before,
        bytes_after=from_c.bytes_after,
        longest_pause_us=from_c.longest_pause_us,
        duration_us=from_c.duration_us,
        damaged=from_c.damaged,
        damage=text_of(taken(from_c.damage)),
    )


def stats_of(from_c: Any) -> Stats:
    return Stats(
        store_id=text_of(taken(from_c.store_id)),
        streams=_counts(from_c.streams),
        records=from_c.records,
        last_sequence=from_c.last_sequence,
        time_high_ms=from_c.time_high_ms,
        clock_ms=from_c.clock_ms,
        withheld=bool(from_c.withheld),
        catalog_rebuilt=bool(from_c.catalog_rebuilt),
        withheld_until_ms=from_c.withheld_until_ms,
        segments_sealed=from_c.segments_sealed,
        segments_unsealed=from_c.segments_unsealed,
        log_bytes=from_c.log_bytes,
        catalog_bytes=from_c.catalog_bytes,
        tail_bytes=from_c.tail_bytes,
        memory_bytes=from_c.memory_bytes,
        torn_bytes_dropped=from_c.torn_bytes_dropped,
        evicted=from_c.evicted,
        last_sweep_ms=from_c.last_sweep_ms,
        damaged=from_c.damaged,
        damage=text_of(taken(from_c.damage)),
        background_error=text_of(taken(from_c.background_error)),
        sweep_error=text_of(taken(from_c.sweep_error)),
        write_error=text_of(taken(from_c.write_error)),
    )
