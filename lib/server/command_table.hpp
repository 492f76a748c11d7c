// Which commands there are. Each group stands in a file of its own.
#pragma once

#include <span>
#include <string_view>

#include "server/session.hpp"

namespace dedup::server {

struct CommandEntry {
    std::string_view name;  // in upper case
    // How many arguments, the name included; negative: at least so many.
    int arity;
    // Where keys stand: the first, the last (-1: the last argument) and the step; 0: nowhere.
    int first_key;
    int last_key;
    int key_step;
    bool writes;
    CommandPtr (*make)(const Request& request);
};

[[nodiscard]] std::span<const CommandEntry> connection_commands();
[[nodiscard]] std::span<const CommandEntry> native_commands();
[[nodiscard]] std::span<const CommandEntry> native_chores();
[[nodiscard]] std::span<const CommandEntry> store_commands();
[[nodiscard]] std::span<const CommandEntry> store_chores();
[[nodiscard]] std::span<const CommandEntry> string_commands();
[[nodiscard]] std::span<const CommandEntry> expiry_commands();
[[nodiscard]] std::span<const CommandEntry> script_commands();
[[nodiscard]] std::span<const CommandEntry> sweep_commands();

[[nodiscard]] std::span<const CommandEntry* const> all_commands();  // by name
[[nodiscard]] const CommandEntry* find_command(std::string_view name);

// What a request comes to: never null. An unknown command, a wrong number of arguments, an unknown
// option, or a client that has not said the password is an error, never a guess.
[[nodiscard]] CommandPtr understand(const Request& request);

}  // namespace dedup::server
