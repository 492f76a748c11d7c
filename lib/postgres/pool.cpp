#include "postgres/pool.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "record/try.hpp"

namespace dedup::pg {
namespace {

constexpr std::int64_t kServerVersionMin = 130'000;  // gen_random_uuid
constexpr std::int64_t kConnectSecondsMin = 2;       // libpq's own
constexpr std::chrono::milliseconds kProofMin{100};
constexpr std::chrono::milliseconds kPauseMin{10};
constexpr std::chrono::milliseconds kPauseMax{1'000};

std::unexpected<Error> unfit(Code code, std::string message) {
    return std::unexpected(Error{.code = code, .message = std::move(message)});
}

}  // namespace

void Lease::reset() {
    if (connection_) {
        pool_->give_back(std::move(connection_));
    }
}

Pool::Pool(const Target& target, const Statements& statements, ServerClock& clock)
    : target_(target), statements_(statements), clock_(clock) {}

void Pool::give_back(std::unique_ptr<Connection> connection) {
    if (process_.inherited()) {
        return;
    }
    const bool broken = connection->broken();
    std::vector<std::unique_ptr<Connection>> closed;  // without the lock
    {
        const std::lock_guard lock(mutex_);
        if (broken) {
            // The others lead to the same server and are most likely dead, too.
            closed = std::move(idle_);
            idle_.clear();
            open_ -= closed.size() + 1;
            ++generation_;
        } else {
            idle_.push_back(std::move(connection));
        }
    }
    changed_.notify_one();
}

void Pool::close_idle() {
    std::vector<std::unique_ptr<Connection>> closed;
    const std::lock_guard lock(mutex_);
    closed = std::move(idle_);
    idle_.clear();
    open_ -= closed.size();
}

Result<Lease> Pool::try_once(TimePoint deadline) {
    if (process_.inherited()) {
        return std::unexpected(process_.inherited_error("the store in the database"));
    }
    {
        std::unique_lock lock(mutex_);
        const bool free = changed_.wait_until(lock, deadline, [&] {
            return !idle_.empty() || open_ < target_.options.connections_max;
        });
        if (!free) {
            return unfit(Code::unavailable,
                         fmt::format("all {} connections of the store are in use; raise "
                                     "connections_max",
                                     target_.options.connections_max));
        }
        if (!idle_.empty()) {
            auto connection = std::move(idle_.back());
            idle_.pop_back();
            return Lease(*this, std::move(connection));
        }
        ++open_;
    }
    auto connection = connect(deadline);
    if (!connection) {
        {
            const std::lock_guard lock(mutex_);
            --open_;
        }
        changed_.notify_one();
        return std::unexpected(std::move(connection).error());
    }
    {
        // It may lead to another server than the others did.
        const std::lock_guard lock(mutex_);
        ++generation_;
    }
    return Lease(*this, *std::move(connection));
}

Result<Lease> Pool::take(TimePoint deadline) {
    for (auto pause = kPauseMin;; pause = std::min(2 * pause, kPauseMax)) {
        auto lease = try_once(deadline);
        if (lease || lease.error().code != Code::unavailable ||
            std::chrono::steady_clock::now() + pause >= deadline) {
            return lease;
        }
        std::this_thread::sleep_for(pause);
    }
}

Result<std::unique_ptr<Connection>> Pool::connect(TimePoint deadline) {
    const std::size_t first = host_;
    std::string why;
    for (std::size_t i = 0; i < target_.hosts.size(); ++i) {
        const std::size_t at = (first + i) % target_.hosts.size();
        const auto left = std::chrono::duration_cast<std::chrono::seconds>(
            deadline - std::chrono::steady_clock::now());
        const auto share = left / static_cast<std::int64_t>(target_.hosts.size() - i);
        auto connection = connect_to(target_.hosts[at], share, deadline);
        if (connection) {
            host_ = at;
            return connection;
        }
        if (connection.error().code != Code::unavailable) {
            return connection;
        }
        why += (why.empty() ? "" : "; ") + connection.error().message;
    }
    return unfit(Code::unavailable, std::move(why));
}

// The server gets a moment for its proof, however late it is: it has just answered.
Result<std::unique_ptr<Connection>> Pool::connect_to(Parameters host, std::chrono::seconds share,
                                                     TimePoint deadline) {
    // In front: what the URL says of it wins.
    host.emplace(host.begin(), "connect_timeout",
                 std::to_string(std::max<std::int64_t>(kConnectSecondsMin, share.count())));
    const bool prepared = target_.options.prepared;
    auto connection =
        Connection::open(host, {.prepared = prepared,
                                .begin = &statements_.begin,
                                .commit = &statements_.commit,
                                .local = prepared ? nullptr : &statements_.local_settings});
    if (!connection) {
        return connection;
    }
    const auto moment = std::chrono::steady_clock::now() + kProofMin;
    DEDUP_TRY(prove(**connection, std::max(deadline, moment)));
    return connection;
}

Result<void> Pool::prove(Connection& connection, TimePoint deadline) {
    const auto sent = std::chrono::steady_clock::now();
    const bool local = target_.options.durability == PostgresDurability::local;
    // A pooler would give what is set for a session to somebody else's.
    const std::vector<Query> queries = {
        {target_.options.prepared ? &statements_.session_settings : &statements_.local_settings},
        {&statements_.prove}};
    auto tables = connection.transact(queries, deadline);
    if (!tables) {
        return std::unexpected(std::move(tables).error().error);
    }
    const Table& proof = tables->at(1);
    clock_.saw(proof.number(0, 7), sent);
    if (const std::int64_t version = proof.number(0, 0); version < kServerVersionMin) {
        return unfit(
            Code::unsupported_version,
            fmt::format("the server is PostgreSQL {}; 13 or newer is needed", version / 10'000));
    }
    if (proof.number(0, 1) != 0) {
        return unfit(Code::unavailable,
                     "the server is a standby; name the primary in the store's URL, or all hosts "
                     "and target_session_attrs=read-write");
    }
    if (!target_.options.read_only && proof.number(0, 2) != 0) {
        return unfit(Code::read_only,
                     "the role's transactions are read-only (default_transaction_read_only); "
                     "change that, or open the store for reading");
    }
    if (local || target_.options.read_only) {
        return {};
    }
    const std::string_view commits = proof.bytes(0, 6);
    if (commits != "on" && commits != "remote_apply") {
        return unfit(Code::failed,
                     fmt::format("synchronous_commit is {} and cannot be changed", commits));
    }
    if (proof.number(0, 3) != 0) {
        return unfit(Code::failed,
                     "the server runs with fsync = off, which loses what it has acknowledged when "
                     "the power goes; turn it on, or ask for durability=local");
    }
    if (proof.number(0, 4) != 0 && proof.number(0, 5) != 0) {
        return unfit(Code::failed,
                     "the server has standbys, but synchronous_standby_names is empty: a failover "
                     "would lose what it has acknowledged; set it, or ask for durability=local");
    }
    return {};
}

}  // namespace dedup::pg
