#include "dedup/memory_store.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <deque>
#include <limits>
#include <mutex>
#include <optional>
#include <random>
#include <ranges>
#include <utility>

#include "contract/check_batch.hpp"
#include "contract/check_stream.hpp"
#include "contract/history_room.hpp"
#include "contract/store_counters.hpp"
#include "memory/memory_streams.hpp"
#include "memory/memory_sweep.hpp"
#include "record/try.hpp"

namespace dedup {
namespace {

constexpr std::size_t kSweepHistoryMax = 100;

std::unexpected<Error> failure(Code code, std::string message) {
    return std::unexpected(Error{.code = code, .message = std::move(message)});
}

std::string random_store_id() {
    std::random_device random;
    return fmt::format("{:08x}{:08x}{:08x}{:08x}", random(), random(), random(), random());
}

class MemoryStore final : public StreamStore {
  public:
    MemoryStore(Clock clock, std::chrono::milliseconds grace, const Capacity& capacity,
                bool trust_clock)
        : StreamStore(std::move(clock), grace,
                      trust_clock ? StoreClock::Jumps::trust : StoreClock::Jumps::withhold),
          capacity_(capacity) {}

    std::vector<Result<std::uint64_t>> append(std::span<const Append> batch, Batch mode) override {
        const std::lock_guard lock(mutex_);
        auto results = append_locked(batch, mode);
        counters_.count_failed(results);
        if (const auto done =
                std::ranges::count_if(results, [](auto& r) { return r.has_value(); })) {
            counters_.count_group(static_cast<std::uint64_t>(done));
        }
        return results;
    }

    std::vector<Result<std::optional<Record>>> heads(std::span<const StreamKey> streams) override {
        const std::lock_guard lock(mutex_);
        if (closed_) {
            return std::vector<Result<std::optional<Record>>>(streams.size(), closed());
        }
        std::vector<Result<std::optional<Record>>> heads;
        heads.reserve(streams.size());
        for (const StreamKey& stream : streams) {
            if (auto checked = check_stream(stream); !checked) {
                heads.emplace_back(std::unexpected(std::move(checked).error()));
                continue;
            }
            const auto* const records = streams_.find(stream);
            heads.emplace_back(records == nullptr ? std::nullopt : std::optional(records->back()));
        }
        return heads;
    }

    Result<std::vector<Version>> history(StreamKey stream, const HistoryLimits& limits) override {
        const std::lock_guard lock(mutex_);
        if (closed_) {
            return closed();
        }
        DEDUP_TRY(check_stream(stream));
        std::vector<Version> versions;
        if (const auto* const records = streams_.find(stream)) {
            HistoryRoom room(limits);
            for (const Record& record : *records | std::views::reverse) {
                versions.push_back({.record = record});
                if (!room.is_left_after(record)) {
                    break;
                }
            }
        }
        std::ranges::reverse(versions);
        return versions;
    }

    // The cursor is the head sequence at which the last page ended: a stream that changes gets a
    // higher one and so moves behind it, where a later page will find it.
    Result<ScanPage> scan(const ScanOptions& options) override {
        const std::lock_guard lock(mutex_);
        if (closed_) {
            return closed();
        }
        if (options.heads_max == 0) {
            return failure(Code::invalid_argument, "heads_max is 0; it must be at least 1");
        }
        std::uint64_t after = 0;
        const char* const end = options.cursor.data() + options.cursor.size();
        const auto [read, error] = std::from_chars(options.cursor.data(), end, after);
        if (!options.cursor.empty() && (error != std::errc{} || read != end)) {
            return failure(Code::invalid_argument, "cursor is not one that a scan has given");
        }
        ScanPage page;
        const auto& heads = streams_.by_head();
        for (auto at = heads.upper_bound(after); at != heads.end(); ++at) {
            const auto& [id, records] = *at->second;
            if ((!options.ns.empty() && id.ns != options.ns) ||
                !id.key.starts_with(options.key_prefix)) {
                continue;
            }
            if (page.heads.size() == options.heads_max) {
                page.cursor = std::to_string(page.heads.back().record.sequence);
                break;
            }
            page.heads.push_back({.record = records.back()});
        }
        return page;
    }

    // What is limited is how much space one sweep gives back; here that is no work.
    Result<SweepReport> sweep(const SweepOptions& options) override {
        const auto report = [&]() -> Result<SweepReport> {
            const std::lock_guard lock(mutex_);
            if (closed_) {
                return closed();
            }
            return run_sweep(time_of(options), options);
        }();
        if (report && options.progress) {
            options.progress(1, 1);  // without the lock: it may use the store
        }
        return report;
    }

    Result<std::vector<SweepReport>> sweep_history() override {
        const std::lock_guard lock(mutex_);
        if (closed_) {
            return closed();
        }
        return std::vector<SweepReport>(sweeps_.begin(), sweeps_.end());
    }

    Result<StoreStats> stats() override {
        const std::lock_guard lock(mutex_);
        if (closed_) {
            return closed();
        }
        StoreStats stats;
        stats.store_id = store_id_;
        stats.records = streams_.records();
        stats.last_sequence = last_sequence_;
        stats.time_high_ms = time_.saw_time(0);
        stats.clock_ms = time_.clock_ms();
        stats.clock = time_.clock_history();
        stats.withheld =
            time_.withheld(std::max(stats.time_high_ms, stats.clock_ms), stats.time_high_ms);
        stats.memory_bytes = streams_.bytes();
        stats.evicted = evicted_;
        stats.last_sweep_ms = last_sweep_ms_;
        for (const auto& [sequence, stream] : streams_.by_head()) {
            const State state = stream->second.back().state();
            stats.in_flight += state == State::in_flight;
            stats.completed += state == State::completed;
            stats.released += state == State::released;
        }
        return stats;
    }

    StoreMetrics metrics() const override { return counters_.snapshot(); }

    Result<void> flush() override {
        const std::lock_guard lock(mutex_);
        return closed_ ? Result<void>(closed()) : Result<void>();
    }

    Result<void> close() override {
        const std::lock_guard lock(mutex_);
        closed_ = true;
        return {};
    }

  private:
    static std::unexpected<Error> closed() {
        return failure(Code::closed, "the store in memory was closed");
    }

    [[nodiscard]] std::uint64_t head_sequence(const Record& record) const {
        const auto* const records = streams_.find(record);
        return records == nullptr ? 0 : records->back().sequence;
    }

    [[nodiscard]] Error conflict(const Append& item) const {
        return sequence_conflict(item, head_sequence(item.record));
    }

    std::vector<Result<std::uint64_t>> append_locked(std::span<const Append> batch, Batch mode) {
        if (Result<void> usable = check_usable(batch, mode); !usable) {
            return std::vector<Result<std::uint64_t>>(batch.size(),
                                                      std::unexpected(usable.error()));
        }
        return mode == Batch::each ? append_each(batch) : append_atomic(batch);
    }

    // What is wrong with the batch as a whole.
    [[nodiscard]] Result<void> check_usable(std::span<const Append> batch, Batch mode) const {
        if (closed_) {
            return closed();
        }
        // As unlikely as it is, a sequence is never used twice.
        if (batch.size() > std::numeric_limits<std::uint64_t>::max() - last_sequence_) {
            return failure(Code::out_of_space, "all sequences are used up");
        }
        return check_batch(batch, mode);
    }

    std::vector<Result<std::uint64_t>> append_each(std::span<const Append> batch) {
        std::vector<Result<std::uint64_t>> results;
        results.reserve(batch.size());
        for (const Append& item : batch) {
            try {
                results.push_back(append_item(item));
            } catch (const std::bad_alloc&) {
                results.emplace_back(std::unexpected(Error{Code::out_of_space, "out of memory"}));
            }
        }
        return results;
    }

    Result<std::uint64_t> append_item(const Append& item) {
        DEDUP_TRY(check_record(item.record));
        if (!head_is_expected(item)) {
            return std::unexpected(conflict(item));
        }
        DEDUP_TRY(make_room({&item, 1}));
        return store(item.record);
    }

    std::vector<Result<std::uint64_t>> append_atomic(std::span<const Append> batch) {
        if (!heads_are_expected(batch)) {
            return conflicts(batch);
        }
        if (const Result<void> room = make_room(batch); !room) {
            return std::vector<Result<std::uint64_t>>(batch.size(), std::unexpected(room.error()));
        }
        // Making room may have removed a stream that the batch goes on with.
        if (!heads_are_expected(batch)) {
            return conflicts(batch);
        }
        std::vector<Result<std::uint64_t>> results;
        results.reserve(batch.size());
        try {
            for (const Append& item : batch) {
                results.emplace_back(store(item.record));
            }
        } catch (const std::bad_alloc&) {
            closed_ = true;  // nobody may see half of the batch
            results.assign(batch.size(),
                           std::unexpected(Error{Code::outcome_unknown, "out of memory"}));
        }
        return results;
    }

    [[nodiscard]] std::vector<Result<std::uint64_t>> conflicts(
        std::span<const Append> batch) const {
        std::vector<Result<std::uint64_t>> results;
        results.reserve(batch.size());
        for (const Append& item : batch) {
            results.emplace_back(std::unexpected(conflict(item)));
        }
        return results;
    }

    [[nodiscard]] bool heads_are_expected(std::span<const Append> batch) const {
        return std::ranges::all_of(batch, [&](const Append& i) { return head_is_expected(i); });
    }

    [[nodiscard]] bool head_is_expected(const Append& item) const {
        return head_sequence(item.record) == item.expected_sequence;
    }

    std::uint64_t store(Record record) {
        record.sequence = ++last_sequence_;
        if (record.claim_sequence == 0) {
            record.claim_sequence = record.sequence;
        }
        if (time_.would_jump(record.timestamp_ms)) {
            time_.watch_time(record.timestamp_ms);
        }
        streams_.append(record);
        time_.saw_time(record.timestamp_ms);
        return record.sequence;
    }

    [[nodiscard]] Result<void> make_room(std::span<const Append> batch) {
        Room wanted;
        for (const auto& [expected_sequence, record, flush] : batch) {
            if (expected_sequence == 0) {
                ++wanted.keys;
                wanted.bytes += memory_bytes(record);
            }
        }
        const Room held{streams_.size(), streams_.bytes()};
        if (wanted.keys == 0 || fits(capacity_, held, wanted)) {
            return {};
        }
        constexpr std::string_view kName = "the store in memory";
        if (!capacity_.evict_oldest) {
            return std::unexpected(no_room(kName, capacity_, held, wanted));
        }
        const std::int64_t time_ms = now_ms();
        const auto expired = time_.withheld(time_ms, time_.saw_time(0))
                                 ? decltype(choose_expired(streams_, time_ms, grace()))()
                                 : choose_expired(streams_, time_ms, grace());
        const auto evict =
            plan_eviction(kName, capacity_, usage_without(streams_, expired), wanted);
        run_sweep(time_ms, {}, evict ? *evict : Room());
        return evict ? Result<void>() : std::unexpected(evict.error());
    }

    // The time as of which to sweep. A dry run changes nothing, not even the time that was seen.
    [[nodiscard]] std::int64_t time_of(const SweepOptions& options) {
        const std::int64_t time_ms =
            options.now_ms ? std::max(time_.saw_time(0), *options.now_ms) : now_ms();
        return options.dry_run ? time_ms : time_.watch_time(time_ms);
    }

    // Evicts so much too.
    SweepReport run_sweep(std::int64_t time_ms, const SweepOptions& options,
                          const Room& evict = {}) {
        const auto start = std::chrono::steady_clock::now();
        const bool dry_run = options.dry_run;
        if (options.trust_clock && !dry_run) {
            time_.trust_clock();
        }
        const auto why_withheld =
            options.trust_clock ? std::nullopt : time_.withheld(time_ms, time_.saw_time(0));
        Removal removal;
        if (!why_withheld) {
            removal.expired = choose_expired(streams_, time_ms, grace());
        }
        removal.evicted = choose_evicted(streams_, removal.expired, evict);
        SweepReport report = report_of(streams_, removal, options.unanswered_max);
        report.now_ms = time_ms;
        report.withheld = why_withheld;
        report.dry_run = dry_run;
        report.duration_us = microseconds_since(start);
        report.longest_pause_us = report.duration_us;  // the lock is held for all of it
        if (!dry_run) {
            remember(report);  // needs memory; the rest does not
            counters_.count_sweep(report);
            for (const auto* heads : {&removal.expired, &removal.evicted}) {
                std::ranges::for_each(*heads, [&](std::uint64_t head) { streams_.erase(head); });
            }
        }
        return report;
    }

    void remember(const SweepReport& report) {
        if (report.removed.total() != 0) {
            sweeps_.push_front(report);
            sweeps_.resize(std::min(sweeps_.size(), kSweepHistoryMax));
        }
        last_sweep_ms_ = report.now_ms;
        evicted_ += report.evicted;
    }

    const Capacity capacity_;
    mutable std::mutex mutex_;
    StoreCounters counters_;
    MemoryStreams streams_;
    std::string store_id_ = random_store_id();
    std::uint64_t last_sequence_ = 0;
    std::uint64_t evicted_ = 0;
    std::int64_t last_sweep_ms_ = 0;
    std::deque<SweepReport> sweeps_;  // newest first
    bool closed_ = false;
};

}  // namespace

std::unique_ptr<StreamStore> make_memory_store(Clock clock, std::chrono::milliseconds grace,
                                               const Capacity& capacity, bool trust_clock) {
    // This function cannot fail, so what makes no sense becomes the nearest thing that does.
    return std::make_unique<MemoryStore>(clock ? std::move(clock) : Clock(system_now_ms),
                                         std::max(grace, std::chrono::milliseconds{0}), capacity,
                                         trust_clock);
}

}  // namespace dedup
