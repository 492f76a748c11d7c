// Answers HTTP on a port of its own. One thread for the sockets, which waits for nothing else, and
// one for the answers, which may wait for the store.
//
// Nobody can keep others out: there are so many connections at most, and where one more comes, the
// one that has waited longest for its client is closed, rather than one that waits for its answer.
#pragma once

#include <poll.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "env/descriptor.hpp"
#include "env/mutex.hpp"
#include "server/http_parser.hpp"
#include "server/listen.hpp"

namespace dedup::server {

// Whether what a client says is the token. And answers to requests: `quick` on the thread of the
// sockets; what it leaves, `slow` answers.
struct HttpAnswers {
    std::function<bool(std::string_view)> with_token;
    std::function<std::optional<HttpResponse>(const HttpHead&)> quick;
    std::function<HttpResponse(const HttpRequest&)> slow;
};

class HttpServer {
  public:
    static constexpr std::size_t kConnectionsMax = 256;
    // Of answers that clients have not taken: above it, the largest are given up.
    static constexpr std::size_t kUntakenBytesMax = 64 * 1024 * 1024;
    // For a request to be whole, for the next one to begin, and for a client to take more of an
    // answer.
    static constexpr std::chrono::seconds kPatience{10};
    // For all of an answer to be taken.
    static constexpr std::chrono::seconds kAnswerTime{60};

    // `wake` is an eventfd.
    HttpServer(TcpListener listener, Descriptor wake, HttpAnswers answers);
    ~HttpServer();  // stops
    HttpServer(const HttpServer&) = delete;
    HttpServer& operator=(const HttpServer&) = delete;

    // Closes all connections. Returns when the answer that is being made is done; again is a no-op.
    void stop() DEDUP_EXCLUDES(stop_mutex_);
    [[nodiscard]] std::uint16_t port() const { return listener_.port; }

  private:
    using Time = std::chrono::steady_clock::time_point;

    struct Connection {
        std::uint64_t number = 0;
        Descriptor socket = {};
        std::string input = {};
        std::string output = {};
        std::size_t sent = 0;
        Time since = {};      // it waits for its client
        Time answered = {};   // when the answer began to be sent
        bool asked = false;   // an answer is being made
        bool head = false;    // to a HEAD
        bool ends = false;    // with this answer
        bool drains = false;  // all is sent; what the client still sends is thrown away
        bool input_ended = false;
    };
    struct Question {
        std::uint64_t connection;
        HttpRequest request;
    };

    void serve() DEDUP_EXCLUDES(mutex_);
    void answer() DEDUP_EXCLUDES(mutex_);
    void accept_all();
    void make_room();
    void relieve();
    void take_answers() DEDUP_EXCLUDES(mutex_);
    // These give false if the connection is to be closed.
    [[nodiscard]] bool on_event(Connection& connection, short events);
    [[nodiscard]] bool read_from(Connection& connection) const;
    [[nodiscard]] bool go_on(Connection& connection) DEDUP_EXCLUDES(mutex_);
    // Whether there was one.
    [[nodiscard]] bool take_request(Connection& connection) DEDUP_EXCLUDES(mutex_);
    // Whether all has been sent; nullopt: the connection is broken.
    [[nodiscard]] static std::optional<bool> send_to(Connection& connection);
    static void respond(Connection& connection, const HttpResponse& response);
    void close_late(Time now);
    void wake() const;

    TcpListener listener_;
    const Descriptor wake_;
    const HttpAnswers answers_;

    // Of the thread of the sockets.
    std::map<std::uint64_t, Connection> connections_;  // by number, the oldest first
    std::uint64_t last_number_ = 0;

    std::atomic<bool> stop_asked_ = false;
    Mutex mutex_;
    Condition work_;
    std::deque<Question> questions_ DEDUP_GUARDED_BY(mutex_);
    std::vector<std::pair<std::uint64_t, HttpResponse>> done_ DEDUP_GUARDED_BY(mutex_);

    Mutex stop_mutex_;
    std::thread sockets_;
    std::thread answering_;
};

}  // namespace dedup::server
