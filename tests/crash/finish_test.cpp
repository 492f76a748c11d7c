// Power that fails while a consumer completes events and commits its offset.
//
// Each event is claimed, then completed together with the commit of its offset. The power is cut
// before every call that changes the disk. Whatever survives: an event is completed if and only if
// the offset has reached it. A consumer that trusts the offset neither skips an event nor
// processes one again.
#include <doctest/doctest.h>

#include <string>

#include "crash/explore.hpp"
#include "dedup/registry.hpp"

namespace dedup::test {
namespace {

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
    const TempDir live_dir(fast_directory());
    const TempDir wreck_dir(fast_directory());
    ManualClock clock(1'700'000'000'000);
    OpenOptions options;
    options.segment_bytes = kSegmentBytesMin;
    options.clock = clock.clock();
    options.trust_clock = true;  // by which days go in one step
    Life life(live_dir.path(), {}, options, 1);
    REQUIRE(life.open());
    const auto ledger = std::make_shared<Ledger>();
    life.keep(ledger);
    life.record(ledger);
    std::vector<std::size_t> finished;  // so many moments had been by each event's end
    for (std::uint64_t i = 1; i <= kEvents; ++i) {
        REQUIRE(finish(life.store(), i));
        life.settle();
        finished.push_back(life.moments.size());
    }
    CHECK(check_agreement(life.store()) == kEvents);
    CHECK(life.store().stats()->segments_sealed > 0);

    std::uint64_t acknowledged = 0;
    std::uint64_t in_part = 0;
    for (std::size_t m = 0; m < life.moments.size(); ++m) {
        while (acknowledged < kEvents && finished[acknowledged] <= m) {
            ++acknowledged;
        }
        for (int s = 0; s < kSurvivals; ++s) {
            Random random(m * 101 + static_cast<std::uint64_t>(s));
            const Moment& moment = life.moments[m];
            const Wreck wreck{lose_power(moment.disk, static_cast<Survival>(s), random),
                              moment.catalogs.back()};
            Life after(wreck_dir.path(), wreck, options, random());
            REQUIRE(after.open());
            const std::uint64_t offset = check_agreement(after.log_store());
            CHECK(offset >= acknowledged);
            CHECK(offset <= acknowledged + 1);
            in_part += offset > acknowledged ? 1 : 0;
        }
    }
    MESSAGE(life.moments.size() << " calls, each with " << kSurvivals << " wrecks; " << in_part
                                << " kept an event that was not acknowledged");
    CHECK(in_part > 0);
}

}  // namespace
}  // namespace dedup::test
