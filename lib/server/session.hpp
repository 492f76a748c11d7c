// What the server knows of a connection's client, and what all commands may need to know.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/append_memory.hpp"
#include "server/command.hpp"
#include "server/command_times.hpp"
#include "server/sweep_watch.hpp"
#include "server/user_use.hpp"
#include "server/users.hpp"

namespace dedup::server {

// The databases that SELECT chooses from, as with Redis.
inline constexpr std::uint64_t kDatabases = 16;

// What has been said since MULTI.
struct Transaction {
    bool open = false;
    bool bad = false;  // something was refused: EXEC will be
    std::size_t bytes = 0;
    std::size_t parts = 0;  // of all commands
    std::vector<CommandPtr> commands = {};

    // What it takes of memory, about.
    [[nodiscard]] std::size_t held_bytes() const {
        constexpr std::size_t kCommandBytes = 512;
        return bytes + commands.size() * kCommandBytes;
    }
};

// Changed in the order of the requests, by the reactor, before they go to the executor: a command
// that stands behind a HELLO is answered in the protocol that this asked for.
struct Session {
    std::uint64_t id = 0;
    Protocol protocol = Protocol::resp2;
    std::uint64_t database = 0;
    bool closing = false;  // when all replies are sent, but those of any order
    std::string name = {};
    Transaction transaction = {};
    UserPtr user = {};                   // null: has not logged in
    std::vector<UserPtr> earlier = {};   // who has asked what may still be under way
    std::uint64_t users_generation = 0;  // that `user` is of
    UserSeat seat = {};
    // A login that has just failed, for the log: whose secret was wrong; empty: no user's.
    std::optional<std::string> failed_login = {};
    std::string certified = {};  // the name in its certificate, of TLS; empty: it has shown none

    // What was asked before stays that of the user before. Null: of nobody.
    void become(UserPtr next) {
        if (user && user != next && std::ranges::find(earlier, user) == earlier.end()) {
            earlier.push_back(std::move(user));
        }
        user = std::move(next);
    }
    // The namespace of the keys of Redis commands.
    [[nodiscard]] std::string database_namespace() const {
        return "redis:" + std::to_string(database);
    }
};

// Redis knows a scan by a number, a store by a text. The numbers are this server's: the newest ones
// are remembered. For one thread at a time: that of the chores.
class ScanCursors {
  public:
    // 0 for the end.
    [[nodiscard]] std::uint64_t number_of(std::string cursor);
    // nullopt: not one that is remembered.
    [[nodiscard]] std::optional<std::string> cursor_of(std::uint64_t number) const;

  private:
    std::deque<std::string> cursors_;  // the oldest first
    std::uint64_t first_ = 1;          // the number of the oldest
};

// Outlives all commands.
struct Facts {
    CommandTimes times = {};
    Users users = {};  // none: nobody has to log in
    UserUses uses = {};
    std::int64_t started_ms = 0;
    std::string store_id = {};
    std::chrono::milliseconds grace{0};               // the store's
    std::map<std::string, ScanCursors> cursors = {};  // by user; of the thread of the chores
    AppendMemory appends{""};
    SweepWatch sweeps = {};
};

using Arguments = std::span<const std::string_view>;

struct Request {
    Session& session;
    Facts& facts;
    Arguments arguments;  // with the name of the command; at least one

    [[nodiscard]] std::string_view argument(std::size_t i) const { return arguments[i]; }
    [[nodiscard]] std::size_t size() const { return arguments.size(); }
    [[nodiscard]] CommandPtr error(std::string_view text) const {
        return error_reply(session.protocol, text);
    }
    template <class Write>
    [[nodiscard]] CommandPtr reply(Write write) const {
        return known_reply(session.protocol, write);
    }
};

// A whole number in digits, nothing else.
[[nodiscard]] std::optional<std::int64_t> whole_number(std::string_view text);
[[nodiscard]] std::optional<std::uint64_t> unsigned_number(std::string_view text);
// The same word, whatever the case of its letters; `word` is in upper case.
[[nodiscard]] bool is_word(std::string_view text, std::string_view word);
[[nodiscard]] std::string upper_case(std::string_view text);
[[nodiscard]] std::string lower_case(std::string_view text);

}  // namespace dedup::server
