// Sweeping: the server does it, and this waits.
#include <fmt/format.h>

#include <condition_variable>
#include <mutex>
#include <new>
#include <utility>

#include "env/finally.hpp"
#include "record/try.hpp"
#include "remote/remote_store.hpp"
#include "wire/store_fields.hpp"

namespace dedup::remote {
namespace {

using wire::Reply;
using wire::RequestWriter;

// How often the server is asked how far it is.
constexpr std::chrono::milliseconds kLookEvery{100};
// So often it does not run there, though this one is to end: others are before it. Before that its
// answer may be under way.
constexpr int kLooksInVain = 5;

RequestWriter sweep_request(const SweepOptions& options, const std::string& id) {
    std::vector<std::string> words = {"DEDUP.SWEEP", "ID", id, "UNANSWERED",
                                      std::to_string(options.unanswered_max)};
    const auto flag = [&](bool set, const char* word) {
        if (set) {
            words.emplace_back(word);
        }
    };
    const auto number = [&](std::uint64_t value, const char* word) {
        if (value != 0) {
            words.emplace_back(word);
            words.push_back(std::to_string(value));
        }
    };
    flag(options.dry_run, "DRYRUN");
    flag(options.compact, "COMPACT");
    flag(options.trust_clock, "TRUSTCLOCK");
    flag(!options.count_retained, "UNCOUNTED");
    flag(options.stop.stop_requested(), "STOPPED");
    number(static_cast<std::uint64_t>(std::max<std::int64_t>(options.time_max.count(), 0)),
           "MAXTIME");
    number(options.records_max, "MAXRECORDS");
    number(options.bytes_max, "MAXBYTES");
    if (options.now_ms) {
        words.emplace_back("NOW");
        words.push_back(std::to_string(*options.now_ms));
    }
    RequestWriter request(words.size());
    for (const std::string& word : words) {
        request.add(word);
    }
    return request;
}

// The answer to the sweep, which a thread of its own waits for.
class Answer {
  public:
    void set(Result<Reply> reply) {
        const std::lock_guard lock(mutex_);
        reply_ = std::move(reply);
        changed_.notify_all();
    }
    // Whether it is there.
    [[nodiscard]] bool wait(std::chrono::milliseconds most) {
        std::unique_lock lock(mutex_);
        changed_.wait_for(lock, most, [this] { return reply_.has_value(); });
        return reply_.has_value();
    }
    [[nodiscard]] Result<Reply> take() { return *std::move(reply_); }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::optional<Result<Reply>> reply_;
};

}  // namespace

Result<SweepReport> RemoteStore::sweep(const SweepOptions& options) {
    if (parts_->sweeper.load() == std::this_thread::get_id() && !process_.inherited()) {
        return std::unexpected(Error{Code::busy, "a sweep cannot be begun from within another"});
    }
    const Call call(*this, !options.dry_run);
    if (!call) {
        return std::unexpected(call.error());
    }
    const NoCancel whole;
    const std::lock_guard lock(parts_->sweep_mutex);
    parts_->sweeper = std::this_thread::get_id();
    const Finally done([this] { parts_->sweeper = std::thread::id(); });
    auto report = run_sweep(options);
    if (!options.dry_run) {
        report ? parts_->counters.count_sweep(*report) : parts_->counters.sweeps_failed.add(1);
    }
    if (report && !options.dry_run) {
        time_.saw_time(report->now_ms);
    }
    return report;
}

Result<SweepReport> RemoteStore::run_sweep(const SweepOptions& options) {
    // A sweep may take hours; that its connection lives is told by what is asked meanwhile.
    constexpr std::chrono::hours kForever{24 * 365};
    auto channel = DEDUP_TRY(parts_->chores.new_channel(deadline()));
    const std::string id = fmt::format("{}.s{}", parts_->client, ++parts_->appends);
    const RequestWriter request = sweep_request(options, id);
    Answer answer;
    std::thread waiting = start_thread("dedup-sweeping", [&] {
        try {
            Reply reply;
            const auto outcome = channel->exchange(request.bytes(), reply,
                                                   std::chrono::steady_clock::now() + kForever);
            if (outcome == Channel::Outcome::answered) {
                answer.set(reply.is_error() ? Result<Reply>(std::unexpected(error_of(reply)))
                                            : Result<Reply>(std::move(reply)));
            } else {
                answer.set(std::unexpected(Error{
                    Code::unavailable,
                    "the connection was lost while the store was swept; the server goes on, and "
                    "sweep_history() will have the report"}));
            }
        } catch (const std::bad_alloc&) {
            answer.set(std::unexpected(Error{Code::out_of_space, "out of memory"}));
        }
    });
    std::uint64_t total = 1;
    bool left = false;
    {
        // However this ends: the thread uses what is here.
        const Finally ended([&] {
            channel->break_off();
            waiting.join();
        });
        int in_vain = 0;
        while (!left && !answer.wait(kLookEvery)) {
            const bool stop = options.stop.stop_requested() || parts_->stop_sweeps;
            RequestWriter look(stop ? 3 : 2);
            look.add("DEDUP.SWEEPING").add(id);
            if (stop) {
                look.add("STOP");
            }
            const auto seen = parts_->hot.ask(look.bytes(), deadline());
            if (!seen) {
                break;
            }
            const bool runs = seen->list.size() == 2;
            in_vain = stop && !runs ? in_vain + 1 : 0;
            left = in_vain == kLooksInVain;
            if (runs && options.progress) {
                total = static_cast<std::uint64_t>(seen->list[1].integer);
                options.progress(static_cast<std::uint64_t>(seen->list[0].integer), total);
            }
        }
    }
    const auto reply = answer.take();
    if (!reply && left) {
        return std::unexpected(
            Error{parts_->stop_sweeps ? Code::closed : Code::busy,
                  "the sweep was not waited for: the server carries out others first, and this one "
                  "behind them"});
    }
    if (!reply) {
        return std::unexpected(reply.error());
    }
    SweepReport report;
    wire::FieldReader reader(*reply);
    wire::visit_fields(report, reader);
    if (options.progress) {
        options.progress(std::max<std::uint64_t>(total, 1), std::max<std::uint64_t>(total, 1));
    }
    return report;
}

}  // namespace dedup::remote
