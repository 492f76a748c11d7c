// Many threads on few keys, through two clients of one database: one order explains what they are
// told. Shorter than the store in a directory has it; DEDUP_RACE_HISTORIES makes it longer.
#include <atomic>
#include <mutex>
#include <shared_mutex>
#include <string>

#include "postgres/helpers.hpp"
#include "races/race.hpp"
#include "support/environment.hpp"

namespace dedup::test {
namespace {

// Two clients of one store as one: each thread keeps to one of them. A sweep waits for the appends
// that are on their way: in this test days pass in an instant, so that a stream may begin, expire
// and be swept between an append's start and its end, for which a server needs the grace.
class TwoClients final : public StreamStore {
  public:
    TwoClients(StreamStore& one, StreamStore& other)
        : StreamStore([this] { return mine().now_ms(); }, one.grace(), StoreClock::Jumps::ignore),
          clients_{&one, &other} {}

    std::vector<Result<std::uint64_t>> append(std::span<const Append> batch, Batch mode) override {
        const std::shared_lock lock(sweeping_);
        return mine().append(batch, mode);
    }
    std::vector<Result<std::optional<Record>>> heads(std::span<const StreamKey> streams) override {
        return mine().heads(streams);
    }
    Result<std::vector<Version>> history(StreamKey stream, const HistoryLimits& limits) override {
        return mine().history(stream, limits);
    }
    Result<ScanPage> scan(const ScanOptions& options) override { return mine().scan(options); }
    Result<SweepReport> sweep(const SweepOptions& options) override {
        const std::unique_lock lock(sweeping_);
        return mine().sweep(options);
    }
    Result<std::vector<SweepReport>> sweep_history() override { return mine().sweep_history(); }
    Result<StoreStats> stats() override { return mine().stats(); }
    Result<void> flush() override { return mine().flush(); }
    Result<void> close() override { return mine().close(); }

  private:
    StreamStore& mine() {
        thread_local const std::size_t number = threads_++;
        return *clients_[number % 2];
    }

    StreamStore* clients_[2];
    std::shared_mutex sweeping_;
    static inline std::atomic<std::size_t> threads_ = 0;
};

TEST_CASE("race: what threads of two clients are told is what one after another could be told") {
    NEEDS_POSTGRES();
    const auto histories = number_from_environment("DEDUP_RACE_HISTORIES", 150);
    Schema schema;
    RaceClock clock;
    schema.options.clock = clock.clock();
    schema.options.trust_clock = true;  // by which days go in one step
    const auto one = schema.open();
    const auto other = schema.open();
    TwoClients both(*one, *other);
    Outcomes outcomes;
    const auto first = number_from_environment("DEDUP_RACE_SEED", 1);
    for (std::uint64_t seed = first; seed < first + histories; ++seed) {
        CAPTURE(seed);
        Race race(clock, {.seed = seed,
                          .threads = 4 + seed % 5,
                          .keys = 1 + seed % 3,
                          .steps = 6 + static_cast<int>(seed % 5)});
        race.run(both);
        race.read_all(both);
        REQUIRE(race.wrong() == "");
        race.count(outcomes);
    }
    for (const char* const kind : {"claimed", "completed", "in flight", "stale_claim", "released",
                                   "absent", "removed by a sweep"}) {
        CHECK_MESSAGE(outcomes.contains(kind), kind);
    }
}

}  // namespace
}  // namespace dedup::test
