// A read-only store beside a writer that changes the log while it is being opened and followed.

#include <doctest/doctest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "support/hooked_env.hpp"
#include "support/log_helpers.hpp"
#include "support/manual_clock.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

// Writes the stream "counter" anew, and keys that expire, until the newest segment is `segment`.
class Rounds {
  public:
    Rounds(StreamStore& store, const ManualClock& clock) : store_(store), clock_(clock) {}

    void run_into(std::uint64_t segment) {
        std::uint64_t newest = 0;
        while (newest < segment) {
            ++round_;
            Record counter = completed_record("counter", std::to_string(round_));
            Record brief =
                completed_record("brief-" + counter.receipt.value(), std::string(9'000, '.'));
            counter.timestamp_ms = brief.timestamp_ms = clock_.now_ms();
            brief.expires_at_ms = clock_.now_ms() + 1;
            const std::vector<Append> batch = {{sequence_, counter}, {0, brief}};
            const auto results = store_.append(batch);
            REQUIRE(results[0]);
            REQUIRE(results[1]);
            sequence_ = *results[0];
            newest = store_.history({"test", "counter"})->back().segment;
        }
    }
    [[nodiscard]] std::string last() const { return std::to_string(round_); }

  private:
    StreamStore& store_;
    const ManualClock& clock_;
    std::uint64_t sequence_ = 0;
    int round_ = 0;
};

TEST_CASE("a reader that opens while the newest segment and its successor are dropped goes on") {
    // What it has read as the newest is dropped before it takes its snapshot of the catalog, and so
    // is the one behind; both files are still there when it looks whether its own is, and gone
    // afterwards. It must look for those that came later.
    const TempDir dir;
    const auto path = dir.path() / "store";
    const auto first = segment_path(path, 1);
    const auto second = segment_path(path, 2);
    const ManualClock clock;
    const auto writer = must_open(path, small_segments(clock.clock()));
    Rounds rounds(*writer, clock);
    rounds.run_into(1);
    HookedEnv env;
    bool swept = false;
    bool removed = false;
    LogStoreInternals internals;
    internals.pause = [&] {
        if (swept) {
            return;
        }
        swept = true;
        rounds.run_into(3);
        for (const auto& segment : {first, second}) {
            std::filesystem::create_hard_link(segment, segment.string() + "-kept");
        }
        ManualClock(clock).advance(kDefaultGrace.count() + 10);
        const auto report = writer->sweep();
        REQUIRE(report);
        REQUIRE(report->segments_dropped == 2);
        for (const auto& segment : {first, second}) {
            std::filesystem::rename(segment.string() + "-kept", segment);
        }
    };
    env.hook = [&](std::string_view action, const Path& file) {
        if (action == "sync" && file == first && swept && !removed) {
            removed = true;
            std::filesystem::remove(first);
            std::filesystem::remove(second);
        }
        return 0;
    };
    OpenOptions options = read_only();
    options.clock = clock.clock();
    const auto reader = must_open(path, options, env, internals);
    CHECK(swept);
    CHECK(removed);
    CHECK(receipt_of(*reader, "counter") == rounds.last());
}

}  // namespace
}  // namespace dedup::test
