// Connections of TLS, until it is known who they are from.
#include <fmt/format.h>

#include <string_view>
#include <utility>

#include "server/command_table.hpp"
#include "server/reactor.hpp"

namespace dedup::server {
namespace {

// So many may be at TLS's handshake at once: each may have OpenSSL hold 130 KB.
constexpr std::size_t kArrivingMax = 512;

}  // namespace

// Whoever means it is done within moments, so the oldest goes.
void Reactor::relieve_arriving() {
    if (arriving_.size() > kArrivingMax) {
        close(*connections_.at(*arriving_.begin()),
              "did not finish TLS's handshake, and others wait");
    }
}

bool Reactor::start_tls(Connection& connection) {
    std::shared_ptr<const tls::Context> context;
    {
        const MutexLock lock(mutex_);
        context = tls_;
    }
    connection.tls = context->accept(connection.socket.get());
    return connection.tls != nullptr;
}

void Reactor::replace_tls(std::shared_ptr<const tls::Context> tls) {
    const MutexLock lock(mutex_);
    tls_ = std::move(tls);
}

// TLS knows who the client is. Nobody in particular is no error: it may say so itself.
void Reactor::welcome(Connection& connection) {
    arriving_.erase(connection.session.id);
    connection.welcomed = true;
    connection.session.certified = connection.tls->peer_name();
    const std::string_view refusal = log_in_certified(connection.session, facts_);
    follow_user(connection);
    follow_stranger(connection);
    if (!refusal.empty()) {
        add_output(connection, fmt::format("-{}\r\n", refusal));
        connection.session.closing = true;
        connection.end_of_input = true;
    }
}

}  // namespace dedup::server
