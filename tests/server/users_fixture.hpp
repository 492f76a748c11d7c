// A server with users, and their clients.
#pragma once

#include <doctest/doctest.h>

#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "dedup/memory_store.hpp"
#include "dedup/server.hpp"
#include "server/client.hpp"
#include "support/hooked_store.hpp"
#include "support/manual_clock.hpp"
#include "support/temp_dir.hpp"

namespace dedup::test {

inline std::string secret_of(std::string_view name) {
    return "the long secret of " + std::string(name);
}

struct UsersFixture {
    explicit UsersFixture(const std::vector<ServerUser>& users, ServerOptions options = {}) {
        write(users);
        options.unix_path = path;
        options.users = users_path;
        auto started = Server::start(store, std::move(options));
        REQUIRE_MESSAGE(started.has_value(), started.error().message);
        server = *std::move(started);
    }
    void write(const std::vector<ServerUser>& users) const {
        std::ofstream file(users_path);
        file << "# users\n\n";
        for (ServerUser user : users) {
            user.secret = user.secret.empty() ? secret_of(user.name) : user.secret;
            const auto line = user_line(user);
            REQUIRE_MESSAGE(line.has_value(), line.error().message);
            CHECK(line->find(user.secret) == std::string::npos);
            file << *line << "\n";
        }
    }
    [[nodiscard]] Client client(std::string_view user) const {
        Client made(path);
        CHECK(made.ask({"AUTH", user, secret_of(user)}) == "OK");
        return made;
    }
    TempDir directory;
    const std::string path = (directory.path() / "socket").string();
    const std::string users_path = (directory.path() / "users").string();
    ManualClock clock{1'000'000};
    std::unique_ptr<StreamStore> inner = make_memory_store(clock.clock());
    HookedStore store{*inner};
    std::unique_ptr<Server> server;
};

}  // namespace dedup::test
