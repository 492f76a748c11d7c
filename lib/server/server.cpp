#include "dedup/server.hpp"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "env/mutex.hpp"
#include "env/process.hpp"
#include "record/try.hpp"
#include "server/accounts.hpp"
#include "server/http_pages.hpp"
#include "server/http_server.hpp"
#include "server/reactor.hpp"
#include "server/secret.hpp"

namespace dedup {
namespace {

using server::Accounts;
using server::Listeners;
using server::Reactor;

std::unexpected<Error> bad(const char* what) {
    return std::unexpected(Error{.code = Code::invalid_argument, .message = what});
}

Result<void> check_secret(std::string_view what, std::string_view secret) {
    if (secret.empty() || server::has_secret_length(secret)) {
        return {};
    }
    return std::unexpected(
        Error{Code::invalid_argument,
              fmt::format("the {} has {} bytes; it has {} to {}, made up at random (`openssl rand "
                          "-hex 20`)",
                          what, secret.size(), server::kSecretMin, server::kSecretMax)});
}

Result<void> check_server_options(const ServerOptions& options) {
    if (options.unix_path.empty() && options.tcp.empty() && options.unix_socket < 0 &&
        options.tcp_socket < 0) {
        return bad("there is nowhere to listen: give a unix_path, or a tcp address");
    }
    if (options.http.empty() && options.http_socket < 0 &&
        (!options.http_token.empty() || options.http_pages || options.http_metrics)) {
        return bad("a token or pages for HTTP, and no address: give http");
    }
    const bool http = !options.http.empty() || options.http_socket >= 0;
    if (http && !options.users.empty() && options.http_token.empty()) {
        return bad(
            "with users HTTP needs a token, or everybody on this machine would see what each of "
            "them has: give http_token (--http-token-file)");
    }
    for (const auto& [what, secret] : {std::pair("password", &options.password),
                                       std::pair("token for HTTP", &options.http_token)}) {
        if (auto checked = check_secret(what, *secret); !checked) {
            return checked;
        }
    }
    const bool tls = !options.tls_certificate.empty();
    if (tls == options.tls_key.empty() || (!tls && !options.tls_client_ca.empty())) {
        return bad("TLS needs both a certificate and its key");
    }
    if (tls && options.tcp.empty() && options.tcp_socket < 0) {
        return bad("TLS is for TCP, which is not listened on: give a tcp address");
    }
    if (options.connections_max == 0 || options.pipeline_max == 0 || options.requests_max == 0 ||
        options.request_bytes_max == 0 || options.reply_bytes_max == 0 ||
        options.replies_bytes_max == 0) {
        return bad("a limit of the server is 0; each must be at least 1");
    }
    if (options.stall_timeout.count() < 1 || options.idle_timeout.count() < 0 ||
        options.stop_timeout.count() < 0) {
        return bad("a timeout of the server is out of range");
    }
    return {};
}

tls::Files tls_files(const ServerOptions& options) {
    return {.certificate = options.tls_certificate,
            .key = options.tls_key,
            .authorities = options.tls_client_ca};
}

struct HttpPort {
    server::TcpListener listener;
    Descriptor wake;
};

class ServerWithReactor final : public Server {
  public:
    ServerWithReactor(StreamStore& store, std::string store_id, const ServerOptions& options,
                      Accounts accounts, Listeners listeners, Descriptor epoll, Descriptor wake,
                      std::optional<HttpPort> http)
        : tls_files_(tls_files(options)),
          http_token_(options.http_token),
          accounts_(std::move(accounts)),
          reactor_(std::make_unique<Reactor>(store, std::move(store_id), options, accounts_.users(),
                                             std::move(listeners), std::move(epoll),
                                             std::move(wake))) {
        if (http) {
            http_ = std::make_unique<server::HttpServer>(
                std::move(http->listener), std::move(http->wake),
                server::http_answers({.store = store,
                                      .metrics = [this] { return reactor_->metrics(); },
                                      .closing = closing_,
                                      .token = http_token_,
                                      .pages = options.http_pages,
                                      .more_metrics = options.http_metrics}));
        }
    }
    // In a forked child there are no threads to stop, and the sockets are the parent's.
    ~ServerWithReactor() override {
        if (process_.inherited()) {
            leave_to_parent(http_.release());
            leave_to_parent(reactor_.release());
        } else {
            stop();
        }
    }
    void stop() override {
        if (!process_.inherited()) {
            closing_ = true;
            reactor_->stop();
            if (http_) {  // till here it says that the server ends
                http_->stop();
            }
        }
    }
    Result<void> reload_users() override {
        DEDUP_TRY(check_reload());
        const MutexLock lock(accounts_mutex_);
        if (!accounts_.has_file()) {
            return bad("the server has no file of users");
        }
        DEDUP_TRY(accounts_.read());
        reactor_->replace_users(accounts_.users());
        return {};
    }
    Result<void> replace_password(std::string_view password) override {
        DEDUP_TRY(check_reload());
        const MutexLock lock(accounts_mutex_);
        if (!accounts_.has_password() || password.empty()) {
            return bad("the server has no password, or the new one is empty");
        }
        DEDUP_TRY(check_secret("password", password));
        DEDUP_TRY(accounts_.set_password(password));
        reactor_->replace_users(accounts_.users());
        return {};
    }
    Result<void> replace_http_token(std::string_view token) override {
        DEDUP_TRY(check_reload());
        if (!http_token_.is_needed() || token.empty()) {
            return bad("the server has no token for HTTP, or the new one is empty");
        }
        DEDUP_TRY(check_secret("token for HTTP", token));
        http_token_.replace(token);
        return {};
    }
    Result<void> reload_certificates() override {
        DEDUP_TRY(check_reload());
        if (tls_files_.certificate.empty()) {
            return bad("the server has no TLS");
        }
        auto tls = tls::Context::for_server(tls_files_);
        if (!tls) {
            return std::unexpected(std::move(tls).error());
        }
        reactor_->replace_tls(*std::move(tls));
        return {};
    }
    [[nodiscard]] ServerMetrics metrics() const override { return reactor_->metrics(); }
    [[nodiscard]] std::uint16_t tcp_port() const override { return reactor_->tcp_port(); }
    [[nodiscard]] std::uint16_t http_port() const override { return http_ ? http_->port() : 0; }

  private:
    [[nodiscard]] Result<void> check_reload() const {
        return process_.inherited()
                   ? Result<void>(std::unexpected(process_.inherited_error("the server")))
                   : Result<void>();
    }

    const ProcessMark process_;
    const tls::Files tls_files_;
    server::Secret http_token_;
    Mutex accounts_mutex_;
    Accounts accounts_ DEDUP_GUARDED_BY(accounts_mutex_);
    std::atomic<bool> closing_ = false;
    std::unique_ptr<Reactor> reactor_;
    std::unique_ptr<server::HttpServer> http_;
};

Result<std::optional<HttpPort>> listen_for_http(const ServerOptions& options, Descriptor given) {
    if (options.http.empty() && given.get() < 0) {
        return std::nullopt;
    }
    const bool anywhere = !options.http_token.empty();
    auto made = given.get() < 0 ? server::listen_tcp(options.http, anywhere, "a token")
                                : server::adopt_tcp(std::move(given), anywhere, "a token");
    if (!made) {
        return std::unexpected(std::move(made).error());
    }
    return HttpPort{*std::move(made), Descriptor(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))};
}

// Sockets that the program has handed over, until somebody has taken them.
struct Given {
    explicit Given(const ServerOptions& options)
        : unix_socket(options.unix_socket), tcp(options.tcp_socket), http(options.http_socket) {}
    Descriptor unix_socket;
    Descriptor tcp;
    Descriptor http;
};

// Says in `options` where it listens, for people.
Result<Listeners> listen(ServerOptions& options, Given& given, bool has_users) {
    Listeners listeners;
    if (!options.tls_certificate.empty()) {
        auto tls = tls::Context::for_server(tls_files(options));
        if (!tls) {
            return std::unexpected(std::move(tls).error());
        }
        listeners.tls = *std::move(tls);
    }
    const bool anywhere = has_users || !options.tls_client_ca.empty();
    if (given.unix_socket.get() >= 0) {
        auto path = server::unix_path_of(given.unix_socket.get());
        if (!path) {
            return std::unexpected(std::move(path).error());
        }
        options.unix_path = *std::move(path);
        listeners.unix_socket = server::UnixListener(std::move(given.unix_socket));
    } else if (!options.unix_path.empty()) {
        auto made = server::UnixListener::listen(options.unix_path);
        if (!made) {
            return std::unexpected(std::move(made).error());
        }
        listeners.unix_socket = *std::move(made);
    }
    if (given.tcp.get() >= 0 || !options.tcp.empty()) {
        auto made = given.tcp.get() >= 0 ? server::adopt_tcp(std::move(given.tcp), anywhere)
                                         : server::listen_tcp(options.tcp, anywhere);
        if (!made) {
            return std::unexpected(std::move(made).error());
        }
        options.tcp = made->address;
        listeners.tcp = *std::move(made);
    }
    return listeners;
}

}  // namespace

Result<std::unique_ptr<Server>> Server::start(StreamStore& store, ServerOptions options) {
    Given given(options);
    if (auto checked = check_server_options(options); !checked) {
        return std::unexpected(std::move(checked).error());
    }
    auto stats = store.stats();
    if (!stats) {
        return std::unexpected(std::move(stats).error());
    }
    Accounts accounts(options.users);
    DEDUP_TRY(accounts.read());
    if (!options.password.empty()) {
        DEDUP_TRY(accounts.set_password(options.password));
    }
    auto made = listen(options, given, accounts.has_file() || accounts.has_password());
    if (!made) {
        return std::unexpected(std::move(made).error());
    }
    Listeners listeners = *std::move(made);
    auto http = listen_for_http(options, std::move(given.http));
    if (!http) {
        return std::unexpected(std::move(http).error());
    }
    if (*http) {
        listeners.http = (*http)->listener.port;
        options.http = (*http)->listener.address;
    }
    Descriptor epoll(::epoll_create1(EPOLL_CLOEXEC));
    Descriptor wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (epoll.get() < 0 || wake.get() < 0 || (*http && (*http)->wake.get() < 0)) {
        return std::unexpected(
            Error{.code = Code::io,
                  .message = std::string("cannot make descriptors: ") + std::strerror(errno),
                  .os_error = errno});
    }
    try {
        return std::make_unique<ServerWithReactor>(
            store, std::move(stats->store_id), options, std::move(accounts), std::move(listeners),
            std::move(epoll), std::move(wake), *std::move(http));
    } catch (const std::system_error& error) {
        return std::unexpected(
            Error{.code = Code::io,
                  .message = std::string("cannot start a thread: ") + error.what(),
                  .os_error = error.code().value()});
    }
}

}  // namespace dedup
