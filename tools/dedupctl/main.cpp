// dedupctl: inspects and operates a store. docs/dedupctl.md is its reference.

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "command_line.hpp"
#include "commands.hpp"
#include "commit.hpp"
#include "dedup/version.hpp"

namespace dedupctl {
namespace {

// A build from an archive does not know its commit.
std::string commit_text() {
    const std::string_view commit = kCommit;
    return commit.empty() ? "" : " (" + std::string(commit) + ")";
}

std::vector<Option> global_options(Context& context) {
    return {
        {.name = "-s,--store",
         .to = &context.store_path,
         .help = "Directory of the store, or URL: postgresql://..., unix:SOCKET, tcp://HOST:PORT",
         .type = "PATH",
         .shows_default = true,
         .environment = "DEDUP_STORE"},
        {.name = "-n,--namespace",
         .to = &context.ns,
         .help = "Namespace of the keys",
         .type = "NS",
         .shows_default = true,
         .environment = "DEDUP_NAMESPACE",
         .given = &context.ns_given},
        {.name = "--json",
         .to = &context.json,
         .help = "Print one JSON object, or one a line",
         .environment = "DEDUP_JSON"},
        {.name = "--lock-timeout",
         .to = &context.lock_timeout_text,
         .help = "How long to wait for another process that writes to the store",
         .type = "D",
         .filled = true,
         .shows_default = true,
         .environment = "DEDUP_LOCK_TIMEOUT"},
        {.name = "--must-exist",
         .to = &context.must_exist,
         .help = "Make no store where there is none: that is an error",
         .environment = "DEDUP_MUST_EXIST"},
        {.name = "--utc",
         .to = &context.utc,
         .help = "Show times in UTC, not in local time",
         .environment = "DEDUP_UTC"},
        {.name = "-q,--quiet",
         .to = &context.quiet,
         .help = "No progress, no summaries, no hints; errors all the same",
         .environment = "DEDUP_QUIET"}};
}

// In the order of the help.
std::vector<Command> all_commands(Context& context) {
    std::vector<Command> commands;
    for (Command (*make)(Context&) :
         {init_command,       claim_command,  complete_command, release_command, renew_command,
          note_command,       hold_command,   held_command,     resolve_command, forget_command,
          lookup_command,     done_command,   remember_command, inspect_command, ls_command,
          namespaces_command, who_command,    sweep_command,    stats_command,   report_command,
          clock_command,      watch_command,  export_command,   import_command,  migrate_command,
          verify_command,     repair_command, backup_command,   restore_command, dump_command,
          hash_command,       filter_command, exec_command,     serve_command,   user_command,
          bench_command}) {
        commands.push_back(make(context));
    }
    return commands;
}

Program whole_program(Context& context) {
    return {.name = "dedupctl",
            .help = "Has this idempotency key been handled? Inspects and operates a dedup store.",
            .version = "dedupctl " + std::string(dedup::version()) + commit_text(),
            .notes =
                "Durations D are 500ms, 30s, 15m, 24h, 7d or 1h30m. A KEY that starts with "
                "'-' goes after '--'.",
            .exit_codes = exit_codes_text(),
            .options = global_options(context),
            .commands = all_commands(context)};
}

int run(const Program& program, Context& context, int argc, char** argv) {
    std::string text;
    const Command* command = parse(program, argc, argv, text, context.settings);
    context.error_exit = command == nullptr ? kExitError : command->error_exit;
    if (command != nullptr && !command->hidden) {
        read_config_files(program.options, context.store_path, context.settings);
    }
    const int exit_code = command == nullptr ? kExitOk : command->run();
    context.out.write(text);
    context.out.flush();
    return exit_code;
}

// If a standard file is closed, the store's files would get its number and our output would go
// into them. Reading gives the end then, and writing an error.
void occupy_standard_files() {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
        if (::fcntl(fd, F_GETFD) == -1 && errno == EBADF) {
            static_cast<void>(::open("/dev/null", O_RDONLY));
        }
    }
}

int guarded_main(int argc, char** argv) {
    occupy_standard_files();
    Context context;
    // Writing into a closed pipe shall be an error that we see, not the end of the process.
    context.sigpipe_was_ignored = std::signal(SIGPIPE, SIG_IGN) == SIG_IGN;
    context.arguments.assign(argv + (argc > 0 ? 1 : 0), argv + argc);
    try {
        Program program = whole_program(context);
        program.commands.push_back(config_command(context, program));
        program.commands.push_back(generate_command(context, program));
        return run(program, context, argc, argv);
    } catch (const Failure& failure) {
        report(failure, context);
        return failure.exit_code == kExitError ? context.error_exit : failure.exit_code;
    } catch (const std::bad_alloc&) {
        report({.exit_code = kExitError, .code = "out_of_memory", .message = "out of memory"},
               context);
    } catch (const std::exception& error) {
        report({.exit_code = kExitError, .code = "internal", .message = error.what()}, context);
    }
    return context.error_exit;
}

}  // namespace

}  // namespace dedupctl

int main(int argc, char** argv) {
    return dedupctl::guarded_main(argc, argv);
}
