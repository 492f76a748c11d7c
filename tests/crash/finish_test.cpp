// Power that fails while a consumer completes events and commits its offset.
//
// Each event is claimed, then completed together with the commit of its offset. The power is cut
// before every call that changes the disk. Whatever survives: an event is completed if and only if
// the offset has reached it. A consumer that trusts the offset neither skips an event nor
// processes one again.
//
// The same for a guard's batches, where events behind one that is not done may be completed.
//
// The same for what is said of claims: of notes, holds and decisions those are there that were
// acknowledged, and at most one more.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "crash/explore.hpp"
#include "dedup/guard.hpp"
#include "dedup/registry.hpp"

namespace dedup::test {
namespace {

// A store that records every call to its disk, and what is left of it when the power fails.
struct Recorded {
    Recorded() {
        REQUIRE(life.open());
        const auto ledger = std::make_shared<Ledger>();
        life.keep(ledger);
        life.record(ledger);
    }

    // Calls check(store, acknowledged, is_last) for each call and each way to lose power before
    // it. `finished` has for each step how many moments there had been when it was acknowledged.
    template <class Check>
    void cut_power(const std::vector<std::size_t>& finished, const Check& check) {
        std::uint64_t acknowledged = 0;
        for (std::size_t m = 0; m < life.moments.size(); ++m) {
            while (acknowledged < finished.size() && finished[acknowledged] <= m) {
                ++acknowledged;
            }
            for (int s = 0; s < kSurvivals; ++s) {
                CAPTURE(m);
                CAPTURE(s);
                Random random(m * 101 + static_cast<std::uint64_t>(s));
                const Moment& moment = life.moments[m];
                const Wreck wreck{lose_power(moment.disk, static_cast<Survival>(s), random),
                                  moment.catalogs.back()};
                Life after(wreck_dir.path(), wreck, options, random());
                REQUIRE(after.open());
                check(after.log_store(), acknowledged, m + 1 == life.moments.size());
            }
        }
    }

    const TempDir live_dir{fast_directory()};
    const TempDir wreck_dir{fast_directory()};
    ManualClock clock{1'700'000'000'000};
    OpenOptions options{.clock = clock.clock(),
                        .trust_clock = true,  // by which days go in one step
                        .segment_bytes = kSegmentBytesMin};
    Life life{live_dir.path(), {}, options, 1};
};

constexpr std::uint64_t kEvents = 120;

std::string event(std::uint64_t offset) {
    return "event-" + std::to_string(offset);
}

// Odd events are finished through the registry, even ones through a claim.
bool finish(StreamStore& store, std::uint64_t offset) {
    Registry registry(store);
    const std::string name = event(offset);
    const OffsetCommit commit{.pipeline = "p", .stream = "s", .offset = offset, .event_id = name};
    const std::string receipt(offset * 37 % 2'000, 'r');  // over several sectors
    if (offset % 2 == 1) {
        const auto done = registry.finish(commit, receipt);
        return done && std::holds_alternative<Committed>(*done);
    }
    const auto claimed = Cache(store).claim(name);
    if (!claimed || !std::holds_alternative<Claimed>(*claimed)) {
        return false;
    }
    const auto done =
        registry.offsets().complete_and_commit(std::get<Claimed>(*claimed).claim, receipt, commit);
    return done && std::holds_alternative<Committed>(*done);
}

bool processed(StreamStore& store, std::uint64_t offset) {
    if (offset % 2 == 1) {
        return Registry(store).was_processed("p", event(offset)).value();
    }
    const auto found = Cache(store).lookup(event(offset));
    return std::holds_alternative<Completed>(found.value());
}

// The events that are completed are exactly those up to the offset; gives how many.
std::uint64_t check_agreement(StreamStore& store) {
    const auto position = Registry(store).offsets().find("p", "s");
    REQUIRE_MESSAGE(position.has_value(), position.error().message);
    const std::uint64_t offset = *position ? (*position)->offset : 0;
    for (std::uint64_t i = 1; i <= kEvents; ++i) {
        CHECK_MESSAGE(processed(store, i) == (i <= offset), event(i), " at offset ", offset);
    }
    return offset;
}

TEST_CASE("power loss at every call: an event is completed if and only if its offset is there") {
    Recorded recorded;
    Life& life = recorded.life;
    std::vector<std::size_t> finished;  // so many moments had been by each event's end
    for (std::uint64_t i = 1; i <= kEvents; ++i) {
        REQUIRE(finish(life.store(), i));
        life.settle();
        finished.push_back(life.moments.size());
    }
    CHECK(check_agreement(life.store()) == kEvents);
    CHECK(life.store().stats()->segments_sealed > 0);

    std::uint64_t in_part = 0;
    recorded.cut_power(finished,
                       [&](StreamStore& store, std::uint64_t acknowledged, bool /*is_last*/) {
                           const std::uint64_t offset = check_agreement(store);
                           CHECK(offset >= acknowledged);
                           CHECK(offset <= acknowledged + 1);
                           in_part += offset > acknowledged ? 1 : 0;
                       });
    MESSAGE(life.moments.size() << " calls, each with " << kSurvivals << " wrecks; " << in_part
                                << " kept an event that was not acknowledged");
    CHECK(in_part > 0);
}

// Events `from` to `to` through a guard, one of them failing once, which holds the position up.
constexpr std::uint64_t kBatch = 10;
constexpr std::uint64_t kCompleteEvery = 4;

void process_batch(StreamStore& store, std::uint64_t from) {
    const auto guard = Guard::start(store, {.ns = "default", .lease = std::chrono::hours{1}});
    REQUIRE(guard.has_value());
    Offsets offsets(store, "registry.offsets");
    std::vector<std::string> names;
    for (std::uint64_t i = from; i < from + kBatch; ++i) {
        names.push_back(event(2 * i));  // those that are processed() by a Cache
    }
    std::vector<StreamEvent> events;
    for (std::uint64_t i = 0; i < kBatch; ++i) {
        events.push_back({names[i], from + i});
    }
    const Work work = [&](const Attempt& attempt) -> std::expected<std::string, dedup::Failure> {
        if (attempt.index == from % kBatch && attempt.number == 1) {
            return std::unexpected(dedup::Failure{.message = "once"});
        }
        return std::string((from + attempt.index) * 37 % 2'000, 'r');
    };
    const BatchOptions options{.complete_every = kCompleteEvery};
    for (int delivery = 0; delivery < 2; ++delivery) {
        (void)(*guard)->process_stream(offsets, "p", "s", events, work, options);
    }
}

TEST_CASE("power loss at every call: the position of a guard's batches passes no event undone") {
    constexpr std::uint64_t kBatches = 12;
    Recorded recorded;
    Life& life = recorded.life;
    const auto position = [](StreamStore& store) {
        const auto found = Registry(store).offsets().find("p", "s");
        REQUIRE_MESSAGE(found.has_value(), found.error().message);
        return *found ? (*found)->offset : 0;
    };
    std::vector<std::size_t> finished;
    for (std::uint64_t batch = 0; batch < kBatches; ++batch) {
        process_batch(life.store(), batch * (kBatch - 1) + 1);
        life.settle();
        finished.push_back(life.moments.size());
    }
    const std::uint64_t last = (kBatches - 1) * (kBatch - 1) + kBatch;
    CHECK(position(life.store()) == last);

    std::uint64_t within = 0;  // a batch, as the power failed
    recorded.cut_power(
        finished, [&](StreamStore& store, std::uint64_t acknowledged, bool /*is_last*/) {
            const std::uint64_t offset = position(store);
            for (std::uint64_t i = 1; i <= offset; ++i) {
                CHECK_MESSAGE(processed(store, 2 * i), event(2 * i), " at ", offset);
            }
            CHECK(offset >= (acknowledged == 0 ? 0 : (acknowledged - 1) * (kBatch - 1) + kBatch));
            within += offset % (kBatch - 1) != 1 ? 1 : 0;
        });
    CHECK(within > 0);
}

constexpr std::uint64_t kSaidKeys = 24;

std::string said_key(std::uint64_t i) {
    return "said-" + std::to_string(i);
}

// Everything that is known of the keys.
std::string snapshot(StreamStore& store) {
    std::string all;
    for (std::uint64_t i = 0; i < kSaidKeys; ++i) {
        const auto head = store.head({"default", said_key(i)});
        REQUIRE_MESSAGE(head.has_value(), head.error().message);
        if (*head) {
            encode(**head, all);
        }
    }
    return all;
}

// Claims a key, announces an effect, and brings it to one of four ends. `step` is called after
// each call.
template <class Step>
void say_all(StreamStore& store, std::uint64_t i, const Step& step) {
    Cache cache(store);
    const auto outcome = cache.claim(said_key(i), {.unanswered = Unanswered::hold});
    const Claim claim = std::get<Claimed>(outcome.value()).claim;
    step();
    const auto said = [&](const auto& result) {
        REQUIRE_MESSAGE(result.has_value(), result.error().message);
        step();
    };
    said(cache.note(claim, std::string(i * 91 % 1'500, 'n')));
    if (i % 4 == 0) {
        said(cache.complete(claim, "receipt"));
        said(cache.forget(claim.key, claim.claim_sequence, "paid back", "ada"));
        return;
    }
    said(cache.hold(claim, "timeout"));
    Resolution resolution{.reason = "looked", .by = "ada"};
    if (i % 4 == 1) {
        resolution.receipt = "found";
    }
    if (i % 4 != 3) {
        said(cache.resolve(claim.key, claim.claim_sequence, resolution));
    }
}

TEST_CASE("power loss at every call: notes, holds and decisions are as acknowledged") {
    // Guards against an effect whose note is lost, and against a held key that is free again.
    Recorded recorded;
    Life& life = recorded.life;
    std::vector<std::string> snapshots{snapshot(life.store())};
    std::vector<std::size_t> finished;
    for (std::uint64_t i = 0; i < kSaidKeys; ++i) {
        say_all(life.store(), i, [&] {
            life.settle();
            finished.push_back(life.moments.size());
            snapshots.push_back(snapshot(life.store()));
        });
    }

    recorded.cut_power(finished, [&](StreamStore& store, std::uint64_t acknowledged, bool is_last) {
        const std::string found = snapshot(store);
        const bool one_further =
            acknowledged + 1 < snapshots.size() && found == snapshots[acknowledged + 1];
        CHECK((found == snapshots[acknowledged] || one_further));
        if (is_last) {
            recorded.clock.advance(1'000LL * 3'600 * 24 * 365);
            CHECK(store.sweep({}).has_value());
            Cache cache(store);
            const auto held = cache.claim(said_key(3));
            CHECK(std::holds_alternative<Held>(held.value()));
        }
    });
}

}  // namespace
}  // namespace dedup::test
