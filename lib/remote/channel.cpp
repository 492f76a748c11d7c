#include "remote/channel.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <new>
#include <utility>

#include "env/process.hpp"

namespace dedup::remote {
namespace {

constexpr std::size_t kReceivedBytes = 64 * 1024;
constexpr std::size_t kKeptBytes = 1024 * 1024;

bool would_block(int error) {
    return error == EAGAIN || error == EWOULDBLOCK;
}

}  // namespace

Channel::Channel(Descriptor socket, Descriptor wake, std::unique_ptr<tls::Stream> tls)
    : socket_(std::move(socket)), wake_(std::move(wake)), tls_(std::move(tls)) {
    close_in_children({socket_.get(), wake_.get()});
}

Channel::~Channel() {
    forget_in_children(socket_.get());
    forget_in_children(wake_.get());
}

Channel::Outcome Channel::exchange(std::string_view request, wire::Reply& reply,
                                   TimePoint deadline) {
    MutexLock lock(mutex_);
    if (broken_) {
        return Outcome::not_sent;
    }
    Call call(reply);
    output_.reserve(output_.size() + request.size());
    calls_.push_back(&call);
    const std::size_t begin = output_.size();
    output_ += request;
    send_more();
    if (broken_ && sent_ <= begin) {
        return Outcome::not_sent;  // the other side was gone before
    }
    if (driver_ == nullptr) {
        driver_ = &call;
    } else if (!output_.empty()) {
        wake_driver();  // which looks for replies alone
    }
    while (!call.ended) {
        const auto left = deadline - std::chrono::steady_clock::now();
        if (left <= left.zero()) {
            fail();
        } else if (driver_ != &call) {
            call.changed.wait_for(lock, left);
        } else {
            const bool sends = !output_.empty();
            std::array<char, kReceivedBytes> bytes;
            lock.unlock();
            const Heard heard = listen(sends, deadline, bytes);
            lock.lock();
            take_heard(heard, {bytes.data(), bytes.size()});
        }
    }
    if (driver_ == &call) {
        hand_over();
    }
    return call.answered ? Outcome::answered : Outcome::lost;
}

void Channel::post(std::string_view request) {
    const MutexLock lock(mutex_);
    if (broken_) {
        return;
    }
    output_ += request;
    send_more();
    if (!output_.empty()) {
        wake_driver();
    }
}

std::vector<wire::Reply> Channel::hear(TimePoint deadline) {
    std::vector<wire::Reply> replies;
    MutexLock lock(mutex_);
    heard_ = &replies;
    while (replies.empty() && !broken_ && std::chrono::steady_clock::now() < deadline) {
        const bool sends = !output_.empty();
        std::array<char, kReceivedBytes> bytes;
        lock.unlock();
        const Heard heard = listen(sends, deadline, bytes);
        lock.lock();
        take_heard(heard, {bytes.data(), bytes.size()});
    }
    heard_ = nullptr;
    return replies;
}

void Channel::hand_over() {
    driver_ = calls_.empty() ? nullptr : calls_.front();
    if (driver_ != nullptr) {
        driver_->changed.notify_one();
    }
}

void Channel::wake_driver() {
    const std::uint64_t one = 1;
    static_cast<void>(::write(wake_.get(), &one, sizeof one));
}

ssize_t Channel::send(std::string_view bytes) const {
    return tls_ ? tls_->send(bytes) : retry([&] {
        return ::send(socket_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    });
}

ssize_t Channel::receive(std::span<char> bytes) const {
    return tls_ ? tls_->receive(bytes) : retry([&] {
        return ::recv(socket_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    });
}

void Channel::send_more() {
    while (sent_ < output_.size()) {
        const std::string_view rest = std::string_view(output_).substr(sent_);
        const ssize_t went = send(rest);
        if (went < 0) {
            if (!would_block(errno)) {
                fail();
            } else if (sent_ >= kKeptBytes && sent_ >= rest.size()) {
                // Others may add to it faster than it is sent.
                output_.erase(0, sent_);
                sent_ = 0;
            }
            return;
        }
        sent_ += static_cast<std::size_t>(went);
    }
    output_.clear();
    sent_ = 0;
    if (output_.capacity() > kKeptBytes) {
        output_.shrink_to_fit();
    }
}

// Waits for the socket once. Without the lock: others send meanwhile.
Channel::Heard Channel::listen(bool sends, TimePoint deadline, std::span<char> bytes) const {
    std::array<pollfd, 2> waited = {{{.fd = socket_.get(), .events = POLLIN, .revents = 0},
                                     {.fd = wake_.get(), .events = POLLIN, .revents = 0}}};
    if (sends) {
        waited[0].events |= POLLOUT;
    }
    Heard heard;
    const bool has_input = tls_ && tls_->has_input();
    const int ready = retry([&] {
        return ::poll(waited.data(), waited.size(), has_input ? 0 : milliseconds_until(deadline));
    });
    if (has_input || (ready > 0 && (waited[0].revents & (POLLIN | POLLHUP | POLLERR)) != 0)) {
        const ssize_t got = receive(bytes);
        heard.ended = got == 0 || (got < 0 && !would_block(errno));
        heard.bytes = got > 0 ? static_cast<std::size_t>(got) : 0;
    }
    if (ready > 0 && waited[1].revents != 0) {
        std::uint64_t count = 0;
        static_cast<void>(::read(wake_.get(), &count, sizeof count));
    }
    return heard;
}

void Channel::take_heard(const Heard& heard, std::string_view bytes) {
    if (broken_) {
        return;
    }
    try {
        take_replies(bytes.substr(0, heard.bytes));
    } catch (const std::bad_alloc&) {
        fail();
        return;
    }
    if (heard.ended) {
        fail();
    } else if (!broken_) {
        send_more();
    }
}

void Channel::take_replies(std::string_view bytes) {
    reader_.feed(bytes);
    for (;;) {
        wire::Reply reply;
        const auto found = reader_.next(reply);
        if (found == wire::ReplyReader::Found::incomplete) {
            return;
        }
        if (found == wire::ReplyReader::Found::reply && heard_ != nullptr) {
            heard_->push_back(std::move(reply));
            continue;
        }
        if (found == wire::ReplyReader::Found::garbage || calls_.empty()) {
            fail();
            return;
        }
        Call& call = *calls_.front();
        calls_.pop_front();
        call.reply = std::move(reply);
        call.answered = true;
        call.ended = true;
        call.changed.notify_one();
    }
}

void Channel::fail() {
    broken_ = true;
    output_.clear();
    ::shutdown(socket_.get(), SHUT_RDWR);  // wakes the driver
    for (Call* call : calls_) {
        call->ended = true;
        call->changed.notify_one();
    }
    calls_.clear();
}

bool Channel::broken() {
    const MutexLock lock(mutex_);
    return broken_;
}

void Channel::break_off() {
    const MutexLock lock(mutex_);
    if (!broken_) {
        fail();
    }
}

}  // namespace dedup::remote
