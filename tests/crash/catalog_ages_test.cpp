// Catalogs of each age.
//
// Somebody may put a copy of the catalog back that is older than the log. It goes with the log if
// it is one step of a sweep behind at most, which is what a crash leaves; any other has to be made
// anew, however well it may seem to fit. Whichever it is: every answer, every count and every
// history is that of the log.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <fstream>
#include <string>
#include <vector>

#include "crash/explore.hpp"
#include "crash/workload.hpp"
#include "repair/verify.hpp"
#include "support/environment.hpp"

namespace dedup::test {
namespace {

constexpr int kSteps = 200;
constexpr int kStepsBetweenLooks = 40;
constexpr const char* kCatalog = "store/catalog";

struct Age {
    Bytes catalog;
    std::uint64_t steps = 0;  // of sweeps, that it knows
};

struct Totals {
    std::uint64_t pairs = 0;
    std::uint64_t rebuilt = 0;
    std::uint64_t too_old = 0;
    std::string wrong;
};

class Ages {
  public:
    Ages(std::uint64_t seed, Totals& totals) : seed_(seed), totals_(totals) {
        options_.segment_bytes = kSegmentBytesMin;
        options_.clock = clock_.clock();
        options_.trust_clock = true;  // by which days go in one step
    }

    void run() {
        const auto ledger = std::make_shared<Ledger>();
        ledger->reports_lost = true;  // older catalogs do not know all
        Life life(dir_.path(), Wreck{}, options_, seed_);
        REQUIRE(life.open());
        life.keep(ledger);
        Workload workload(life.store(), clock_, seed_);
        for (int i = 1; i <= kSteps && totals_.wrong.empty(); ++i) {
            workload.step();
            life.settle();
            keep();
            if (i % kStepsBetweenLooks == 0) {
                put_each_back(life, *ledger);
            }
        }
    }

  private:
    // The catalog as it is now, if it is another one than last time.
    void keep() {
        std::ifstream file(dir_.path() / kCatalog / "data.mdb", std::ios::binary);
        auto bytes = std::make_shared<const std::string>(std::istreambuf_iterator<char>(file),
                                                         std::istreambuf_iterator<char>());
        if (!ages_.empty() && *bytes == *ages_.back().catalog) {
            return;
        }
        const TempDir dir(fast_directory());
        std::ofstream(dir.path() / "data.mdb", std::ios::binary) << *bytes;
        const auto catalog = Catalog::open(dir.path(), std::uint64_t{64} << 20);
        REQUIRE(catalog);
        ages_.push_back({std::move(bytes), (*catalog)->sweep_state()->steps});
    }

    void put_each_back(Life& life, const Ledger& ledger) {
        REQUIRE(life.store().flush());
        Random random(seed_);
        Wreck wreck;
        wreck.disk = lose_power(life.disk().state(), Survival::everything, random);
        for (const Age& age : ages_) {
            wreck.catalog = age.catalog;
            put_back(wreck, age, ledger);
        }
    }

    void put_back(const Wreck& wreck, const Age& age, const Ledger& ledger) {
        const auto wrong = [&](const std::string& what) {
            if (totals_.wrong.empty()) {
                totals_.wrong = fmt::format(
                    "a catalog {} steps behind: {} (to see it again: DEDUP_CRASH_SEED={})",
                    ages_.back().steps - age.steps, what, seed_);
            }
        };
        Life again(again_dir_.path(), wreck, options_, seed_);
        if (const auto opened = again.open(); !opened) {
            return wrong("open: " + opened.error().message);
        }
        again.settle();
        const bool rebuilt = again.log_store().stats()->catalog_rebuilt;
        const bool too_old = ages_.back().steps - age.steps > 1;
        ++totals_.pairs;
        totals_.rebuilt += rebuilt ? 1U : 0U;
        totals_.too_old += too_old ? 1U : 0U;
        if (too_old && !rebuilt) {
            wrong("it is taken for that of the log");
        }
        if (const auto verdict = compare(again.log_store(), ledger, ledger.mark());
            !verdict.wrong.empty() || verdict.present != ledger.entries.size()) {
            wrong("not all is as it was: " + verdict.wrong);
        }
        if (const auto report = verify(again.log_store()); !report) {
            wrong("verify: " + report.error().message);
        } else if (!report->problems.empty()) {
            wrong("verify: " + report->problems.front());
        }
    }

    const std::uint64_t seed_;
    Totals& totals_;
    const TempDir dir_{fast_directory()};
    const TempDir again_dir_{fast_directory()};
    ManualClock clock_{1'700'000'000'000};
    OpenOptions options_;
    std::vector<Age> ages_;
};

TEST_CASE("catalogs of each age: taken if a crash can have left them, and right in every answer") {
    Totals totals;
    const auto lives = number_from_environment("DEDUP_AGES_LIVES", 6);
    const auto seed = number_from_environment("DEDUP_CRASH_SEED", 1);
    for (std::uint64_t i = 0; i < lives && totals.wrong.empty(); ++i) {
        Ages(seed + i, totals).run();
    }
    MESSAGE(totals.pairs << " pairs of a log and a catalog, " << totals.too_old
                         << " of them too old, " << totals.rebuilt << " made anew");
    CHECK(totals.wrong == "");
    CHECK(totals.too_old > totals.pairs / 4);
}

}  // namespace
}  // namespace dedup::test
