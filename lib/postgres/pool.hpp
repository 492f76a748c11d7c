// The connections of one store: a bounded number, each proven to be what the store needs.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "contract/server_clock.hpp"
#include "env/process.hpp"
#include "postgres/connection.hpp"
#include "postgres/statements.hpp"
#include "postgres/target.hpp"

namespace dedup::pg {

class Pool;

// A connection for one call; goes back to its pool, or is closed if it is broken.
class Lease {
  public:
    Lease(Pool& pool, std::unique_ptr<Connection> connection)
        : pool_(&pool), connection_(std::move(connection)) {}
    Lease(Lease&& other) noexcept : pool_(other.pool_), connection_(std::move(other.connection_)) {}
    Lease& operator=(Lease&& other) noexcept {
        reset();
        pool_ = other.pool_;
        connection_ = std::move(other.connection_);
        return *this;
    }
    ~Lease() { reset(); }

    // Gives the connection back now.
    void reset();
    explicit operator bool() const { return connection_ != nullptr; }

    Connection* operator->() const { return connection_.get(); }

  private:
    Pool* pool_;
    std::unique_ptr<Connection> connection_;
};

// For any thread. Invariant: open_ <= options.connections_max; a connection is idle, or in one
// Lease. A forked child takes no connection of it, and gives none back: its locks may be held by
// threads of the parent.
class Pool {
  public:
    Pool(const Target& target, const Statements& statements, ServerClock& clock);

    // A connection that is free, or a new one. Tries until the deadline while the server cannot
    // be reached, with pauses.
    // Errors: unavailable, closed in a forked child, and what a server that is not fit is refused
    // with.
    [[nodiscard]] Result<Lease> take(TimePoint deadline);
    // One attempt, without waiting for a server that is not there. While it connects it may go
    // beyond the deadline, as libpq waits two seconds for an address at least.
    [[nodiscard]] Result<Lease> try_once(TimePoint deadline);

    // Changes whenever a connection was lost or made: what was set aside for this client may be so
    // no more.
    [[nodiscard]] std::uint64_t generation() const {
        const std::lock_guard lock(mutex_);
        return generation_;
    }
    // Closes the connections that nobody uses.
    void close_idle();

  private:
    friend class Lease;

    void give_back(std::unique_ptr<Connection> connection);
    // To the host that was the right one last, or else to the next that is.
    [[nodiscard]] Result<std::unique_ptr<Connection>> connect(TimePoint deadline);
    // `share`: how long an address may take to answer.
    [[nodiscard]] Result<std::unique_ptr<Connection>> connect_to(Parameters host,
                                                                 std::chrono::seconds share,
                                                                 TimePoint deadline);
    [[nodiscard]] Result<void> prove(Connection& connection, TimePoint deadline);

    const Target& target_;
    const Statements& statements_;
    ServerClock& clock_;
    const ProcessMark process_;
    std::atomic<std::size_t> host_ = 0;  // where the last connection leads
    mutable std::mutex mutex_;           // guards what follows
    std::condition_variable changed_;
    std::vector<std::unique_ptr<Connection>> idle_;
    std::size_t open_ = 0;
    std::uint64_t generation_ = 0;
};

}  // namespace dedup::pg
