#include "crash/told.hpp"

#include <algorithm>
#include <string_view>

namespace dedup::test {
namespace {

constexpr std::size_t kShownBytes = 300;

// Receipts and notes may be any bytes.
std::string legible(std::string text) {
    text.resize(std::min(text.size(), kShownBytes));
    std::ranges::replace_if(
        text, [](char byte) { return byte < ' ' || byte > '~'; }, '?');
    return text;
}

std::string differing(const std::string& key, const std::string& expected,
                      const std::string& found) {
    return expected == found ? std::string()
                             : key + ": callers are to be told \"" + legible(expected) +
                                   "\", and are told \"" + legible(found) + "\"";
}

}  // namespace

CacheOptions told_options() {
    return {.attempts_max = KeyModel::kAttemptsMax};
}

Told::Told(const Ledger& ledger, std::size_t present) {
    const std::string ns = told_options().ns;
    const std::int64_t ttl_ms = told_options().ttl.count();
    std::set<std::string> untold = ledger.untold;
    std::size_t at = 0;
    // Entries that no call has made: sweeps, and appends that the model does not know.
    const auto pass = [&](std::size_t end) {
        for (; at < std::min(end, present); ++at) {
            const LedgerEntry& entry = ledger.entries[at];
            if (entry.swept_before_ms && !entry.refused) {
                sweep(*entry.swept_before_ms);
            } else if (entry.record.ns == ns) {
                untold.insert(entry.record.key);
            }
        }
    };
    for (const auto& call : ledger.calls) {
        pass(call->first);
        if (call->known && call->end <= present) {
            for (const auto& [key, apply] : call->parts) {
                apply(models_.try_emplace(key, ns, key, ttl_ms).first->second);
            }
        } else if (call->first < std::min(call->end, present)) {
            call->give_up(untold);
        }
        at = std::max(at, call->end);
    }
    pass(present);
    for (const std::string& key : untold) {
        models_.erase(key);
    }
}

void Told::sweep(std::int64_t expired_before_ms) {
    for (auto& [key, model] : models_) {
        (void)model.sweep(expired_before_ms + kDefaultGrace.count());
    }
}

std::string Told::problem(StreamStore& store) const {
    for (const auto& check : {&Told::wrong_lookup, &Told::wrong_held, &Told::wrong_resolved}) {
        if (auto wrong = (this->*check)(store); !wrong.empty()) {
            return wrong;
        }
    }
    return {};
}

Standing Told::standing(std::int64_t now_ms) const {
    Standing standing;
    for (const auto& [key, model] : models_) {
        standing.held += model.held(now_ms) ? 1U : 0U;
        // Also those that have expired, until they are swept.
        standing.resolved += model.ended(0, End::resolved) ? 1U : 0U;
        standing.forgotten += model.ended(0, End::forgotten) ? 1U : 0U;
    }
    return standing;
}

std::string Told::wrong_lookup(StreamStore& store) const {
    std::vector<std::string_view> keys;
    for (const auto& [key, model] : models_) {
        keys.emplace_back(key);
    }
    const auto found = Cache(store, told_options()).lookup_many(keys);
    std::size_t i = 0;
    for (const auto& [key, model] : models_) {
        if (auto wrong = differing(key, model.lookup(store.now_ms()), show(found[i++]));
            !wrong.empty()) {
            return wrong;
        }
    }
    return {};
}

// Nobody gets a held key by claiming it.
std::string Told::wrong_held(StreamStore& store) const {
    Cache cache(store, told_options());
    for (const auto& [key, model] : models_) {
        if (!model.held(store.now_ms())) {
            continue;
        }
        KeyModel asked = model;
        const std::string expected = asked.claim(store.now_ms(), {}, 0);
        if (auto wrong = differing(key, expected, show(cache.claim(key))); !wrong.empty()) {
            return wrong;
        }
    }
    return {};
}

// Whoever decides otherwise comes too late.
std::string Told::wrong_resolved(StreamStore& store) const {
    Cache cache(store, told_options());
    const Resolution otherwise{.receipt = "decided otherwise", .reason = "looked again"};
    for (const auto& [key, model] : models_) {
        if (!model.ended(store.now_ms(), End::resolved)) {
            continue;
        }
        KeyModel asked = model;
        const std::string expected = asked.resolve(store.now_ms(), model.fence(), otherwise);
        const auto found = cache.resolve(key, model.fence(), otherwise);
        if (auto wrong = differing(key, expected, show(found)); !wrong.empty()) {
            return wrong;
        }
    }
    return {};
}

}  // namespace dedup::test
