// The way to the server: a channel, made again when it broke, and what its replies mean.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "env/mutex.hpp"
#include "remote/address.hpp"
#include "remote/channel.hpp"

namespace dedup::remote {

// What the server says of its store when a channel is made.
struct Greeting {
    std::string store_id;
    std::chrono::milliseconds grace{0};
    std::string token;  // see AppendMemory
};

// The error that a reply is. A queue that is full is `unavailable`: nothing was done.
[[nodiscard]] Error error_of(const wire::Reply& reply);
[[nodiscard]] bool is_full_queue(const wire::Reply& reply);
// The server knows the client no more: nothing was done, and it may log in again.
[[nodiscard]] bool is_logged_out(const wire::Reply& reply);
[[nodiscard]] std::unexpected<Error> odd_reply(std::string_view to);

// Between two attempts of one call. False: its time is up.
[[nodiscard]] bool pause_until(TimePoint deadline);

// For any thread.
class Link {
  public:
    // `tls` where the address says so; otherwise null.
    Link(Address address, std::shared_ptr<const tls::Context> tls)
        : address_(std::move(address)), tls_(std::move(tls)) {}

    // Before the first channel: what store it is to lead to.
    void expect(Greeting greeting) DEDUP_EXCLUDES(mutex_);

    // The channel that there is, or a new one. `once`: one attempt, however much time is left.
    // Errors: unavailable, invalid_argument (the password), unsupported_version, failed (another
    // store than the first time), closed (after shut()), out_of_space (memory).
    [[nodiscard]] Result<std::shared_ptr<Channel>> channel(TimePoint deadline, bool once = false)
        DEDUP_EXCLUDES(mutex_);
    // A channel of the caller's own, which outlives shut().
    [[nodiscard]] Result<std::shared_ptr<Channel>> new_channel(TimePoint deadline)
        DEDUP_EXCLUDES(mutex_);

    // That one is not given to anybody any more; who waits for its reply there still gets it.
    void leave(const std::shared_ptr<Channel>& channel) DEDUP_EXCLUDES(mutex_);

    // Asks what may be asked twice, until there is an answer. Errors: as above, those that the
    // server gives.
    [[nodiscard]] Result<wire::Reply> ask(std::string_view request, TimePoint deadline);

    // Of the newest channel. Precondition: there has been one.
    [[nodiscard]] Greeting greeting() DEDUP_EXCLUDES(mutex_);

    // No channel any more; who waits for one, or for a reply, gets none.
    void shut() DEDUP_EXCLUDES(mutex_);

  private:
    struct Made {
        std::shared_ptr<Channel> channel;
        Greeting greeting;
    };
    [[nodiscard]] Result<Made> make(TimePoint deadline) DEDUP_EXCLUDES(mutex_);
    [[nodiscard]] Result<Made> connect(TimePoint deadline) DEDUP_EXCLUDES(mutex_);
    [[nodiscard]] Result<Greeting> greet(Channel& channel, TimePoint deadline) const;
    [[nodiscard]] Result<void> check(const Greeting& greeting) const DEDUP_REQUIRES(mutex_);
    [[nodiscard]] Result<std::shared_ptr<Channel>> take(Made made) DEDUP_REQUIRES(mutex_);

    const Address address_;
    const std::shared_ptr<const tls::Context> tls_;

    Mutex mutex_;  // held for moments
    Condition changed_;
    bool making_ DEDUP_GUARDED_BY(mutex_) = false;  // one caller makes the channel, for all
    std::vector<std::shared_ptr<Channel>> greeted_ DEDUP_GUARDED_BY(mutex_);  // nobody's yet
    std::shared_ptr<Channel> channel_ DEDUP_GUARDED_BY(mutex_);
    std::optional<Greeting> greeting_ DEDUP_GUARDED_BY(mutex_);
    std::chrono::milliseconds pause_ DEDUP_GUARDED_BY(mutex_){0};
    TimePoint not_before_ DEDUP_GUARDED_BY(mutex_);
    std::atomic<bool> shut_ = false;  // set with the mutex
};

}  // namespace dedup::remote
