// A store behind a server: what all its parts share.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "contract/server_clock.hpp"
#include "contract/store_counters.hpp"
#include "dedup/remote_store.hpp"
#include "env/mutex.hpp"
#include "env/process.hpp"
#include "remote/announcements.hpp"
#include "remote/link.hpp"

namespace dedup::remote {

// Where the store's time comes from. Outlives the store's clock, which has it.
struct TimeSource {
    Clock given;  // empty: the server's
    ServerClock server;
    std::function<void()> ask = {};  // asks the server; set before others use it
    std::atomic<bool> asking = false;

    [[nodiscard]] std::int64_t now_ms();
    void saw(std::int64_t server_ms) { server.saw(server_ms, std::chrono::steady_clock::now()); }
};

// Threads: any, for every function of the contract. Locks are held for moments, but sweep_mutex for
// a sweep.
class RemoteStore final : public StreamStore {
  public:
    // What there is before the server's greeting, with which the store is made.
    struct Parts {
        Parts(const Address& address, const std::shared_ptr<const tls::Context>& tls,
              std::string id)
            : hot(address, tls), chores(address, tls), waits(address, tls), client(std::move(id)) {}

        Link hot;                  // heads and appends
        Link chores;               // what may take long
        Link waits;                // see Announcements
        const std::string client;  // nobody else's: the ids of appends begin with it
        std::atomic<std::uint64_t> appends = 0;
        StoreCounters counters;

        Mutex calls_mutex;
        Condition calls_ended;
        std::size_t calls DEDUP_GUARDED_BY(calls_mutex) = 0;
        bool closing DEDUP_GUARDED_BY(calls_mutex) = false;

        Mutex token_mutex;
        std::string token DEDUP_GUARDED_BY(token_mutex);  // of the newest reply to an append

        std::mutex sweep_mutex;  // one sweep of this client's at a time
        std::atomic<std::thread::id> sweeper;
        std::atomic<bool> stop_sweeps = false;
    };

    RemoteStore(std::unique_ptr<Parts> parts, std::shared_ptr<TimeSource> time,
                const Greeting& greeting, const RemoteOptions& options);
    ~RemoteStore() override;
    // In a forked child nothing of the parent's store is destroyed.
    static void operator delete(RemoteStore* store, std::destroying_delete_t) {
        delete_unless_inherited(store, store->process_);
    }

    // What time it is at the server.
    [[nodiscard]] Result<void> ask_time();

    std::vector<Result<std::uint64_t>> append(std::span<const Append> batch, Batch mode) override;
    std::vector<Result<std::optional<Record>>> heads(std::span<const StreamKey> streams) override;
    Result<std::vector<Version>> history(StreamKey stream, const HistoryLimits& limits) override;
    Result<ScanPage> scan(const ScanOptions& options) override;
    Result<SweepReport> sweep(const SweepOptions& options) override;
    Result<std::vector<SweepReport>> sweep_history() override;
    Result<StoreStats> stats() override;
    StoreMetrics metrics() const override { return parts_->counters.snapshot(); }
    bool reads_are_remote() const override { return true; }
    Result<void> flush() override;
    Result<void> close() override;

  private:
    using Results = std::vector<Result<std::uint64_t>>;
    using Heads = std::vector<Result<std::optional<Record>>>;

    // A call as long as it runs, so that close() waits for it; or why it cannot.
    class Call {
      public:
        Call(const RemoteStore& store, bool writes);
        ~Call();
        Call(const Call&) = delete;
        Call& operator=(const Call&) = delete;
        explicit operator bool() const { return !error_; }
        [[nodiscard]] const Error& error() const { return *error_; }

      private:
        const RemoteStore& store_;
        std::optional<Error> error_;
    };

    [[nodiscard]] TimePoint deadline(int times = 1) const {
        return std::chrono::steady_clock::now() + times * timeout_;
    }
    [[nodiscard]] std::optional<Error> unusable(bool writes) const;
    [[nodiscard]] Result<wire::Reply> ask_chore(const wire::RequestWriter& request);

    // reads.cpp. The streams have names that a stream can have; fewer results, at least one: the
    // rest is to be asked for.
    [[nodiscard]] Heads some_heads(std::span<const StreamKey> streams, TimePoint until);

    // append.cpp
    struct Sending;
    void send(Sending& sending);
    [[nodiscard]] bool take_answer(Sending& sending, const wire::Reply& reply);
    void settle_uncertain(Sending& sending, TimePoint until);
    void note_token(const std::string& token);
    [[nodiscard]] std::string last_token();

    // sweep.cpp
    [[nodiscard]] Result<SweepReport> run_sweep(const SweepOptions& options);

    const std::unique_ptr<Parts> parts_;
    const std::shared_ptr<TimeSource> source_;
    const std::chrono::milliseconds timeout_;
    const bool read_only_;
    const ProcessMark process_;
    Announcements announcements_;
};

// Of an item of a reply to DEDUP.APPEND or DEDUP.HEADS.
[[nodiscard]] Error item_error(const wire::Reply& item);

}  // namespace dedup::remote
