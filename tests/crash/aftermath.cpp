#include "crash/aftermath.hpp"

#include <fmt/format.h>

#include <algorithm>

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

}  // namespace dedup::test
