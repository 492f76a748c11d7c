// A store behind a server, a way to it that fails on command, and a client.
#pragma once

#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "dedup/log_store.hpp"
#include "dedup/remote_store.hpp"
#include "dedup/server.hpp"
#include "server/faulty_way.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {

inline Append item(std::uint64_t expected, std::string key,
                   std::optional<std::string> receipt = {}) {
    Record record;
    record.ns = "remote";
    record.key = std::move(key);
    record.timestamp_ms = 1'000;
    record.receipt = std::move(receipt);
    return {expected, std::move(record)};
}

// A store in files, its server, the way there, and a client.
struct Away {
    explicit Away(std::chrono::milliseconds timeout = std::chrono::seconds{10}) {
        serve();
        client = open_at(way_path, timeout);
    }
    void serve() {
        server.reset();
        if (inner) {
            REQUIRE(inner->close().has_value());
        }
        inner.reset();
        inner = open(directory.path() / "store").value();
        server = Server::start(*inner, {.unix_path = server_path}).value();
    }
    static std::unique_ptr<StreamStore> open_at(
        const std::string& path, std::chrono::milliseconds timeout = std::chrono::seconds{10}) {
        auto opened = open_remote("unix:" + path, {.timeout = timeout});
        REQUIRE_MESSAGE(opened.has_value(), opened.error().message);
        return *std::move(opened);
    }
    [[nodiscard]] Result<std::uint64_t> append(const Append& append) {
        auto landed = client->append({&append, 1}, Batch::each).front();
        way.settle();
        return landed;
    }

    TempDir directory;
    const std::string server_path = (directory.path() / "server.sock").string();
    const std::string way_path = (directory.path() / "way.sock").string();
    std::unique_ptr<StreamStore> inner;
    std::unique_ptr<Server> server;
    FaultyWay way{way_path, server_path};
    std::unique_ptr<StreamStore> client;
};

}  // namespace dedup::test
