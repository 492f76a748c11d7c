#include "dedup/guard.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "cache/inside.hpp"
#include "guard/heartbeat.hpp"
#include "guard/living_guard.hpp"
#include "guard/run.hpp"
#include "record/invalid.hpp"
#include "record/try.hpp"

namespace dedup {
namespace {

using std::chrono::milliseconds;

Result<void> check_guard_options(const GuardOptions& options) {
    DEDUP_TRY(check_lease(options.lease));
    if (options.owner.size() > kLabelBytesMax) {
        return invalid(fmt::format("owner is {} bytes; at most {} are allowed",
                                   options.owner.size(), kLabelBytesMax));
    }
    const Retry& retry = options.retry;
    if (retry.pause_min < milliseconds{1} || retry.pause_max < retry.pause_min) {
        return invalid(
            fmt::format("retry: pauses are {} to {} ms; the first must be at least 1 "
                        "and no more than the second",
                        retry.pause_min.count(), retry.pause_max.count()));
    }
    if (options.reclaim_own && options.owner.empty()) {
        return invalid("reclaim_own is set without an owner, whose events it is about");
    }
    return check_options({.ns = options.ns, .ttl = options.retention});
}

// Whether an event was not completed before.
struct Marked {
    bool now = false;
};

[[maybe_unused]] std::uint64_t& unchanged(CacheCounts& counts, const Marked&) {
    return counts.duplicates;
}

// Completes an event, whoever has it in flight.
struct MarkOp {
    using Answer = Marked;
    static constexpr bool kDecides = true;
    const CacheOptions& cache;
    std::string_view key;
    ClaimOptions options;

    [[nodiscard]] Result<void> check() const { return remember().check(); }

    [[nodiscard]] Decision<Answer> decide(const Seen& seen) const {
        if (seen.completed()) {
            return {Marked{false}, {}};
        }
        if (seen.in_flight()) {
            CompleteOptions completion;
            if (!options.metadata.empty()) {
                completion.metadata = options.metadata;
            }
            auto decision = CompleteOp{cache, key, nullptr, "", completion}.decide(seen);
            if (!decision.answer) {
                return {std::unexpected(std::move(decision.answer).error()), {}};
            }
            return {Marked{true}, std::move(decision.append), decision.change};
        }
        auto decision = remember().decide(seen);
        return {Marked{true}, std::move(decision.append), decision.change};
    }

    static void landed(Result<Marked>&, std::uint64_t) {}

  private:
    [[nodiscard]] RememberOp remember() const { return {cache, key, "", options}; }
};

}  // namespace

Result<void> check_event_id(std::string_view event_id) {
    if (const Result<void> checked = check_key(event_id); !checked) {
        return invalid("event id: " + checked.error().message);
    }
    return {};
}

Guard::Guard(StreamStore& store, GuardOptions options)
    : store_(store),
      options_(std::move(options)),
      living_(std::make_unique<LivingGuard>(store, options_.ns, options_.owner, store.now_ms())),
      started_ms_(living_->first_ms()),
      cache_(store, {.ns = options_.ns,
                     .ttl = options_.retention,
                     .observer = options_.observer,
                     .unanswered = options_.reconcile ? Unanswered::hold : options_.unanswered,
                     .attempts_max = options_.attempts_max}) {}

Guard::~Guard() = default;

Result<std::unique_ptr<Guard>> Guard::start(StreamStore& store, GuardOptions options) {
    DEDUP_TRY(check_guard_options(options));
    std::unique_ptr<Guard> guard(new Guard(store, std::move(options)));
    guard->heartbeat_ = DEDUP_TRY(Heartbeat::start(guard->cache_, guard->options_.lease));
    return guard;
}

Result<ProcessOutcome> Guard::process_if_new(std::string_view event_id, WorkRef work,
                                             std::string_view fingerprint) {
    const BatchEvent event{event_id, fingerprint};
    return std::move(Run(*this, {&event, 1}, work, {}).run().front());
}

std::vector<Result<ProcessOutcome>> Guard::process_batch(std::span<const BatchEvent> events,
                                                         WorkRef work,
                                                         const BatchOptions& options) {
    return Run(*this, events, work, {.complete_every = options.complete_every}).run();
}

std::vector<Result<ProcessOutcome>> Guard::process_batch(
    std::span<const std::string_view> event_ids, WorkRef work, const BatchOptions& options) {
    std::vector<BatchEvent> events;
    events.reserve(event_ids.size());
    for (const std::string_view id : event_ids) {
        events.push_back({id});
    }
    return process_batch(events, work, options);
}

StreamOutcome Guard::process_stream(Offsets& offsets, std::string_view pipeline,
                                    std::string_view stream, std::span<const StreamEvent> events,
                                    WorkRef work, const BatchOptions& options) {
    if (const Result<void> checked = check_stream(offsets, pipeline, stream, events); !checked) {
        return {.events = std::vector<Result<ProcessOutcome>>(events.size(),
                                                              std::unexpected(checked.error())),
                .commit = std::unexpected(checked.error())};
    }
    std::vector<BatchEvent> batch;
    batch.reserve(events.size());
    for (const StreamEvent& event : events) {
        batch.push_back({event.id, event.fingerprint});
    }
    const RunStream moved{offsets, pipeline, stream, events};
    Run run(*this, batch, work, {.complete_every = options.complete_every, .stream = &moved});
    StreamOutcome outcome{.events = run.run()};
    outcome.reached = run.reached();
    outcome.commit = std::move(run).commit();
    return outcome;
}

// Before anything runs, so that no work is done whose position cannot follow.
Result<void> Guard::check_stream(const Offsets& offsets, std::string_view pipeline,
                                 std::string_view stream,
                                 std::span<const StreamEvent> events) const {
    if (&offsets.store_ != &store_) {
        return invalid(
            "the offsets are in another store than the guard's events; what is to be "
            "appended together must be in one");
    }
    if (!std::ranges::is_sorted(events, std::less_equal{}, &StreamEvent::offset)) {
        return invalid(
            "the events are not in the order of their offsets, each above the one "
            "before it");
    }
    auto found = call_until_available(
        Backoff(options_.retry, store_, retry_deadline_ms(options_.retry, store_)),
        [&] { return offsets.find(pipeline, stream); });
    return found ? Result<void>() : std::unexpected(std::move(found).error());
}

Result<bool> Guard::is_processed(std::string_view event_id) {
    if (Result<void> checked = check_event_id(event_id); !checked) {
        return std::unexpected(std::move(checked).error());
    }
    auto found = cache_.lookup(event_id);
    if (!found) {
        return std::unexpected(std::move(found).error());
    }
    return std::holds_alternative<Completed>(*found);
}

Result<bool> Guard::mark_processed(std::string_view event_id, std::string_view metadata) {
    if (Result<void> checked = check_event_id(event_id); !checked) {
        return std::unexpected(std::move(checked).error());
    }
    if (metadata == kResultNotKept) {
        return std::unexpected(invalid("metadata says that a result was too long to keep, which "
                                       "only the guard may say; use other words")
                                   .error());
    }
    const MarkOp op{CacheInside::options(cache_),
                    event_id,
                    {.owner = options_.owner, .metadata = std::string(metadata)}};
    const auto marked = CacheInside::settle(cache_, op);
    if (!marked) {
        return std::unexpected(marked.error());
    }
    return marked->now;
}

Result<std::uint64_t> Guard::cleanup_old_events() {
    const auto report = store_.sweep();
    if (!report) {
        return std::unexpected(report.error());
    }
    const auto own = std::ranges::find(report->namespaces, options_.ns, &SweptNamespace::ns);
    return own == report->namespaces.end() ? 0 : own->removed.total();
}

}  // namespace dedup
