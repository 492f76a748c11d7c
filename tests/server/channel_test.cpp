// A channel whose other side reads slowly, while many send: what waits to be sent moves in memory,
// and nothing of it is lost, doubled or mixed.
#include "remote/channel.hpp"

#include <doctest/doctest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "env/descriptor.hpp"

namespace dedup::test {
namespace {

using namespace std::chrono_literals;
using remote::Channel;

// Takes `count` requests of `size` equal bytes each, a little at a time, and answers them. False:
// one was not whole.
bool read_slowly(int socket, int count, std::size_t size) {
    std::vector<char> request(size);
    for (int i = 0; i < count; ++i) {
        for (std::size_t got = 0; got < size;) {
            constexpr std::size_t kPiece = 256 * 1024;
            const ssize_t more = retry([&] {
                return ::recv(socket, request.data() + got, std::min(kPiece, size - got), 0);
            });
            if (more <= 0) {
                return false;
            }
            got += static_cast<std::size_t>(more);
            std::this_thread::yield();
        }
        if (request != std::vector<char>(size, request.front())) {
            return false;
        }
        const std::array<char, 4> reply = {'+', request.front(), '\r', '\n'};
        if (::send(socket, reply.data(), reply.size(), MSG_NOSIGNAL) != 4) {
            return false;
        }
    }
    return true;
}

TEST_CASE("channel: many send more than a slow reader takes, and each gets its own reply") {
    constexpr std::size_t kSize = 700'000;
    constexpr int kThreads = 8;
    constexpr int kEach = 10;
    std::array<int, 2> ends{};
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
    const Descriptor slow(ends[1]);
    bool whole = false;
    std::thread reader([&] {
        whole = read_slowly(slow.get(), kThreads * kEach, kSize);
        if (!whole) {
            ::shutdown(slow.get(), SHUT_RDWR);
        }
    });
    Channel channel{Descriptor(ends[0]), Descriptor(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
                    nullptr};
    std::array<int, kThreads> answered{};
    std::vector<std::thread> senders;
    for (std::size_t number = 0; number < kThreads; ++number) {
        senders.emplace_back([&, number] {
            const char byte = static_cast<char>('a' + number);
            const std::string request(kSize, byte);
            for (int i = 0; i < kEach; ++i) {
                wire::Reply reply;
                const auto outcome =
                    channel.exchange(request, reply, std::chrono::steady_clock::now() + 2min);
                answered.at(number) +=
                    outcome == Channel::Outcome::answered && reply.text == std::string(1, byte);
            }
        });
    }
    for (std::thread& sender : senders) {
        sender.join();
    }
    channel.break_off();
    reader.join();
    CHECK(whole);
    for (const int count : answered) {
        CHECK(count == kEach);
    }
}

}  // namespace
}  // namespace dedup::test
