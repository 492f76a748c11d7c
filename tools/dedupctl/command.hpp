// What a command takes and does, as data: each command says it in the file of its name, and
// command_line.cpp alone knows the parser.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace dedupctl {

// An option, "--lease" or "-q,--quiet", or without dashes an argument, "KEY". The texts outlive the
// program's arguments: they are literals.
struct Option {
    std::string_view name{};
    // Where it goes: a flag, a value, or all that is left. What is there before is the default.
    std::variant<bool*, std::string*, std::vector<std::string>*> to{};
    std::string_view help{};
    std::string_view type{};  // what stands for the value in the help: "D"
    bool required = false;
    bool filled = false;  // empty is an error, for `--ttl "$TTL"` with an unset TTL is a mistake
    bool shows_default = false;
    std::vector<std::string_view> choices{};   // no other value will do; empty: any will
    std::vector<std::string_view> excludes{};  // options before it in the list that it rules out
    std::string_view needs{};                  // an option before it in the list
    std::string_view environment{};            // the variable that stands for it if it is not given
    bool* given = nullptr;                     // becomes true if it is given on the command line
};

struct Command {
    std::string_view name{};
    std::string_view help{};
    std::vector<Option> options{};
    std::function<int()> run{};   // gives the exit code; owns what the options go to
    std::string_view examples{};  // lines, for its help and its manual page
    bool* chosen = nullptr;       // becomes true if it is named, whatever is wrong behind it
    bool hidden = false;          // in no list: for the build
    int error_exit = 1;           // of any error that has no exit code of its own
};

struct Program {
    std::string name{};
    std::string help{};
    std::string version{};
    std::string notes{};            // behind the help of the program and of each command
    std::string exit_codes{};       // lines, likewise
    std::vector<Option> options{};  // may stand before the command and after it
    std::vector<Command> commands{};
};

[[nodiscard]] inline bool is_flag(const Option& option) {
    return std::holds_alternative<bool*>(option.to);
}
// "store" of "-s,--store"; empty if the option has no long name.
[[nodiscard]] inline std::string_view long_name(const Option& option) {
    const std::size_t dashes = option.name.find("--");
    return dashes == std::string_view::npos ? "" : option.name.substr(dashes + 2);
}
[[nodiscard]] inline bool is_argument(const Option& option) {
    return !option.name.starts_with('-');
}

}  // namespace dedupctl
