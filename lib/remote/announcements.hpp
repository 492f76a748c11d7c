// What the server says of keys that somebody here waits for.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>

#include "contract/waiters.hpp"
#include "env/mutex.hpp"
#include "remote/link.hpp"

namespace dedup::remote {

// One connection, and one thread that listens there, for all who wait: the first one begins both.
// A stream is asked about once, however many wait for it, with a DEDUP.WAIT of any order: the
// server answers it when the stream is decided, and meanwhile takes others. The answer only wakes
// those who wait; what was decided they see for themselves. So whatever goes wrong wakes them, too.
// Of more than the server has room for it says so, one by one: who waits for these looks.
//
// For any thread. `mutex_` is held for moments; the channel's is taken within it.
class Announcements final : public Announcer {
  public:
    // `link` is for this alone. A call takes at most `timeout`.
    Announcements(Link& link, Waiters& waiters, std::chrono::milliseconds timeout)
        : link_(link), waiters_(waiters), timeout_(timeout) {}
    ~Announcements() override { end(); }

    [[nodiscard]] bool announce(StreamKey stream, std::chrono::milliseconds at_most) override
        DEDUP_EXCLUDES(mutex_);

    // Announces nothing any more, and wakes everybody. Shuts the link.
    void end() DEDUP_EXCLUDES(mutex_);

  private:
    // For how long each is asked about: by its namespace, a zero byte, and its key.
    using Streams = std::unordered_map<std::string, std::chrono::milliseconds>;

    void run() DEDUP_EXCLUDES(mutex_);
    [[nodiscard]] bool wait_until_asked() DEDUP_EXCLUDES(mutex_);
    [[nodiscard]] std::chrono::milliseconds converse() DEDUP_EXCLUDES(mutex_);
    [[nodiscard]] bool listen(Channel& channel) DEDUP_EXCLUDES(mutex_);
    [[nodiscard]] bool take(const wire::Reply& reply) DEDUP_EXCLUDES(mutex_);
    [[nodiscard]] bool expects_reply() DEDUP_EXCLUDES(mutex_);
    void give_up(std::chrono::milliseconds pause) DEDUP_EXCLUDES(mutex_);
    void ask(std::string_view name, std::chrono::milliseconds at_most) DEDUP_REQUIRES(mutex_);
    void limit(std::size_t most, std::chrono::milliseconds pause) DEDUP_REQUIRES(mutex_);
    [[nodiscard]] std::chrono::milliseconds asked_max() const;

    Link& link_;
    Waiters& waiters_;
    const std::chrono::milliseconds timeout_;

    Mutex mutex_;
    Condition changed_;
    Streams asked_ DEDUP_GUARDED_BY(mutex_);                     // and not answered
    std::shared_ptr<Channel> channel_ DEDUP_GUARDED_BY(mutex_);  // where; null: none yet
    TimePoint connect_at_ DEDUP_GUARDED_BY(mutex_);              // at the earliest
    std::size_t limit_ DEDUP_GUARDED_BY(mutex_) = 0;             // of asked_, until:
    TimePoint limited_until_ DEDUP_GUARDED_BY(mutex_);
    bool ended_ DEDUP_GUARDED_BY(mutex_) = false;

    std::mutex end_mutex_;  // of two that end it, one does
    std::thread thread_;    // started within mutex_, not after ended_ is set
};

}  // namespace dedup::remote
