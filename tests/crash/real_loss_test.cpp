// Power that fails within LMDB's own writes.
//
// The other tests of power loss take LMDB's commits for atomic and durable. Here a store runs on
// real files, and what is noted are the calls that reach the system: those of the log and those of
// the catalog's pages, meta pages and names. Before each of them the power is cut, several times
// over, with any part of what was not flushed left: any subset of the writes to each file, torn at
// sectors, and names that vanish. Every such wreck has to open, to have all that was acknowledged,
// nothing that was swept and no half of anything else, and to be usable.
//
// The same for a close that ends a long segment and seals it, in two threads.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <set>

#include "crash/aftermath.hpp"
#include "crash/real_life.hpp"
#include "crash/workload.hpp"
#include "repair/verify.hpp"
#include "support/environment.hpp"
#include "support/manual_clock.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

constexpr int kSteps = 100;
constexpr const char* kDataFile = "store/catalog/data.mdb";

// Whether something of LMDB's is on its way to the disk.
bool in_catalog(const RealMoment& moment) {
    const DiskState& disk = moment.disk;
    const int data = disk.find(kDataFile);
    const int directory = disk.find("store/catalog");
    return moment.after.find("catalog") != std::string::npos ||
           (data >= 0 && !disk.nodes[static_cast<std::size_t>(data)].pending.empty()) ||
           (directory >= 0 &&
            !disk.nodes[static_cast<std::size_t>(directory)].pending_entries.empty());
}

struct Explored {
    std::uint64_t states = 0;
    std::uint64_t moments = 0;
    std::uint64_t in_catalog = 0;   // states with something of LMDB's on its way
    std::uint64_t in_part = 0;      // that kept some of what was not acknowledged
    std::uint64_t rebuilt = 0;      // whose catalog was made anew
    std::uint64_t again = 0;        // cut again while they recovered
    std::uint64_t interrupted = 0;  // cut within a sweep which took hold
    std::uint64_t synchronous_writes = 0;
    std::uint64_t swept = 0;   // streams, by the workloads
    std::uint64_t sealed = 0;  // states with a sealed segment
    std::string wrong;
};

class RealExplorer {
  public:
    RealExplorer(std::uint64_t seed, Explored& explored) : seed_(seed), explored_(explored) {
        options_.segment_bytes = kSegmentBytesMin;
        options_.clock = clock_.clock();
        options_.trust_clock = true;  // by which days go in one step
    }

    // Cuts the power only while a store of the default segments closes that has much to seal.
    void run_close() {
        options_.segment_bytes = 0;
        only_close_ = true;
        run(UINT64_MAX);
    }

    void run(std::uint64_t states_max) {
        std::vector<RealMoment> moments;
        live(moments);
        explored_.moments += moments.size();
        Random random(seed_);
        for (RealMoment& moment : moments) {
            // The log's own writes are tried at greater length elsewhere.
            const int wrecks = in_catalog(moment) || only_close_ ? kSurvivals : 1;
            for (int i = 0; i < wrecks; ++i) {
                if (!explored_.wrong.empty() || explored_.states >= states_max) {
                    return;
                }
                const auto survival = wrecks == 1 ? Survival::any_order : static_cast<Survival>(i);
                crash(moment, survival, random);
            }
            moment = {};
        }
    }

  private:
    void wrong(const std::string& what) {
        if (explored_.wrong.empty()) {
            explored_.wrong = fmt::format("seed {}: {}", seed_, what);
        }
    }

    void live(std::vector<RealMoment>& moments) {
        const TempDir dir(fast_directory());
        RealLife life(dir.path(), options_, {});
        const auto ledger = std::make_shared<Ledger>();
        life.record(ledger, Ledger::Mark{});
        if (const auto opened = life.open(); !opened) {
            wrong("open: " + opened.error().message);
            return;
        }
        life.keep(*ledger);
        life.record(ledger, std::nullopt);
        work(life);
        if (only_close_) {
            life.settle();
            life.recorder().alone([&] { life.moments.clear(); });
        }
        for (const SweepReport& report : life.store().reports) {
            explored_.swept += report.removed.total();
        }
        if (!life.store().wrong.empty()) {
            wrong("without any crash: " + life.store().wrong);
        }
        if (const auto closed = life.log_store().close(); !closed) {
            wrong("close: " + closed.error().message);
        }
        if (const Path file = life.recorder().differing(); !file.empty()) {
            wrong("not all calls that change " + file.string() + " have been recorded");
        }
        explored_.synchronous_writes += life.recorder().synchronous_writes();
        moments = std::move(life.moments);
    }

    void work(RealLife& life) {
        if (only_close_) {
            Cache cache(life.store());
            for (int i = 0; i < 9; ++i) {
                if (!cache.remember("big-" + std::to_string(i), std::string(128 * 1024, 'r'))) {
                    wrong("a large receipt was refused");
                }
            }
        }
        Workload workload(life.store(), clock_, seed_);
        for (int i = 0; i < (only_close_ ? kSteps / 10 : kSteps); ++i) {
            workload.step();
            life.settle();
        }
    }

    // Cuts the power at `moment`, unless that gives a state that has been explored already. Then,
    // at times, once more while that recovers.
    void crash(const RealMoment& moment, Survival survival, Random& random) {
        const DiskState wreck = lose_power(moment.disk, survival, random);
        const std::size_t state =
            fingerprint(wreck) ^ (moment.mark.durable << 40) ^ (moment.mark.begun << 20);
        if (!seen_.insert(state).second) {
            return;
        }
        explored_.in_catalog += in_catalog(moment) ? 1U : 0U;
        const std::string where = fmt::format(
            "cut after \"{}\", {} of what was not flushed "
            "survived",
            moment.after, name(survival));
        std::vector<RealMoment> later;
        const bool recovers_again = below(random, 8) == 0;
        const bool rebuilt =
            recover(wreck, moment, where, random, recovers_again ? &later : nullptr);
        std::erase_if(later, [](const RealMoment& next) { return !in_catalog(next); });
        if (later.empty() || !explored_.wrong.empty()) {
            return;
        }
        RealMoment& next = later[below(random, later.size())];
        if (rebuilt) {
            auto ledger = std::make_shared<Ledger>(*next.ledger);
            ledger->reports_lost = true;
            next.ledger = std::move(ledger);
        }
        const auto how = static_cast<Survival>(below(random, kSurvivals));
        const std::string then =
            fmt::format("{}; then cut after \"{}\", {} survived", where, next.after, name(how));
        ++explored_.again;
        recover(lose_power(next.disk, how, random), next, then, random, nullptr);
    }

    // Opens what is left, compares, goes on. True if the catalog was made anew.
    bool recover(const DiskState& wreck, const RealMoment& moment, const std::string& where,
                 Random& random, std::vector<RealMoment>* later) {
        ++explored_.states;
        const TempDir dir(fast_directory());
        lay_out(wreck, dir.path());
        RealLife life(dir.path(), options_, wreck);
        if (later != nullptr) {
            life.record(std::make_shared<Ledger>(*moment.ledger), moment.mark);
        }
        if (const auto opened = life.open(); !opened) {
            wrong(fmt::format("{}: open: {}", where, opened.error().message));
            return false;
        }
        life.settle();
        const Verdict verdict = compare(life.log_store(), *moment.ledger, moment.mark);
        if (!verdict.wrong.empty()) {
            wrong(fmt::format("{}: {}", where, verdict.wrong));
            return false;
        }
        const auto stats = life.log_store().stats();
        const auto history = life.log_store().sweep_history();
        // Until something has been acknowledged, opening may not have come to its end.
        if (stats->catalog_rebuilt && moment.mark.durable != 0) {
            wrong(where + ": the catalog is lost");
        }
        explored_.in_part += verdict.present > moment.mark.durable ? 1U : 0U;
        explored_.rebuilt += stats->catalog_rebuilt ? 1U : 0U;
        explored_.sealed += stats->segments_sealed > 0 ? 1U : 0U;
        explored_.interrupted +=
            history && !history->empty() && history->front().interrupted ? 1U : 0U;
        const auto ledger =
            std::make_shared<Ledger>(continued(*moment.ledger, moment.mark, verdict));
        ledger->reports_lost = ledger->reports_lost || stats->catalog_rebuilt;
        life.keep(*ledger);
        if (later != nullptr) {
            life.record(ledger, std::nullopt);
        }
        go_on(life, *ledger, where, random);
        if (later != nullptr) {
            *later = std::move(life.moments);
        }
        return stats->catalog_rebuilt;
    }

    // The store is used, at times swept, and checked again.
    void go_on(RealLife& life, const Ledger& ledger, const std::string& where, Random& random) {
        if (const auto misused = use(life.store(), ledger); !misused.empty()) {
            wrong(fmt::format("{}: {}", where, misused));
        }
        life.settle();
        if (below(random, 4) == 0) {
            SweepOptions sweep;
            sweep.now_ms = clock_.now_ms() + static_cast<std::int64_t>(below(random, 40'000));
            const auto swept = life.store().sweep(sweep);
            life.settle();
            const Verdict verdict = compare(life.log_store(), ledger, ledger.mark());
            if (!swept || !life.store().wrong.empty() || !verdict.wrong.empty()) {
                wrong(fmt::format("{}, and a sweep: {} {} {}", where,
                                  swept ? "" : swept.error().message, life.store().wrong,
                                  verdict.wrong));
            }
        }
        if (below(random, 4) == 0) {
            const auto report = verify(life.log_store());
            if (!report || !report->problems.empty()) {
                wrong(fmt::format("{}: verify: {}", where,
                                  report ? report->problems.front() : report.error().message));
            }
        }
    }

    const std::uint64_t seed_;
    Explored& explored_;
    ManualClock clock_{1'700'000'000'000};
    OpenOptions options_;
    std::set<std::size_t> seen_;
    bool only_close_ = false;
};

TEST_CASE("power loss within LMDB's writes: what was acknowledged stays, what was swept does not") {
    const auto states = number_from_environment("DEDUP_CRASH_STATES", 6'000);
    Explored explored;
    for (auto seed = number_from_environment("DEDUP_CRASH_SEED", 1);
         explored.wrong.empty() && explored.states < states; ++seed) {
        RealExplorer(seed, explored).run(states);
    }
    MESSAGE(explored.states << " crash states at " << explored.moments << " calls; "
                            << explored.in_catalog << " with writes of LMDB's on their way, "
                            << explored.again << " cut again while they recovered, "
                            << explored.in_part << " kept unacknowledged appends, "
                            << explored.rebuilt << " had their catalog rebuilt, "
                            << explored.interrupted << " were cut within a sweep");
    CHECK(explored.wrong == "");
    // Or LMDB writes otherwise than this test believes.
    CHECK(explored.synchronous_writes > 0);
    if (states >= 2000) {
        CHECK(explored.in_catalog > states / 4);
        CHECK(explored.in_part > 0);
        CHECK(explored.rebuilt > 0);
        CHECK(explored.again > 0);
        CHECK(explored.interrupted > 0);
        CHECK(explored.swept > 0);
    }
}

TEST_CASE("power loss while a store closes that has much to seal: all of it is there") {
    Explored explored;
    const auto rounds = number_from_environment("DEDUP_CLOSE_ROUNDS", 3);
    for (std::uint64_t seed = 1; seed <= rounds && explored.wrong.empty(); ++seed) {
        RealExplorer(seed, explored).run_close();
    }
    MESSAGE(explored.states << " crash states at " << explored.moments << " calls; "
                            << explored.sealed << " with the segment sealed");
    CHECK(explored.wrong == "");
    CHECK(explored.sealed > 0);
    CHECK(explored.sealed < explored.states);
}

}  // namespace
}  // namespace dedup::test
