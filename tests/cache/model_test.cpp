// Random histories of every operation, compared step by step with a plain map.
//
// The model is written from the protocol's description, not from its implementation: it knows no
// records, sequences of its own, batches or races. Of a new claim it is told the fence, and checks
// that no earlier claim had it.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "cache/helpers.hpp"

namespace dedup::test {
namespace {

constexpr std::int64_t kCacheTtlMs = 8'000;
constexpr std::int64_t kGraceMs = 1'000;

// Outcomes as text, so that one comparison covers all of their fields.
std::string show(const Claimed& o) {
    return "claimed " + o.claim.ns + " " + o.claim.key + " fence " +
           std::to_string(o.claim.claim_sequence) + " deadline " +
           std::to_string(o.claim.deadline_ms) + " attempt " + std::to_string(o.claim.attempt);
}
std::string show(const Completed& o) {
    return "completed " + o.receipt + " at " + std::to_string(o.completed_at_ms) + " fence " +
           std::to_string(o.claim_sequence);
}
std::string show(const InFlight& o) {
    return "in flight " + o.owner + " since " + std::to_string(o.since_ms) + " lease " +
           std::to_string(o.lease_until_ms) + " expires " + std::to_string(o.expires_at_ms) +
           " fence " + std::to_string(o.claim_sequence) + " attempt " + std::to_string(o.attempt);
}
std::string show(const Mismatch& o) {
    return "mismatch " + o.fingerprint + " " + std::string(name(o.state)) + " since " +
           std::to_string(o.since_ms) + " conflicts " + std::to_string(o.conflicts);
}
std::string show(const New& o) {
    return "new fence " + std::to_string(o.claim_sequence);
}
std::string show(const Absent&) {
    return "absent";
}
std::string show(bool released) {
    return released ? "released" : "nothing to release";
}
std::string show(const Claim& claim) {
    return show(Claimed{claim});
}

template <class... T>
std::string show(const std::variant<T...>& outcome) {
    return std::visit([](const auto& o) { return show(o); }, outcome);
}
template <class T>
std::string show(const Result<T>& result) {
    if (!result) {
        return std::string(name(result.error().code));
    }
    if constexpr (std::is_void_v<T>) {
        return "ok";
    } else {
        return show(*result);
    }
}

// The fence in an outcome that says it made one, else 0.
std::uint64_t new_fence(const Result<ClaimOutcome>& result) {
    const auto* made = result ? std::get_if<Claimed>(&*result) : nullptr;
    return made == nullptr ? 0 : made->claim.claim_sequence;
}
std::uint64_t new_fence(const Result<RememberOutcome>& result) {
    const auto* made = result ? std::get_if<New>(&*result) : nullptr;
    return made == nullptr ? 0 : made->claim_sequence;
}

class Model {
  public:
    std::int64_t now_ms = 0;

    std::string claim(const std::string& key, const ClaimOptions& options, std::uint64_t fence) {
        if (auto duplicate = refuse(key, options); !duplicate.empty()) {
            return duplicate;
        }
        Entry& entry = begin(key, options, fence);
        if (!options.expires_at_ms && options.ttl != kForever) {
            entry.ttl_ms = options.ttl.value_or(milliseconds{kCacheTtlMs}).count();
        }
        if (options.lease) {
            lend(entry, *options.lease);
        }
        return show(handle(key, entry));
    }

    std::string remember(const std::string& key, const std::string& receipt,
                         const ClaimOptions& options, std::uint64_t fence) {
        if (auto duplicate = refuse(key, options); !duplicate.empty()) {
            return duplicate;
        }
        Entry& entry = begin(key, options, fence);
        entry.state = State::completed;
        entry.receipt = receipt;
        return show(New{fence});
    }

    std::string complete(const std::string& key, const Claim* claim, const std::string& receipt) {
        Entry* const entry = alive(key);
        if (entry == nullptr || (claim != nullptr && claim->claim_sequence != entry->fence)) {
            return claim != nullptr ? "stale_claim" : "not_claimed";
        }
        if (entry->state == State::completed) {
            return entry->receipt == receipt ? "ok" : "receipt_mismatch";
        }
        entry->state = State::completed;
        entry->receipt = receipt;
        entry->since_ms = now_ms;
        if (entry->ttl_ms != 0) {
            entry->expires_at_ms = now_ms + entry->ttl_ms;
        }
        return "ok";
    }

    std::string release(const std::string& key, const Claim* claim) {
        Entry* const entry = alive(key);
        if (entry == nullptr || entry->state == State::completed) {
            return show(false);
        }
        if (claim != nullptr && claim->claim_sequence != entry->fence) {
            return "stale_claim";
        }
        entry->state = State::released;
        entry->expires_at_ms = now_ms + (entry->ttl_ms != 0 ? entry->ttl_ms : kCacheTtlMs);
        return show(true);
    }

    std::string renew(const Claim& claim, milliseconds lease) {
        Entry* const entry = alive(claim.key);
        if (entry == nullptr || entry->state == State::completed ||
            entry->fence != claim.claim_sequence) {
            return "stale_claim";
        }
        lend(*entry, lease);
        return show(handle(claim.key, *entry));
    }

    std::string lookup(const std::string& key) {
        const Entry* const entry = alive(key);
        return entry == nullptr ? show(Absent{}) : describe(*entry);
    }

  private:
    struct Entry {
        State state = State::in_flight;
        std::uint64_t fence = 0;
        std::int64_t since_ms = 0;
        std::int64_t expires_at_ms = 0;
        std::int64_t lease_until_ms = 0;
        std::int64_t ttl_ms = 0;
        std::uint32_t attempt = 1;
        std::uint64_t conflicts = 0;
        std::string owner;
        std::string fingerprint;
        std::string receipt;
    };

    // The key's entry if it is not forgotten, released ones included.
    Entry* remembered(const std::string& key) {
        const auto at = entries_.find(key);
        if (at == entries_.end() ||
            (at->second.expires_at_ms != 0 && now_ms > at->second.expires_at_ms + kGraceMs)) {
            return nullptr;
        }
        return &at->second;
    }

    Entry* alive(const std::string& key) {
        Entry* const entry = remembered(key);
        return entry != nullptr && entry->state != State::released ? entry : nullptr;
    }

    std::string refuse(const std::string& key, const ClaimOptions& options) {
        Entry* const entry = alive(key);
        if (entry == nullptr) {
            return {};
        }
        if (!options.fingerprint.empty() && !entry->fingerprint.empty() &&
            options.fingerprint != entry->fingerprint) {
            ++entry->conflicts;
            return show(
                Mismatch{entry->fingerprint, entry->state, entry->since_ms, entry->conflicts});
        }
        const bool ran_out = entry->state == State::in_flight && entry->lease_until_ms != 0 &&
                             now_ms > entry->lease_until_ms;
        return ran_out ? std::string() : describe(*entry);
    }

    Entry& begin(const std::string& key, const ClaimOptions& options, std::uint64_t fence) {
        CHECK(fences_.insert(fence).second);
        Entry entry;
        if (const Entry* const old = remembered(key)) {
            entry.attempt = old->attempt + 1;
        }
        entry.fence = fence;
        entry.since_ms = now_ms;
        entry.owner = options.owner;
        entry.fingerprint = options.fingerprint;
        if (options.expires_at_ms) {
            entry.expires_at_ms = *options.expires_at_ms;
        } else if (options.ttl != kForever) {
            entry.expires_at_ms = now_ms + options.ttl.value_or(milliseconds{kCacheTtlMs}).count();
        }
        Entry& stored = entries_[key];
        CHECK(fence > stored.fence);
        return stored = entry;
    }

    void lend(Entry& entry, milliseconds lease) const {
        entry.lease_until_ms = now_ms + lease.count();
        if (entry.expires_at_ms != 0) {
            entry.expires_at_ms = std::max(entry.expires_at_ms, entry.lease_until_ms);
        }
    }

    static Claim handle(const std::string& key, const Entry& entry) {
        const auto deadline =
            entry.lease_until_ms != 0 ? entry.lease_until_ms : entry.expires_at_ms;
        return {"default", key, entry.fence, deadline, entry.attempt};
    }

    static std::string describe(const Entry& entry) {
        if (entry.state == State::completed) {
            return show(Completed{entry.receipt, entry.since_ms, entry.fence, {}, {}});
        }
        return show(InFlight{entry.owner,
                             entry.since_ms,
                             entry.lease_until_ms,
                             entry.expires_at_ms,
                             entry.fence,
                             entry.attempt,
                             {}});
    }

    std::map<std::string, Entry> entries_;
    std::set<std::uint64_t> fences_;
};

// Runs one random history on a store and on the model.
class History {
  public:
    History(TestStore& store, unsigned seed) : store_(store), random_(seed) { reset_cache(); }

    void step() {
        model_.now_ms = (*store_).now_ms();
        switch (pick(13)) {
            case 0:
            case 1:
            case 2:
                return claim_many(1);
            case 3:
                return claim_many(1 + pick(6));
            case 4:
                return complete_by_claim(1);
            case 5:
                return complete_by_claim(1 + pick(4));
            case 6:
                return complete_by_key();
            case 7:
                return release();
            case 8:
                return renew();
            case 9:
                return remember_many(1 + pick(3));
            case 10:
                return look();
            case 11:
                return pass_time();
            default:
                return pick(20) == 0 ? reopen() : pass_time();
        }
    }

  private:
    std::size_t pick(std::size_t below) { return random_() % below; }

    std::string any_key() { return "key-" + std::to_string(pick(5)); }

    std::string any_receipt() { return "receipt-" + std::to_string(pick(2)); }

    // Of the newest claims, so that fences that still hold are hit often enough.
    Claim any_claim() {
        if (claims_.empty()) {
            return {"default", any_key(), 1, 0, 1};
        }
        return claims_[claims_.size() - 1 - pick(std::min<std::size_t>(claims_.size(), 12))];
    }

    ClaimOptions any_options(bool lease) {
        ClaimOptions options;
        options.owner = "owner-" + std::to_string(pick(3));
        options.fingerprint = pick(2) == 0 ? "" : "fp-" + std::to_string(pick(2));
        if (lease && pick(2) == 0) {
            options.lease = milliseconds{1 + static_cast<std::int64_t>(pick(5'000))};
        }
        const auto some_ms = 1 + static_cast<std::int64_t>(pick(6'000));
        switch (pick(5)) {
            case 0:
                options.ttl = milliseconds{some_ms};
                break;
            case 1:
                options.expires_at_ms = model_.now_ms + some_ms;
                break;
            case 2:
                options.ttl = pick(4) == 0 ? kForever : milliseconds{some_ms};
                break;
            default:
                break;
        }
        return options;
    }

    void claim_many(std::size_t count) {
        std::vector<std::string> keys(count);
        std::ranges::generate(keys, [this] { return any_key(); });
        std::vector<ClaimRequest> requests;
        for (const std::string& key : keys) {
            requests.push_back({key, any_options(true)});
        }
        std::vector<Result<ClaimOutcome>> got;
        if (count == 1) {
            got.push_back(cache_->claim(keys[0], requests[0].options));
        } else {
            got = cache_->claim_many(requests);
        }
        REQUIRE(got.size() == count);
        // The model takes them one after another, in the order in which their appends can land:
        // what a span gives is what single calls in its order would give.
        for (std::size_t i = 0; i < count; ++i) {
            CHECK(show(got[i]) == model_.claim(keys[i], requests[i].options, new_fence(got[i])));
            if (new_fence(got[i]) != 0) {
                claims_.push_back(std::get<Claimed>(*got[i]).claim);
            }
        }
    }

    void remember_many(std::size_t count) {
        std::vector<std::string> keys(count);
        std::ranges::generate(keys, [this] { return any_key(); });
        std::vector<RememberRequest> requests;
        for (const std::string& key : keys) {
            requests.push_back({key, any_receipt(), any_options(false)});
        }
        std::vector<Result<RememberOutcome>> got;
        if (count == 1) {
            got.push_back(cache_->remember(keys[0], requests[0].receipt, requests[0].options));
        } else {
            got = cache_->remember_many(requests);
        }
        REQUIRE(got.size() == count);
        for (std::size_t i = 0; i < count; ++i) {
            const auto& [key, receipt, options] = requests[i];
            CHECK(show(got[i]) == model_.remember(keys[i], receipt, options, new_fence(got[i])));
        }
    }

    void complete_by_claim(std::size_t count) {
        std::vector<Completion> completions(count);
        std::ranges::generate(completions, [this] {
            return Completion{any_claim(), any_receipt(), {}};
        });
        std::vector<Result<void>> got;
        if (count == 1) {
            got.push_back(cache_->complete(completions[0].claim, completions[0].receipt));
        } else {
            got = cache_->complete_many(completions);
        }
        REQUIRE(got.size() == count);
        for (std::size_t i = 0; i < count; ++i) {
            const auto& [claim, receipt, options] = completions[i];
            CHECK(show(got[i]) == model_.complete(claim.key, &claim, receipt));
        }
    }

    void complete_by_key() {
        const std::string key = any_key();
        const std::string receipt = any_receipt();
        CHECK(show(cache_->complete(key, receipt)) == model_.complete(key, nullptr, receipt));
    }

    void release() {
        if (pick(3) == 0) {
            const std::string key = any_key();
            CHECK(show(cache_->release(key)) == model_.release(key, nullptr));
        } else {
            const Claim claim = any_claim();
            CHECK(show(cache_->release(claim)) == model_.release(claim.key, &claim));
        }
    }

    void renew() {
        const Claim claim = any_claim();
        const milliseconds lease{1 + static_cast<std::int64_t>(pick(5'000))};
        CHECK(show(cache_->renew(claim, lease)) == model_.renew(claim, lease));
    }

    void look() {
        for (std::size_t i = 0; i < 5; ++i) {
            const std::string key = "key-" + std::to_string(i);
            CHECK(show(cache_->lookup(key)) == model_.lookup(key));
        }
    }

    void pass_time() {
        const auto by_ms = static_cast<std::int64_t>(pick(2'500));
        store_.clock.advance(pick(10) == 0 ? -by_ms : by_ms);
    }

    void reopen() {
        if (store_.durable()) {
            cache_.reset();
            store_.reopen();
            reset_cache();
        }
    }

    void reset_cache() {
        cache_ = std::make_unique<Cache>(*store_, CacheOptions{.ttl = milliseconds{kCacheTtlMs}});
    }

    TestStore& store_;
    std::mt19937 random_;
    std::unique_ptr<Cache> cache_;
    Model model_;
    std::vector<Claim> claims_;
};

TEST_CASE("model: random histories give what a plain map gives") {
    // Guards against a rule that holds alone and breaks in company.
    on_each_factory([](const StoreFactory& factory) {
        const unsigned seeds = factory.durable ? 2 : 20;
        const int steps = factory.durable ? 1'000 : 3'000;
        for (unsigned seed = 1; seed <= seeds; ++seed) {
            CAPTURE(seed);
            TestStore store = factory.make();
            History history(store, seed);
            for (int step = 0; step < steps; ++step) {
                CAPTURE(step);
                history.step();
            }
        }
    });
}

}  // namespace
}  // namespace dedup::test
