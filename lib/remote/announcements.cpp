#include "remote/announcements.hpp"

#include <algorithm>
#include <memory>
#include <new>
#include <system_error>
#include <utility>
#include <vector>

#include "env/process.hpp"

namespace dedup::remote {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// More are not asked about: who waits for those looks.
constexpr std::size_t kAskedMax = 16'384;
// Between the loss of a connection and the next one.
constexpr milliseconds kConnectPause{50};
// How long everybody looks, where there is no connection; and where the server does not announce.
constexpr milliseconds kUnconnectedPause{1'000};
constexpr milliseconds kRefusedPause{10'000};
// How long no more are asked about than the server has had room for.
constexpr milliseconds kBusyPause{1'000};
// A stream that nothing happens to is asked about again after so many timeouts, so that what nobody
// waits for any more is forgotten.
constexpr int kAskTimes = 3;

// Changes nothing, and is answered at once: also by a server that is too busy for a PING.
std::string sign_of_life() {
    return wire::RequestWriter(2).add("SELECT").add("0").bytes();
}

std::string name_of(StreamKey stream) {
    std::string name(stream.ns);
    return name.append(1, '\0').append(stream.key);
}

StreamKey stream_of(std::string_view name) {
    const std::size_t end = name.find('\0');  // namespaces are printable
    return {name.substr(0, end), name.substr(end + 1)};
}

}  // namespace

milliseconds Announcements::asked_max() const {
    return kAskTimes * timeout_;
}

bool Announcements::announce(StreamKey stream, milliseconds at_most) {
    const NoCancel whole;
    const MutexLock lock(mutex_);
    if (ended_) {
        return false;
    }
    try {
        std::string name = name_of(stream);
        if (asked_.contains(name)) {
            return true;
        }
        if (asked_.size() >= (steady_clock::now() < limited_until_ ? limit_ : kAskedMax)) {
            return false;
        }
        if (!thread_.joinable()) {
            thread_ = start_thread("dedup-announce", [this] { run(); });
        }
        at_most = std::min(at_most, asked_max());
        ask(name, at_most);
        asked_.emplace(std::move(name), at_most);
        changed_.notify_one();
    } catch (const std::bad_alloc&) {
        return false;
    } catch (const std::system_error&) {
        return false;  // no thread
    }
    return true;
}

// Without a channel it is asked as soon as there is one.
void Announcements::ask(std::string_view name, milliseconds at_most) {
    if (channel_ == nullptr) {
        return;
    }
    const StreamKey stream = stream_of(name);
    wire::RequestWriter request(7);
    request.add("DEDUP.WAIT").add(stream.key);
    request.add_number(static_cast<std::uint64_t>(at_most.count()));
    request.add("NS").add(stream.ns).add("ORDER").add("ANY");
    channel_->post(request.bytes());
}

void Announcements::end() {
    const NoCancel whole;
    const std::lock_guard one(end_mutex_);
    {
        const MutexLock lock(mutex_);
        ended_ = true;
        changed_.notify_one();
    }
    link_.shut();
    if (thread_.joinable()) {
        thread_.join();
    }
    waiters_.wake_all();
}

void Announcements::run() {
    while (wait_until_asked()) {
        milliseconds pause = kUnconnectedPause;
        try {
            pause = converse();
        } catch (const std::bad_alloc&) {  // as without a connection
        }
        give_up(pause);
    }
}

// False: it ends.
bool Announcements::wait_until_asked() {
    MutexLock lock(mutex_);
    while (!ended_ && asked_.empty()) {
        changed_.wait(lock);
    }
    for (auto now = steady_clock::now(); !ended_ && now < connect_at_; now = steady_clock::now()) {
        changed_.wait_for(lock, connect_at_ - now);
    }
    return !ended_;
}

// Asks, and listens until the connection is lost. Returns how long not to ask again.
milliseconds Announcements::converse() {
    const auto channel = link_.channel(steady_clock::now() + timeout_, true);
    if (!channel) {
        return kUnconnectedPause;
    }
    {
        const MutexLock lock(mutex_);
        channel_ = *channel;
        for (const auto& [name, at_most] : asked_) {
            ask(name, at_most);
        }
    }
    return listen(**channel) ? milliseconds{0} : kRefusedPause;
}

// False: the server refused. A connection that dies in silence is lost two timeouts later.
bool Announcements::listen(Channel& channel) {
    bool doubts = false;
    while (!channel.broken()) {
        const auto replies = channel.hear(steady_clock::now() + timeout_);
        const bool silent = replies.empty() && expects_reply();
        if (silent && doubts) {
            channel.break_off();  // nobody is there
        } else if (silent) {
            channel.post(sign_of_life());
        }
        doubts = silent;
        if (!std::ranges::all_of(replies, [this](const auto& reply) { return take(reply); })) {
            channel.break_off();
            return false;
        }
    }
    return true;
}

bool Announcements::expects_reply() {
    const MutexLock lock(mutex_);
    return !asked_.empty();
}

// False: it is an error, as from a server that does not know such questions.
bool Announcements::take(const wire::Reply& reply) {
    if (reply.is_text()) {
        return true;  // the sign of life
    }
    const auto& said = reply.list;
    if (said.size() < 2 || !std::ranges::all_of(said, &wire::Reply::is_text)) {
        return false;
    }
    const std::string name = name_of({said[0].text, said[1].text});
    {
        const MutexLock lock(mutex_);
        asked_.erase(name);  // before the wake: whoever waits on asks again
        if (said.size() > 2) {
            limit(asked_.size(), kBusyPause);
        }
    }
    waiters_.wake(stream_of(name));
    return true;
}

// More are not asked about for so long.
void Announcements::limit(std::size_t most, milliseconds pause) {
    limit_ = most;
    limited_until_ = steady_clock::now() + pause;
}

// Wakes those who have been told that they need not look.
void Announcements::give_up(milliseconds pause) {
    Streams asked;
    {
        const MutexLock lock(mutex_);
        channel_.reset();
        asked.swap(asked_);
        connect_at_ = steady_clock::now() + kConnectPause;
        limit(0, pause);
    }
    for (const auto& [name, at_most] : asked) {
        waiters_.wake(stream_of(name));
    }
}

}  // namespace dedup::remote
