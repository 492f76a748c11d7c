// Several callers, the flusher and a reader, while the power fails and flushes fail.
//
// Real threads append to one store, in groups, but one call to the disk at a time: every change
// waits until the test lets it go (gated_env.hpp), and the test does something only while all
// threads sleep. The seed chooses who appends what, who joins whose group, when the flusher's and
// the leader's calls go on, which of them fails, and when a reader looks. So a seed says all.
//
// What must hold. When an append returns (Durability::sync), or a flush() after it, or when a
// reader shows the record, its bytes are on the disk then. Of a group whose write or flush fails
// nobody is told of success, nor of a sequence; from then on no append succeeds. And the power may
// fail at every call: what is left opens, has all that was promised before, and nothing that was
// refused. Nobody waits for ever.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <mutex>
#include <set>
#include <thread>

#include "crash/aftermath.hpp"
#include "crash/explore.hpp"
#include "support/environment.hpp"
#include "support/gated_env.hpp"

namespace dedup::test {
namespace {

constexpr int kCallers = 4;
constexpr std::chrono::seconds kPatience{10};

// One call, by a caller's thread.
struct Call {
    std::vector<Append> batch;  // empty: flush()
    Batch mode = Batch::each;
    bool after_failure = false;                     // a call to the disk had failed before
    std::vector<std::string> promised_before = {};  // flush(): receipts of acknowledged appends
    std::vector<Result<std::uint64_t>> results = {};
    Result<void> flushed = {};
};

// A thread that makes one call at a time.
class Caller {
  public:
    Caller(LogStore& store, int number) : thread_([this, &store, number] { run(store, number); }) {}
    ~Caller() {
        {
            const std::lock_guard lock(mutex_);
            ends_ = true;
        }
        wakes_.notify_all();
        thread_.join();
    }
    Caller(const Caller&) = delete;
    Caller& operator=(const Caller&) = delete;

    void begin(Call& call) {
        {
            const std::lock_guard lock(mutex_);
            call_ = &call;
        }
        wakes_.notify_all();
    }
    [[nodiscard]] bool is_idle() const {
        const std::lock_guard lock(mutex_);
        return call_ == nullptr;
    }

  private:
    void run(LogStore& store, int number) {
        GatedEnv::call_me("caller-" + std::to_string(number));
        std::unique_lock lock(mutex_);
        while (true) {
            wakes_.wait(lock, [&] { return call_ != nullptr || ends_; });
            if (call_ == nullptr) {
                return;
            }
            lock.unlock();
            if (call_->batch.empty()) {
                call_->flushed = store.flush();
            } else {
                call_->results = store.append(call_->batch, call_->mode);
            }
            lock.lock();
            call_ = nullptr;
        }
    }

    mutable std::mutex mutex_;
    std::condition_variable wakes_;
    Call* call_ = nullptr;
    bool ends_ = false;
    std::thread thread_;
};

struct Totals {
    std::uint64_t states = 0;
    std::uint64_t moments = 0;
    std::uint64_t calls = 0;
    std::uint64_t followers = 0;  // appends that joined others
    std::uint64_t failed = 0;     // lives in which a call failed
    std::uint64_t unknown = 0;    // outcomes
    std::uint64_t looks = 0;
    std::string wrong;
};

// One life of a store, and all the wrecks that it may leave.
class Lives {
  public:
    Lives(std::uint64_t seed, Totals& totals)
        : seed_(seed),
          random_(seed),
          totals_(totals),
          env_(disk_, dir_.path(), seed),
          gated_(env_, disk_, seed) {
        options_.durability = seed % 2 == 0 ? Durability::sync : Durability::async;
        options_.flush_interval = std::chrono::milliseconds(1);
        options_.segment_bytes = kSegmentBytesMin;
        options_.clock = clock_.clock();
        options_.trust_clock = true;    // by which days go in one step
        env_.sealer_stays_away = true;  // it is waited for by other means
        failing_ = below(random_, 4) == 0 ? 0 : 1 + below(random_, 40);
    }

    void run() {
        std::filesystem::create_directories(dir_.path() / "store");
        auto opened = LogStore::open(gated_, dir_.path() / "store", options_);
        if (!opened) {
            return wrong("open: " + opened.error().message);
        }
        store_ = std::move(*opened);
        for (int i = 0; i < kCallers; ++i) {
            callers_.push_back(std::make_unique<Caller>(*store_, i));
            calls_of_.push_back(nullptr);
        }
        const auto steps = number_from_environment("DEDUP_CALLERS_STEPS", 120);
        for (std::uint64_t i = 0; i < steps && totals_.wrong.empty(); ++i) {
            rest();
            step();
        }
        while (totals_.wrong.empty() && (rest(), !gated_.waiting().empty())) {
            let_one_go();
        }
        reader_.reset();
        gated_.open_gates();
        callers_.clear();
        (void)store_->close();
        store_.reset();
        write_ledger();
        crash();
    }

  private:
    struct Instant {
        Moment moment;
        std::uint64_t told = 0;  // sequences up to this one have to be there
        std::size_t calls = 0;   // had begun
    };

    void wrong(const std::string& what) {
        if (totals_.wrong.empty()) {
            totals_.wrong = fmt::format("{} (to see it again: DEDUP_CRASH_SEED={})", what, seed_);
        }
    }

    // Waits until nothing moves, and sees to what has come of the calls by then.
    void rest() {
        const auto give_up = std::chrono::steady_clock::now() + kPatience;
        const bool has_flusher = options_.durability == Durability::async;
        while (!gated_.at_rest(has_flusher) || (gated_.waiting().empty() && somebody_calls())) {
            if (std::chrono::steady_clock::now() > give_up) {
                if (gated_.at_rest(false) && !somebody_calls()) {
                    return wrong("the flusher does not flush what was written");
                }
                std::cerr << "seed " << seed_ << ": somebody waits for ever\n";
                std::abort();  // its thread could not be joined
            }
            std::this_thread::sleep_for(std::chrono::microseconds(20));
        }
        for (std::size_t i = 0; i < callers_.size(); ++i) {
            if (calls_of_[i] != nullptr && callers_[i]->is_idle()) {
                judge(*std::exchange(calls_of_[i], nullptr));
            }
        }
        env_.look_at_catalog(true);
        instants_.push_back(
            {{disk_.state(), env_.catalog_copies(), nullptr, {}, last_}, told_, calls_.size()});
    }

    [[nodiscard]] bool somebody_calls() const {
        return std::ranges::any_of(callers_, [](const auto& caller) { return !caller->is_idle(); });
    }

    void step() {
        std::vector<std::size_t> idle;
        for (std::size_t i = 0; i < callers_.size(); ++i) {
            if (calls_of_[i] == nullptr) {
                idle.push_back(i);
            }
        }
        const auto kind = below(random_, 10);
        if (kind == 0) {
            look();
        } else if (!idle.empty() && (kind < 6 || gated_.waiting().empty())) {
            begin(idle[below(random_, idle.size())]);
        } else if (!gated_.waiting().empty()) {
            let_one_go();
        }
    }

    void begin(std::size_t caller) {
        Call& call = *calls_.emplace_back(std::make_unique<Call>());
        call.after_failure = has_failed_;
        // If both a flush and a group waited for their turn, the system would choose.
        if (below(random_, 5) == 0 && queued() == 0) {
            call.promised_before = acknowledged_;
        } else if (!flush_waits()) {
            fill(call);
        } else {
            calls_.pop_back();
            return;
        }
        totals_.followers += queued() > 0 && !call.batch.empty() ? 1U : 0U;
        ++totals_.calls;
        calls_of_[caller] = &call;
        last_ = fmt::format("caller {} {}", caller, call.batch.empty() ? "flushes" : "appends");
        callers_[caller]->begin(call);
    }

    // Calls that wait for others to be through.
    [[nodiscard]] std::size_t queued() const {
        const auto waiting = gated_.waiting();
        const auto busy = std::ranges::count_if(calls_of_, [](auto* call) { return call; });
        const auto at_work = std::ranges::count_if(
            waiting, [](const std::string& call) { return call.starts_with("caller"); });
        return static_cast<std::size_t>(std::max<std::ptrdiff_t>(0, busy - at_work));
    }
    [[nodiscard]] bool flush_waits() const {
        return std::ranges::any_of(calls_of_,
                                   [](auto* call) { return call && call->batch.empty(); });
    }

    // Mostly new streams; some for which callers race, if only one item each.
    void fill(Call& call) {
        const auto items = below(random_, 3) == 0 ? 2 + below(random_, 3) : 1;
        call.mode = items > 1 && below(random_, 2) == 0 ? Batch::atomic : Batch::each;
        for (std::uint64_t i = 0; i < items; ++i) {
            Append item;
            item.record.ns = "default";
            item.record.timestamp_ms = clock_.now_ms();
            item.record.receipt = fmt::format("receipt-{}-{};", calls_.size(), i) +
                                  std::string(below(random_, 4) == 0 ? 6000 : 20, 'r');
            if (items == 1 && below(random_, 2) == 0) {
                item.record.key = "raced-" + std::to_string(below(random_, 2));
                item.expected_sequence = heads_[item.record.key];
            } else {
                item.record.key = fmt::format("key-{}-{}", calls_.size(), i);
            }
            call.batch.push_back(std::move(item));
        }
    }

    void let_one_go() {
        const auto waiting = gated_.waiting();
        const std::string& call = waiting[below(random_, waiting.size())];
        std::optional<Fault> fault;
        if (++let_go_ == failing_) {
            fault = below(random_, 2) == 0 ? Fault::error : Fault::part;
            // (Of a segment that has no name yet a new one can be made.)
            has_failed_ = !call.ends_with(".tmp") && (call.find(" write ") != std::string::npos ||
                                                      call.find(" sync ") != std::string::npos);
            ++totals_.failed;
        }
        last_ = call + (fault ? ", which failed" : "");
        gated_.let_go(call, fault);
    }

    // A receipt that is on the disk whatever happens now; its file's name is the wrecks' business.
    [[nodiscard]] bool is_durable(std::string_view receipt) const {
        const std::string_view mark = receipt.substr(0, receipt.find(';') + 1);
        return std::ranges::any_of(disk_.state().nodes, [&](const Node& node) {
            return node.durable->find(mark) != std::string::npos;
        });
    }

    void judge(const Call& call) {
        const auto check_promise = [&](std::string_view receipt, std::string_view by) {
            if (!is_durable(receipt)) {
                wrong(fmt::format("after \"{}\": {} acknowledged {}, which is not on the disk",
                                  last_, by, receipt.substr(0, receipt.find(';'))));
            }
        };
        if (call.batch.empty()) {
            if (call.flushed) {
                for (const std::string& receipt : call.promised_before) {
                    check_promise(receipt, "a flush");
                    told_ = std::max(told_, sequence_of_[receipt]);
                }
            }
            return;
        }
        for (std::size_t i = 0; i < call.results.size(); ++i) {
            const auto& result = call.results[i];
            const Record& record = call.batch[i].record;
            if (result) {
                if (call.after_failure) {
                    wrong(fmt::format("after \"{}\": an append succeeded after a failed flush",
                                      last_));
                }
                acknowledged_.push_back(*record.receipt);
                sequence_of_[*record.receipt] = *result;
                heads_[record.key] = *result;
                if (options_.durability == Durability::sync) {
                    check_promise(*record.receipt, "an append");
                    told_ = std::max(told_, *result);
                }
            } else if (result.error().code == Code::sequence_conflict) {
                told_heads_.insert(result.error().head_sequence);
            } else {
                totals_.unknown += result.error().code == Code::outcome_unknown ? 1U : 0U;
            }
        }
    }

    // A reader opens, or follows the writer. What it shows is on the disk.
    void look() {
        ++totals_.looks;
        if (!reader_ || below(random_, 3) == 0) {
            reader_.reset();
            OpenOptions options = options_;
            options.read_only = true;
            auto opened = LogStore::open(env_, dir_.path() / "store", options);
            if (!opened) {
                return wrong("a reader: " + opened.error().message);
            }
            reader_ = std::move(*opened);
        }
        std::uint64_t newest = 0;
        for (const auto& call : calls_) {
            for (const Append& item : call->batch) {
                const auto head = reader_->head({item.record.ns, item.record.key});
                if (!head) {
                    return wrong("a reader: " + head.error().message);
                }
                if (!has_failed_ && *head && !is_durable(*(*head)->receipt)) {
                    wrong(fmt::format("after \"{}\": a reader shows {}, which is not on the disk",
                                      last_, (*head)->key));
                }
                newest = std::max(newest, *head ? (*head)->sequence : 0);
            }
        }
        // What a failed flush has lost is in the system's memory all the same, and a reader's own
        // flush, which has nothing left to do, succeeds.
        told_ = has_failed_ ? told_ : std::max(told_, newest);
        last_ = "a look";
    }

    // All that is in the log, in its order; at the end what may or may not be.
    void write_ledger() {
        std::set<std::pair<std::string, std::uint64_t>> open;  // heads that are perhaps replaced
        std::vector<std::pair<LedgerEntry, std::size_t>> entries;
        std::uint64_t highest = 0;
        for (const auto& [receipt, sequence] : sequence_of_) {
            highest = std::max(highest, sequence);
        }
        for (std::size_t c = 0; c < calls_.size(); ++c) {
            const Call& call = *calls_[c];
            for (std::size_t i = 0; i < call.results.size(); ++i) {
                LedgerEntry entry;
                entry.record = call.batch[i].record;
                entry.call = c;
                entry.atomic = call.mode == Batch::atomic;
                entry.after = highest;
                if (call.results[i]) {
                    entry.record.sequence = *call.results[i];
                    entry.record.claim_sequence = *call.results[i];
                } else if (call.results[i].error().code != Code::outcome_unknown ||
                           !open.emplace(entry.record.key, call.batch[i].expected_sequence)
                                .second) {
                    continue;
                }
                entries.emplace_back(std::move(entry), c);
            }
        }
        std::ranges::stable_sort(entries, {}, [](const auto& entry) {
            const auto sequence = entry.first.record.sequence;
            return sequence == 0 ? UINT64_MAX : sequence;
        });
        for (auto& [entry, call] : entries) {
            ledger_->entries.push_back(std::move(entry));
            begun_by_.push_back(call);
        }
        ledger_->sequence_told = highest;
        ledger_->reports_lost = true;  // nothing is swept here
        for (const std::uint64_t head : told_heads_) {
            const bool known = head == 0 || std::ranges::any_of(sequence_of_, [&](const auto& s) {
                                   return s.second == head;
                               });
            if (!known) {
                wrong(fmt::format("sequence {} was told to one who lost, and nobody has it", head));
            }
        }
    }

    void crash() {
        for (std::size_t m = 0; m < instants_.size() && totals_.wrong.empty(); ++m) {
            ++totals_.moments;
            for (const Survival survival :
                 {Survival::nothing, Survival::any_order, Survival::in_order}) {
                if (totals_.wrong.empty()) {
                    crash(instants_[m], survival);
                }
            }
        }
    }

    void crash(const Instant& instant, Survival survival) {
        Ledger::Mark mark;
        for (std::size_t i = 0; i < ledger_->entries.size(); ++i) {
            const std::uint64_t sequence = ledger_->entries[i].record.sequence;
            if (sequence != 0 && sequence <= instant.told) {
                mark.durable = i + 1;
            }
            if (begun_by_[i] < instant.calls) {
                mark.begun = i + 1;
            }
        }
        mark.sequence_told = instant.told;
        Wreck wreck;
        wreck.disk = lose_power(instant.moment.disk, survival, random_);
        const auto& copies = instant.moment.catalogs;
        wreck.catalog =
            copies[copies.size() - 1 - below(random_, std::min<std::size_t>(3, copies.size()))];
        const std::size_t state = fingerprint(wreck.disk) ^ (mark.durable << 40) ^
                                  (std::hash<const void*>()(wreck.catalog.get()) * 31);
        if (!seen_.insert(state).second) {
            return;
        }
        ++totals_.states;
        const std::string where =
            fmt::format("cut after \"{}\", {} survived", instant.moment.after, name(survival));
        Life life(wreck_dir_.path(), wreck, options_, seed_);
        if (const auto opened = life.open(); !opened) {
            return wrong(where + ": open: " + opened.error().message);
        }
        life.settle();
        const Verdict verdict = compare(life.log_store(), *ledger_, mark);
        if (!verdict.wrong.empty()) {
            return wrong(where + ": " + verdict.wrong);
        }
        const auto ledger = std::make_shared<Ledger>(continued(*ledger_, mark, verdict));
        life.keep(ledger);
        if (const auto misused = use(life.store(), *ledger); !misused.empty()) {
            wrong(where + ": " + misused);
        }
    }

    const std::uint64_t seed_;
    Random random_;
    Totals& totals_;
    const TempDir dir_{fast_directory()};
    const TempDir wreck_dir_{fast_directory()};
    ManualClock clock_{1'700'000'000'000};
    OpenOptions options_;
    FaultDisk disk_;
    FaultEnv env_;
    GatedEnv gated_;
    std::unique_ptr<LogStore> store_;
    std::unique_ptr<LogStore> reader_;
    std::vector<std::unique_ptr<Call>> calls_;  // in the order in which they began
    std::vector<std::unique_ptr<Caller>> callers_;
    std::vector<Call*> calls_of_;  // by caller; null: it is idle
    std::string last_;             // what the test did last
    std::uint64_t let_go_ = 0;     // calls to the disk so far
    std::uint64_t failing_ = 0;    // the one that fails; 0: none
    bool has_failed_ = false;      // a write or a flush
    std::vector<std::string> acknowledged_;
    std::map<std::string, std::uint64_t> sequence_of_;  // by receipt
    std::map<std::string, std::uint64_t> heads_;        // as far as callers know
    std::set<std::uint64_t> told_heads_;
    std::uint64_t told_ = 0;  // sequences up to this one have to survive now
    std::vector<Instant> instants_;
    std::shared_ptr<Ledger> ledger_ = std::make_shared<Ledger>();
    std::vector<std::size_t> begun_by_;  // the call of each of the ledger's entries
    std::set<std::size_t> seen_;
};

TEST_CASE("many callers: what is acknowledged is on the disk, whoever led, whatever failed") {
    Totals totals;
    const auto lives = number_from_environment("DEDUP_CALLERS_LIVES", 40);
    const auto seed = number_from_environment("DEDUP_CRASH_SEED", 1);
    for (std::uint64_t i = 0; i < lives && totals.wrong.empty(); ++i) {
        Lives(seed + i, totals).run();
    }
    MESSAGE(totals.states << " crash states at " << totals.moments << " calls of " << lives
                          << " lives; " << totals.calls << " calls of callers, " << totals.followers
                          << " followers, " << totals.looks << " looks; in " << totals.failed
                          << " lives a call failed, " << totals.unknown << " outcomes unknown");
    CHECK(totals.wrong == "");
}

}  // namespace
}  // namespace dedup::test
