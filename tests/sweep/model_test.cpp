// Random histories with sweeps, compared step by step with a plain map.
//
//     DEDUP_SWEEP_SEEDS=5000     runs so many on each store instead of the usual few hundred
//     DEDUP_SWEEP_SEED=17        runs that one alone, as after a failure, which names its seed
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "dedup/cache.hpp"
#include "support/environment.hpp"
#include "support/stores.hpp"
#include "support/sweep_text.hpp"
#include "sweep/model.hpp"

namespace dedup::test {
namespace {

using std::chrono::milliseconds;
using Name = SweepModel::Name;

constexpr int kSteps = 250;
constexpr std::size_t kNamespaces = 3;

std::string show_result(const Result<SweepReport>& report) {
    return report ? show(*report) : report.error().message;
}

// A history of one store. Some have a capacity, with or without eviction, and some trust a clock
// that jumps. `forgets`, if set, says whether the catalog is removed at each reopening; then two of
// one seed do the same.
class History {
  public:
    History(const StoreFactory& factory, std::uint64_t seed, std::optional<bool> forgets = {})
        : random_(seed),
          forgets_(forgets.value_or(false)),
          compared_(forgets.has_value()),
          capacity_(any_capacity()),
          store_(factory.make(capacity_, trusts_)) {
        open_caches();
    }

    void step() {
        model_.see((*store_).now_ms(), trusts_);
        switch (pick(20)) {
            case 0:
            case 1:
            case 2:
            case 3:
                return claim();
            case 4:
            case 5:
            case 6:
                return complete();
            case 7:
                return release();
            case 8:
                return renew();
            case 9:
            case 10:
            case 11:
                return remember();
            case 12:
                return capacity_.keys_max == 0 ? fill() : remember();
            case 13:
            case 14:
                return sweep();
            case 15:
                return pick(4) == 0 ? reopen() : look();
            default:
                return pass_time();
        }
    }

    // Everything that can be read, at the end and now and then before.
    void look() {
        std::set<Name> seen;
        ScanOptions options;
        options.heads_max = 1 + pick(60);
        do {
            const auto page = store_->scan(options);
            REQUIRE_MESSAGE(page.has_value(), page.error().message);
            for (const Version& version : page->heads) {
                CHECK(seen.insert({version.record.ns, version.record.key}).second);
                check_head(version.record);
            }
            options.cursor = page->cursor;
        } while (!options.cursor.empty());
        CHECK(seen.size() == model_.streams().size());
        const auto stats = store_->stats();
        REQUIRE_MESSAGE(stats.has_value(), stats.error().message);
        const StateCounts counts{stats->in_flight, stats->completed, stats->released};
        CHECK(show(counts) == show(model_.counts()));
        CHECK(stats->evicted == evicted_);
        CHECK(stats->background_error == "");
        CHECK(stats->sweep_error == "");
        look_at_sweeps();
    }

    // What differs from another history of the same seed: counts, reports, and the stored versions
    // of every stream.
    void compare(History& other) {
        CHECK(store_counts() == other.store_counts());
        CHECK(files_ == other.files_);
        files_.clear();
        other.files_.clear();
        for (const auto& [name, stream] : model_.streams()) {
            CAPTURE(name.first);
            CAPTURE(name.second);
            CHECK(versions(name) == other.versions(name));
        }
    }

  private:
    std::vector<std::uint64_t> store_counts() {
        const auto stats = store_->stats();
        REQUIRE(stats.has_value());
        return {stats->in_flight, stats->completed,     stats->released,
                stats->records,   stats->last_sequence, stats->damaged};
    }

    std::vector<std::uint64_t> versions(const Name& name) {
        const auto history = store_->history({name.first, name.second});
        REQUIRE_MESSAGE(history.has_value(), history.error().message);
        std::vector<std::uint64_t> sequences;
        for (const Version& version : *history) {
            sequences.push_back(version.record.sequence);
        }
        return sequences;
    }

    std::size_t pick(std::size_t below) { return random_() % below; }

    Capacity any_capacity() {
        switch (pick(4)) {
            case 0:
                return {.keys_max = 5 + pick(15), .evict_oldest = pick(3) != 0};
            case 1:
                return {.keys_max = 64 + pick(100), .evict_oldest = true};
            default:
                return {};
        }
    }

    // More keys than fit, where there is a limit.
    Name any_name() {
        return {"ns-" + std::to_string(pick(kNamespaces)),
                "key-" + std::to_string(pick(key_count()))};
    }
    [[nodiscard]] std::size_t key_count() const {
        return capacity_.keys_max == 0 ? 12 : capacity_.keys_max / kNamespaces + 4;
    }

    // A quarter of them is so large that segments fill.
    std::string any_receipt() {
        const std::size_t size = pick(4) == 0 ? pick(6'000) : pick(10);
        return std::string(size, static_cast<char>('a' + pick(26)));
    }

    std::int64_t any_ttl() {
        return !all_expire_ && pick(8) == 0 ? 0 : 1 + static_cast<std::int64_t>(pick(9'000));
    }

    ClaimOptions options_for(std::int64_t ttl_ms) {
        ClaimOptions options;
        options.ttl = ttl_ms == 0 ? kForever : milliseconds{ttl_ms};
        options.owner = "owner-" + std::to_string(pick(3));
        return options;
    }

    Cache& cache_of(const Name& name) {
        return *caches_[static_cast<std::size_t>(name.first.back() - '0')];
    }

    // Of a claim that holds, of one that does no more, or of none that ever was.
    Claim any_claim(const Name& name) {
        const ModelStream* const stream = model_.alive(name);
        Claim claim{.ns = name.first, .key = name.second};
        claim.claim_sequence = stream != nullptr && pick(6) != 0 ? stream->fence : 1 + pick(500);
        return claim;
    }

    // Does what a store does before it begins a stream; false if there is no room for it.
    bool make_room(const Name& name) {
        if (capacity_.keys_max == 0 || model_.has(name) ||
            model_.streams().size() < capacity_.keys_max) {
            return true;
        }
        if (!capacity_.evict_oldest) {
            return false;
        }
        must_evict_ = model_.unexpired() >= capacity_.keys_max;
        return true;
    }

    // What the append that has just been made had to remove is in the newest report. How many it
    // evicts is the store's choice; which they are is not.
    void check_room_made(bool landed) {
        if (!must_evict_) {
            return;
        }
        const bool evicts = *std::exchange(must_evict_, std::nullopt);
        if (!landed) {
            CHECK(evicts);
            CHECK(model_.counts().completed == 0);
            return;
        }
        const auto sweeps = store_->sweep_history();
        REQUIRE((sweeps.has_value() && !sweeps->empty()));
        const std::uint64_t evicted = sweeps->front().evicted;
        CHECK(evicted >= (evicts ? std::max<std::uint64_t>(1, capacity_.keys_max / 64) : 0));
        CHECK(evicted <= (evicts ? 1 + capacity_.keys_max / 8 : 0));
        note(model_.sweep(100, false, evicted));
        CHECK(show(sweeps->front()) == past_.back());
        evicted_ += evicted;
    }

    void claim() {
        const Name name = any_name();
        const std::int64_t ttl_ms = any_ttl();
        ClaimOptions options = options_for(ttl_ms);
        if (pick(2) == 0) {
            options.lease = milliseconds{1 + static_cast<std::int64_t>(pick(5'000))};
        }
        const bool claimable = model_.claimable(name);
        const bool room = !claimable || make_room(name);
        const auto outcome = cache_of(name).claim(name.second, options);
        check_room_made(outcome.has_value());
        if (!outcome) {
            return check_refusal(outcome.error(), room);
        }
        const auto* const claimed = std::get_if<Claimed>(&*outcome);
        REQUIRE((claimed != nullptr) == claimable);
        if (claimed == nullptr) {
            return check_duplicate(name, *outcome);
        }
        ModelStream& stream = begin(name, claimed->claim.claim_sequence, ttl_ms);
        stream.owner = options.owner;
        stream.attempt = claimed->claim.attempt;
        if (options.lease) {
            model_.lend(stream, options.lease->count());
        }
    }

    void remember() {
        const Name name = any_name();
        const std::int64_t ttl_ms = any_ttl();
        const std::string receipt = any_receipt();
        const bool claimable = model_.claimable(name);
        const bool room = !claimable || make_room(name);
        const auto outcome = cache_of(name).remember(name.second, receipt, options_for(ttl_ms));
        check_room_made(outcome.has_value());
        if (!outcome) {
            return check_refusal(outcome.error(), room);
        }
        const auto* const fresh = std::get_if<New>(&*outcome);
        REQUIRE((fresh != nullptr) == claimable);
        if (fresh == nullptr) {
            return check_duplicate(name, *outcome);
        }
        model_.complete(begin(name, fresh->claim_sequence, ttl_ms), receipt);
    }

    // Many at once, of which most expire soon: whole segments of garbage, and some with a survivor.
    void fill() {
        std::vector<std::string> keys;
        std::vector<RememberRequest> requests;
        const std::int64_t ttl_ms = 1 + static_cast<std::int64_t>(pick(3'000));
        for (std::size_t i = 0; i < 40; ++i) {
            keys.push_back("fill-" + std::to_string(++filled_));
        }
        for (const std::string& key : keys) {
            const bool survives = !all_expire_ && pick(50) == 0;
            requests.push_back({key, std::string(2'000, 'f'), options_for(survives ? 0 : ttl_ms)});
        }
        const auto outcomes = caches_[0]->remember_many(requests);
        for (std::size_t i = 0; i < keys.size(); ++i) {
            REQUIRE_MESSAGE(outcomes[i].has_value(), outcomes[i].error().message);
            const bool survives = requests[i].options.ttl == kForever;
            model_.complete(begin({"ns-0", keys[i]}, std::get<New>(*outcomes[i]).claim_sequence,
                                  survives ? 0 : ttl_ms),
                            requests[i].receipt);
        }
    }

    ModelStream& begin(const Name& name, std::uint64_t fence, std::int64_t ttl_ms) {
        CHECK(fence > fence_high_);  // never one that anybody may still hold
        fence_high_ = fence;
        return model_.begin(name, fence, ttl_ms);
    }

    void check_refusal(const Error& error, bool room) {
        CHECK_MESSAGE(error.code == Code::out_of_space, error.message);
        CHECK((!room || capacity_.evict_oldest));
        CHECK(model_.streams().size() >= capacity_.keys_max);
    }

    template <class Outcome>
    void check_duplicate(const Name& name, const Outcome& outcome) {
        const ModelStream* const stream = model_.alive(name);
        REQUIRE(stream != nullptr);
        if (const auto* const done = std::get_if<Completed>(&outcome)) {
            CHECK(stream->state == State::completed);
            CHECK(done->receipt == stream->receipt);
            CHECK(done->claim_sequence == stream->fence);
        } else {
            REQUIRE(std::holds_alternative<InFlight>(outcome));
            CHECK(stream->state == State::in_flight);
            CHECK(std::get<InFlight>(outcome).claim_sequence == stream->fence);
        }
    }

    void complete() {
        const Name name = any_name();
        const Claim claim = any_claim(name);
        const std::string receipt = any_receipt();
        const auto result = cache_of(name).complete(claim, receipt);
        ModelStream* const stream = model_.alive(name);
        if (stream == nullptr || stream->fence != claim.claim_sequence) {
            REQUIRE(!result.has_value());
            CHECK(result.error().code == Code::stale_claim);
        } else if (stream->state == State::completed) {
            CHECK(result.has_value() == (stream->receipt == receipt));
        } else {
            REQUIRE_MESSAGE(result.has_value(), result.error().message);
            model_.complete(*stream, receipt);
        }
    }

    void release() {
        const Name name = any_name();
        const Claim claim = any_claim(name);
        const auto result = cache_of(name).release(claim);
        ModelStream* const stream = model_.alive(name);
        const auto known = model_.streams().find(name);
        if (known != model_.streams().end() && claim.claim_sequence > known->second.fence) {
            REQUIRE(!result.has_value());  // newer than all that the store knows
            CHECK(result.error().code == Code::stale_claim);
        } else if (stream == nullptr || stream->state == State::completed) {
            CHECK(result == false);
        } else if (stream->fence != claim.claim_sequence) {
            REQUIRE(!result.has_value());
            CHECK(result.error().code == Code::stale_claim);
        } else {
            CHECK(result == true);
            model_.release(*stream);
        }
    }

    void renew() {
        const Name name = any_name();
        const Claim claim = any_claim(name);
        const std::int64_t lease_ms = 1 + static_cast<std::int64_t>(pick(5'000));
        const auto result = cache_of(name).renew(claim, milliseconds{lease_ms});
        ModelStream* const stream = model_.alive(name);
        const bool holds = stream != nullptr && stream->state == State::in_flight &&
                           stream->fence == claim.claim_sequence;
        REQUIRE(result.has_value() == holds);
        if (holds) {
            model_.lend(*stream, lease_ms);
        }
    }

    void sweep() {
        SweepOptions options;
        options.dry_run = pick(3) == 0;
        options.compact = pick(4) == 0;
        options.unanswered_max = pick(3) == 0 ? pick(4) : 100;
        std::stop_source stop;
        switch (pick(6)) {
            case 0:
                options.bytes_max = 1 + pick(100'000);
                break;
            case 1:
                options.records_max = 1 + pick(50);
                break;
            case 2:
                options.time_max = milliseconds{compared_ ? 0 : 1};
                break;
            case 3:
                options.stop = stop.get_token();
                stop.request_stop();
                break;
            default:
                break;
        }
        if (pick(8) == 0) {  // ahead of the clock, or behind
            options.now_ms = model_.now_ms + static_cast<std::int64_t>(pick(3'000)) - 1'000;
        }
        options.trust_clock = pick(4) == 0;
        const std::int64_t before_ms = model_.now_ms;
        const std::int64_t withheld_before_ms = model_.withheld_until_ms;
        model_.now_ms = std::max(model_.now_ms, options.now_ms.value_or(0));
        if (options.trust_clock) {
            model_.withheld_until_ms = 0;
        }
        const bool withheld = model_.withheld();
        const SweepReport expected = model_.sweep(options.unanswered_max, options.dry_run);
        const auto report = store_->sweep(options);
        CHECK(show_result(report) == show(expected));
        REQUIRE((report && report->dry_run == options.dry_run));
        CHECK(report->withheld.has_value() == withheld);
        if (!options.dry_run) {  // which cannot drop what is not sealed yet
            files_ += std::to_string(report->segments_dropped) + " dropped, " +
                      std::to_string(report->segments_compacted) + " compacted, records " +
                      std::to_string(report->records_dropped) + " dropped, " +
                      std::to_string(report->records_moved) + " moved\n";
        }
        if (options.dry_run) {
            model_.now_ms = before_ms;
            model_.withheld_until_ms = withheld_before_ms;
            CHECK((*store_).now_ms() == before_ms);
        } else {
            note(expected);
        }
    }

    void note(const SweepReport& report) {
        if (report.removed.total() != 0) {
            past_.push_back(show(report));
        }
    }

    // Sweeps that only gave back space are in there too, and not in the model's.
    void look_at_sweeps() {
        const auto sweeps = store_->sweep_history();
        REQUIRE_MESSAGE(sweeps.has_value(), sweeps.error().message);
        auto past = past_.rbegin();
        for (const SweepReport& report : *sweeps) {
            if (report.removed.total() != 0) {
                REQUIRE(past != past_.rend());
                CHECK(show(report) == *past++);
            }
        }
        CHECK((past == past_.rend() || sweeps->size() == 100));
    }

    void check_head(const Record& head) {
        const auto at = model_.streams().find({head.ns, head.key});
        CAPTURE(head.ns);
        CAPTURE(head.key);
        REQUIRE(at != model_.streams().end());
        CHECK(head.state() == at->second.state);
        CHECK(head.claim_sequence == at->second.fence);
        CHECK(head.timestamp_ms == at->second.since_ms);
        CHECK(head.expires_at_ms == at->second.expires_at_ms);
        CHECK((head.receipt.value_or("") == at->second.receipt));  // in brackets: not to be printed
    }

    void pass_time() {
        const auto by_ms = static_cast<std::int64_t>(pick(pick(8) == 0 ? 20'000 : 2'500));
        store_.clock.advance(pick(10) == 0 ? -by_ms : by_ms);
        switch (pick(60)) {
            case 0:  // a jump, and hardly one; nearly the day that ends it, and all of it
                return store_.clock.advance(kModelJumpMs * 100);
            case 1:
                return store_.clock.advance(kModelJumpMs + 30'000);
            case 2:
                return store_.clock.advance(kModelJumpMs - 120'000);
            case 3:
                return store_.clock.advance(kModelJumpMs / 2);
            default:
                return;
        }
    }

    void reopen() {
        if (store_.durable()) {
            caches_.clear();
            store_.reopen(forgets_);
            if (forgets_) {  // the log does not say these
                past_.clear();
                evicted_ = 0;
            }
            open_caches();
            model_.see((*store_).now_ms(), trusts_);
        }
        if (store_.has_segments()) {
            const auto report = verify(store_.path());
            REQUIRE_MESSAGE(report.has_value(), report.error().message);
            CHECK((report->problems.empty() ? "" : report->problems.front()) == "");
        }
        look();
    }

    void open_caches() {
        for (std::size_t i = 0; i < kNamespaces; ++i) {
            caches_.push_back(std::make_unique<Cache>(
                *store_,
                CacheOptions{.ns = "ns-" + std::to_string(i), .ttl = milliseconds{kModelTtlMs}}));
        }
    }

    std::mt19937 random_;
    const bool forgets_;
    const bool compared_;
    std::string files_;  // what sweeps reported of files, since the last comparison
    const bool all_expire_ = pick(2) == 0;
    const bool trusts_ = pick(2) == 0;
    Capacity capacity_;
    TestStore store_;
    std::vector<std::unique_ptr<Cache>> caches_;
    SweepModel model_;
    std::vector<std::string> past_;   // reports as text, oldest first
    std::optional<bool> must_evict_;  // set: the next append has to sweep first
    std::uint64_t evicted_ = 0;
    std::uint64_t fence_high_ = 0;
    std::uint64_t filled_ = 0;
};

TEST_CASE("sweep model: random histories give what a plain map gives") {
    // Guards against a report, or a stream, that is wrong only after a certain history.
    on_each_factory([](const StoreFactory& factory) {
        const std::uint64_t only = number_from_environment("DEDUP_SWEEP_SEED", 0);
        const std::uint64_t seeds =
            number_from_environment("DEDUP_SWEEP_SEEDS", factory.heads_only         ? 8
                                                         : factory.name == "remote" ? 10
                                                         : factory.durable          ? 60
                                                                                    : 400);
        for (std::uint64_t seed = only != 0 ? only : 1; seed <= (only != 0 ? only : seeds);
             ++seed) {
            CAPTURE(seed);
            History history(factory, seed);
            for (int step = 0; step < kSteps; ++step) {
                CAPTURE(step);
                history.step();
            }
            history.look();
        }
    });
}

TEST_CASE("sweep model: a store that loses its catalog again and again is as one that keeps it") {
    // Guards against a catalog that is made anew and counts otherwise: then what hides an older
    // record is dropped, and what was swept comes back.
    const StoreFactory log{"log", true, open_log_store};
    const std::uint64_t only = number_from_environment("DEDUP_SWEEP_SEED", 0);
    const std::uint64_t seeds = number_from_environment("DEDUP_SWEEP_SEEDS", 30);
    for (std::uint64_t seed = only != 0 ? only : 1; seed <= (only != 0 ? only : seeds); ++seed) {
        CAPTURE(seed);
        History keeps(log, seed, false);
        History forgets(log, seed, true);
        for (int step = 0; step < kSteps; ++step) {
            CAPTURE(step);
            keeps.step();
            forgets.step();
            if (step % 25 == 0) {
                keeps.compare(forgets);
            }
        }
        keeps.look();
        forgets.look();
        keeps.compare(forgets);
    }
}

}  // namespace
}  // namespace dedup::test
