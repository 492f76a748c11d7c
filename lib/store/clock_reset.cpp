// Setting the time of a store back.
//
// A reset begins a segment, before which no time counts; then the heads that the wrong time wrote
// are written again. What it writes down of the clock is in LogWriter::begin_clock.

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "record/invalid.hpp"
#include "record/try.hpp"
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

Result<std::optional<ClockReset>> LogStore::reset_clock() {
    const std::int64_t to_ms = time_.clock_ms();
    if (to_ms <= 0) {
        return invalid(
            fmt::format("the clock stands at 1970, and the time of store {} cannot be "
                        "set back to that; set the clock first",
                        context_.path.string()));
    }
    std::optional<ClockReset> done;
    if (!engine_) {
        return std::unexpected(context_.check_writable().error());
    }
    LogWriter& writer = engine_->writer;
    auto begun = writer.alone([&](const Turn& turn) -> Result<void> {
        DEDUP_TRY(context_.check_writable());
        ClockReset reset;
        reset.from_ms = time_.saw_time(0);
        reset.to_ms = to_ms;
        if (reset.to_ms >= reset.from_ms) {
            return {};
        }
        std::uint64_t changes = 0;
        reset.sequence = writer.next_sequence(turn) - 1;
        ClockHistory clock = time_.clock_history_at(reset.sequence, changes);
        reset.wrong_after = last_right_sequence(clock, to_ms, reset.sequence);
        std::ranges::for_each(clock.jumps, [](ClockJump& jump) { jump.settled = true; });
        clock.resets.push_back(reset);
        if (clock.resets.size() > kClockEventsMax) {
            clock.resets.erase(clock.resets.begin());
        }
        DEDUP_TRY(writer.begin_clock(turn, std::move(clock), to_ms));
        done = writer.manifest(turn).clock.resets.back();
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
    const ClockReset reset = time_.clock_history().resets.back();
    ScanOptions options;
    do {
        const ScanPage page = DEDUP_TRY(dedup::scan(reader_, options, OnDamage::pass));
        std::vector<Append> items;
        for (const Version& version : page.heads) {
            if (auto record = DEDUP_TRY(put_right(version.record, reset))) {
                items.push_back({version.record.sequence, *std::move(record)});
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
        options.cursor = page.cursor;
    } while (!options.cursor.empty());
    return engine_->writer.alone([&](const Turn& turn) {
        ClockHistory clock = time_.clock_history();
        clock.resets.back().finished = true;
        time_.set_clock_history(std::move(clock));
        return engine_->writer.note_clock(turn);
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
        if (head.verdict.kind == Verdict::Kind::held) {  // the end of the lease is when it was held
            record.lease_until_ms = std::min(record.lease_until_ms, reset.to_ms);
        }
        record.timestamp_ms = reset.to_ms;
        record.began_ms = std::min(head.began_ms, reset.to_ms);
        return record;
    }
    if (head.sequence <= reset.wrong_after || head.lease_until_ms <= reset.to_ms) {
        return std::nullopt;
    }
    // A claim from before. Was its lease renewed by the wrong time? Taken to be, if that cannot be
    // read: or it might hold for years.
    const auto versions = history({head.ns, head.key}, {});
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
