// Power that fails while a store is copied, or put back from a copy.
//
// A store on real files is in use. It is copied, used on, copied again in the place of the first
// copy, and put back elsewhere; and between any two steps of each of these the writer goes on. The
// power is cut before every call to the system, with any part of what was not flushed left. Then:
//
//   - The store is as after any power loss.
//   - Where the copy is to be, there is one that is whole: the one that is being made, or the one
//     before. Until the first has been acknowledged there may be none.
//   - Whatever else is left is not taken for a copy.
//   - The next copy succeeds, and leaves nothing else behind.
//   - What was put back is whole, is no copy, and gives no sequence again; or it is not there.
//
// The same with Durability::async, where the store may have lost what nobody had flushed. A copy
// has all that was acknowledged before it, and what it has the store keeps.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <fstream>
#include <set>

#include "backup/backup.hpp"
#include "crash/real_life.hpp"
#include "crash/workload.hpp"
#include "dedup/cache.hpp"
#include "repair/verify.hpp"
#include "support/environment.hpp"
#include "support/manual_clock.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

namespace fs = std::filesystem;

constexpr int kStepsBefore = 40;
constexpr int kStepsBetween = 15;
constexpr int kCopies = 2;
// Later than the system's time, by which a copy is opened while it is made.
constexpr std::int64_t kStartMs = 4'000'000'000'000;

// Something that the workload goes on beside, and at which moments it began and was acknowledged.
struct Act {
    std::size_t begins = 0;
    std::size_t ends = SIZE_MAX;
    std::size_t entries_before = 0;  // of the ledger
    std::size_t entries_after = SIZE_MAX;

    [[nodiscard]] bool begun(std::size_t moment) const { return moment >= begins; }
    [[nodiscard]] bool done(std::size_t moment) const { return moment >= ends; }
    // What it must have of a ledger that has come to `mark`.
    [[nodiscard]] Ledger::Mark mark(const Ledger::Mark& now) const {
        return {entries_before, std::min(entries_after, now.begun), 0};
    }
};

struct Explored {
    std::uint64_t states = 0;
    std::uint64_t moments = 0;
    std::uint64_t absent = 0;      // states without a copy
    std::uint64_t older = 0;       // that had the older one while the next was made
    std::uint64_t newer = 0;       // that had the one that was not acknowledged yet
    std::uint64_t unfinished = 0;  // that had one that is to be refused
    std::uint64_t linked = 0;      // bytes, by the copies
    std::uint64_t lost = 0;        // states whose store had lost acknowledged appends
    std::uint64_t ahead = 0;       // whose copy had more than the store need have kept without it
    std::string wrong;
};

class BackupExplorer {
  public:
    BackupExplorer(std::uint64_t seed, Durability durability, Explored& explored)
        : seed_(seed), explored_(explored), links_(seed % 2 == 0), can_exchange_(seed % 3 != 0) {
        options_.durability = durability;
        options_.flush_interval = std::chrono::minutes(1);
        options_.segment_bytes = kSegmentBytesMin;
        options_.clock = clock_.clock();
        options_.trust_clock = true;  // by which days go in one step
    }

    // Cuts the power at every moment that is a multiple of `step`.
    void run(std::uint64_t states_max, std::size_t step) {
        std::vector<RealMoment> moments;
        live(moments);
        explored_.moments += moments.size();
        Random random(seed_);
        for (std::size_t m = 0; m < moments.size(); m += step) {
            for (int wreck = 0; wreck < 2; ++wreck) {
                if (!explored_.wrong.empty() || explored_.states >= states_max) {
                    return;
                }
                const auto survival = wreck == 0 ? Survival::any_order
                                                 : static_cast<Survival>(below(random, kSurvivals));
                crash(moments[m], m, survival, random);
            }
            moments[m] = {};
        }
    }

  private:
    void wrong(const std::string& what) {
        if (explored_.wrong.empty()) {
            explored_.wrong = fmt::format("seed {}, {}: {}", seed_, where_, what);
        }
    }

    // Runs `work`, which gets a progress that goes on with the workload.
    template <class Work>
    Act act(RealLife& life, Workload& workload, Work work) {
        Act act;
        act.begins = life.moments.size();
        act.entries_before = ledger_->entries.size();
        if (const auto done = work([&](std::uint64_t, std::uint64_t) {
                workload.step();
                life.settle();
            });
            !done) {
            wrong(done.error().message);
        }
        act.entries_after = ledger_->entries.size();
        act.ends = life.moments.size();
        return act;
    }

    void live(std::vector<RealMoment>& moments) {
        where_ = "without any crash";
        const TempDir dir(fast_directory());
        const Path root = dir.path();
        RealLife life(root, options_, {});
        life.recorder().can_exchange = can_exchange_;
        if (const auto opened = life.open(); !opened) {
            return wrong("open: " + opened.error().message);
        }
        life.keep(*ledger_);
        Workload workload(life.store(), clock_, seed_);
        const auto go_on = [&](int steps) {
            for (int i = 0; i < steps; ++i) {
                workload.step();
                life.settle();
            }
        };
        go_on(kStepsBefore);
        life.record(ledger_, std::nullopt);
        for (int i = 0; i < kCopies; ++i) {
            copies_.push_back(act(life, workload, [&](const Progress& progress) {
                auto report = backup(root / "store", root / "copy", {.link = links_}, progress);
                explored_.linked += report ? report->bytes_linked : 0;
                return report;
            }));
            go_on(kStepsBetween);
        }
        restored_ = act(life, workload, [&](const Progress& progress) {
            return restore(root / "copy", root / "back", {}, progress);
        });
        go_on(3);
        if (!life.store().wrong.empty()) {
            wrong(life.store().wrong);
        }
        if (const Path file = life.recorder().differing(); !file.empty()) {
            wrong("not all calls that change " + file.string() + " have been recorded");
        }
        moments = std::move(life.moments);
    }

    void crash(const RealMoment& moment, std::size_t m, Survival survival, Random& random) {
        const DiskState wreck = lose_power(moment.disk, survival, random);
        if (!seen_.insert(fingerprint(wreck) ^ (moment.mark.durable << 40)).second) {
            return;
        }
        where_ = fmt::format("cut after \"{}\", {} of what was not flushed survived", moment.after,
                             name(survival));
        ++explored_.states;
        const TempDir dir(fast_directory());
        lay_out(wreck, dir.path());
        const std::size_t copied = check_copy(dir.path() / "copy", moment, m);
        check_unfinished(dir.path(), "copy.partial", moment, m);
        check_unfinished(dir.path(), "back.partial", moment, m);
        RealLife life(dir.path(), options_, wreck);
        if (const auto opened = life.open(); !opened) {
            return wrong("open: " + opened.error().message);
        }
        const Verdict verdict = compare(life.log_store(), *moment.ledger, moment.mark);
        if (!verdict.wrong.empty()) {
            wrong(verdict.wrong);
        }
        if (verdict.present < copied) {
            wrong("the copy has more than the store");
        }
        const auto& entries = moment.ledger->entries;
        const std::size_t acknowledged =
            moment.mark.begun == 0 ? 0 : entries[moment.mark.begun - 1].call;
        explored_.lost += verdict.present < acknowledged ? 1U : 0U;
        explored_.ahead += copied > moment.mark.durable ? 1U : 0U;
        if (restored_.begun(m)) {
            check_restored(dir.path(), moment, m);
        } else {
            copy_again(dir.path(), moment, verdict.present);
        }
    }

    // What the store at `path` has, which has to be what the act has to make.
    Verdict compare_with(const Path& path, const RealMoment& moment, const Act& act) {
        OpenOptions reading = options_;
        reading.read_only = true;
        const auto store = LogStore::open(path, reading);
        if (!store) {
            return {.wrong = store.error().message};
        }
        if (const auto verified = verify(**store); !verified || !verified->problems.empty()) {
            return {.wrong = verified ? verified->problems.front() : verified.error().message};
        }
        return compare(**store, *moment.ledger, act.mark(moment.mark));
    }

    // What the copy at `path` has. Wrong: it is neither the one that was acknowledged last, nor
    // that which is being made.
    Verdict compare_with_copies(const Path& path, const RealMoment& moment, std::size_t m) {
        Verdict why{.wrong = "nobody makes one"};
        for (std::size_t i = copies_.size(); i-- > 0;) {
            if (!copies_[i].begun(m)) {
                continue;
            }
            Verdict found = compare_with(path, moment, copies_[i]);
            if (found.wrong.empty()) {
                const bool replaced = i + 1 < copies_.size() && copies_[i + 1].begun(m);
                explored_.older += replaced ? 1U : 0U;
                explored_.newer += copies_[i].done(m) ? 0U : 1U;
                return found;
            }
            why = std::move(found);
            if (copies_[i].done(m)) {
                break;  // it is the only one that may be there
            }
        }
        return why;
    }

    // So many of the ledger's entries are in the copy; 0 if there is none.
    std::size_t check_copy(const Path& path, const RealMoment& moment, std::size_t m) {
        Path found = path;
        const bool moved =
            !fs::exists(path) && !can_exchange_ && copies_[1].begun(m) && !copies_[1].done(m);
        if (moved) {
            found += ".older";
        }
        if (!fs::exists(found)) {
            ++explored_.absent;
            if (copies_[0].done(m)) {
                wrong("there is no copy any more");
            }
            return 0;
        }
        const Verdict copy = compare_with_copies(found, moment, m);
        if (!copy.wrong.empty()) {
            wrong(found.filename().string() + ": " + copy.wrong);
        }
        return copy.present;
    }

    // What is not whole is refused, as what a store is made of and as a store.
    void check_unfinished(const Path& root, const std::string& name, const RealMoment& moment,
                          std::size_t m) {
        if (!fs::exists(root / name)) {
            return;
        }
        const auto check = [&](const Path& path, const auto& made) {
            if (made) {
                if (const auto bad = compare_with_copies(path, moment, m).wrong; !bad.empty()) {
                    wrong(name + " passes for a copy: " + bad);
                }
            } else if (made.error().code != Code::invalid_argument) {
                wrong(name + " is refused so: " + made.error().message);
            }
        };
        const Path elsewhere = root / "elsewhere";
        const auto restored = restore(root / name, elsewhere);
        check(elsewhere, restored);
        fs::remove_all(elsewhere);
        OpenOptions options = options_;
        options.create = false;
        const bool is_copy = fs::exists(root / name / "COPY");
        check(root / name, LogStore::open(root / name, options));
        if (is_copy) {  // what was opened for writing is none any more; here nobody keeps it
            std::ofstream(root / name / "COPY") << "again";
        }
        explored_.unfinished += restored ? 0U : 1U;
    }

    void copy_again(const Path& root, const RealMoment& moment, std::size_t present) {
        const auto report = backup(root / "store", root / "copy", {.link = links_});
        if (!report) {
            return wrong("the next copy: " + report.error().message);
        }
        Act act;
        act.entries_before = act.entries_after = present;
        Ledger::Mark now = moment.mark;
        now.begun = present;
        RealMoment then{{}, moment.ledger, now, {}};
        if (const auto bad = compare_with(root / "copy", then, act).wrong; !bad.empty()) {
            wrong("the next copy: " + bad);
        }
        std::set<std::string> names;
        for (const auto& entry : fs::directory_iterator(root)) {
            names.insert(entry.path().filename().string());
        }
        if (names != std::set<std::string>{"copy", "store"}) {
            wrong(fmt::format("the next copy leaves {} things", names.size()));
        }
    }

    void check_restored(const Path& root, const RealMoment& moment, std::size_t m) {
        const Path back = root / "back";
        const bool partial = fs::exists(back / "PARTIAL");
        if (partial) {
            check_unfinished(root, "back", moment, m);
        }
        if (!fs::exists(back) || partial) {
            if (restored_.done(m)) {
                wrong("what was put back is gone");
            }
            if (const auto again = restore(root / "copy", back); !again) {
                return wrong("putting it back once more: " + again.error().message);
            }
        }
        if (const auto bad = compare_with(back, moment, copies_.back()).wrong; !bad.empty()) {
            wrong("what was put back: " + bad);
        }
        if (fs::exists(back / "COPY") || backup(root / "store", back)) {
            wrong("what was put back passes for a copy, and is replaced");
        }
        const auto store = LogStore::open(back, options_);
        if (!store) {
            return wrong("what was put back: " + store.error().message);
        }
        const auto claimed = Cache(**store).claim("a new key");
        if (!claimed || !claimed->claimed() ||
            claimed->claimed()->claim.claim_sequence <= moment.ledger->sequence_told) {
            wrong("what was put back gives a sequence again");
        }
    }

    const std::uint64_t seed_;
    Explored& explored_;
    const bool links_;
    const bool can_exchange_;
    ManualClock clock_{kStartMs};
    OpenOptions options_;
    std::shared_ptr<Ledger> ledger_ = std::make_shared<Ledger>();
    std::vector<Act> copies_;
    Act restored_;
    std::string where_;
    std::set<std::size_t> seen_;
};

Explored explore(Durability durability, std::uint64_t states, std::size_t step) {
    Explored explored;
    for (auto seed = number_from_environment("DEDUP_CRASH_SEED", 1);
         explored.wrong.empty() && explored.states < states; ++seed) {
        BackupExplorer(seed, durability, explored).run(states, step);
    }
    MESSAGE(explored.states << " crash states at " << explored.moments << " calls; "
                            << explored.absent << " without a copy, " << explored.older
                            << " with the older one, " << explored.newer
                            << " with one that was not acknowledged, " << explored.unfinished
                            << " with one to be refused, " << explored.ahead
                            << " with one that had what nobody else had flushed; in "
                            << explored.lost << " the store had lost what was acknowledged");
    CHECK(explored.wrong == "");
    return explored;
}

constexpr std::uint64_t kStates = 1'500;

TEST_CASE("power loss at every call: a copy is whole, or is not there, and the one before stays") {
    const auto states = number_from_environment("DEDUP_CRASH_STATES", kStates);
    const Explored explored = explore(Durability::sync, states, 1);
    CHECK(explored.lost == 0);
    if (states >= 1000) {
        CHECK(explored.absent > 0);
        CHECK(explored.older > 0);
        CHECK(explored.newer > 0);
        CHECK(explored.unfinished > 0);
        CHECK(explored.linked > 0);
    }
}

TEST_CASE("power loss at calls, with async durability: the store keeps what its copy has") {
    // Few states, but of a whole life.
    const auto states = number_from_environment("DEDUP_CRASH_STATES", kStates) / 5;
    const Explored explored = explore(Durability::async, states, 3);
    if (states >= 300) {
        CHECK(explored.lost > 0);
        CHECK(explored.ahead > 0);
        CHECK(explored.newer > 0);
        CHECK(explored.unfinished > 0);
    }
}

}  // namespace
}  // namespace dedup::test
