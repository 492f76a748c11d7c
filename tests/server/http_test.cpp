// The HTTP port in a process with its clients: who may ask, what is answered, and who holds up
// whom.
#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/resource.h>

#include <atomic>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "dedup/memory_store.hpp"
#include "dedup/server.hpp"
#include "server/client.hpp"
#include "support/hooked_store.hpp"
#include "support/manual_clock.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {
namespace {

class WebClient {
  public:
    explicit WebClient(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(port);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        REQUIRE(::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    }
    WebClient(WebClient&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    WebClient(const WebClient&) = delete;
    ~WebClient() {
        if (fd_ >= 0) {
            ::close(fd_);
        }
    }
    void send(std::string_view bytes) const {
        static_cast<void>(::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL));
    }
    void end_sending() const { ::shutdown(fd_, SHUT_WR); }
    // All that comes until the server closes the connection.
    [[nodiscard]] std::string rest() const {
        std::string all;
        char bytes[4096];
        ssize_t got = 0;
        while ((got = ::recv(fd_, bytes, sizeof bytes, 0)) > 0) {
            all.append(bytes, static_cast<std::size_t>(got));
        }
        return all;
    }

  private:
    int fd_;
};

struct WebFixture {
    explicit WebFixture(ServerOptions options = {}) {
        options.unix_path = (directory.path() / "socket").string();
        options.http = "127.0.0.1:0";
        auto started = Server::start(store, std::move(options));
        REQUIRE_MESSAGE(started.has_value(), started.error().message);
        server = *std::move(started);
    }
    [[nodiscard]] WebClient client() const { return WebClient(server->http_port()); }
    [[nodiscard]] std::string ask(std::string_view path, const std::string& headers = "",
                                  std::string_view method = "GET",
                                  std::string_view host = "localhost") const {
        const WebClient asking = client();
        asking.send(std::string(method) + " " + std::string(path) + " HTTP/1.1\r\nHost: " +
                    std::string(host) + "\r\nConnection: close\r\n" + headers + "\r\n");
        return asking.rest();
    }
    TempDir directory;
    ManualClock clock{1'000'000};
    std::unique_ptr<StreamStore> inner = make_memory_store(clock.clock());
    HookedStore store{*inner};
    std::unique_ptr<Server> server;
};

bool has_status(const std::string& answer, int status) {
    return answer.starts_with("HTTP/1.1 " + std::to_string(status) + " ");
}

bool says(const std::string& answer, std::string_view words) {
    return answer.find(words) != std::string::npos;
}

TEST_CASE("http: what a server answers by itself") {
    WebFixture fixture;
    CHECK(fixture.ask("/healthz").ends_with("\r\n\r\nalive\n"));
    CHECK(fixture.ask("/readyz").ends_with("ready\n"));
    const std::string metrics = fixture.ask("/metrics");
    CHECK(has_status(metrics, 200));
    for (const char* name : {"dedup_server_connections 0", "dedup_store_log_bytes",
                             "Content-Security-Policy: default-src 'none'", "nosniff"}) {
        CHECK_MESSAGE(says(metrics, name), metrics);
    }
    CHECK(has_status(fixture.ask("/"), 404));
    CHECK(has_status(fixture.ask("/healthz/"), 404));
    const std::string refused = fixture.ask("/healthz", "", "POST");
    CHECK(has_status(refused, 405));
    CHECK(says(refused, "Allow: GET, HEAD"));
    const std::string head = fixture.ask("/healthz", "", "HEAD");
    CHECK(says(head, "Content-Length: 6"));
    CHECK(head.ends_with("\r\n\r\n"));
}

TEST_CASE("http: readiness says why the store takes no writes, or that the server ends") {
    WebFixture fixture;
    fixture.store.write_error = "the disk is gone";
    const std::string failed = fixture.ask("/readyz");
    CHECK(has_status(failed, 503));
    CHECK(says(failed, "the disk is gone"));
    CHECK(has_status(fixture.ask("/healthz"), 200));
    fixture.store.write_error.clear();

    // A request that the store has not answered holds up the end; meanwhile the port says so.
    std::atomic<bool> held = true;
    fixture.store.before_append = [&] { held.wait(true); };
    Client asking((fixture.directory.path() / "socket").string());
    asking.send(request({"SET", "k", "v"}));
    while (fixture.server->metrics().requests == 0) {
        std::this_thread::yield();
    }
    std::thread stopping([&] { fixture.server->stop(); });
    while (!says(fixture.ask("/readyz"), "the server ends")) {
    }
    held = false;
    held.notify_all();
    stopping.join();
    CHECK(asking.reply() == "OK");
}

TEST_CASE("http: on loopback a client has to call the server by a name of loopback") {
    WebFixture fixture;
    for (const char* host :
         {"localhost", "LOCALHOST:80", "127.0.0.1:8080", "127.9.9.9", "[::1]:1"}) {
        CHECK_MESSAGE(has_status(fixture.ask("/metrics", "", "GET", host), 200), host);
    }
    for (const char* host : {"evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "",
                             "10.0.0.1", "[::2]", "[::1"}) {
        CHECK_MESSAGE(has_status(fixture.ask("/metrics", "", "GET", host), 421), host);
    }
}

TEST_CASE("http: health and readiness can be asked without a Host") {
    WebFixture fixture;
    for (const auto& [path, status] :
         {std::pair("/healthz", 200), std::pair("/readyz", 200), std::pair("/metrics", 421)}) {
        const WebClient client = fixture.client();
        client.send("GET " + std::string(path) + " HTTP/1.0\r\n\r\n");
        CHECK_MESSAGE(has_status(client.rest(), status), path);
    }
}

TEST_CASE("http: a token opens all but health and readiness") {
    ServerOptions options{.http_token = "open sesame, please"};
    options.http_pages = [](const HttpRequest& request) {
        return HttpResponse{.body = request.path + (request.with_token ? " known" : " unknown")};
    };
    WebFixture fixture(std::move(options));
    fixture.store.write_error = "/secret/path is full";
    for (const char* path : {"/", "/metrics", "/key?key=k"}) {
        for (const char* said : {"", "Authorization: Bearer\r\n", "Authorization: Bearer open\r\n",
                                 "Authorization: Bearer open sesame, pleasf\r\n",
                                 "Authorization: Basic !!\r\n", "Authorization: Basic eA==\r\n"}) {
            const std::string refused = fixture.ask(path, said, "GET", "dedup.example");
            CHECK_MESSAGE(has_status(refused, 401), refused);
            CHECK(says(refused, "WWW-Authenticate: Basic"));
        }
    }
    CHECK(has_status(fixture.ask("/healthz", "", "GET", "dedup.example"), 200));
    const std::string unready = fixture.ask("/readyz");
    CHECK(has_status(unready, 503));
    CHECK_FALSE(says(unready, "secret"));
    for (const char* said : {"Authorization: Bearer open sesame, please\r\n",
                             "Authorization: Basic bWU6b3BlbiBzZXNhbWUsIHBsZWFzZQ==\r\n"}) {
        CHECK(fixture.ask("/a", said, "GET", "dedup.example").ends_with("/a known"));
        CHECK(says(fixture.ask("/readyz", said), "/secret/path"));
    }
    CHECK_FALSE(fixture.server->replace_http_token("").has_value());
    CHECK(fixture.server->replace_http_token("another open sesame").has_value());
    CHECK(has_status(fixture.ask("/a", "Authorization: Bearer open sesame\r\n"), 401));
    CHECK(has_status(fixture.ask("/a", "Authorization: Bearer another open sesame\r\n"), 200));
}

TEST_CASE("http: an address beyond loopback needs a token") {
    TempDir directory;
    ManualClock clock{1'000'000};
    const auto store = make_memory_store(clock.clock());
    const std::string path = (directory.path() / "socket").string();
    const auto start = [&](ServerOptions options) {
        options.unix_path = path;
        return Server::start(*store, std::move(options));
    };
    const auto open = start({.http = "0.0.0.0:0"});
    REQUIRE_FALSE(open.has_value());
    CHECK(says(open.error().message, "needs a token"));
    CHECK_FALSE(start({.http_token = "a token of 16 bytes"}).has_value());
    CHECK(start({.http = "0.0.0.0:0", .http_token = "a token of 16 bytes"}).has_value());
}

TEST_CASE("http: requests of one connection are answered in order, also after its end") {
    ServerOptions options;
    options.http_pages = [](const HttpRequest& request) {
        return HttpResponse{.body = "page " + request.path.substr(1) + "\n"};
    };
    WebFixture fixture(std::move(options));
    const WebClient client = fixture.client();
    std::string pipeline;
    for (int i = 0; i < 200; ++i) {
        pipeline += "GET /" + std::string(i % 3 == 0 ? "healthz" : std::to_string(i)) +
                    " HTTP/1.1\r\nHost: localhost\r\n\r\n";
    }
    client.send(pipeline);
    client.end_sending();
    const std::string answers = client.rest();
    std::size_t at = 0;
    for (int i = 0; i < 200; ++i) {
        const std::string body = i % 3 == 0 ? "alive\n" : "page " + std::to_string(i) + "\n";
        at = answers.find("\r\n\r\n" + body, at);
        REQUIRE(at != std::string::npos);
        at += 4;
    }
}

TEST_CASE("http: garbage is answered once, and closed") {
    const WebFixture fixture;
    for (const auto& [bytes, status] : std::vector<std::pair<std::string, int>>{
             {std::string("\x16\x03\x01\x02\r\n\xff"), 400},
             {"*1\r\n$4\r\nPING\r\n", 400},
             {"GET /" + std::string(100'000, 'x'), 414},
             {"GET / HTTP/1.1\r\nA: " + std::string(100'000, 'x'), 431},
             {"POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + std::string(100'000, 'x'),
              405}}) {
        const WebClient client = fixture.client();
        client.send(bytes);
        client.end_sending();
        const std::string answer = client.rest();
        CHECK_MESSAGE(has_status(answer, status), answer);
        CHECK(says(answer, "Connection: close"));
    }
    const WebClient half = fixture.client();
    half.send("GET /healthz HT");
    half.end_sending();
    CHECK(half.rest().empty());
}

TEST_CASE("http: whoever is slow, idle or many holds nobody up") {
    rlimit limit{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 4096);
    ::setrlimit(RLIMIT_NOFILE, &limit);
    std::atomic<bool> held = true;
    ServerOptions options;
    options.http_pages = [&](const HttpRequest&) {
        held.wait(true);
        return HttpResponse{.body = std::string(4'000'000, 'x')};
    };
    WebFixture fixture(std::move(options));
    std::vector<WebClient> idle;
    for (int i = 0; i < 1000; ++i) {
        idle.push_back(fixture.client());
        if (i % 2 == 0) {
            idle.back().send("GET /healthz HTTP/1.1\r\n");
        }
    }
    CHECK(has_status(fixture.ask("/healthz"), 200));
    // More pages than can wait, and one that takes for ever.
    for (int i = 0; i < 600; ++i) {
        idle.push_back(fixture.client());
        idle.back().send("GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    CHECK(has_status(fixture.ask("/healthz"), 200));
    held = false;
    held.notify_all();
    std::string answer;  // though nobody takes the others; first the queue is full
    while (!has_status(answer = fixture.ask("/page"), 200)) {
        CHECK((answer.empty() || has_status(answer, 503)));
    }
    fixture.server->stop();
}

TEST_CASE("http: a page that throws is an error of its own") {
    ServerOptions options;
    options.http_pages = [](const HttpRequest&) -> std::optional<HttpResponse> {
        throw std::runtime_error("no such luck");
    };
    const WebFixture fixture(std::move(options));
    CHECK(has_status(fixture.ask("/page"), 500));
    CHECK(has_status(fixture.ask("/healthz"), 200));
}

}  // namespace
}  // namespace dedup::test
