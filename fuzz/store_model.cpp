// Runs what the input says on a store and on a plain map, and compares their answers: appends with
// right and wrong expected sequences, atomic batches, sweeps, restarts, power losses, and calls
// that fail after a countdown.
#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "crash/explore.hpp"
#include "input.hpp"
#include "support/manual_clock.hpp"

namespace dedup::fuzz {
namespace {

using namespace test;

constexpr int kStepsMax = 40;
constexpr std::uint64_t kKeys = 7;
constexpr std::size_t kLargeBytes = 30'000;  // three of them fill a segment

const Path& root() {
    static const TempDir dir(fast_directory());
    return dir.path();
}

class History {
  public:
    explicit History(Input& input) : input_(input) {
        options_.segment_bytes = kSegmentBytesMin;
        options_.clock = clock_.clock();
        options_.trust_clock = true;  // by which days go in one step
        options_.durability = input_.below(4) == 0 ? Durability::async : Durability::sync;
        life_ = std::make_unique<Life>(root(), Wreck{}, options_, ++lives_);
        open();
    }

    void run() {
        for (int step = 0; step < kStepsMax && !input_.done(); ++step) {
            this->step();
            life_->settle();
            explain_errors();
        }
        restart();
    }

  private:
    void step() {
        switch (input_.below(16)) {
            case 0:
                return restart();
            case 1:
                return lose_power();
            case 2:
                return fail_later();
            case 3:
            case 4:
                return sweep();
            case 5:
                clock_.advance(static_cast<std::int64_t>(input_.below(256)) * 100);
                return;
            case 6:
                (void)life_->store().flush();
                return;
            case 7:
            case 8:
                return append(Batch::atomic, 1 + input_.below(4));
            case 9:
                return append(Batch::each, 1 + input_.below(8));
            default:
                return append(Batch::each, 1);
        }
    }

    std::string any_receipt() {
        const std::uint64_t kind = input_.below(8);
        return std::string(kind == 0 ? kLargeBytes : kind * 10, static_cast<char>('a' + kind));
    }

    Record any_record() {
        Record record;
        record.ns = input_.below(2) == 0 ? "even" : "odd";
        record.key = std::string(1, static_cast<char>('a' + input_.below(kKeys)));
        record.timestamp_ms = life_->log_store().now_ms();
        const std::uint64_t shape = input_.below(8);
        if (shape == 0) {
            record.kind = Kind::tombstone;
        } else if (shape > 3) {
            record.receipt = any_receipt();
        }
        if (const std::uint64_t ttl = input_.below(4); ttl != 0) {
            record.expires_at_ms = record.timestamp_ms + static_cast<std::int64_t>(ttl) * 2000;
        }
        return record;
    }

    void append(Batch mode, std::uint64_t items) {
        std::vector<Append> batch;
        std::map<std::pair<std::string, std::string>, bool> named;
        for (std::uint64_t i = 0; i < items; ++i) {
            Append item{0, any_record()};
            const auto at = heads_.find({item.record.ns, item.record.key});
            const std::uint64_t head = at == heads_.end() ? 0 : at->second;
            const std::uint64_t choice = input_.below(8);
            item.expected_sequence = choice == 0 ? input_.below(64) : head;
            if (mode == Batch::each ||
                named.emplace(std::pair(item.record.ns, item.record.key), true).second) {
                batch.push_back(std::move(item));
            }
        }
        const auto results = life_->store().append(batch, mode);
        require(results.size() == batch.size());
        check_results(batch, results, mode);
    }

    // Each item meets the heads that those before it in the batch have left.
    void check_results(const std::vector<Append>& batch,
                       const std::vector<Result<std::uint64_t>>& results, Batch mode) {
        if (uncertain_) {
            return;
        }
        if (std::ranges::any_of(results, [](const Result<std::uint64_t>& result) {
                return !result && result.error().code != Code::sequence_conflict;
            })) {
            require(life_->env().failed_calls() > 0, "an append failed on a disk that works");
            uncertain_ = true;
            return;
        }
        const bool fits = std::ranges::all_of(batch, [&](const Append& item) {
            return item.expected_sequence == head_of(item.record);
        });
        for (std::size_t i = 0; i < batch.size(); ++i) {
            const std::uint64_t head = head_of(batch[i].record);
            const bool wins = mode == Batch::atomic ? fits : batch[i].expected_sequence == head;
            require(results[i].has_value() == wins, "an append wins or loses wrongly");
            if (wins) {
                heads_[{batch[i].record.ns, batch[i].record.key}] = *results[i];
            } else {
                require(results[i].error().head_sequence == head, "a conflict names another head");
            }
        }
    }

    std::uint64_t head_of(const Record& record) {
        const auto at = heads_.find({record.ns, record.key});
        return at == heads_.end() ? 0 : at->second;
    }

    void sweep() {
        SweepOptions options;
        options.dry_run = false;
        if (input_.below(3) == 0) {
            options.records_max = 1 + input_.below(8);
        }
        const auto report = life_->store().sweep(options);
        if (report) {
            read_heads();
        } else {
            require(life_->env().failed_calls() > 0, report.error().message);
            uncertain_ = true;
        }
    }

    // The ledger has judged that these are right.
    void read_heads() {
        heads_.clear();
        const auto page = life_->log_store().scan({});
        if (!page) {
            require(life_->env().failed_calls() > 0, page.error().message);
            uncertain_ = true;
            return;
        }
        require(page->cursor.empty());
        for (const Version& head : page->heads) {
            heads_[{head.record.ns, head.record.key}] = head.record.sequence;
        }
    }

    void fail_later() {
        constexpr std::array kErrors = {EIO, ENOSPC, EINTR};
        Failure failure;
        failure.os_error = kErrors[input_.below(kErrors.size())];
        failure.fault = static_cast<Fault>(input_.below(3));
        failure.stays = input_.below(2) == 1;
        const std::uint64_t calls = 1 + input_.below(24);
        if (input_.below(4) == 0) {
            failure.call = life_->env().background_calls() + calls;
            life_->env().background_failure = failure;
        } else {
            failure.call = life_->env().calls() + calls;
            life_->env().failure = failure;
        }
    }

    void explain_errors() {
        for (const Error& error : life_->store().errors) {
            require(error.code == Code::io || error.code == Code::out_of_space ||
                        error.code == Code::outcome_unknown || error.code == Code::failed,
                    error.message);
        }
        require(life_->store().wrong.empty(), life_->store().wrong);
    }

    // The process ends, in good order if the disk lets it.
    void restart() {
        const bool failed = life_->env().failed_calls() > 0;
        if (failed) {
            life_->store().settle_sweep();
        }
        life_->env().failure = {};
        life_->env().background_failure = {};
        if (!failed) {
            compare_now();
        }
        const Ledger::Mark mark = ledger_->mark();
        auto next = std::make_unique<Life>(*life_, input_.below(2) == 1, ++lives_);
        go_on(std::move(next), mark);
    }

    void lose_power() {
        constexpr std::uint64_t kWays = kSurvivals;
        life_->record(ledger_);
        life_->record_end();
        const Moment& moment = life_->moments.back();
        Random random(input_.byte());
        Wreck wreck;
        wreck.disk =
            test::lose_power(moment.disk, static_cast<Survival>(input_.below(kWays)), random);
        wreck.catalog = moment.catalogs[input_.below(moment.catalogs.size())];
        const Ledger::Mark mark = moment.mark;
        life_->end();
        go_on(std::make_unique<Life>(root(), wreck, options_, ++lives_), mark);
    }

    // What is there after a crash or an end, and from then on has to stay.
    void go_on(std::unique_ptr<Life> next, const Ledger::Mark& mark) {
        const std::shared_ptr<Ledger> before = ledger_;
        life_ = std::move(next);
        open_store();
        const dedup::test::Verdict verdict = compare(life_->log_store(), *before, mark);
        require(verdict.wrong.empty(), verdict.wrong);
        ledger_ = std::make_shared<Ledger>(continued(*before, mark, verdict));
        life_->keep(ledger_);
        uncertain_ = false;
        read_heads();
    }

    void compare_now() {
        if (!uncertain_) {
            const dedup::test::Verdict verdict =
                compare(life_->log_store(), *ledger_, ledger_->mark());
            require(verdict.wrong.empty(), verdict.wrong);
            require(verdict.present == ledger_->entries.size() || !uncertain_);
        }
    }

    void open() {
        open_store();
        life_->keep(ledger_);
    }

    void open_store() {
        const auto opened = life_->open();
        require(opened.has_value(), opened ? "" : opened.error().message);
        life_->settle();
    }

    Input& input_;
    ManualClock clock_{1'700'000'000'000};
    OpenOptions options_;
    std::shared_ptr<Ledger> ledger_ = std::make_shared<Ledger>();
    std::unique_ptr<Life> life_;
    std::map<std::pair<std::string, std::string>, std::uint64_t> heads_;
    std::uint64_t lives_ = 0;
    bool uncertain_ = false;  // a call has failed: only the next opening tells what is there
};

}  // namespace
}  // namespace dedup::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    dedup::fuzz::Input input(data, size);
    dedup::fuzz::History(input).run();
    return 0;
}
