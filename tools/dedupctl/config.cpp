// dedupctl config: what the global options are, and who says so.

#include "commands.hpp"
#include "common/text.hpp"
#include "table.hpp"

namespace dedupctl {
namespace {

std::string value_of(const Option& option, const Context& context) {
    if (const bool* const* flag = std::get_if<bool*>(&option.to)) {
        return **flag ? "true" : "false";
    }
    const std::string& value = *std::get<std::string*>(option.to);
    return &value == &context.store_path ? context.shown_store() : value;
}

// Why other commands refuse these options; empty: they do not.
std::string problem_of(Context& context) {
    try {
        context.check_globals();
        return "";
    } catch (const Failure& failure) {
        return failure.message;
    }
}

int run_config(const Program& program, Context& context) {
    const Settings& settings = context.settings;
    const std::string problem = problem_of(context);
    const int exit_code = problem.empty() ? kExitOk : kExitUsage;
    Table table({{"OPTION"}, {"VALUE"}, {"FROM"}});
    Json options = Json::array();
    for (const Option& option : program.options) {
        const std::string name(long_name(option));
        const auto found = settings.origins.find(option.name);
        const std::string from = found == settings.origins.end() ? "default" : found->second;
        const std::string value = value_of(option, context);
        table.add({{name}, {escape(value)}, {escape(from)}});
        options.push_back({{"name", name}, {"value", value}, {"from", from}});
    }
    Json files = Json::array();
    for (const Settings::File& file : settings.files) {
        files.push_back({{"path", file.path}, {"is_there", file.is_there}});
    }
    if (context.json) {
        context.out.json({{"options", options},
                          {"files", files},
                          {"problem", problem.empty() ? Json(nullptr) : Json(problem)}});
        return exit_code;
    }
    table.print(context.out);
    context.out.line("");
    for (const Settings::File& file : settings.files) {
        context.out.line((file.is_there ? "read      " : "not there ") + escape(file.path));
    }
    if (!problem.empty()) {
        context.out.flush();
        note(problem);
    }
    return exit_code;
}

}  // namespace

Command config_command(Context& context, const Program& program) {
    return {.name = "config",
            .help =
                "Show the global options, and whether a file, the environment or the command "
                "line says so",
            .run = [&program, &context] { return run_config(program, context); }};
}

}  // namespace dedupctl
