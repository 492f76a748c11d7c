// Carries out the requests of all connections on the store: what they ask while one group is being
// flushed becomes one group of the next.
//
// It works in rounds. A round takes what is waiting, lane by lane, reads the heads of all streams
// that it is about in one call, lets each command decide, and appends what they ask for as one
// batch, hence with one flush. So the commands of a round happen one after the other, in the order
// of the round: a command about a stream that an earlier one of the round appends to, and whatever
// follows it in its lane, waits for the next round, which sees what has landed.
//
// Three threads: one for the rounds, one for sweeps, one for all other chores. The reactor's thread
// submits and gets the replies.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "env/mutex.hpp"
#include "server/chore_queue.hpp"
#include "server/lane.hpp"
#include "server/store_watch.hpp"

namespace dedup::server {

// For tables of streams. Those with one hash wait for each other, and nothing worse.
[[nodiscard]] inline std::uint64_t stream_hash(StreamKey stream) {
    const std::hash<std::string_view> hash;
    return hash(stream.key) ^ (hash(stream.ns) * 0x9e3779b97f4a7c15);
}

struct Replies {
    LanePtr lane;
    std::string bytes;
    std::size_t count = 0;
    std::size_t of_any_order = 0;  // see Command; among these
};

// What is replied to a command in place of carrying it out; null: it is carried out.
[[nodiscard]] CommandPtr refusal(const Lane& lane, const Command& command);

struct ExecutorOptions {
    // Gets replies, in order for each lane. Called by the executor's threads, one at a time.
    std::function<void(std::vector<Replies>)> deliver;
    // Of one connection: with more than this not taken yet, its commands wait.
    std::size_t unsent_bytes_max = 1024 * 1024;
    // Of all. Above it, everything waits until the reactor has seen to it.
    const std::atomic<std::size_t>* all_unsent_bytes = nullptr;
    std::size_t all_unsent_bytes_max = 0;
    StoreWatch* watch = nullptr;
};

class Executor {
  public:
    Executor(StreamStore& store, ExecutorOptions options);
    ~Executor();  // finishes
    Executor(const Executor&) = delete;
    Executor& operator=(const Executor&) = delete;

    using Commands = std::vector<std::pair<LanePtr, CommandPtr>>;
    // Any thread.
    void submit(Commands commands) DEDUP_EXCLUDES(mutex_);
    // The client of `lane` has taken replies: it may have more. Any thread.
    void resume(LanePtr lane) DEDUP_EXCLUDES(mutex_);

    // Nothing is submitted any more. What has been is carried out, also what `resumed` were held
    // up with; chores are asked to end early, or not begun, and what waits for somebody else's
    // answer is told how things stand.
    void ask_to_finish(std::vector<LanePtr> resumed) DEDUP_EXCLUDES(mutex_);
    // Asks for it, and waits until it is done.
    void finish() DEDUP_EXCLUDES(mutex_);

  private:
    // What has come for the thread that makes the rounds.
    struct Incoming {
        Commands commands;
        Commands done;  // chores
        std::vector<LanePtr> resumed;

        [[nodiscard]] bool empty() const {
            return commands.empty() && done.empty() && resumed.empty();
        }
    };
    struct Item {
        LanePtr lane;
        CommandPtr command;
        std::size_t first_stream = 0;
        bool appending = false;
        bool lost = false;  // a race, after which it appends nothing
    };
    struct Parked {
        Item item;
        std::chrono::steady_clock::time_point due;  // a lease runs out, or the time to wait is up
    };
    struct Appending {
        std::size_t item;
        std::size_t part;
    };

    // An atomic batch, and the item that it is for.
    struct Transacting {
        std::size_t item;
        std::vector<Append> batch;
    };

    void run_rounds() DEDUP_EXCLUDES(mutex_);
    void run_chores(std::size_t kind) DEDUP_EXCLUDES(mutex_);
    void run_chore(Command& chore, const std::atomic<bool>& gone);
    void begin_chore(const LanePtr& lane) DEDUP_EXCLUDES(mutex_);
    bool take_incoming() DEDUP_EXCLUDES(mutex_);
    void take_over(Incoming incoming);
    void wait_for_room() DEDUP_EXCLUDES(mutex_);
    void wait_for_company() DEDUP_EXCLUDES(mutex_);
    void make_ready(const LanePtr& lane);
    void round();
    void gather();
    void gather_lane(const LanePtr& lane);
    bool repeats(const Command& command);
    void decide();
    bool read_heads(const Item& item);
    bool decide_item(std::size_t item);
    void append();
    bool decide_atomic(std::size_t item);
    void append_atomic(Transacting transacting);
    void retry(Appending lost);
    void answer(Item& item);
    void answer_all();
    void put_back();
    void deliver();
    void take_times();
    void park(Item& item, std::chrono::milliseconds at_most);
    void park_if_it_waits(Item& item);
    void note_change(StreamKey stream);
    void wake_changed();
    void wake_due();
    void poll_next();
    void wake(Item item);

    StreamStore& store_;
    const ExecutorOptions options_;

    // Of the thread that makes the rounds.
    std::deque<LanePtr> ready_;
    std::vector<Item> items_;
    std::vector<StreamKey> streams_;
    std::vector<Result<std::optional<Record>>> heads_;
    std::vector<Append> batch_;
    std::vector<Transacting> transacting_;
    std::vector<Appending> appending_;                 // what each item of batch_ is for
    std::unordered_set<std::uint64_t> written_;        // streams, by hash: in batch_
    std::unordered_map<std::uint64_t, bool> in_lane_;  // streams, by hash; true: may be appended to
    std::size_t head_bytes_ = 0;                       // of the values among heads_
    std::int64_t now_ms_ = 0;                          // the time by which heads_ are judged
    std::unordered_set<const Lane*> lanes_appending_;
    std::unordered_set<const Lane*> stopped_;  // until the next round
    std::vector<std::size_t> put_back_;        // items, in order
    std::vector<LanePtr> touched_;             // with replies to deliver
    std::vector<Timing> answered_;             // of these replies
    // They wait for somebody else's answer about a stream: by its hash, and their turn.
    std::map<std::pair<std::uint64_t, std::uint64_t>, Parked> parked_;
    std::uint64_t last_turn_ = 0;
    std::vector<std::uint64_t> changed_;  // of these streams, by this executor's appends
    std::chrono::steady_clock::time_point parked_looked_;  // who is due
    std::uint64_t polled_ = 0;                             // the stream whose turn was last
    std::int64_t polls_left_ = 0;                          // of the tick's; below 0: too many
    std::size_t company_ = 0;                              // lanes that the last append answered
    std::chrono::steady_clock::time_point company_until_;
    std::chrono::steady_clock::duration company_gap_{};
    bool finishing_ = false;

    Mutex mutex_;
    Condition work_;
    // Of each kind: those that may take long, and those that may take very long.
    static constexpr std::size_t kChoreKinds = 2;
    std::array<Condition, kChoreKinds> chore_work_;
    Incoming incoming_ DEDUP_GUARDED_BY(mutex_);
    std::array<ChoreQueue, kChoreKinds> chores_ DEDUP_GUARDED_BY(mutex_);
    std::size_t chores_open_ DEDUP_GUARDED_BY(mutex_) = 0;
    bool stop_ DEDUP_GUARDED_BY(mutex_) = false;
    bool stop_chores_ DEDUP_GUARDED_BY(mutex_) = false;
    std::stop_source stop_source_;

    std::thread rounds_;
    std::array<std::thread, kChoreKinds> chore_threads_;
};

}  // namespace dedup::server
