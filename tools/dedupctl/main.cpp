// dedupctl: inspects and operates a store. docs/dedupctl.md is its reference.

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <exception>
#include <new>
#include <sstream>

#include "commands.hpp"
#include "dedup/version.hpp"
#include "text.hpp"

namespace dedupctl {
namespace {

void add_globals(CLI::App& app, Context& context) {
    app.add_option("-s,--store", context.store_path, "Directory of the store, or postgresql://... URL")
        ->envname("DEDUP_STORE")
        ->type_name("PATH")
        ->capture_default_str();
    app.add_option("-n,--namespace", context.ns, "Namespace of the keys")
        ->type_name("NS")
        ->capture_default_str();
    app.add_flag("--json", context.json, "Print one JSON object, or one a line");
    app.add_option("--lock-timeout", context.lock_timeout_text,
                   "How long to wait for another process that writes to the store")
        ->check(not_empty())
        ->type_name("D")
        ->capture_default_str();
    app.set_version_flag("--version", "dedupctl " + std::string(dedup::version()));
    app.footer(
        "Durations D are 500ms, 30s, 15m, 24h, 7d or 1h30m. A KEY that starts with '-' goes after "
        "'--'.\nExit codes: 0 done, 1 error, 2 usage error, 10 in flight, 11 completed or "
        "duplicate,\n12 other fingerprint, 13 absent, 14 stale claim or other receipt.");
}

void add_commands(CLI::App& app, Context& context) {
    add_init(app, context);
    add_claim(app, context);
    add_complete(app, context);
    add_release(app, context);
    add_renew(app, context);
    add_lookup(app, context);
    add_remember(app, context);
    add_inspect(app, context);
    add_ls(app, context);
    add_sweep(app, context);
    add_stats(app, context);
    add_clock(app, context);
    add_watch(app, context);
    add_export(app, context);
    add_import(app, context);
    add_verify(app, context);
    add_repair(app, context);
    add_hash(app, context);
    add_filter(app, context);
    add_exec(app, context);
    add_bench(app, context);
    app.require_subcommand(1);
    for (CLI::App* command : app.get_subcommands({})) {
        command->fallthrough();  // global options may follow the command
    }
}

// Help and version are "parse errors" to CLI11, with exit code 0; every real one is ours: 2.
int end_parse(const CLI::ParseError& error, CLI::App& app, Context& context) {
    if (error.get_exit_code() == 0) {
        std::ostringstream text;
        app.exit(error, text, text);
        context.out.write(text.str());
        context.out.flush();
        return kExitOk;
    }
    const bool json = app.get_option("--json")->count() > 0;
    std::string message = error.what();
    if (app.get_subcommands().empty() && dynamic_cast<const CLI::RequiredError*>(&error)) {
        const std::vector<std::string> rest = app.remaining();
        message = rest.empty() ? "there is no command"
                               : "'" + escape(rest.front()) + "' is not a command";
    }
    report(usage_failure(message +
                         "\n  see `dedupctl --help`, or `dedupctl COMMAND --help`; a KEY that "
                         "starts with '-' goes after '--'"),
           json, context.out);
    return kExitUsage;
}

int run(CLI::App& app, Context& context, int argc, char** argv) {
    try {
        app.parse(argc, argv);
        context.out.flush();
        return context.exit_code;
    } catch (const CLI::ParseError& error) {
        return end_parse(error, app, context);
    }
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
    CLI::App app("Has this idempotency key been handled? Inspects and operates a dedup store.",
                 "dedupctl");
    add_globals(app, context);
    add_commands(app, context);
    try {
        return run(app, context, argc, argv);
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

CLI::Validator not_empty() {
    return CLI::Validator(
        [](const std::string& value) { return value.empty() ? "is empty" : std::string(); }, "");
}

}  // namespace dedupctl

int main(int argc, char** argv) {
    return dedupctl::guarded_main(argc, argv);
}
