#include "crash/aftermath.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <ranges>
#include <set>
#include <vector>

#include "crash/ledger_cache.hpp"
#include "dedup/cache.hpp"

namespace dedup::test {

namespace {

// The newest record of a key of which that was said last, if it has neither expired nor been swept.
std::optional<Record> find_said(LedgerStore& store, const Ledger& ledger,
                                dedup::Verdict::Kind kind) {
    std::set<std::string> seen;
    std::int64_t swept_before_ms = 0;  // by the sweeps behind an entry
    for (const LedgerEntry& entry : ledger.entries | std::views::reverse) {
        const Record& record = entry.record;
        if (entry.refused) {
            continue;
        }
        swept_before_ms = std::max(swept_before_ms, entry.swept_before_ms.value_or(0));
        const bool gone = record.expires_at_ms != 0 && record.expires_at_ms < swept_before_ms;
        if (record.ns == "default" && seen.insert(record.key).second &&
            record.verdict.kind == kind && record.claim_sequence != 0 && !gone &&
            !expired(record.expires_at_ms, store.now_ms())) {
            return record;
        }
    }
    return std::nullopt;
}

std::string decide_held(LedgerStore& store, LedgerCache& cache, const Ledger& ledger) {
    const auto held = find_said(store, ledger, dedup::Verdict::Kind::held);
    if (!held) {
        return "";
    }
    const Resolution found{.receipt = "found", .reason = "looked", .by = "ada"};
    if (const auto done = cache.resolve(held->key, held->claim_sequence, found); !done) {
        return "resolve a held key: " + done.error().message;
    }
    const auto outcome = cache.claim(held->key);
    if (!outcome || outcome->completed() == nullptr || outcome->completed()->receipt != "found") {
        return "a decision is not there: " + held->key;
    }
    return "";
}

std::string claim_forgotten(LedgerStore& store, LedgerCache& cache, const Ledger& ledger) {
    const auto forgotten = find_said(store, ledger, dedup::Verdict::Kind::forgotten);
    if (!forgotten) {
        return "";
    }
    const auto outcome = cache.claim(forgotten->key);
    const auto* claimed = outcome ? outcome->claimed() : nullptr;
    if (claimed == nullptr || !claimed->previous || claimed->previous->end != End::forgotten) {
        return "a forgotten key cannot be claimed, or its next claim is not told: " +
               forgotten->key;
    }
    return "";
}

std::string finish_in_flight(LedgerStore& store, LedgerCache& cache, const Ledger& ledger) {
    const auto in_flight = std::ranges::find_if(ledger.entries, [&](const LedgerEntry& entry) {
        const auto head = store.head({entry.record.ns, entry.record.key});
        return head && *head && (*head)->state() == State::in_flight && (*head)->ns == "default" &&
               !expired((*head)->expires_at_ms, store.now_ms());
    });
    if (in_flight == ledger.entries.end()) {
        return "";
    }
    const Record head = **store.head({in_flight->record.ns, in_flight->record.key});
    const Claim stale{head.ns, head.key, head.claim_sequence + 1'000'000'000, 0, 1};
    if (cache.complete(stale, "stolen")) {
        return "a claim that never was has completed " + head.key;
    }
    const Claim claim{head.ns, head.key, head.claim_sequence, 0, 1};
    if (const auto done = cache.complete(claim, "late"); !done) {
        return "complete a claim from before the crash: " + done.error().message;
    }
    return "";
}

}  // namespace

std::string use(LedgerStore& store, const Ledger& ledger) {
    LedgerCache cache(store);
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
    for (const auto step : {decide_held, claim_forgotten, finish_in_flight}) {
        if (auto wrong = step(store, cache, ledger); !wrong.empty()) {
            return wrong;
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
