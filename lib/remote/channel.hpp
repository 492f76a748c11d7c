// One connection that many threads share: their requests follow each other, and so do the replies.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "env/descriptor.hpp"
#include "env/mutex.hpp"
#include "remote/address.hpp"
#include "tls/tls.hpp"
#include "wire/reply.hpp"

namespace dedup::remote {

// There is no thread behind it: of the callers that wait for a reply one drives, which is to say
// that it waits for the socket and hands each reply to whom it is for. Who has its own hands the
// driving over. For any thread; a channel that broke stays broken.
class Channel {
  public:
    // A connected socket that does not block, an eventfd, and what is spoken over the socket, or
    // null.
    Channel(Descriptor socket, Descriptor wake, std::unique_ptr<tls::Stream> tls);
    ~Channel();
    Channel(const Channel&) = delete;
    Channel& operator=(const Channel&) = delete;

    enum class Outcome : std::uint8_t {
        answered,
        lost,      // the request may have been carried out
        not_sent,  // it has not
    };
    // A reply that has not come by `deadline` breaks the channel, for everybody: what the server
    // does not answer for so long, it does not answer.
    [[nodiscard]] Outcome exchange(std::string_view request, wire::Reply& reply, TimePoint deadline)
        DEDUP_EXCLUDES(mutex_);

    // For a channel on which nobody exchanges any more: the server replies when it likes, in the
    // order that it likes. Sends the request; hear() goes on with what the socket does not take.
    void post(std::string_view request) DEDUP_EXCLUDES(mutex_);
    // The next replies. None: there was none until `deadline`, or the channel broke. One thread at
    // a time.
    [[nodiscard]] std::vector<wire::Reply> hear(TimePoint deadline) DEDUP_EXCLUDES(mutex_);

    [[nodiscard]] bool broken() DEDUP_EXCLUDES(mutex_);
    void break_off() DEDUP_EXCLUDES(mutex_);

  private:
    // A caller of exchange, on its stack.
    struct Call {
        explicit Call(wire::Reply& to) : reply(to) {}
        wire::Reply& reply;
        bool ended = false;
        bool answered = false;
        Condition changed;
    };

    // What the socket gave.
    struct Heard {
        std::size_t bytes = 0;
        bool ended = false;
    };

    [[nodiscard]] ssize_t send(std::string_view bytes) const;
    [[nodiscard]] ssize_t receive(std::span<char> bytes) const;
    void send_more() DEDUP_REQUIRES(mutex_);
    void take_replies(std::string_view bytes) DEDUP_REQUIRES(mutex_);
    [[nodiscard]] Heard listen(bool sends, TimePoint deadline, std::span<char> bytes) const
        DEDUP_EXCLUDES(mutex_);
    void take_heard(const Heard& heard, std::string_view bytes) DEDUP_REQUIRES(mutex_);
    void hand_over() DEDUP_REQUIRES(mutex_);
    void wake_driver();
    void fail() DEDUP_REQUIRES(mutex_);

    const Descriptor socket_;
    const Descriptor wake_;
    const std::unique_ptr<tls::Stream> tls_;

    Mutex mutex_;
    std::deque<Call*> calls_ DEDUP_GUARDED_BY(mutex_);  // without a reply, in their order
    Call* driver_ DEDUP_GUARDED_BY(mutex_) = nullptr;
    std::vector<wire::Reply>* heard_ DEDUP_GUARDED_BY(mutex_) = nullptr;  // where hear() wants them
    std::string output_ DEDUP_GUARDED_BY(mutex_);  // that the socket did not take yet, from:
    std::size_t sent_ DEDUP_GUARDED_BY(mutex_) = 0;
    wire::ReplyReader reader_ DEDUP_GUARDED_BY(mutex_);
    bool broken_ DEDUP_GUARDED_BY(mutex_) = false;
};

}  // namespace dedup::remote
