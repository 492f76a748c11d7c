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
#include "dedup/version.hpp"

namespace dedupctl {
namespace {

std::vector<Option> global_options(Context& context) {
    return {{.name = "-s,--store",
             .to = &context.store_path,
             .help = "Directory of the store, or postgresql://... URL",
             .type = "PATH",
             .shows_default = true,
             .environment = "DEDUP_STORE"},
            {.name = "-n,--namespace",
             .to = &context.ns,
             .help = "Namespace of the keys",
             .type = "NS",
             .shows_default = true,
             .given = &context.ns_given},
            {.name = "--json", .to = &context.json, .help = "Print one JSON object, or one a line"},
            {.name = "--lock-timeout",
             .to = &context.lock_timeout_text,
             .help = "How long to wait for another process that writes to the store",
             .type = "D",
             .filled = true,
             .shows_default = true}};
}

// In the order of the help.
std::vector<Command> all_commands(Context& context) {
    std::vector<Command> commands;
    for (Command (*make)(Context&) :
         {init_command,   claim_command,    complete_command, release_command, renew_command,
          lookup_command, remember_command, inspect_command,  ls_command,      sweep_command,
          stats_command,  clock_command,    watch_command,    export_command,  import_command,
          verify_command, repair_command,   dump_command,     hash_command,    filter_command,
          exec_command,   serve_command,    bench_command}) {
        commands.push_back(make(context));
    }
    return commands;
}

Program whole_program(Context& context) {
    return {.name = "dedupctl",
            .help = "Has this idempotency key been handled? Inspects and operates a dedup store.",
            .version = "dedupctl " + std::string(dedup::version()),
            .footer =
                "Durations D are 500ms, 30s, 15m, 24h, 7d or 1h30m. A KEY that starts with "
                "'-' goes after '--'.\nExit codes: 0 done, 1 error, 2 usage error, 10 in "
                "flight, 11 completed or duplicate,\n12 other fingerprint, 13 absent, 14 "
                "stale claim or other receipt.",
            .options = global_options(context),
            .commands = all_commands(context)};
}

int run(const Program& program, Context& context, int argc, char** argv) {
    std::string text;
    const Command* command = parse(program, argc, argv, text);
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
        return run(whole_program(context), context, argc, argv);
    } catch (const Failure& failure) {
        report(failure, context.json, context.out);
        return failure.exit_code;
    } catch (const std::bad_alloc&) {
        report({.exit_code = kExitError, .code = "out_of_memory", .message = "out of memory"},
               context.json, context.out);
        return kExitError;
    } catch (const std::exception& error) {
        report({.exit_code = kExitError, .code = "internal", .message = error.what()}, context.json,
               context.out);
        return kExitError;
    }
}

}  // namespace

}  // namespace dedupctl

int main(int argc, char** argv) {
    return dedupctl::guarded_main(argc, argv);
}
