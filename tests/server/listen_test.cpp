// What is set on a connection's socket, and what is told of it.
#include "server/listen.hpp"

#include <doctest/doctest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <string>

namespace dedup::test {
namespace {

using dedup::Descriptor;

TEST_CASE("listen: a machine that vanishes is found out, also while replies are on their way") {
    const Descriptor socket(::socket(AF_INET, SOCK_STREAM, 0));
    server::keep_alive(socket.get());
    int ms = 0;
    socklen_t size = sizeof ms;
    REQUIRE(::getsockopt(socket.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, &size) == 0);
    CHECK(ms == 90'000);
}

TEST_CASE("listen: who is at the other end") {
    std::array<int, 2> ends{};
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()) == 0);
    CHECK(server::peer_of(ends[0]) ==
          "process " + std::to_string(::getpid()) + " of uid " + std::to_string(::getuid()));
    ::close(ends[0]);
    ::close(ends[1]);
    CHECK(server::peer_of(-1) == "nowhere");

    auto listener = server::listen_tcp("127.0.0.1:0", false);
    REQUIRE(listener.has_value());
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(listener->port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const Descriptor client(::socket(AF_INET, SOCK_STREAM, 0));
    REQUIRE(::connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) ==
            0);
    CHECK(server::peer_of(client.get()) == "127.0.0.1:" + std::to_string(listener->port));
}

}  // namespace
}  // namespace dedup::test
