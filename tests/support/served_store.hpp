// A store as its clients see it: a server of it in this process, and a client of that.
#pragma once

#include <memory>
#include <mutex>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "dedup/remote_store.hpp"
#include "dedup/server.hpp"
#include "dedup/store.hpp"

namespace dedup::test {

class ServedStore final : public StreamStore {
  public:
    // Without `served` it is a client for reading of what another one serves at `socket`, whose
    // clock the tests set.
    ServedStore(std::unique_ptr<StreamStore> served, const std::string& socket, const Clock& clock)
        : ServedStore(make(std::move(served), socket, clock)) {}
    ~ServedStore() override { static_cast<void>(close()); }

    std::vector<Result<std::uint64_t>> append(std::span<const Append> batch, Batch mode) override {
        return client().append(batch, mode);
    }
    std::vector<Result<std::optional<Record>>> heads(std::span<const StreamKey> streams) override {
        return client().heads(streams);
    }
    Result<std::vector<Version>> history(StreamKey stream, const HistoryLimits& limits) override {
        return client().history(stream, limits);
    }
    Result<ScanPage> scan(const ScanOptions& options) override { return client().scan(options); }
    Result<SweepReport> sweep(const SweepOptions& options) override {
        return client().sweep(options);
    }
    Result<std::vector<SweepReport>> sweep_history() override { return client().sweep_history(); }
    Result<StoreStats> stats() override { return client().stats(); }
    StoreMetrics metrics() const override { return client().metrics(); }
    Result<void> flush() override { return client().flush(); }
    [[nodiscard]] bool reads_are_remote() const override { return client().reads_are_remote(); }

    // Of the client; behind it, the server ends and the store is closed.
    Result<void> close() override {
        auto closed = client().close();
        if (closed) {
            const std::lock_guard lock(inside_->mutex);
            if (inside_->server) {
                inside_->server->stop();
                closed = inside_->served->close();
            }
        }
        return closed;
    }

  private:
    struct Inside {
        std::mutex mutex;  // of two that close it, one does
        std::unique_ptr<StreamStore> served;
        std::unique_ptr<Server> server;
        std::unique_ptr<StreamStore> client;
    };

    explicit ServedStore(std::unique_ptr<Inside> inside)
        : StreamStore(*inside->client), inside_(std::move(inside)) {}

    static std::unique_ptr<Inside> make(std::unique_ptr<StreamStore> served,
                                        const std::string& socket, const Clock& clock) {
        auto inside = std::make_unique<Inside>();
        RemoteOptions options{.read_only = served == nullptr, .clock = clock};
        if (served) {
            inside->served = std::move(served);
            auto server = Server::start(*inside->served, {.unix_path = socket});
            if (!server) {
                throw std::runtime_error(server.error().message);
            }
            inside->server = *std::move(server);
            // The clock of the tests jumps; what the server said last is of before.
            options.clock = [store = inside->served.get()] { return store->now_ms(); };
        }
        auto client = open_remote("unix:" + socket, options);
        if (!client) {
            throw std::runtime_error(client.error().message);
        }
        inside->client = *std::move(client);
        return inside;
    }

    [[nodiscard]] StreamStore& client() const { return *inside_->client; }

    const std::unique_ptr<Inside> inside_;
};

}  // namespace dedup::test
