// dedupctl generate: completions for shells and the manual page, from the tables that the parser
// reads, so that they never differ from it. Run by the build.

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "commands.hpp"

namespace dedupctl {
namespace {

// "-s" and "--store" of "-s,--store".
std::vector<std::string_view> names_of(const Option& option) {
    std::vector<std::string_view> names;
    std::string_view rest = option.name;
    while (!rest.empty()) {
        const std::size_t comma = std::min(rest.find(','), rest.size());
        names.push_back(rest.substr(0, comma));
        rest.remove_prefix(std::min(comma + 1, rest.size()));
    }
    return names;
}

std::string replaced(std::string_view text, char what, std::string_view with) {
    std::string out;
    for (const char c : text) {
        c == what ? out.append(with) : out.append(1, c);
    }
    return out;
}

std::vector<const Command*> shown_commands(const Program& program) {
    std::vector<const Command*> commands;
    for (const Command& command : program.commands) {
        if (!command.hidden) {
            commands.push_back(&command);
        }
    }
    return commands;
}

// All that may follow a command, its own options first.
std::vector<const Option*> options_of(const Program& program, const Command& command) {
    std::vector<const Option*> options;
    for (const std::vector<Option>* list : {&command.options, &program.options}) {
        for (const Option& option : *list) {
            if (!is_argument(option)) {
                options.push_back(&option);
            }
        }
    }
    return options;
}

std::string words_of(const std::vector<const Option*>& options) {
    std::string words;
    for (const Option* option : options) {
        for (const std::string_view name : names_of(*option)) {
            words.append(name).append(" ");
        }
    }
    return words + "--help";
}

std::string with_value(const Program& program) {
    std::string names;
    const auto add = [&](const std::vector<Option>& options) {
        for (const Option& option : options) {
            for (const std::string_view name : names_of(option)) {
                if (!is_argument(option) && !is_flag(option)) {
                    names.append(names.empty() ? "" : "|").append(name);
                }
            }
        }
    };
    add(program.options);
    for (const Command* command : shown_commands(program)) {
        add(command->options);
    }
    return names;
}

std::string bash_script(const Program& program) {
    std::string names;
    std::string cases;
    std::string choices;
    for (const Command* command : shown_commands(program)) {
        names.append(command->name).append(" ");
        cases += fmt::format("        {}) words='{}' ;;\n", command->name,
                             words_of(options_of(program, *command)));
        for (const Option& option : command->options) {
            if (!option.choices.empty()) {
                choices += fmt::format("        {}:{}) words='{}' ;;\n", command->name,
                                       names_of(option).back(), fmt::join(option.choices, " "));
            }
        }
    }
    std::vector<const Option*> globals;
    for (const Option& option : program.options) {
        globals.push_back(&option);
    }
    return fmt::format(R"(# bash completion for {0}; made by the build
_{0}() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
    local command= word words= i
    for ((i = 1; i < COMP_CWORD; ++i)); do
        word=${{COMP_WORDS[i]}}
        case $word in
        --) COMPREPLY=($(compgen -c -- "$current")); return ;;
        {1}) ((++i)) ;;
        -*) ;;
        *) command=$word; break ;;
        esac
    done
    case $command:$previous in
{2}    esac
    if [[ -z $words ]]; then
        case $previous in
        {1}) compopt -o default; COMPREPLY=(); return ;;
        esac
        case $command in
        '') words='{3}help {4} --version' ;;
        help) words='{3}' ;;
{5}        esac
        if [[ -n $command && $command != help && $current != -* ]]; then
            compopt -o default; COMPREPLY=(); return
        fi
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -F _{0} {0}
)",
                       program.name, with_value(program), choices, names, words_of(globals), cases);
}

// In zsh's description of an option: quotes, brackets and colons mean something.
std::string zsh_text(std::string_view text) {
    std::string out;
    for (const char c : text) {
        if (c == '\'') {
            out += "'\\''";
            continue;
        }
        out += c == '[' || c == ']' || c == ':' ? "\\" : "";
        out += c;
    }
    return out;
}

std::string zsh_options(const std::vector<const Option*>& options) {
    std::string text;
    for (const Option* option : options) {
        const auto names = names_of(*option);
        std::string value;
        if (!is_flag(*option)) {
            value = option->choices.empty() ? fmt::format(":{}:_files", zsh_text(option->type))
                                            : fmt::format(":{}:({})", zsh_text(option->type),
                                                          fmt::join(option->choices, " "));
        }
        text += names.size() == 1
                    ? fmt::format(" \\\n                '{}[{}]{}'", names[0],
                                  zsh_text(option->help), value)
                    : fmt::format(" \\\n                '({0} {1})'{{{0},{1}}}'[{2}]{3}'", names[0],
                                  names[1], zsh_text(option->help), value);
    }
    return text;
}

std::string zsh_script(const Program& program) {
    std::string names;
    std::string cases;
    for (const Command* command : shown_commands(program)) {
        names += fmt::format("        '{}:{}'\n", command->name, zsh_text(command->help));
        cases += fmt::format(
            "            {})\n            _arguments{} \\\n                "
            "'*::argument:_normal'\n            ;;\n",
            command->name, zsh_options(options_of(program, *command)));
    }
    std::vector<const Option*> globals;
    for (const Option& option : program.options) {
        globals.push_back(&option);
    }
    return fmt::format(R"(#compdef {0}
# Made by the build.
_{0}() {{
    local state line
    local -a commands=(
{1}    )
    _arguments -C{2} \
                '1:command:->command' '*::argument:->rest'
    case $state in
        command) _describe command commands ;;
        rest)
        case $words[1] in
{3}        esac
        ;;
    esac
}}
_{0} "$@"
)",
                       program.name, names, zsh_options(globals), cases);
}

std::string fish_option(std::string_view program, const std::string& condition,
                        const Option& option) {
    std::string line = fmt::format("complete -c {}{}", program, condition);
    for (const std::string_view name : names_of(option)) {
        line += name.starts_with("--") ? fmt::format(" -l {}", name.substr(2))
                                       : fmt::format(" -s {}", name.substr(1));
    }
    if (!is_flag(option)) {
        line += option.choices.empty() ? " -r"
                                       : fmt::format(" -x -a '{}'", fmt::join(option.choices, " "));
    }
    return line + fmt::format(" -d '{}'\n", replaced(option.help, '\'', "\\'"));
}

std::string fish_script(const Program& program) {
    std::string text = fmt::format("# fish completion for {}; made by the build\n", program.name);
    for (const Option& option : program.options) {
        text += fish_option(program.name, "", option);
    }
    for (const Command* command : shown_commands(program)) {
        text += fmt::format("complete -c {} -n __fish_use_subcommand -f -a {} -d '{}'\n",
                            program.name, command->name, replaced(command->help, '\'', "\\'"));
        const std::string condition =
            fmt::format(" -n '__fish_seen_subcommand_from {}'", command->name);
        for (const Option& option : command->options) {
            if (!is_argument(option)) {
                text += fish_option(program.name, condition, option);
            }
        }
    }
    return text;
}

// A line of a manual page: dashes are minus signs, a dot at its beginning is no command.
std::string roff(std::string_view text) {
    std::string out = replaced(replaced(text, '\\', "\\e"), '-', "\\-");
    return out.starts_with('.') || out.starts_with('\'') ? "\\&" + out : out;
}

std::string roff_lines(std::string_view text) {
    std::string out;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find('\n'), text.size());
        out += roff(text.substr(0, end)) + "\n";
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return out;
}

std::string man_options(const std::vector<Option>& options) {
    std::string text;
    for (const Option& option : options) {
        std::string names;
        for (const std::string_view name : names_of(option)) {
            names += (names.empty() ? "\\fB" : ", \\fB") + roff(name) + "\\fR";
        }
        if (!option.type.empty()) {
            names += " \\fI" + roff(option.type) + "\\fR";
        }
        text += ".TP\n" + names + "\n" + roff(option.help);
        if (!option.environment.empty()) {
            text += fmt::format(" (environment: \\fB{}\\fR)", roff(option.environment));
        }
        text += "\n";
    }
    return text;
}

std::string man_page(const Program& program) {
    std::string text = fmt::format(
        ".TH {} 1 \"\" \"{}\"\n.SH NAME\n{} \\- {}\n.SH SYNOPSIS\n.B {}\n[global options] "
        "\\fICOMMAND\\fR [options] [arguments]\n",
        replaced(program.name, '-', "\\-"), roff(program.version), program.name, roff(program.help),
        program.name);
    text += ".SH COMMANDS\n";
    for (const Command* command : shown_commands(program)) {
        text += fmt::format(".SS {}\n{}.\n{}", command->name, roff(command->help),
                            man_options(command->options));
        if (!command->examples.empty()) {
            text += ".PP\n.nf\n" + roff_lines(command->examples) + ".fi\n";
        }
    }
    text += ".SH GLOBAL OPTIONS\n" + man_options(program.options);
    text += ".SH EXIT STATUS\n.nf\n" + roff_lines(program.exit_codes) + ".fi\n";
    return text + ".SH NOTES\n" + roff_lines(program.notes);
}

}  // namespace

Command generate_command(Context& context, const Program& program) {
    const auto what = std::make_shared<std::string>();
    return {.name = "generate",
            .help = "Write completions for a shell, or the manual page",
            .options = {{.name = "WHAT",
                         .to = what.get(),
                         .help = "bash, zsh, fish or man",
                         .required = true,
                         .choices = {"bash", "zsh", "fish", "man"}}},
            .run =
                [what, &context, &program] {
                    context.out.write(*what == "bash"   ? bash_script(program)
                                      : *what == "zsh"  ? zsh_script(program)
                                      : *what == "fish" ? fish_script(program)
                                                        : man_page(program));
                    return kExitOk;
                },
            .hidden = true};
}

}  // namespace dedupctl
