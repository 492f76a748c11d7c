// Which commands there are. Each group stands in a file of its own.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "server/session.hpp"

namespace dedup::server {

// What a command is about, which decides whose it may be.
enum class Scope : std::uint8_t {
    connection,  // nothing that is stored
    streams,     // those that the command names, or one namespace
    store,       // whatever there is: for users who may go everywhere
};

// What a user needs for a command. Has no default: a command without it does not compile.
struct Access {
    constexpr Access(unsigned wanted, Scope about) : rights(wanted), scope(about) {}
    unsigned rights;
    Scope scope;
};
inline constexpr Access kOfConnection{0, Scope::connection};
inline constexpr Access kReads{kMayRead, Scope::streams};
inline constexpr Access kClaims{kMayClaim, Scope::streams};
inline constexpr Access kCompletes{kMayComplete, Scope::streams};
inline constexpr Access kClaimsAndCompletes{kMayClaim | kMayComplete, Scope::streams};
// Strings know no claims: a command overwrites, or tells what was there.
inline constexpr Access kRewrites{kMayRead | kMayClaim | kMayComplete, Scope::streams};
inline constexpr Access kDecides{kMayAdmin, Scope::streams};
// Records as they are: what each of them needs is asked when it is known; see append_rights.hpp.
inline constexpr Access kWritesRecords{0, Scope::streams};
inline constexpr Access kReadsStore{kMayRead, Scope::store};
inline constexpr Access kSweepsStore{kMaySweep, Scope::store};
inline constexpr Access kFlushes{kMayClaim, Scope::connection};

struct CommandEntry {
    std::string_view name;  // in upper case
    // How many arguments, the name included; negative: at least so many.
    int arity;
    // Where keys stand: the first, the last (-1: the last argument) and the step; 0: nowhere.
    int first_key;
    int last_key;
    int key_step;
    bool writes;
    Access access;
    CommandPtr (*make)(const Request& request);
};

[[nodiscard]] std::span<const CommandEntry> connection_commands();
[[nodiscard]] std::span<const CommandEntry> native_commands();
[[nodiscard]] std::span<const CommandEntry> decision_commands();
[[nodiscard]] std::span<const CommandEntry> native_chores();
[[nodiscard]] std::span<const CommandEntry> store_commands();
[[nodiscard]] std::span<const CommandEntry> store_chores();
[[nodiscard]] std::span<const CommandEntry> string_commands();
[[nodiscard]] std::span<const CommandEntry> expiry_commands();
[[nodiscard]] std::span<const CommandEntry> script_commands();
[[nodiscard]] std::span<const CommandEntry> sweep_commands();

[[nodiscard]] std::span<const CommandEntry* const> all_commands();  // by name
[[nodiscard]] const CommandEntry* find_command(std::string_view name);

// The error of a user who may not do that.
[[nodiscard]] CommandPtr no_permission(const Request& request, std::string_view command,
                                       std::string_view why);
// The command of `entry`, or an error if the client may not do that.
[[nodiscard]] CommandPtr make_allowed(const Request& request, const CommandEntry& entry);

// Whoever has a certificate of a user's name is that user. What keeps it from that, or empty.
std::string_view log_in_certified(Session& session, Facts& facts);

// The users have been replaced: what has become of the session's. False: one who has asked what may
// still be under way is gone, has another secret, or may do less.
[[nodiscard]] bool look_again(Session& session, Facts& facts);

// What a request comes to: never null. An unknown command, a wrong number of arguments, an unknown
// option, or a client that has not said the password is an error, never a guess.
[[nodiscard]] CommandPtr understand(const Request& request);

}  // namespace dedup::server
