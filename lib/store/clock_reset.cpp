// What the log keeps of the clock: jumps, and setting the store's time back.
//
// A jump is in memory before its time can be seen, and in the log before anything that is written
// by that time. A reset begins a segment, before which no time counts; then the heads that the
// wrong time wrote are written again.

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "record/invalid.hpp"
#include "store/log_store.hpp"

namespace dedup {
namespace {

// The last record from before the time was wrong, as far as a noted jump tells.
std::uint64_t last_right_sequence(const ClockHistory& clock, std::int64_t to_ms,
                                  std::uint64_t last_sequence) {
    const std::uint64_t reset_before = clock.resets.empty() ? 0 : clock.resets.back().sequence;
    for (const ClockJump& jump : clock.jumps) {
        if (jump.to_ms > to_ms && jump.sequence >= reset_before) {
            return std::min(jump.sequence, last_sequence);
        }
    }
    return last_sequence;
}

// Of a time that lay behind the record's: so much after `to_ms` as it lay after that.
std::int64_t shifted(std::int64_t time_ms, const Record& record, std::int64_t to_ms) {
    return time_ms > record.timestamp_ms ? time_ms - record.timestamp_ms + to_ms : time_ms;
}

}  // namespace

// Writes down what is new about the clock. The leader calls this with nothing pending.
Result<void> LogStore::note_clock() {
    return clock_changes() == clock_noted_ ? Result<void>() : write_manifest(manifest_, false);
}

// Makes `clock` what is known of the clock, and, if that was reset, `time_ms` the store's time from
// a new segment on. The leader calls this with nothing pending.
Result<void> LogStore::begin_clock(ClockHistory clock, std::int64_t time_ms) {
    if (clock.resets.empty()) {
        set_clock_history(std::move(clock));
        return note_clock();
    }
    clock.resets.back().segment = writer_->segment()->id() + 1;
    ClockHistory clock_before = std::exchange(manifest_.clock, clock);
    const std::int64_t time_before = written_time_ms_.exchange(time_ms);
    if (auto started = start_segment(); !started) {
        manifest_.clock = std::move(clock_before);
        written_time_ms_ = time_before;
        return started;
    }
    set_clock_history(std::move(clock));
    clock_noted_ = clock_changes();
    set_time(time_ms);
    return {};
}

// Takes up what the log says of the clock. written_time_ms_ is as of `manifest`.
void LogStore::adopt_clock(const Manifest& manifest) {
    if (manifest.time_from_segment() !=
        (followed_clock_.resets.empty() ? 0 : followed_clock_.resets.back().segment)) {
        set_time(written_time_ms_);
    }
    followed_clock_ = manifest.clock;
    set_clock_history(manifest.clock);
    clock_noted_ = clock_changes();
    if (options_.trust_clock) {
        trust_clock();
    }
}

std::optional<SweepWithheld> LogStore::why_withheld(const View& view, const SweepOptions& options,
                                                    std::int64_t now_ms) {
    const std::int64_t edge_ms = view.horizon.expired_before_ms;
    const ClockHistory clock = clock_history();
    if (now_ms - grace().count() < edge_ms && !clock.resets.empty()) {
        // What an earlier sweep has removed must stay so, and a horizon has one edge only.
        const ClockReset& reset = clock.resets.back();
        return SweepWithheld{reset.from_ms, reset.to_ms, edge_ms + grace().count(), true};
    }
    if (options.trust_clock || options_.trust_clock) {
        return std::nullopt;
    }
    return withheld(now_ms, options_.read_only ? written_time_ms_.load() : saw_time(0));
}

// With the jump that would be noted now. (A read-only store notes none, as only its writer knows
// how long the store has rested.)
ClockHistory LogStore::clock_as_seen() {
    ClockHistory clock = clock_history();
    const std::int64_t seen_ms = options_.read_only ? written_time_ms_.load() : saw_time(0);
    if (is_jump(seen_ms, clock_ms())) {
        ClockJump jump;
        jump.from_ms = seen_ms;
        jump.to_ms = clock_ms();
        clock.jumps.push_back(jump);
    }
    return clock;
}

Result<std::optional<ClockReset>> LogStore::reset_clock() {
    const std::int64_t to_ms = clock_ms();
    if (to_ms <= 0) {
        return invalid(
            fmt::format("the clock stands at 1970, and the time of store {} cannot be "
                        "set back to that; set the clock first",
                        path_.string()));
    }
    std::optional<ClockReset> done;
    auto begun = lead([&]() -> Result<void> {
        if (auto ready = ready_to_write(); !ready) {
            return ready;
        }
        ClockReset reset;
        reset.from_ms = saw_time(0);
        reset.to_ms = to_ms;
        if (reset.to_ms >= reset.from_ms) {
            return {};
        }
        std::uint64_t changes = 0;
        ClockHistory clock = clock_history_at(next_sequence_ - 1, changes);
        reset.sequence = next_sequence_ - 1;
        reset.wrong_after = last_right_sequence(clock, to_ms, reset.sequence);
        std::ranges::for_each(clock.jumps, [](ClockJump& jump) { jump.settled = true; });
        clock.resets.push_back(reset);
        if (clock.resets.size() > kClockEventsMax) {
            clock.resets.erase(clock.resets.begin());
        }
        if (auto set = begin_clock(std::move(clock), to_ms); !set) {
            return set;
        }
        done = manifest_.clock.resets.back();
        return {};
    });
    if (begun && done) {
        begun = finish_reset();
        done->finished = true;
    }
    return begun ? Result<std::optional<ClockReset>>(done) : std::unexpected(begun.error());
}

// Writes the heads again that the wrong time wrote, but those that cannot be read. Doing so twice
// changes nothing. While nobody else uses the store.
Result<void> LogStore::finish_reset() {
    const ClockReset reset = manifest_.clock.resets.back();
    ScanOptions options;
    do {
        const auto page = scan(options, OnDamage::pass);
        if (!page) {
            return std::unexpected(page.error());
        }
        std::vector<Append> items;
        for (const Version& version : page->heads) {
            auto record = put_right(version.record, reset);
            if (!record) {
                return std::unexpected(record.error());
            }
            if (*record) {
                items.push_back({version.record.sequence, **std::move(record)});
            }
        }
        for (std::span<const Append> rest = items; !rest.empty();) {
            const auto batch = rest.first(std::min(rest.size(), kBatchItemsMax));
            for (const auto& result : append(batch, Batch::each)) {
                if (!result) {
                    return std::unexpected(result.error());
                }
            }
            rest = rest.subspan(batch.size());
        }
        options.cursor = page->cursor;
    } while (!options.cursor.empty());
    return lead([&]() -> Result<void> {
        ClockHistory clock = clock_history();
        clock.resets.back().finished = true;
        set_clock_history(std::move(clock));
        return note_clock();
    });
}

// The head as it shall be written again; nullopt if it is right.
Result<std::optional<Record>> LogStore::put_right(const Record& head, const ClockReset& reset) {
    if (head.sequence > reset.sequence) {
        return std::nullopt;
    }
    Record record = head;
    if (head.timestamp_ms > reset.to_ms) {
        record.expires_at_ms = shifted(head.expires_at_ms, head, reset.to_ms);
        record.lease_until_ms = shifted(head.lease_until_ms, head, reset.to_ms);
        record.timestamp_ms = reset.to_ms;
        return record;
    }
    if (head.sequence <= reset.wrong_after || head.lease_until_ms <= reset.to_ms) {
        return std::nullopt;
    }
    // A claim from before. Was its lease renewed by the wrong time? Taken to be, if that cannot be
    // read: or it might hold for years.
    const auto versions = history({head.ns, head.key});
    if (!versions && versions.error().code != Code::corruption) {
        return std::unexpected(versions.error());
    }
    for (const auto& [version, segment, offset, bytes] :
         versions.value_or(std::vector<Version>())) {
        if (version.sequence <= reset.wrong_after &&
            version.claim_sequence == head.claim_sequence &&
            version.lease_until_ms == head.lease_until_ms) {
            return std::nullopt;
        }
    }
    record.lease_until_ms =
        reset.to_ms + std::max<std::int64_t>(0, head.lease_until_ms - reset.from_ms);
    if (head.expires_at_ms == head.lease_until_ms) {  // raised by the renewal
        const std::int64_t before_ms = head.ttl_ms == 0 ? 0 : head.timestamp_ms + head.ttl_ms;
        record.expires_at_ms = std::max(record.lease_until_ms, before_ms);
    }
    return record;
}

Result<std::optional<ClockReset>> reset_clock(const std::filesystem::path& path,
                                              const OpenOptions& options) {
    if (options.read_only) {
        return invalid("a store that is open read-only cannot have its time reset");
    }
    OpenOptions opened = options;
    opened.create = false;
    LogStoreInternals internals;
    internals.ignore_jumps = true;
    auto store = LogStore::open(path, opened, internals);
    if (!store) {
        return std::unexpected(store.error());
    }
    auto reset = (*store)->reset_clock();
    if (auto closed = (*store)->close(); reset && !closed) {
        return std::unexpected(closed.error());
    }
    return reset;
}

}  // namespace dedup
