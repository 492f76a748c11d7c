// A disk that says no.
//
// Each call of a run fails in its turn, in each of the ways below. Whatever the call: errors name
// what failed; an append whose outcome is open is the last that the store takes, and is not shown;
// nothing that was acknowledged is lost, neither by a restart of the process nor by a power loss;
// and nothing that was refused is there. What a sweep has removed stays away, whatever failed after
// that, and the next sweep finishes what it left.
#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "crash/explore.hpp"
#include "crash/workload.hpp"
#include "support/environment.hpp"

namespace dedup::test {
namespace {

constexpr int kSteps = 80;
constexpr std::uint64_t kReceiptBytes = 9'000;  // so that these few steps fill segments

struct Way {
    std::string_view name;
    int os_error;
    Fault fault;
    bool stays;
};
constexpr Way kWays[] = {
    {"I/O error", EIO, Fault::error, false},
    {"disk full", ENOSPC, Fault::error, false},
    {"interrupted", EINTR, Fault::error, false},
    {"I/O error halfway; a flush loses pages", EIO, Fault::part, false},
    {"disk full halfway; a flush loses pages", ENOSPC, Fault::part, false},
    {"done, and an I/O error all the same", EIO, Fault::wrong_error, false},
    {"I/O errors from there on", EIO, Fault::part, true},
    {"disk full from there on", ENOSPC, Fault::error, true},
};

OpenOptions options_with(const ManualClock& clock) {
    OpenOptions options;
    options.segment_bytes = kSegmentBytesMin;
    options.clock = clock.clock();
    options.trust_clock = true;  // by which days go in one step
    return options;
}

bool explains(const Error& error) {
    return error.message.find("store") != std::string::npos &&
           (error.code == Code::io || error.code == Code::out_of_space ||
            error.code == Code::outcome_unknown || error.code == Code::failed);
}

// One run in which one call, or all from it on, fail.
class Trial {
  public:
    Trial(const Way& way, const Path& root, std::uint64_t seed)
        : way_(way), seed_(seed), life_(root, Wreck{}, options_with(clock_), seed) {}

    // Of a life without a failure: its number of calls; 0 if too little happens in it.
    std::uint64_t count_calls(std::uint64_t& in_background) {
        run({}, {});
        REQUIRE(ledger_->entries.size() > 30);
        REQUIRE_FALSE(ledger_->in_doubt);
        const auto& reports = life_.store().reports;
        const bool eventful = std::ranges::any_of(reports, &SweepReport::segments_dropped) &&
                              std::ranges::any_of(reports, &SweepReport::segments_compacted);
        in_background = life_.env().background_calls();
        return eventful && in_background > 0 ? life_.env().calls() : 0;
    }

    void run(const Failure& failure, const Failure& in_background) {
        life_.env().failure = failure;
        life_.env().background_failure = in_background;
        if (!open()) {
            return;
        }
        life_.keep(ledger_);
        Workload workload(life_.store(), clock_, seed_, kReceiptBytes);
        for (int i = 0; i < kSteps; ++i) {
            workload.step();
            life_.settle();
        }
        for (const Error& error : life_.store().errors) {
            REQUIRE_MESSAGE(explains(error), error.message);
        }
        REQUIRE_MESSAGE(life_.store().wrong == "", life_.store().wrong);
        failed_before_close = life_.env().failed_calls() > 0;
        if (failed_before_close) {
            check_live_store();
        }
        const auto closed = life_.close();
        if (!closed) {
            REQUIRE_MESSAGE(explains(closed.error()), closed.error().message);
        }
    }

    // What is there after a restart stays there, whatever becomes of the system's memory.
    void restart(bool pages_lost) {
        Life again(life_, pages_lost, seed_ + 1);
        const Ledger seen = check_opened(again, ledger_->mark());
        again.end();
        Wreck wreck;
        Random random(seed_);
        wreck.disk = lose_power(again.disk().state(), Survival::nothing, random);
        wreck.catalog = again.env().catalog_copies().back();
        Life after(again.env().root(), wreck, options_with(clock_), seed_ + 2);
        REQUIRE(after.open());
        after.settle();
        const Verdict verdict = compare(after.log_store(), seen, seen.mark());
        REQUIRE_MESSAGE(verdict.wrong == "", verdict.wrong);
    }

    void lose_power_at_end() {
        life_.record(ledger_);
        life_.record_end();
        const Moment& moment = life_.moments.back();
        Random random(seed_);
        for (const Survival survival : {Survival::nothing, Survival::any_order}) {
            Wreck wreck;
            wreck.disk = lose_power(moment.disk, survival, random);
            wreck.catalog = moment.catalogs.back();
            life_.end();
            Life after(life_.env().root(), wreck, options_with(clock_), seed_ + 3);
            (void)check_opened(after, moment.mark);
        }
    }

    bool failed_before_close = false;

  private:
    // If opening fails, it says why, and the next one succeeds.
    bool open() {
        const auto opened = life_.open();
        if (opened) {
            return true;
        }
        REQUIRE_MESSAGE(explains(opened.error()), opened.error().message);
        REQUIRE(opened.error().os_error == way_.os_error);
        life_.env().failure = {};
        const auto again = life_.open();
        REQUIRE_MESSAGE(again, (again ? "" : again.error().message));
        return true;
    }

    void check_live_store() {
        life_.env().failure = {};
        life_.env().background_failure = {};
        life_.store().settle_sweep();
        const auto swept = life_.store().sweep({});
        if (swept || !ledger_->in_doubt) {
            REQUIRE_MESSAGE(swept, (swept ? "" : swept.error().message));
        }
        REQUIRE_MESSAGE(life_.store().wrong == "", life_.store().wrong);
        life_.settle();
        const Ledger::Mark mark = ledger_->mark();
        const Verdict verdict = compare(life_.log_store(), *ledger_, mark);
        REQUIRE_MESSAGE(verdict.wrong == "", verdict.wrong);
        for (std::size_t i = mark.durable; i < verdict.present; ++i) {
            const LedgerEntry& entry = ledger_->entries[i];
            REQUIRE_MESSAGE((entry.refused || entry.swept_before_ms),
                            "an append in doubt is shown");
        }
        const std::uint64_t changes = life_.disk().state().next_order;
        Record record;
        record.ns = "default";
        record.key = "last";
        const auto last = life_.store().append({{Append{0, record}}}, Batch::each);
        if (!ledger_->in_doubt) {
            REQUIRE_MESSAGE(last[0], (last[0] ? "" : last[0].error().message));
            return;
        }
        REQUIRE_FALSE(last[0]);
        REQUIRE(last[0].error().code == Code::failed);
        REQUIRE(life_.store().flush().error().code == Code::failed);
        REQUIRE(life_.disk().state().next_order == changes);
    }

    Ledger check_opened(Life& life, const Ledger::Mark& mark) {
        const auto opened = life.open();
        REQUIRE_MESSAGE(opened, (opened ? "" : opened.error().message));
        life.settle();
        const Verdict verdict = compare(life.log_store(), *ledger_, mark);
        REQUIRE_MESSAGE(verdict.wrong == "", verdict.wrong);
        const auto seen = std::make_shared<Ledger>(continued(*ledger_, mark, verdict));
        life.keep(seen);
        const auto swept = life.store().sweep({});
        REQUIRE_MESSAGE(swept, (swept ? "" : swept.error().message));
        REQUIRE_MESSAGE(life.store().wrong == "", life.store().wrong);
        life.settle();
        const Verdict after = compare(life.log_store(), *seen, seen->mark());
        REQUIRE_MESSAGE(after.wrong == "", after.wrong);
        return *seen;
    }

    Way way_;
    std::uint64_t seed_;
    ManualClock clock_{1'700'000'000'000};
    std::shared_ptr<Ledger> ledger_ = std::make_shared<Ledger>();
    Life life_;
};

TEST_CASE("every call fails in turn: clear errors, nothing acknowledged lost, doubt is final") {
    std::uint64_t calls = 0;
    std::uint64_t background_calls = 0;
    std::uint64_t trials = 0;
    std::uint64_t before_close = 0;
    std::uint64_t seed = number_from_environment("DEDUP_CRASH_SEED", 1) - 1;
    const std::uint64_t last_seed = seed + 1000;
    while (calls == 0) {
        const TempDir dir(fast_directory());
        calls = Trial(kWays[0], dir.path(), ++seed).count_calls(background_calls);
        REQUIRE(seed < last_seed);
    }
    const std::uint64_t step = number_from_environment("DEDUP_FAULT_STEP", 3);
    std::uint64_t first = 0;  // so that the ways together fail every call
    for (const Way& way : kWays) {
        first = first % step + 1;
        for (std::uint64_t call = first; call <= calls + background_calls; call += step) {
            INFO("seed ", seed, ", ", way.name, ", call ", call);
            const TempDir dir(fast_directory());
            Trial trial(way, dir.path(), seed);
            const Failure failure{call <= calls ? call : call - calls, way.os_error, way.fault,
                                  way.stays};
            trial.run(call <= calls ? failure : Failure{}, call > calls ? failure : Failure{});
            if (call % 3 == 0) {
                trial.lose_power_at_end();
            } else {
                trial.restart(call % 3 == 1);
            }
            ++trials;
            before_close += trial.failed_before_close ? 1U : 0U;
        }
    }
    MESSAGE("seed " << seed << ": " << trials << " faults injected at " << calls << " calls and "
                    << background_calls << " in the background");
    CHECK(before_close > trials / 2);
}

}  // namespace
}  // namespace dedup::test
