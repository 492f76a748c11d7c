#include "command_line.hpp"

#include <CLI/CLI.hpp>
#include <map>
#include <sstream>

#include "common/failure.hpp"
#include "common/text.hpp"

namespace dedupctl {
namespace {

struct Added {
    const Option* option;
    CLI::Option* parsed;
};

CLI::Option* add_typed(CLI::App& app, const Option& option) {
    const std::string name(option.name);
    const std::string help(option.help);
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
        if (!option.environment.empty()) {
            added->envname(std::string(option.environment));
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

void note_what_was_given(const std::vector<Added>& all) {
    for (const Added& added : all) {
        if (added.option->given != nullptr) {
            *added.option->given = added.parsed->count() > 0;
        }
    }
}

std::string what_is_wrong(const CLI::ParseError& error, const CLI::App& app) {
    std::string message = error.what();
    if (app.get_subcommands().empty() && dynamic_cast<const CLI::RequiredError*>(&error)) {
        const std::vector<std::string> rest = app.remaining();
        message = rest.empty() ? "there is no command"
                               : "'" + escape(rest.front()) + "' is not a command";
    }
    return message +
           "\n  see `dedupctl --help`, or `dedupctl COMMAND --help`; a KEY that starts with '-' "
           "goes after '--'";
}

}  // namespace

const Command* parse(const Program& program, int argc, const char* const* argv, std::string& text) {
    CLI::App app(program.help, program.name);
    std::vector<Added> all = add_options(app, program.options);
    app.set_version_flag("--version", program.version);
    app.footer(program.footer);
    app.require_subcommand(1);
    std::map<const CLI::App*, const Command*> commands;
    for (const Command& command : program.commands) {
        CLI::App* added = app.add_subcommand(std::string(command.name), std::string(command.help));
        const std::vector<Added> more = add_options(*added, command.options);
        all.insert(all.end(), more.begin(), more.end());
        added->fallthrough();  // the program's options may follow the command
        commands[added] = &command;
    }
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        // Help and version are "parse errors" to CLI11, with exit code 0.
        if (error.get_exit_code() == 0) {
            std::ostringstream shown;
            app.exit(error, shown, shown);
            text = shown.str();
            return nullptr;
        }
        for (std::size_t i = 0; i < program.options.size(); ++i) {
            if (bool* const* flag = std::get_if<bool*>(&all[i].option->to)) {
                **flag = all[i].parsed->count() > 0;
            }
        }
        throw usage_failure(what_is_wrong(error, app));
    }
    note_what_was_given(all);
    return commands.at(app.get_subcommands().front());
}

}  // namespace dedupctl
