// Sweeping: the server does it, and this waits.
#include <fmt/format.h>

#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>
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

// A sweep that the server was asked for. A thread of its own waits for the answer.
class RequestedSweep {
  public:
    // Errors: io (there is no thread to be had).
    static Result<std::unique_ptr<RequestedSweep>> start(std::shared_ptr<Channel> channel,
                                                         RequestWriter request) {
        try {
            return std::unique_ptr<RequestedSweep>(
                new RequestedSweep(std::move(channel), std::move(request)));
        } catch (const std::system_error& error) {
            return std::unexpected(Error{
                .code = Code::io,
                .message =
                    fmt::format("cannot start the thread that waits for a sweep: {}", error.what()),
                .os_error = error.code().value()});
        }
    }
    ~RequestedSweep() { end(); }
    // In a child that was forked in the sweep's progress there is no such thread.
    static void operator delete(RequestedSweep* sweep, std::destroying_delete_t) {
        delete_unless_inherited(sweep, sweep->mark_);
    }
    RequestedSweep(const RequestedSweep&) = delete;
    RequestedSweep& operator=(const RequestedSweep&) = delete;

    // Whether the answer is there.
    [[nodiscard]] bool wait(std::chrono::milliseconds most) {
        std::unique_lock lock(mutex_);
        changed_.wait_for(lock, most, [this] { return answer_.has_value(); });
        return answer_.has_value();
    }
    // The answer, or that the connection was lost: it is not waited for any longer.
    [[nodiscard]] Result<Reply> take() {
        end();
        return *std::move(answer_);
    }

  private:
    RequestedSweep(std::shared_ptr<Channel> channel, RequestWriter request)
        : channel_(std::move(channel)),
          request_(std::move(request)),
          thread_(start_thread("dedup-sweeping", [this] { run(); })) {}

    void run() {
        try {
            set(ask());
        } catch (const std::bad_alloc&) {
            set(std::unexpected(Error{Code::out_of_space, "out of memory"}));
        }
    }
    [[nodiscard]] Result<Reply> ask() {
        // A sweep may take hours; that its connection lives is told by what is asked meanwhile.
        constexpr std::chrono::hours kForever{24 * 365};
        Reply reply;
        if (channel_->exchange(request_.bytes(), reply,
                               std::chrono::steady_clock::now() + kForever) !=
            Channel::Outcome::answered) {
            return std::unexpected(
                Error{Code::unavailable,
                      "the connection was lost while the store was swept; the server goes on, and "
                      "sweep_history() will have the report"});
        }
        return reply.is_error() ? Result<Reply>(std::unexpected(error_of(reply)))
                                : Result<Reply>(std::move(reply));
    }
    void set(Result<Reply> answer) {
        const std::lock_guard lock(mutex_);
        answer_ = std::move(answer);
        changed_.notify_all();
    }
    void end() {
        if (thread_.joinable()) {
            channel_->break_off();
            thread_.join();
        }
    }

    const ProcessMark mark_;
    const std::shared_ptr<Channel> channel_;
    const RequestWriter request_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::optional<Result<Reply>> answer_;
    std::thread thread_;
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
    auto channel = DEDUP_TRY(parts_->chores.new_channel(deadline()));
    const std::string id = fmt::format("{}.s{}", parts_->client, ++parts_->appends);
    const auto sweep =
        DEDUP_TRY(RequestedSweep::start(std::move(channel), sweep_request(options, id)));
    std::uint64_t total = 1;
    bool left = false;
    int in_vain = 0;
    while (!left && !sweep->wait(kLookEvery)) {
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
            if (auto error = unusable(false)) {
                return std::unexpected(*std::move(error));  // forked there
            }
        }
    }
    const auto reply = sweep->take();
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
        if (auto error = unusable(false)) {
            return std::unexpected(*std::move(error));
        }
    }
    return report;
}

}  // namespace dedup::remote
