#include "server/http_server.hpp"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <exception>

#include "env/process.hpp"

namespace dedup::server {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::size_t kHttpReadBytes = 4096;
// Of what a client sends behind its last request, or instead of one.
constexpr std::size_t kDrainedBytesMax = 1024 * 1024;
constexpr milliseconds kDrainTime{2000};
constexpr int kTickMs = 500;
constexpr int kHttpAcceptsMax = 64;

std::string_view reason_of(int status) {
    constexpr std::array<std::pair<int, std::string_view>, 13> kReasons = {{
        {200, "OK"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {414, "URI Too Long"},
        {421, "Misdirected Request"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {503, "Service Unavailable"},
        {505, "HTTP Version Not Supported"},
        {0, "Unknown"},
    }};
    for (const auto& [known, reason] : kReasons) {
        if (known == status) {
            return reason;
        }
    }
    return kReasons.back().second;
}

// A page has no script, no style of its own, nothing from elsewhere, and stands in no frame.
constexpr std::string_view kHeaders =
    "Cache-Control: no-store\r\n"
    "Content-Security-Policy: default-src 'none'; style-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'\r\n"
    "Cross-Origin-Resource-Policy: same-origin\r\n"
    "Referrer-Policy: no-referrer\r\n"
    "X-Content-Type-Options: nosniff\r\n";

}  // namespace

HttpServer::HttpServer(TcpListener listener, Descriptor wake, HttpAnswers answers)
    : listener_(std::move(listener)), wake_(std::move(wake)), answers_(std::move(answers)) {
    close_in_children({listener_.socket.get()});
    close_in_children({wake_.get()});
    try {
        sockets_ = start_thread("dedup-http", [this] { serve(); });
        answering_ = start_thread("dedup-pages", [this] { answer(); });
    } catch (...) {
        stop();
        forget_in_children(listener_.socket.get());
        forget_in_children(wake_.get());
        throw;
    }
}

HttpServer::~HttpServer() {
    stop();
    forget_in_children(wake_.get());
}

void HttpServer::stop() {
    stop_asked_ = true;
    {
        const MutexLock lock(mutex_);
        work_.notify_all();
    }
    wake();
    const MutexLock lock(stop_mutex_);
    if (sockets_.joinable()) {
        sockets_.join();
        forget_in_children(listener_.socket.get());
        listener_.socket.close();
    }
    if (answering_.joinable()) {
        answering_.join();
    }
}

void HttpServer::wake() const {
    const std::uint64_t one = 1;
    static_cast<void>(::write(wake_.get(), &one, sizeof one));
}

void HttpServer::answer() {
    for (;;) {
        Question question;
        {
            MutexLock lock(mutex_);
            while (questions_.empty() && !stop_asked_) {
                work_.wait(lock);
            }
            if (stop_asked_) {
                return;
            }
            question = std::move(questions_.front());
            questions_.pop_front();
        }
        HttpResponse response;
        try {
            response = answers_.slow(question.request);
        } catch (const std::exception& error) {
            response = {.status = 500, .body = fmt::format("{}\n", error.what())};
        }
        const MutexLock lock(mutex_);
        done_.emplace_back(question.connection, std::move(response));
        wake();
    }
}

void HttpServer::serve() {
    std::vector<pollfd> polled;
    std::vector<std::uint64_t> numbers;
    while (!stop_asked_) {
        polled = {{.fd = listener_.socket.get(), .events = POLLIN, .revents = 0},
                  {.fd = wake_.get(), .events = POLLIN, .revents = 0}};
        numbers.clear();
        for (const auto& [number, connection] : connections_) {
            const int events = connection.sent < connection.output.size()   ? POLLOUT
                               : connection.asked || connection.input_ended ? 0
                                                                            : POLLIN;
            polled.push_back({.fd = connection.socket.get(),
                              .events = static_cast<short>(events),
                              .revents = 0});
            numbers.push_back(number);
        }
        ::poll(polled.data(), polled.size(), connections_.empty() ? -1 : kTickMs);
        if (polled[1].revents != 0) {
            std::uint64_t count = 0;
            static_cast<void>(::read(wake_.get(), &count, sizeof count));
        }
        for (std::size_t i = 0; i < numbers.size(); ++i) {
            const short events = polled[i + 2].revents;
            const auto at = connections_.find(numbers[i]);
            if (events != 0 && !on_event(at->second, events)) {
                connections_.erase(at);
            }
        }
        take_answers();
        close_late(steady_clock::now());
        if (polled[0].revents != 0) {
            accept_all();
        }
    }
    connections_.clear();
}

void HttpServer::accept_all() {
    for (int i = 0; i < kHttpAcceptsMax; ++i) {
        Descriptor socket = accept_from(listener_.socket.get());
        if (socket.get() < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                // No descriptor is left: the client waits, and this thread does not spin.
                ::poll(nullptr, 0, connections_.empty() ? kTickMs : 10);
                make_room();
            }
            return;
        }
        if (connections_.size() >= kConnectionsMax) {
            make_room();
        }
        keep_alive(socket.get());
        ++last_number_;
        connections_.emplace(last_number_, Connection{.number = last_number_,
                                                      .socket = std::move(socket),
                                                      .since = steady_clock::now()});
    }
}

// Closes the connection that has waited longest for its client, or else for its answer.
void HttpServer::make_room() {
    const auto longest = std::ranges::min_element(connections_, {}, [](const auto& entry) {
        return std::pair(entry.second.asked, entry.second.since);
    });
    if (longest != connections_.end()) {
        connections_.erase(longest);
    }
}

void HttpServer::relieve() {
    const auto untaken = [](const auto& entry) { return entry.second.output.size(); };
    std::size_t all = 0;
    for (const auto& entry : connections_) {
        all += untaken(entry);
    }
    while (all > kUntakenBytesMax) {
        const auto largest = std::ranges::max_element(connections_, {}, untaken);
        all -= untaken(*largest);
        connections_.erase(largest);
    }
}

void HttpServer::close_late(Time now) {
    std::erase_if(connections_, [now](const auto& entry) {
        const Connection& connection = entry.second;
        const bool sends = connection.sent < connection.output.size();
        const bool late = now - connection.since >=
                          (connection.drains ? milliseconds{kDrainTime} : milliseconds{kPatience});
        return !connection.asked && (late || (sends && now - connection.answered >= kAnswerTime));
    });
}

void HttpServer::take_answers() {
    std::vector<std::pair<std::uint64_t, HttpResponse>> done;
    {
        const MutexLock lock(mutex_);
        done.swap(done_);
    }
    for (const auto& [number, response] : done) {
        const auto at = connections_.find(number);
        if (at != connections_.end()) {
            at->second.asked = false;
            respond(at->second, response);
            if (!go_on(at->second)) {
                connections_.erase(at);
            }
        }
    }
    if (!done.empty()) {
        relieve();
    }
}

bool HttpServer::on_event(Connection& connection, short events) {
    if ((events & (POLLIN | POLLOUT)) == 0) {
        return (events & (POLLERR | POLLHUP | POLLNVAL)) == 0;
    }
    if ((events & POLLIN) != 0 && !read_from(connection)) {
        return false;
    }
    return connection.drains ? connection.input.size() < kDrainedBytesMax : go_on(connection);
}

bool HttpServer::read_from(Connection& connection) const {
    std::array<char, kHttpReadBytes> bytes;
    const ssize_t got =
        retry([&] { return ::recv(connection.socket.get(), bytes.data(), bytes.size(), 0); });
    if (got < 0) {
        return errno == EAGAIN || errno == EWOULDBLOCK;
    }
    if (got == 0) {
        connection.input_ended = true;
        return !connection.drains;
    }
    connection.input.append(bytes.data(), static_cast<std::size_t>(got));
    return true;
}

// Sends, and takes the next request, as long as neither has to wait.
bool HttpServer::go_on(Connection& connection) {
    for (;;) {
        const auto sent = send_to(connection);
        if (!sent || !*sent) {
            return sent.has_value();
        }
        if (connection.ends && !connection.asked && connection.answered != Time{}) {
            // Closed at once, what the client has sent and nobody has read would take the answer
            // away.
            ::shutdown(connection.socket.get(), SHUT_WR);
            connection.drains = true;
            connection.input.clear();
            return !connection.input_ended;
        }
        if (connection.asked || !take_request(connection)) {
            return connection.asked || !connection.input_ended;
        }
    }
}

bool HttpServer::take_request(Connection& connection) {
    HttpHead head;
    const HttpFound found = parse_http(connection.input, head);
    if (found.status == 0) {
        return false;
    }
    if (found.status != 200) {
        connection.ends = true;
        respond(connection,
                {.status = found.status, .body = fmt::format("{}\n", reason_of(found.status))});
        return true;
    }
    connection.input.erase(0, found.size);
    head.request.with_token = answers_.with_token(head.credentials);
    connection.head = head.head;
    connection.ends = !head.keeps_alive;
    if (const auto response = answers_.quick(head)) {
        respond(connection, *response);
        return true;
    }
    const MutexLock lock(mutex_);
    if (questions_.size() >= kConnectionsMax) {
        respond(connection, {.status = 503, .body = "too many requests wait for an answer\n"});
        return true;
    }
    connection.asked = true;
    questions_.push_back({connection.number, std::move(head.request)});
    work_.notify_one();
    return true;
}

void HttpServer::respond(Connection& connection, const HttpResponse& response) {
    connection.output = fmt::format(
        "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{}{}{}Connection: {}\r\n\r\n",
        response.status, reason_of(response.status), response.type, response.body.size(), kHeaders,
        response.status == 401 ? "WWW-Authenticate: Basic realm=\"dedup\"\r\n" : "",
        response.status == 405 ? "Allow: GET, HEAD\r\n" : "",
        connection.ends ? "close" : "keep-alive");
    if (!connection.head) {
        connection.output += response.body;
    }
    connection.sent = 0;
    connection.since = steady_clock::now();
    connection.answered = connection.since;
}

std::optional<bool> HttpServer::send_to(Connection& connection) {
    while (connection.sent < connection.output.size()) {
        const ssize_t went = retry([&] {
            return ::send(connection.socket.get(), connection.output.data() + connection.sent,
                          connection.output.size() - connection.sent, MSG_NOSIGNAL);
        });
        if (went < 0) {
            return errno == EAGAIN || errno == EWOULDBLOCK ? std::optional(false) : std::nullopt;
        }
        connection.sent += static_cast<std::size_t>(went);
        connection.since = steady_clock::now();
    }
    connection.output = {};
    connection.sent = 0;
    return true;
}

}  // namespace dedup::server
