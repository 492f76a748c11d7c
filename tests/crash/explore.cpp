#include "crash/explore.hpp"
#include "repair/verify.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <string_view>
#include <utility>

#include "crash/aftermath.hpp"
#include "crash/workload.hpp"
#include "dedup/cache.hpp"
#include "support/environment.hpp"

namespace dedup::test {
namespace {

// Of DEDUP_CRASH_ONLY=moment.wreck: explores just that one.
struct Only {
    std::uint64_t moment = 0;
    std::uint64_t wreck = 0;
};

std::optional<Only> only_from_environment() {
    const char* text = std::getenv("DEDUP_CRASH_ONLY");
    if (text == nullptr) {
        return std::nullopt;
    }
    char* end = nullptr;
    Only only;
    only.moment = std::strtoull(text, &end, 10);
    only.wreck = *end == '.' ? std::strtoull(end + 1, nullptr, 10) : 0;
    return only;
}

// Of the moments outside sweeps, at which nothing is given up, the process dies in this part.
constexpr std::uint64_t kDeathShare = 16;
// Of the moments of a recovery after a death, the process dies once more in this part.
constexpr std::uint64_t kSecondDeathShare = 16;

// When all has expired that does.
constexpr std::chrono::hours kLongAfter{24 * 365};

class Explorer {
  public:
    Explorer(const Plan& plan, std::uint64_t seed, Explored& explored)
        : plan_(plan), seed_(seed), explored_(explored) {
        options_.durability = plan.durability;
        options_.segment_bytes = kSegmentBytesMin;
        options_.flush_interval = std::chrono::minutes(1);
        options_.clock = clock_.clock();
        options_.trust_clock = true;  // by which days go in one step
    }

    void run() {
        std::vector<Moment> moments;
        live(moments);
        explored_.moments += moments.size();
        const auto only = only_from_environment();
        const std::uint64_t wrecks = plan_.wrecks_per_moment + (plan_.process_dies ? 2 : 0);
        for (std::size_t m = 0; m < moments.size() && explored_.wrong.empty(); ++m) {
            for (std::uint64_t w = 0; w < wrecks && explored_.wrong.empty(); ++w) {
                if (!only || (only->moment == m && only->wreck == w)) {
                    crash(moments[m], m, w);
                }
            }
            moments[m] = {};  // no longer needed
        }
    }

  private:
    // What is wrong with the store before any crash must not be taken for a crash's doing.
    void wrong(const std::string& what) {
        if (explored_.wrong.empty()) {
            explored_.wrong = fmt::format("seed {}: {}", seed_, what);
        }
    }

    void live(std::vector<Moment>& moments) {
        Wreck nothing;
        nothing.disk.shows_old_blocks = plan_.shows_old_blocks;
        Life life(live_dir_.path(), nothing, options_, seed_);
        life.disk().can_reserve = plan_.can_reserve;
        const auto ledger = std::make_shared<Ledger>();
        life.record(ledger, Ledger::Mark{});
        if (const auto opened = life.open(); !opened) {
            wrong("open: " + opened.error().message);
            return;
        }
        life.keep(ledger);
        life.record(ledger);
        Workload workload(life.store(), clock_, seed_);
        for (int i = 0; i < plan_.steps; ++i) {
            workload.step();
            life.settle();
        }
        explored_.sealed += life.store().stats()->segments_sealed;
        note_sweeps(life.store().reports);
        if (!life.store().wrong.empty()) {
            wrong("without any crash: " + life.store().wrong);
        }
        if (const auto verdict = compare(life.store(), *ledger, ledger->mark());
            !verdict.wrong.empty() || verdict.present != ledger->entries.size()) {
            wrong("without any crash: " + verdict.wrong);
        }
        if (const auto closed = life.close(); !closed) {
            wrong("close: " + closed.error().message);
        }
        if (!ledger->in_doubt) {
            ledger->durable = ledger->entries.size();
        }
        life.record_end();
        moments = std::move(life.moments);
    }

    void note_sweeps(const std::vector<SweepReport>& reports) {
        for (const SweepReport& report : reports) {
            explored_.swept += report.removed;
            explored_.dropped += report.segments_dropped;
            explored_.compacted += report.segments_compacted;
        }
    }

    // Cuts the power at `moment`; false if that gives a state that has been explored already.
    bool wreck_of(const Moment& moment, Survival survival, Random& random, Wreck& wreck) {
        wreck.disk = lose_power(moment.disk, survival, random);
        // The newest copy is the likeliest; what remains is shared by the others.
        const std::size_t last = moment.catalogs.size() - 1;
        const std::size_t chosen = below(random, 2) == 0 ? last : below(random, last + 1);
        const bool lost = plan_.catalog_lost && below(random, 3) == 0;
        wreck.catalog = lost ? nullptr : moment.catalogs[chosen];
        const std::string_view catalog = wreck.catalog ? *wreck.catalog : std::string_view();
        const std::size_t state = fingerprint(wreck.disk) ^
                                  (std::hash<std::string_view>()(catalog) * 31) ^
                                  (moment.mark.durable << 40) ^ (moment.mark.begun << 20);
        return seen_.insert(state).second;
    }

    void crash(const Moment& moment, std::size_t m, std::uint64_t w) {
        Random random(seed_ * 1'000'003 + m * 101 + w);
        const std::string again = fmt::format(
            "(to see it again: DEDUP_CRASH_SEED={} DEDUP_CRASH_ONLY={}.{})", seed_, m, w);
        if (w >= plan_.wrecks_per_moment) {
            if (dies_at(moment, random)) {
                die(moment, w != plan_.wrecks_per_moment, again, random, true);
            }
            return;
        }
        const auto survival = w < kSurvivals ? static_cast<Survival>(w) : Survival::any_order;
        Wreck wreck;
        if (!wreck_of(moment, survival, random, wreck)) {
            return;
        }
        const std::string where =
            fmt::format("cut after \"{}\", {} of what was not flushed survived {}", moment.after,
                        name(survival), again);
        std::vector<Moment> later;
        const bool rebuilt = recover(wreck, moment, where, random, &later);
        for (int i = 0; i < plan_.recoveries_cut && !later.empty(); ++i) {
            Moment at = later[below(random, later.size())];
            cut_again(at, static_cast<Survival>(below(random, kSurvivals)), rebuilt, where, random);
        }
    }

    // Cuts the power at a moment of a recovery, which made the catalog anew or not.
    void cut_again(Moment& moment, Survival survival, bool rebuilt, const std::string& where,
                   Random& random) {
        if (rebuilt && !moment.ledger->reports_lost) {
            auto ledger = std::make_shared<Ledger>(*moment.ledger);
            ledger->reports_lost = true;
            moment.ledger = std::move(ledger);
        }
        Wreck wreck;
        if (wreck_of(moment, survival, random, wreck)) {
            const std::string then = fmt::format("{}; then cut after \"{}\", {} survived", where,
                                                 moment.after, name(survival));
            recover(wreck, moment, then, random, nullptr);
        }
    }

    // Always within a sweep, whose steps rely on each other; at other times now and then.
    static bool dies_at(const Moment& moment, Random& random) {
        const std::size_t begun = moment.mark.begun;
        const bool sweeps =
            begun != 0 && moment.ledger->entries[begun - 1].swept_before_ms.has_value();
        return !moment.disk.all_flushed() && (sweeps || below(random, kDeathShare) == 0);
    }

    // The process dies at `moment` and is started again, while the system goes on: the recovery
    // sees all that was written. If flushes have failed, some of that is not on the disk and never
    // will be. The power is cut at each call of the recovery and of what follows it; at some of
    // them it is, if `once_more`, the process that dies.
    void die(const Moment& moment, bool flush_failed, const std::string& where, Random& random,
             bool once_more) {
        ++explored_.deaths;
        FaultDisk disk(moment.disk);
        if (flush_failed) {
            disk.fail_all_syncs(random);
        }
        const std::string then =
            fmt::format("{}; the process died after \"{}\"{}", where, moment.after,
                        flush_failed ? ", all flushes having failed" : "");
        std::vector<Moment> later;
        const bool rebuilt =
            recover({disk.state(), moment.catalogs.back()}, moment, then, random, &later);
        for (Moment& at : later) {
            cut_again(at, Survival::nothing, rebuilt, then, random);
            cut_again(at, static_cast<Survival>(below(random, kSurvivals)), rebuilt, then, random);
            if (once_more && !at.disk.all_flushed() && below(random, kSecondDeathShare) == 0) {
                die(at, below(random, 2) == 0, then, random, false);
            }
            at = {};
        }
    }

    // Opens what is left, compares, goes on. The moments of this go to `later`, if given. True if
    // the catalog was made anew.
    bool recover(const Wreck& wreck, const Moment& moment, const std::string& where, Random& random,
                 std::vector<Moment>* later) {
        ++explored_.states;
        Life life(wreck_dir_.path(), wreck, options_, random());
        life.disk().can_reserve = plan_.can_reserve;
        if (later != nullptr) {
            life.record(moment.ledger, moment.mark);
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
        check_files(life, where);
        if (const auto hidden = hidden_jump(life.log_store()); !hidden.empty()) {
            wrong(fmt::format("{}: {}", where, hidden));
        }
        explored_.in_part += verdict.present > moment.mark.durable ? 1U : 0U;
        explored_.standing += verdict.standing;
        const bool rebuilt = life.log_store().stats()->catalog_rebuilt;
        explored_.rebuilt += rebuilt ? 1U : 0U;
        explored_.interrupted += has_interrupted(life) ? 1U : 0U;
        const auto ledger =
            std::make_shared<Ledger>(continued(*moment.ledger, moment.mark, verdict));
        ledger->reports_lost = ledger->reports_lost || rebuilt;
        life.keep(ledger);
        if (later != nullptr) {
            life.record(ledger);
        }
        if (const auto misused = use(life.store(), *ledger); !misused.empty()) {
            wrong(fmt::format("{}: {}", where, misused));
        }
        life.settle();
        if (below(random, 4) == 0) {
            sweep(life, *ledger, where, random);
        }
        if (below(random, 4) == 0) {
            check_all(life, where);
        }
        if (later != nullptr) {
            life.record_end();
            *later = std::move(life.moments);
        }
        return rebuilt;
    }

    // No file of a segment that a sweep has given up is left.
    void check_files(Life& life, const std::string& where) {
        const auto names = life.env().list(life.env().root() / "store" / "log");
        const auto stats = life.log_store().stats();
        // Each sealed segment has an index. One that was being sealed may have one already.
        const auto is_index = [](const std::string& name) { return name.ends_with(".idx"); };
        const auto indexes = static_cast<std::uint64_t>(std::ranges::count_if(*names, is_index));
        if (names && stats &&
            (names->size() - indexes != stats->segments_sealed + stats->segments_unsealed ||
             indexes < stats->segments_sealed || indexes > stats->segments_sealed + 1)) {
            wrong(fmt::format("{}: there are {} files in the log, {} of them indexes", where,
                              names->size(), indexes));
        }
    }

    [[nodiscard]] static bool has_interrupted(Life& life) {
        const auto history = life.log_store().sweep_history();
        return history && !history->empty() && history->front().interrupted;
    }

    // Finishes what a sweep had begun, and removes what has expired since; at times, all that ever
    // does.
    void sweep(Life& life, const Ledger& ledger, const std::string& where, Random& random) {
        SweepOptions options;
        options.now_ms = clock_.now_ms() + static_cast<std::int64_t>(below(random, 40'000));
        if (below(random, 4) == 0) {
            *options.now_ms += std::chrono::milliseconds(kLongAfter).count();
        }
        const auto swept = life.store().sweep(options);
        if (!swept) {
            wrong(fmt::format("{}: sweep: {}", where, swept.error().message));
            return;
        }
        life.settle();
        const Verdict verdict = compare(life.log_store(), ledger, ledger.mark());
        if (!life.store().wrong.empty() || !verdict.wrong.empty()) {
            wrong(fmt::format("{}, and a sweep: {} {}", where, life.store().wrong, verdict.wrong));
        }
    }

    void check_all(Life& life, const std::string& where) {
        const auto report = verify(life.log_store());
        if (!report || !report->problems.empty()) {
            wrong(fmt::format("{}: verify: {}", where,
                              report ? report->problems.front() : report.error().message));
        }
    }

    const Plan& plan_;
    const std::uint64_t seed_;
    Explored& explored_;
    const TempDir live_dir_{fast_directory()};
    const TempDir wreck_dir_{fast_directory()};
    ManualClock clock_{1'700'000'000'000};
    OpenOptions options_;
    std::set<std::size_t> seen_;
};

}  // namespace

Plan from_environment(Plan plan) {
    plan.seed = number_from_environment("DEDUP_CRASH_SEED", plan.seed);
    plan.states_min = number_from_environment("DEDUP_CRASH_STATES", plan.states_min);
    plan.steps = static_cast<int>(
        number_from_environment("DEDUP_CRASH_STEPS", static_cast<std::uint64_t>(plan.steps)));
    return plan;
}

Explored explore(const Plan& plan) {
    Explored explored;
    const bool once = std::getenv("DEDUP_CRASH_ONLY") != nullptr;
    for (std::uint64_t seed = plan.seed; explored.wrong.empty(); ++seed) {
        Explorer(plan, seed, explored).run();
        if (once || explored.states >= plan.states_min) {
            break;
        }
    }
    return explored;
}

}  // namespace dedup::test
