#include "dedup/server.hpp"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "env/process.hpp"
#include "server/reactor.hpp"

namespace dedup {
namespace {

using server::Listeners;
using server::Reactor;

Result<void> check_server_options(const ServerOptions& options) {
    const auto bad = [](const char* what) {
        return std::unexpected(Error{.code = Code::invalid_argument, .message = what});
    };
    if (options.unix_path.empty() && options.tcp.empty()) {
        return bad("there is nowhere to listen: give a unix_path, or a tcp address");
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

class ServerWithReactor final : public Server {
  public:
    ServerWithReactor(StreamStore& store, std::string store_id, ServerOptions options,
                      Listeners listeners, Descriptor epoll, Descriptor wake)
        : reactor_(std::make_unique<Reactor>(store, std::move(store_id), std::move(options),
                                             std::move(listeners), std::move(epoll),
                                             std::move(wake))) {}
    // In a forked child there are no threads to stop, and the sockets are the parent's.
    ~ServerWithReactor() override {
        if (process_.inherited()) {
            leave_to_parent(reactor_.release());
        }
    }
    void stop() override {
        if (!process_.inherited()) {
            reactor_->stop();
        }
    }
    [[nodiscard]] ServerMetrics metrics() const override { return reactor_->metrics(); }
    [[nodiscard]] std::uint16_t tcp_port() const override { return reactor_->tcp_port(); }

  private:
    const ProcessMark process_;
    std::unique_ptr<Reactor> reactor_;
};

}  // namespace

Result<std::unique_ptr<Server>> Server::start(StreamStore& store, ServerOptions options) {
    if (auto checked = check_server_options(options); !checked) {
        return std::unexpected(std::move(checked).error());
    }
    auto stats = store.stats();
    if (!stats) {
        return std::unexpected(std::move(stats).error());
    }
    Listeners listeners;
    if (!options.unix_path.empty()) {
        auto made = server::UnixListener::listen(options.unix_path);
        if (!made) {
            return std::unexpected(std::move(made).error());
        }
        listeners.unix_socket = *std::move(made);
    }
    if (!options.tcp.empty()) {
        auto made = server::listen_tcp(options.tcp, !options.password.empty());
        if (!made) {
            return std::unexpected(std::move(made).error());
        }
        listeners.tcp = *std::move(made);
    }
    Descriptor epoll(::epoll_create1(EPOLL_CLOEXEC));
    Descriptor wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (epoll.get() < 0 || wake.get() < 0) {
        return std::unexpected(
            Error{.code = Code::io,
                  .message = std::string("cannot make descriptors: ") + std::strerror(errno),
                  .os_error = errno});
    }
    try {
        return std::make_unique<ServerWithReactor>(store, std::move(stats->store_id),
                                                   std::move(options), std::move(listeners),
                                                   std::move(epoll), std::move(wake));
    } catch (const std::system_error& error) {
        return std::unexpected(
            Error{.code = Code::io,
                  .message = std::string("cannot start a thread: ") + error.what(),
                  .os_error = error.code().value()});
    }
}

}  // namespace dedup
