#include "command_line.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <map>
#include <sstream>

#include "common/failure.hpp"
#include "common/text.hpp"
#include "spelling.hpp"

namespace dedupctl {
namespace {

struct Added {
    const Option* option;
    CLI::Option* parsed;
};

CLI::Option* add_typed(CLI::App& app, const Option& option) {
    const std::string name(option.name);
    std::string help(option.help);
    if (!option.environment.empty()) {
        help.append(" [$").append(option.environment).append("]");
    }
    if (bool* const* flag = std::get_if<bool*>(&option.to)) {
        return app.add_flag(name, **flag, help);
    }
    if (std::string* const* value = std::get_if<std::string*>(&option.to)) {
        return app.add_option(name, **value, help);
    }
    return app.add_option(name, *std::get<std::vector<std::string>*>(option.to), help);
}

// In the order in which the checks are to be made.
void add_checks(CLI::Option& added, const Option& option) {
    if (option.filled) {
        added.check(CLI::Validator(
            [](const std::string& value) { return value.empty() ? "is empty" : std::string(); },
            ""));
    }
    if (!option.choices.empty()) {
        added.check(
            CLI::IsMember(std::vector<std::string>(option.choices.begin(), option.choices.end())));
    }
}

std::vector<Added> add_options(CLI::App& app, const std::vector<Option>& options) {
    std::vector<Added> all;
    for (const Option& option : options) {
        CLI::Option* added = add_typed(app, option);
        add_checks(*added, option);
        if (!option.type.empty()) {
            added->type_name(std::string(option.type));
        }
        if (option.shows_default) {
            added->capture_default_str();
        }
        for (const std::string_view other : option.excludes) {
            added->excludes(app.get_option(std::string(other)));
        }
        if (!option.needs.empty()) {
            added->needs(app.get_option(std::string(option.needs)));
        }
        added->required(option.required);
        all.push_back({&option, added});
    }
    return all;
}

// An empty variable is one that is not set, as for most programs.
void read_environment(const std::vector<Option>& options, Settings& settings) {
    for (const Option& option : options) {
        const char* value = option.environment.empty()
                                ? nullptr
                                : std::getenv(std::string(option.environment).c_str());
        if (value == nullptr || *value == '\0') {
            continue;
        }
        settings.origins[option.name] = "$" + std::string(option.environment);
        if (std::string* const* text = std::get_if<std::string*>(&option.to)) {
            **text = value;
            continue;
        }
        const std::string_view word(value);
        const bool yes = word == "1" || word == "true" || word == "yes" || word == "on";
        if (!yes && word != "0" && word != "false" && word != "no" && word != "off") {
            throw usage_failure(std::string(option.environment) + ": '" + escape(word) +
                                "' is neither 1 nor 0");
        }
        *std::get<bool*>(option.to) = yes;
    }
}

void note_what_was_given(const std::vector<Added>& all) {
    for (const Added& added : all) {
        if (added.option->given != nullptr) {
            *added.option->given = added.parsed->count() > 0;
        }
    }
}

void add_long_names(const std::vector<Option>& options, std::vector<std::string_view>& names) {
    for (const Option& option : options) {
        if (const std::size_t at = option.name.find("--"); at != std::string_view::npos) {
            names.push_back(option.name.substr(at));
        }
    }
}

// "-s=x" is "-s x" to everybody who writes it. CLI11 would take "=x" for the value.
std::vector<std::string> readable(const Program& program, int argc, const char* const* argv) {
    std::vector<std::string> arguments(argv, argv + argc);
    for (std::size_t i = 1; i < arguments.size() && arguments[i] != "--"; ++i) {
        std::string& argument = arguments[i];
        if (argument.size() < 3 || argument[0] != '-' || argument[2] != '=') {
            continue;
        }
        for (const Option& option : program.options) {
            if (!is_flag(option) && option.name.starts_with(argument.substr(0, 2) + ",")) {
                argument.replace(0, 2, option.name.substr(3));
                break;
            }
        }
    }
    // `dedupctl help CMD` is `dedupctl CMD --help`.
    if (arguments.size() >= 2 && arguments[1] == "help") {
        arguments.erase(arguments.begin() + 1);
        arguments.emplace_back("--help");
    }
    return arguments;
}

std::string misspelt_command(const Program& program, const std::string& word) {
    std::vector<std::string_view> names;
    for (const Command& command : program.commands) {
        if (!command.hidden) {
            names.push_back(command.name);
        }
    }
    const std::string_view meant = closest(word, names);
    return "'" + escape(word) + "' is not a command" +
           (meant.empty() ? "" : "; did you mean '" + std::string(meant) + "'?");
}

std::string not_expected(const std::string& word, const Program& program, const Command* command) {
    std::vector<std::string_view> names;
    add_long_names(program.options, names);
    if (command != nullptr) {
        add_long_names(command->options, names);
    }
    const std::string_view meant =
        word.starts_with("--") ? closest(word.substr(0, word.find('=')), names) : "";
    return "'" + escape(word) + "' was not expected" +
           (meant.empty() ? "" : "; did you mean '" + std::string(meant) + "'?");
}

std::string see_help(const Command* command) {
    return std::string("\n  see `dedupctl ") +
           (command == nullptr ? "--help`, or `dedupctl help COMMAND`"
                               : "help " + std::string(command->name) + "`") +
           "; a KEY that starts with '-' goes after '--'";
}

std::string what_is_wrong(const CLI::ParseError& error, const CLI::App& app, const Program& program,
                          const Command* command) {
    std::string message = error.what();
    const std::vector<std::string> rest = app.remaining(true);
    const bool no_command =
        command == nullptr && dynamic_cast<const CLI::RequiredError*>(&error) != nullptr;
    if (no_command && (rest.empty() || !rest.front().starts_with('-'))) {
        message = rest.empty() ? "there is no command" : misspelt_command(program, rest.front());
    } else if (no_command ||
               (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr && !rest.empty())) {
        message = not_expected(rest.front(), program, command);
    } else if (dynamic_cast<const CLI::RequiredError*>(&error) != nullptr) {
        // Whoever misspelt an option has not left it out.
        const auto unknown =
            std::ranges::find_if(rest, [](const auto& word) { return word.starts_with("--"); });
        if (unknown != rest.end()) {
            message = not_expected(*unknown, program, command);
        }
    }
    return message + see_help(command);
}

std::string options_text(const std::vector<Added>& options) {
    CLI::Formatter formatter;
    std::string text;
    for (const Added& added : options) {
        text += formatter.make_option(added.parsed, false);
    }
    return text;
}

std::string footer_of(const Program& program, const Command* command,
                      const std::vector<Added>& globals) {
    std::string text;
    if (command != nullptr) {
        text += "Global options, before or after the command:\n" + options_text(globals) + "\n";
        if (!command->examples.empty()) {
            text += "Examples:\n" + std::string(command->examples) + "\n";
        }
    }
    return text + "Exit codes:\n" + program.exit_codes + "\n" + program.notes;
}

}  // namespace

const Command* parse(const Program& program, int argc, const char* const* argv, std::string& text,
                     Settings& settings) {
    CLI::App app(program.help, program.name);
    const std::vector<Added> globals = add_options(app, program.options);
    std::vector<Added> all = globals;
    app.set_version_flag("--version", program.version);
    // When a help is asked for: making all of them takes longer than a command.
    app.footer([&] { return footer_of(program, nullptr, globals); });
    app.require_subcommand(1);
    const std::vector<std::string> arguments = readable(program, argc, argv);
    std::map<const CLI::App*, const Command*> commands;
    for (const Command& command : program.commands) {
        CLI::App* added = app.add_subcommand(std::string(command.name), std::string(command.help));
        // Making the options of all commands takes a quarter of the time of a short one.
        if (std::ranges::find(arguments, command.name) != arguments.end()) {
            const std::vector<Added> more = add_options(*added, command.options);
            all.insert(all.end(), more.begin(), more.end());
        }
        added->fallthrough();  // the program's options may follow the command
        added->footer([&] { return footer_of(program, &command, globals); });
        if (command.hidden) {
            added->group("");
        }
        commands[added] = &command;
    }
    const auto chosen = [&]() -> const Command* {
        const auto named = app.get_subcommands();
        return named.empty() ? nullptr : commands.at(named.front());
    };
    try {
        read_environment(program.options, settings);
        std::vector<const char*> pointers;
        for (const std::string& argument : arguments) {
            pointers.push_back(argument.c_str());
        }
        app.parse(static_cast<int>(pointers.size()), pointers.data());
    } catch (const CLI::ParseError& error) {
        // Help and version are "parse errors" to CLI11, with exit code 0.
        if (error.get_exit_code() == 0) {
            const std::vector<std::string> rest = app.remaining();
            if (chosen() == nullptr && !rest.empty() && !rest.front().starts_with('-')) {
                throw usage_failure(misspelt_command(program, rest.front()) + see_help(nullptr));
            }
            std::ostringstream shown;
            app.exit(error, shown, shown);
            text = shown.str();
            return nullptr;
        }
        for (const Added& added : globals) {
            if (bool* const* flag = std::get_if<bool*>(&added.option->to)) {
                **flag = **flag || added.parsed->count() > 0;
            }
        }
        const Command* command = chosen();
        if (command != nullptr && command->chosen != nullptr) {
            *command->chosen = true;
        }
        throw usage_failure(what_is_wrong(error, app, program, command));
    }
    note_what_was_given(all);
    for (const Added& added : globals) {
        if (added.parsed->count() > 0) {
            settings.origins[added.option->name] = kFromCommandLine;
        }
    }
    const Command* command = chosen();
    if (command->chosen != nullptr) {
        *command->chosen = true;
    }
    return command;
}

}  // namespace dedupctl
