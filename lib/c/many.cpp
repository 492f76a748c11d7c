// The calls that concern many keys.
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c/answers.hpp"
#include "c/border.hpp"
#include "c/options.hpp"

namespace dedup {
namespace {

template <class Outcome>
void give_all(const std::vector<Result<Outcome>>& outcomes, dedup_outcome** to) {
    auto all = std::make_unique<dedup_outcome>();
    all->answers.reserve(outcomes.size());
    for (const Result<Outcome>& outcome : outcomes) {
        all->answers.add(outcome);
    }
    all->answers.finish();
    *to = all.release();
}

// Options for all items, converted once where all have the same.
template <class Options, class Given>
Result<std::vector<Options>> options_of(const Given* given, std::size_t count, std::size_t items,
                                        std::string_view name,
                                        Result<Options> (*convert)(const Given&)) {
    const std::vector<Given> all = DEDUP_TRY(take_structs(given, count, items, name));
    std::vector<Options> options;
    options.reserve(all.size());
    for (const Given& taken : all) {
        options.push_back(DEDUP_TRY(convert(taken)));
    }
    if (options.empty()) {
        options.emplace_back();
    }
    return options;
}

template <class Options>
const Options& for_item(const std::vector<Options>& options, std::size_t i) {
    return options.size() == 1 ? options.front() : options[i];
}

// The claims that `count` keys and fences name.
Result<std::vector<Claim>> claims_of(const dedup_cache* cache, const dedup_bytes* keys,
                                     const std::uint64_t* fences, std::size_t count) {
    DEDUP_TRY(check_array(keys, count, "keys"));
    DEDUP_TRY(check_array(fences, count, "claim_sequences"));
    std::vector<Claim> claims;
    claims.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
        claims.push_back(DEDUP_TRY(claim_of(cache->open->ns, keys[i], fences[i])));
    }
    return claims;
}

// As across(), for a call that gives one answer an item.
template <class Body>
int across_many(dedup_error* error, Effect effect, dedup_cache* cache, dedup_outcome** outcome,
                const Body& body) {
    return across(
        error, effect,
        [&]() -> Result<void> {
            Cache& in = *DEDUP_TRY(use(cache));
            DEDUP_TRY(needs(outcome, "outcome"));
            return body(in);
        },
        outcome);
}

}  // namespace
}  // namespace dedup

using namespace dedup;

int dedup_claim_many(dedup_cache* cache, const dedup_bytes* keys, size_t count,
                     const dedup_claim_options* options, size_t options_count,
                     dedup_outcome** outcome, dedup_error* error) {
    return across_many(error, Effect::possible, cache, outcome, [&](Cache& in) -> Result<void> {
        DEDUP_TRY(check_array(keys, count, "keys"));
        const auto all = DEDUP_TRY(options_of<ClaimOptions>(options, options_count, count,
                                                            "dedup_claim_options", claim_options));
        std::vector<ClaimRequest> requests;
        requests.reserve(count);
        for (std::size_t i = 0; i < count; ++i) {
            requests.push_back({std::string(DEDUP_TRY(bytes(keys[i], "key"))), for_item(all, i)});
        }
        give_all(in.claim_many(requests), outcome);
        return {};
    });
}

int dedup_complete_many(dedup_cache* cache, const dedup_bytes* keys,
                        const uint64_t* claim_sequences, const dedup_bytes* receipts, size_t count,
                        const dedup_complete_options* options, size_t options_count,
                        dedup_outcome** outcome, dedup_error* error) {
    return across_many(error, Effect::possible, cache, outcome, [&](Cache& in) -> Result<void> {
        auto claims = DEDUP_TRY(claims_of(cache, keys, claim_sequences, count));
        DEDUP_TRY(check_array(receipts, count, "receipts"));
        const auto all = DEDUP_TRY(options_of<CompleteOptions>(
            options, options_count, count, "dedup_complete_options", complete_options));
        std::vector<Completion> completions;
        completions.reserve(count);
        for (std::size_t i = 0; i < count; ++i) {
            completions.push_back({std::move(claims[i]),
                                   std::string(DEDUP_TRY(bytes(receipts[i], "receipt"))),
                                   for_item(all, i)});
        }
        give_all(in.complete_many(completions), outcome);
        return {};
    });
}

int dedup_release_many(dedup_cache* cache, const dedup_bytes* keys, const uint64_t* claim_sequences,
                       size_t count, dedup_outcome** outcome, dedup_error* error) {
    return across_many(error, Effect::possible, cache, outcome, [&](Cache& in) -> Result<void> {
        give_all(in.release_many(DEDUP_TRY(claims_of(cache, keys, claim_sequences, count))),
                 outcome);
        return {};
    });
}

int dedup_renew_many(dedup_cache* cache, const dedup_bytes* keys, const uint64_t* claim_sequences,
                     size_t count, int64_t lease_ms, dedup_outcome** outcome, dedup_error* error) {
    return across_many(error, Effect::possible, cache, outcome, [&](Cache& in) -> Result<void> {
        give_all(in.renew_many(DEDUP_TRY(claims_of(cache, keys, claim_sequences, count)),
                               std::chrono::milliseconds{lease_ms}),
                 outcome);
        return {};
    });
}

int dedup_note_many(dedup_cache* cache, const dedup_bytes* keys, const uint64_t* claim_sequences,
                    const dedup_bytes* metadata, size_t count, dedup_outcome** outcome,
                    dedup_error* error) {
    return across_many(error, Effect::possible, cache, outcome, [&](Cache& in) -> Result<void> {
        auto claims = DEDUP_TRY(claims_of(cache, keys, claim_sequences, count));
        DEDUP_TRY(check_array(metadata, count, "metadata"));
        std::vector<Note> notes;
        notes.reserve(count);
        for (std::size_t i = 0; i < count; ++i) {
            notes.push_back(
                {std::move(claims[i]), std::string(DEDUP_TRY(bytes(metadata[i], "metadata")))});
        }
        give_all(in.note_many(notes), outcome);
        return {};
    });
}

int dedup_lookup_many(dedup_cache* cache, const dedup_bytes* keys, size_t count,
                      dedup_outcome** outcome, dedup_error* error) {
    return across_many(error, Effect::none, cache, outcome, [&](Cache& in) -> Result<void> {
        DEDUP_TRY(check_array(keys, count, "keys"));
        std::vector<std::string_view> views;
        views.reserve(count);
        for (const dedup_bytes& key : std::span(keys, count)) {
            views.push_back(DEDUP_TRY(bytes(key, "key")));
        }
        give_all(in.lookup_many(views), outcome);
        return {};
    });
}

int dedup_remember_many(dedup_cache* cache, const dedup_bytes* keys, const dedup_bytes* receipts,
                        size_t count, const dedup_claim_options* options, size_t options_count,
                        dedup_outcome** outcome, dedup_error* error) {
    return across_many(error, Effect::possible, cache, outcome, [&](Cache& in) -> Result<void> {
        DEDUP_TRY(check_array(keys, count, "keys"));
        DEDUP_TRY(check_array(receipts, count, "receipts"));
        const auto all = DEDUP_TRY(options_of<ClaimOptions>(options, options_count, count,
                                                            "dedup_claim_options", claim_options));
        std::vector<RememberRequest> requests;
        requests.reserve(count);
        for (std::size_t i = 0; i < count; ++i) {
            requests.push_back({std::string(DEDUP_TRY(bytes(keys[i], "key"))),
                                std::string(DEDUP_TRY(bytes(receipts[i], "receipt"))),
                                for_item(all, i)});
        }
        give_all(in.remember_many(requests), outcome);
        return {};
    });
}
