// Serves one store to other processes, in whatever language they are written.
//
// The protocol is that of Redis (RESP 2 and 3), so that every client library of it is one of this
// server's. The claim protocol is there as commands (DEDUP.CLAIM and so on), and so are the
// commands on strings that existing idempotency code sends (SET with NX and PX, GET, DEL, ...).
// What all connections ask while one group of appends is being flushed shares the next flush.
// docs/server.md lists the commands and the bounds.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dedup/metrics.hpp"
#include "dedup/store.hpp"

namespace dedup {

// Something that a server's log should have. No key, receipt or password is in it.
struct ServerEvent {
    // "listening", "connected", "disconnected", "refused", "login_failed", "store_failed" (it
    // refuses what is appended; the detail is the first error), "store_recovered", "stopping",
    // "stopped". Of "refused" and "login_failed", ten a second are told one by one.
    std::string_view what;
    std::uint64_t connection = 0;  // its number; 0: it is about none
    std::string detail = {};       // for people
};

// A question of a browser's or a monitor's: GET or HEAD.
struct HttpRequest {
    std::string path = {};                                        // decoded: "/metrics"
    std::vector<std::pair<std::string, std::string>> query = {};  // decoded; any bytes
    bool with_token = false;  // the server has a token, and the client has said it

    // The first of that name, or nullopt.
    [[nodiscard]] std::optional<std::string_view> parameter(std::string_view name) const {
        for (const auto& [given, value] : query) {
            if (given == name) {
                return value;
            }
        }
        return std::nullopt;
    }
};

struct HttpResponse {
    int status = 200;
    std::string type = "text/plain; charset=utf-8";
    std::string body = {};
};

struct ServerOptions {
    // Where to listen; at least one is needed.
    std::string unix_path = {};  // of a socket file, which is made; its mode follows the umask
    std::string tcp = {};        // "127.0.0.1:6380", "[::1]:6380", "localhost:6380"; port 0: any
    // Sockets that listen already, such as a service manager hands over; they take the place of the
    // addresses, and belong to the server from start() on, also if that fails. Unlike a socket file
    // that the server has made, one of these is not removed. -1: none.
    int unix_socket = -1;
    int tcp_socket = -1;
    int http_socket = -1;
    // Clients have to say it first (AUTH, or HELLO with AUTH; the user is "default"). Empty: none
    // is needed, which is allowed on Unix sockets, on loopback addresses, and where clients have to
    // show a certificate. At least 16 bytes, as there is nothing else to keep somebody from
    // guessing it. TCP is not encrypted without TLS.
    std::string password = {};
    // TLS on TCP, and then nothing else there: files in PEM, of the server's certificate, with
    // those of the authorities between it and the root, and of its key. Needs a build with
    // OpenSSL 3.
    std::string tls_certificate = {};
    std::string tls_key = {};
    // Then clients have to show a certificate of one of the authorities in this file. Whose common
    // name (CN) is that of a user is logged in as that user.
    std::string tls_client_ca = {};
    // A file of users, each with a secret of its own, who may do what their rights say, in their
    // namespaces; user_line() makes its lines, and docs/server.md says what each right is for. Then
    // every client has to log in, on the Unix socket too. `password` is that of a user "default"
    // with all rights. One user gets at most half of the connections, of the requests under way,
    // and of their bytes.
    std::string users = {};
    // Who may connect to the Unix socket, by the user ids of the system; empty: whom the file's
    // mode lets.
    std::vector<std::uint32_t> unix_uids = {};

    // Where to answer HTTP, as `tcp`; empty: nowhere. For reading alone:
    //   /healthz  200: the process lives
    //   /readyz   200, or 503 and why: the store takes no writes, or the server ends
    //   /metrics  of the store and the server, for Prometheus
    std::string http = {};
    // Then clients have to say it (Authorization: Bearer, or Basic with any name), but for /healthz
    // and /readyz. Empty: none is needed, which is allowed without users, on loopback addresses
    // only, and only for clients that call the server by such an address or "localhost". At least
    // 16 bytes.
    std::string http_token = {};
    // Answers all other paths; nullopt: there is no such page. One call at a time, on a thread of
    // the server's; while it runs, only /healthz is answered.
    std::function<std::optional<HttpResponse>(const HttpRequest&)> http_pages = {};
    // Gives more lines for /metrics. As http_pages.
    std::function<std::string()> http_metrics = {};

    // Where clients have to log in, one more takes the place of the connection that has waited
    // longest without; where all have, or nobody has to, it is refused.
    std::size_t connections_max = 10'000;
    // Requests under way: of one connection, whose next ones wait in its socket, and of all, above
    // which a request gets the error BUSY.
    std::size_t pipeline_max = 1024;
    std::size_t requests_max = 65'536;
    // Bytes of all requests that have not been answered, have come in part, or wait for their EXEC.
    // More get BUSY, or end the connection if it is in the middle of a request.
    std::size_t request_bytes_max = 256 * 1024 * 1024;
    // Of one connection, replies that its client has not taken: above it, nothing more of it is
    // carried out. One reply may go beyond.
    std::size_t reply_bytes_max = 1024 * 1024;
    // The same of all connections: above it, those that have not logged in are closed, and then
    // those that hold most, of the user who does, until it is kept. What is being carried out may
    // go beyond: as much again, and what is read at once (64 MiB, or one command's).
    std::size_t replies_bytes_max = 256 * 1024 * 1024;
    // A connection that has sent part of a request, or has replies waiting, and does not go on for
    // so long is closed, and so is one that has not said EXEC so long after MULTI. At least 1 ms.
    std::chrono::milliseconds stall_timeout = std::chrono::minutes{1};
    // One that asks for nothing for so long is closed; 0: none is.
    std::chrono::milliseconds idle_timeout{0};
    // How long stop() lets clients take their last replies, and the store answer. Then they are
    // disconnected; what they asked is carried out.
    std::chrono::milliseconds stop_timeout = std::chrono::seconds{5};

    // Gets every event, on a thread of the server's, one at a time. Must not throw, and must not
    // stop the server.
    std::function<void(const ServerEvent&)> observer = {};
};

// How long the commands of one name have taken, in nanoseconds: from when the server had read one
// until its reply was there, durable if it changes anything. Waiting for somebody else's claim
// (WAIT) is not in it.
struct CommandTime {
    std::string command = {};  // "dedup.claim", "set"
    Histogram ns = {};
};

// What a server has done so far.
struct ServerMetrics {
    std::uint64_t connections = 0;  // now
    std::uint64_t connected = 0;    // ever
    std::uint64_t refused = 0;      // connections, as there were too many
    std::uint64_t logins_failed = 0;
    std::uint64_t requests = 0;
    std::uint64_t busy = 0;           // requests that got BUSY
    std::uint64_t untaken_bytes = 0;  // of replies, now
    // Of commands that the store was asked for, by name; those that never came are left out.
    std::vector<CommandTime> commands = {};
};

// A user of a server, to be written into its file of users.
struct ServerUser {
    std::string name = {};        // 1 to 64 of: letters, digits, '.', '_', '-'
    std::string secret = {};      // 16 to 512 bytes
    std::string rights = {};      // "read,claim,complete,sweep,admin", or some of these, or "all"
    std::string namespaces = {};  // "orders,pay-*": exact names, or what they begin with; "*": all
};
// The line, without its end. The secret cannot be read from it.
// Errors: invalid_argument.
[[nodiscard]] DEDUP_API Result<std::string> user_line(const ServerUser& user);
// 40 hex digits that nobody else has.
[[nodiscard]] DEDUP_API std::string random_secret();

// As those in dedup/metrics.hpp.
[[nodiscard]] DEDUP_API std::string prometheus_text(const ServerMetrics& metrics);

// Owns four threads: one for the sockets, one for the store, one for what takes long, and one for
// sweeps; with HTTP two more, one for its sockets and one for its answers. All functions may be
// called from any thread. In a forked child it does nothing, and destroying it there touches
// nothing of the parent's.
class DEDUP_API Server {
  public:
    // Listens, and gives the server. `store` must outlive it; the program may go on using the store
    // itself. A socket file that nobody listens on any more is replaced.
    // Errors: invalid_argument (nowhere to listen, an address that is none, or one beyond loopback
    // without a password or token, or the files of TLS), busy (another process listens there), io.
    [[nodiscard]] static Result<std::unique_ptr<Server>> start(StreamStore& store,
                                                               ServerOptions options);
    virtual ~Server() = default;  // stops
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    // Accepts and reads nothing more, carries out what has been asked, sends the replies, and
    // closes all connections; a sweep that runs ends early. Again is a no-op. Returns when the
    // store's calls that are under way have: a disk that hangs holds it up, though no client.
    virtual void stop() = 0;

    // Reads the file of users again: from now on all connections have the rights that it says.
    // Those of users that are gone, have another secret or may do less than before are closed, and
    // what they wait for is refused. What is wrong with the file changes nothing.
    // Errors: invalid_argument (there is no such file in the options, or a line is wrong), io.
    [[nodiscard]] virtual Result<void> reload_users() = 0;

    // Clients have to say this password from now on, in place of the one in the options. Those who
    // have said another one are disconnected, as above; the same one changes nothing. The second is
    // for the token of HTTP. Errors: invalid_argument (the options have none, or the new one is
    // empty).
    [[nodiscard]] virtual Result<void> replace_password(std::string_view password) = 0;
    [[nodiscard]] virtual Result<void> replace_http_token(std::string_view token) = 0;

    // Reads the files of TLS again, for connections from now on. What is wrong with them changes
    // nothing. Errors: invalid_argument (there are none in the options, or they are wrong).
    [[nodiscard]] virtual Result<void> reload_certificates() = 0;

    [[nodiscard]] virtual ServerMetrics metrics() const = 0;
    // The port that TCP listens on; 0 if it does not.
    [[nodiscard]] virtual std::uint16_t tcp_port() const = 0;
    // The same of HTTP.
    [[nodiscard]] virtual std::uint16_t http_port() const = 0;

  protected:
    Server() = default;
};

}  // namespace dedup
