// Random histories of every operation, compared step by step with a plain map.
//
// The model is that of support/claim_model.hpp for each key. Of a new claim it is told the fence,
// and checks that no earlier claim had it.
//
// Where a store has copies, one is taken now and then, and put back, once or several times. Then
// the model is what it was at the copy. But the fences of all that came after it, in whichever line
// of time, are dead and say why, and no claim gets one of them, or a lower one.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "cache/helpers.hpp"
#include "dedup/backup.hpp"
#include "support/claim_model.hpp"

namespace dedup::test {
namespace {

constexpr std::int64_t kCacheTtlMs = 8'000;
// Later than the system's time, by which a copy is opened while it is made.
constexpr std::int64_t kStartMs = 4'000'000'000'000;

class Model {
  public:
    std::int64_t now_ms = 0;

    using Keys = std::map<std::string, KeyModel>;
    [[nodiscard]] const Keys& keys() const { return keys_; }
    // All is as it was, but that sequences up to `last_sequence` have been assigned.
    void put_back(const Keys& keys, std::uint64_t last_sequence) {
        keys_ = keys;
        last_sequence_ = std::max(last_sequence_, last_sequence);
    }

    std::string claim(const std::string& key, const ClaimOptions& options, std::uint64_t fence) {
        return checked(key, fence,
                       [&](KeyModel& model) { return model.claim(now_ms, options, fence); });
    }
    std::string remember(const std::string& key, const std::string& receipt,
                         const ClaimOptions& options, std::uint64_t fence) {
        return checked(key, fence, [&](KeyModel& model) {
            return model.remember(now_ms, receipt, options, fence);
        });
    }
    std::string complete(const std::string& key, const Claim* claim, const std::string& receipt) {
        return of(key).complete(now_ms, fence_of(claim), receipt);
    }
    std::string release(const std::string& key, const Claim* claim) {
        return of(key).release(now_ms, fence_of(claim));
    }
    std::string renew(const Claim& claim, milliseconds lease) {
        return of(claim.key).renew(now_ms, claim.claim_sequence, lease);
    }
    std::string lookup(const std::string& key) { return of(key).lookup(now_ms); }
    std::string note(const Claim& claim, const std::string& text) {
        return of(claim.key).note(now_ms, claim.claim_sequence, text);
    }
    std::string hold(const Claim& claim, const std::string& reason) {
        return of(claim.key).hold(now_ms, claim.claim_sequence, reason);
    }
    std::string resolve(const Claim& claim, const Resolution& resolution) {
        return of(claim.key).resolve(now_ms, claim.claim_sequence, resolution);
    }
    std::string forget(const Claim& claim, const std::string& reason) {
        return of(claim.key).forget(now_ms, claim.claim_sequence, reason);
    }

  private:
    static std::uint64_t fence_of(const Claim* claim) {
        return claim == nullptr ? 0 : claim->claim_sequence;
    }

    KeyModel& of(const std::string& key) {
        return keys_.try_emplace(key, "default", key, kCacheTtlMs).first->second;
    }

    // A new fence is higher than all before it, and no other key has had it.
    template <class Run>
    std::string checked(const std::string& key, std::uint64_t fence, Run run) {
        KeyModel& model = of(key);
        const std::uint64_t before = model.fence();
        std::string outcome = run(model);
        if (model.fence() != before) {
            CHECK(fence > before);
            CHECK(fence > last_sequence_);
            CHECK(fences_.insert(fence).second);
        }
        return outcome;
    }

    Keys keys_;
    std::set<std::uint64_t> fences_;
    std::uint64_t last_sequence_ = 0;  // of all lines of time that have ended
};

// Runs one random history on a store and on the model.
class History {
  public:
    History(TestStore& store, unsigned seed) : store_(store), random_(seed) {
        store_.clock.set(kStartMs);
        reset_cache();
    }

    void step() {
        model_.now_ms = (*store_).now_ms();
        switch (pick(18)) {
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
            case 12:
                return note();
            case 13:
                return pick(3) == 0 ? hold() : note();
            case 14:
                return resolve();
            case 15:
                return pick(2) == 0 ? forget() : resolve();
            case 16:
                return pick(6) != 0 ? pass_time() : pick(2) == 0 ? back_up() : put_back();
            default:
                return pick(20) == 0 ? reopen() : pass_time();
        }
    }

    // Claims from after a copy, each time that it was put back.
    [[nodiscard]] std::size_t dead_claims() const { return dead_claims_; }

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
        if (pick(3) == 0) {
            options.unanswered = pick(3) == 0 ? Unanswered::rerun : Unanswered::hold;
        }
        options.metadata.assign(pick(3), 'm');
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
        CHECK(show(cache_->complete_current(key, receipt)) ==
              model_.complete(key, nullptr, receipt));
    }

    void release() {
        if (pick(3) == 0) {
            const std::string key = any_key();
            CHECK(show(cache_->release_current(key)) == model_.release(key, nullptr));
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

    void note() {
        const Claim claim = any_claim();
        const std::string text = "note-" + std::to_string(pick(2));
        if (pick(2) == 0) {
            CHECK(show(cache_->note(claim, text)) == model_.note(claim, text));
            return;
        }
        const std::vector<Note> notes{{claim, text}, {any_claim(), "other"}};
        const auto got = cache_->note_many(notes);
        for (std::size_t i = 0; i < notes.size(); ++i) {
            CHECK(show(got[i]) == model_.note(notes[i].claim, notes[i].metadata));
        }
    }

    void hold() {
        const Claim claim = any_claim();
        CHECK(show(cache_->hold(claim, "lost")) == model_.hold(claim, "lost"));
    }

    void resolve() {
        const Claim claim = any_claim();
        Resolution resolution{.reason = "looked", .by = "ada"};
        if (pick(2) == 0) {
            resolution.receipt = any_receipt();
        }
        CHECK(show(cache_->resolve(claim.key, claim.claim_sequence, resolution)) ==
              model_.resolve(claim, resolution));
    }

    void forget() {
        Claim claim = any_claim();
        if (pick(2) == 0) {
            claim.claim_sequence = 0;
        }
        CHECK(show(cache_->forget(claim.key, claim.claim_sequence, "why")) ==
              model_.forget(claim, "why"));
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

    [[nodiscard]] std::filesystem::path beside_store(const char* name) const {
        return store_.path().parent_path() / name;
    }

    void back_up() {
        if (store_.has_segments()) {
            must(backup(store_.path(), beside_store("copy")));
            copy_ = Copy{model_.keys(), claims_.size()};
        }
    }

    void put_back() {
        if (!copy_) {
            return;
        }
        const std::uint64_t last_sequence = must((*store_).stats()).last_sequence;
        cache_.reset();
        must(restore(beside_store("copy"), beside_store("back")));
        store_.replace_by(beside_store("back"));
        reset_cache();
        model_.put_back(copy_->keys, last_sequence);
        model_.now_ms = (*store_).now_ms();
        for (std::size_t i = copy_->claims; i < claims_.size(); ++i) {
            ++dead_claims_;
            check_dead(claims_[i]);
        }
    }

    // Of a claim that the copy does not know.
    void check_dead(const Claim& claim) {
        const auto refused = [](const auto& result) {
            check_error(result, Code::stale_claim, "put back from a copy");
        };
        refused(cache_->complete(claim, "late"));
        refused(cache_->renew(claim, milliseconds{1'000}));
        refused(cache_->note(claim, "late"));
        refused(cache_->hold(claim, "late"));
        refused(cache_->resolve(claim.key, claim.claim_sequence, {.reason = "late"}));
        CHECK(show(cache_->release(claim)) == model_.release(claim.key, &claim));
    }

    void reset_cache() {
        cache_ = std::make_unique<Cache>(
            *store_,
            CacheOptions{.ttl = milliseconds{kCacheTtlMs}, .attempts_max = KeyModel::kAttemptsMax});
    }

    TestStore& store_;
    std::mt19937 random_;
    std::unique_ptr<Cache> cache_;
    Model model_;
    std::vector<Claim> claims_;
    struct Copy {
        Model::Keys keys;
        std::size_t claims = 0;  // made before it
    };
    std::optional<Copy> copy_;
    std::size_t dead_claims_ = 0;
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
            CHECK((history.dead_claims() > 0) == store.has_segments());
        }
    });
}

}  // namespace
}  // namespace dedup::test
