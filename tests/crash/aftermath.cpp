#include "crash/aftermath.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <vector>

#include "dedup/cache.hpp"

namespace dedup::test {

std::string use(LedgerStore& store, const Ledger& ledger) {
    Cache cache(store);
    const std::uint64_t told = ledger.sequence_told;
    for (const std::string key : {"after-1", "after-2"}) {
        const auto outcome = cache.claim(key);
        if (!outcome) {
            return "claim after recovery: " + outcome.error().message;
        }
        const auto* claimed = std::get_if<Claimed>(&*outcome);
        if (claimed != nullptr && claimed->claim.claim_sequence <= told) {
            return fmt::format("sequence {} was assigned again, {} had been told",
                               claimed->claim.claim_sequence, told);
        }
        if (claimed != nullptr && key == "after-1") {
            if (const auto done = cache.complete(claimed->claim, "done"); !done) {
                return "complete after recovery: " + done.error().message;
            }
        }
    }
    const auto in_flight = std::ranges::find_if(ledger.entries, [&](const LedgerEntry& entry) {
        const auto head = store.head({entry.record.ns, entry.record.key});
        return head && *head && (*head)->state() == State::in_flight && (*head)->ns == "default" &&
               !expired((*head)->expires_at_ms, store.now_ms());
    });
    if (in_flight != ledger.entries.end()) {
        const Record head = **store.head({in_flight->record.ns, in_flight->record.key});
        Claim stale{head.ns, head.key, head.claim_sequence + 1'000'000'000, 0, 1};
        if (cache.complete(stale, "stolen")) {
            return "a claim that never was has completed " + head.key;
        }
        const Claim claim{head.ns, head.key, head.claim_sequence, 0, 1};
        if (const auto done = cache.complete(claim, "late"); !done) {
            return "complete a claim from before the crash: " + done.error().message;
        }
    }
    return "";
}

std::string hidden_jump(StreamStore& store) {
    std::map<std::uint64_t, std::int64_t> times;  // of heads, by their sequence
    ScanOptions options;
    do {
        const auto page = store.scan(options);
        if (!page) {
            return page.error().message;
        }
        for (const Version& head : page->heads) {
            times[head.record.sequence] = head.record.timestamp_ms;
        }
        options.cursor = page->cursor;
    } while (!options.cursor.empty());
    const auto stats = store.stats();
    if (!stats) {
        return stats.error().message;
    }
    const std::vector<ClockJump>& jumps = stats->clock.jumps;
    std::int64_t before_ms = 0;
    for (const auto& [sequence, time_ms] : times) {
        const bool noted = std::ranges::any_of(jumps, [&](const ClockJump& jump) {
            return jump.to_ms > before_ms && jump.to_ms <= time_ms;
        });
        const bool forgotten = jumps.size() == kClockEventsMax && jumps.front().from_ms > before_ms;
        if (before_ms != 0 && time_ms - before_ms > kClockJump.count() && !noted && !forgotten) {
            return fmt::format("record {} hides a jump of the clock from {} to {}", sequence,
                               before_ms, time_ms);
        }
        before_ms = std::max(before_ms, time_ms);
    }
    return "";
}

}  // namespace dedup::test
