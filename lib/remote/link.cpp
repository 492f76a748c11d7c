#include "remote/link.hpp"
#include "record/try.hpp"

#include <fmt/format.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <thread>
#include <utility>

#include "env/finally.hpp"
#include "wire/error_word.hpp"

namespace dedup::remote {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using wire::Reply;
using wire::RequestWriter;

constexpr std::int64_t kProtocolVersion = 1;

// Between attempts to make a channel.
constexpr milliseconds kPauseMin{10};
constexpr milliseconds kPauseMax{1000};
// Between attempts of a call whose request found a full queue, or whose reply was lost.
constexpr milliseconds kRetryPause{10};

bool is_passing(Code code) {
    return code == Code::unavailable || code == Code::io;
}

std::string text_of(const Reply& map, std::string_view name) {
    const Reply* const value = map.value_of(name);
    return value != nullptr ? value->text : "";
}

std::int64_t number_of(const Reply& map, std::string_view name) {
    const Reply* const value = map.value_of(name);
    return value != nullptr ? value->integer : 0;
}

Error no_answer(const Address& address) {
    return {Code::unavailable,
            fmt::format("the server at {} closed the connection, or did not answer in time{}",
                        address.shown(),
                        address.tls && address.files.certificate.empty()
                            ? "; does it want a certificate (cert=, key=)?"
                            : "")};
}

bool wants_login(const Reply& reply) {
    return reply.is_error() &&
           (reply.text.starts_with("NOAUTH") || reply.text.starts_with("WRONGPASS"));
}

// What was said did not do, or nothing was said: how this address says it.
Error not_logged_in(const Address& address, const std::string& user) {
    const std::string form =
        !address.unix_path.empty()
            ? fmt::format("unix:{}?user=NAME", address.unix_path)
            : fmt::format("{}://NAME:PASSWORD@{}:{}", address.tls ? "tls" : "tcp", address.host,
                          address.port);
    return {
        Code::invalid_argument,
        address.password.empty()
            ? fmt::format("the server wants a password: give it, and whose it is, as in {}", form)
            : fmt::format("the server wants a password, and what was given is not that of the "
                          "user '{}': give the right one, and whose it is, as in {}",
                          user, form)};
}

Error was_shut() {
    return {Code::closed, "the connection to the server was closed"};
}

}  // namespace

bool is_full_queue(const Reply& reply) {
    return reply.is_error() && reply.text.starts_with(wire::kBusyWord) &&
           reply.text.substr(wire::kBusyWord.size(), 1) == " ";
}

bool is_logged_out(const Reply& reply) {
    return reply.is_error() && reply.text.starts_with("NOAUTH ");
}

Error error_of(const Reply& reply) {
    const std::size_t space = reply.text.find(' ');
    const std::string_view word = std::string_view(reply.text).substr(0, space);
    if (word == wire::kBusyWord) {
        return {Code::unavailable, "the server is busy: " + reply.text};
    }
    if (word == "NOAUTH" || word == "WRONGPASS") {
        return {Code::invalid_argument,
                "the server wants a password, and does not take the one that it took before"};
    }
    if (word == "NOPERM") {
        return {Code::invalid_argument, "the server: " + reply.text.substr(space + 1)};
    }
    if (reply.text.starts_with("ERR max number of clients")) {
        return {Code::unavailable, "the server has as many connections as it may have"};
    }
    const auto code = wire::code_of_word(word);
    return code && space != std::string::npos ? Error{*code, reply.text.substr(space + 1)}
                                              : Error{Code::failed, "the server: " + reply.text};
}

std::unexpected<Error> odd_reply(std::string_view to) {
    return std::unexpected(
        Error{Code::failed,
              fmt::format("the server's reply to {} is not what this client understands", to)});
}

bool pause_until(TimePoint deadline) {
    const auto left = deadline - steady_clock::now();
    if (left <= left.zero()) {
        return false;
    }
    std::this_thread::sleep_for(std::min<steady_clock::duration>(left, kRetryPause));
    return true;
}

Result<Link::Made> Link::make(TimePoint deadline) {
    try {
        return connect(deadline);
    } catch (const std::bad_alloc&) {
        return std::unexpected(Error{Code::out_of_space, "out of memory"});
    }
}

Result<Link::Made> Link::connect(TimePoint deadline) {
    auto socket = DEDUP_TRY(connect_to(address_, deadline, shut_));
    std::unique_ptr<tls::Stream> stream;
    if (tls_) {
        stream = DEDUP_TRY(secure(address_, *tls_, socket.get(), deadline, shut_));
    }
    Descriptor wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (wake.get() < 0) {
        return std::unexpected(
            Error{.code = Code::io, .message = "cannot make a descriptor", .os_error = errno});
    }
    const auto channel =
        std::make_shared<Channel>(std::move(socket), std::move(wake), std::move(stream));
    {
        const MutexLock lock(mutex_);
        if (shut_) {
            return std::unexpected(was_shut());
        }
        greeted_.push_back(channel);
    }
    const Finally greeted([&] {
        const MutexLock lock(mutex_);
        std::erase(greeted_, channel);
    });
    auto greeting = DEDUP_TRY(greet(*channel, deadline));
    return Made{channel, std::move(greeting)};
}

Result<Greeting> Link::greet(Channel& channel, TimePoint deadline) const {
    const std::string user = address_.user.empty() ? "default" : address_.user;
    Reply reply;
    const auto say = [&](const RequestWriter& request) -> Result<void> {
        if (channel.exchange(request.bytes(), reply, deadline) != Channel::Outcome::answered) {
            return std::unexpected(no_answer(address_));
        }
        if (wants_login(reply)) {
            return std::unexpected(not_logged_in(address_, user));
        }
        return reply.is_error() ? Result<void>(std::unexpected(error_of(reply))) : Result<void>();
    };
    if (!address_.password.empty()) {
        DEDUP_TRY(say(RequestWriter(3).add("AUTH").add(user).add(address_.password)));
    }
    DEDUP_TRY(say(RequestWriter(1).add("DEDUP.STORE")));
    if (number_of(reply, "version") != kProtocolVersion) {
        return std::unexpected(
            Error{Code::unsupported_version,
                  fmt::format("the server at {} speaks version {} of the protocol, and this client "
                              "version {}",
                              address_.shown(), number_of(reply, "version"), kProtocolVersion)});
    }
    return Greeting{.store_id = text_of(reply, "store_id"),
                    .grace = milliseconds{number_of(reply, "grace_ms")},
                    .token = text_of(reply, "token")};
}

void Link::expect(Greeting greeting) {
    const MutexLock lock(mutex_);
    greeting_ = std::move(greeting);
}

Result<void> Link::check(const Greeting& greeting) const {
    if (greeting_ && greeting_->store_id != greeting.store_id) {
        return std::unexpected(
            Error{Code::failed,
                  fmt::format("the server at {} now serves another store ({}, and it was {}); open "
                              "it again to use that",
                              address_.shown(), greeting.store_id, greeting_->store_id)});
    }
    return {};
}

Result<std::shared_ptr<Channel>> Link::take(Made made) {
    DEDUP_TRY(check(made.greeting));
    greeting_ = std::move(made.greeting);
    channel_ = std::move(made.channel);
    pause_ = milliseconds{0};
    return channel_;
}

Result<std::shared_ptr<Channel>> Link::channel(TimePoint deadline, bool once) {
    MutexLock lock(mutex_);
    for (;;) {
        if (shut_) {
            return std::unexpected(was_shut());
        }
        const TimePoint now = steady_clock::now();
        if (making_) {
            if (now >= deadline) {
                return std::unexpected(no_answer(address_));
            }
            changed_.wait_for(lock, deadline - now);
            continue;
        }
        if (channel_ && !channel_->broken()) {
            return channel_;
        }
        channel_.reset();
        making_ = true;
        // Whatever others have found, every call tries once itself.
        const TimePoint begin = once ? now : std::min(not_before_, now + (deadline - now) / 2);
        for (TimePoint at = now; at < begin && !shut_; at = steady_clock::now()) {
            changed_.wait_for(lock, begin - at);
        }
        lock.unlock();
        auto made = make(deadline);
        lock.lock();
        making_ = false;
        changed_.notify_all();
        if (shut_) {
            return std::unexpected(was_shut());
        }
        if (made) {
            return take(*std::move(made));
        }
        pause_ = std::clamp(pause_ * 2, kPauseMin, kPauseMax);
        not_before_ = steady_clock::now() + pause_;
        if (once || !is_passing(made.error().code) || not_before_ >= deadline) {
            return std::unexpected(std::move(made).error());
        }
    }
}

Result<std::shared_ptr<Channel>> Link::new_channel(TimePoint deadline) {
    auto made = make(deadline);
    const MutexLock lock(mutex_);
    if (shut_) {
        return std::unexpected(was_shut());
    }
    if (!made) {
        return std::unexpected(std::move(made).error());
    }
    DEDUP_TRY(check(made->greeting));
    return std::move(made->channel);
}

Result<Reply> Link::ask(std::string_view request, TimePoint deadline) {
    for (;;) {
        auto open = DEDUP_TRY(channel(deadline));
        Reply reply;
        const bool answered =
            open->exchange(request, reply, deadline) == Channel::Outcome::answered;
        if (answered && is_logged_out(reply)) {
            leave(open);
        } else if (answered && !is_full_queue(reply)) {
            return reply.is_error() ? Result<Reply>(std::unexpected(error_of(reply)))
                                    : Result<Reply>(std::move(reply));
        }
        if (!pause_until(deadline)) {
            return std::unexpected(answered ? error_of(reply) : no_answer(address_));
        }
    }
}

void Link::leave(const std::shared_ptr<Channel>& channel) {
    const MutexLock lock(mutex_);
    if (channel_ == channel) {
        channel_.reset();
    }
}

Greeting Link::greeting() {
    const MutexLock lock(mutex_);
    return *greeting_;
}

void Link::shut() {
    const MutexLock lock(mutex_);
    shut_ = true;
    changed_.notify_all();
    if (channel_) {
        channel_->break_off();
    }
    for (const auto& channel : greeted_) {
        channel->break_off();
    }
}

}  // namespace dedup::remote
