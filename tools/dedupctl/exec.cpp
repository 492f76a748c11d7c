// dedupctl exec: runs a command once, however often it is asked to.
//
// The store is open only for the claim, each renewal and the completion: other processes can use
// it while the command runs.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>

#include "claim_and_wait.hpp"
#include "claimed_run.hpp"
#include "commands.hpp"
#include "common/text.hpp"
#include "outcome.hpp"

namespace dedupctl {
namespace {

struct ExecArguments {
    std::string key;
    std::string lease = "60s";
    std::string ttl;
    std::string owner;
    std::string wait;
    std::string timeout;
    std::string on_duplicate = "replay";
    std::string in_flight_exit = "10";
    std::string output_limit = "1MiB";
    std::string attempts_max;
    bool no_output = false;
    bool hold = false;
    std::vector<std::string> command;  // for --help; the arguments are taken as they came
};

// Everything behind the first "--". Not through the option parser, which gives a meaning to
// arguments such as "[a,b]".
std::vector<std::string> command_of(const Context& context) {
    const auto& arguments = context.arguments;
    const auto mark = std::find(arguments.begin(), arguments.end(), "--");
    if (mark == arguments.end() || mark + 1 == arguments.end()) {
        throw usage_failure(
            "exec: write the command after '--', as in `dedupctl exec --key KEY "
            "-- CMD ...`");
    }
    return {mark + 1, arguments.end()};
}

std::string process_name() {
    std::array<char, 256> host{};
    if (::gethostname(host.data(), host.size() - 1) != 0) {
        host[0] = '\0';
    }
    return fmt::format("{}:{}", host.data(), ::getpid());
}

ExecJob make_job(const ExecArguments& options, const Context& context) {
    ExecJob job;
    job.key = options.key;
    job.lease = parse_duration(options.lease, "--lease");
    job.wait = options.wait.empty() ? milliseconds{0} : parse_duration(options.wait, "--wait");
    job.on_duplicate = options.on_duplicate;
    job.in_flight_exit =
        static_cast<int>(parse_number(options.in_flight_exit, "--in-flight-exit", 0, 255));
    job.stores_output = !options.no_output;
    job.claim.lease = job.lease;
    set_policy(job.claim, options.hold, options.attempts_max);
    job.claim.owner = options.owner.empty() ? process_name() : options.owner;
    if (!options.ttl.empty()) {
        job.claim.ttl = parse_ttl(options.ttl);
    }
    job.child.command = command_of(context);
    const std::size_t limit =
        parse_size(options.output_limit, "--output-limit", dedup::kReceiptBytesMax);
    job.child.output_bytes_max = options.no_output ? 0 : limit;
    // With --json, standard output is one object, and the command's output is in it.
    job.child.pass_output_on = !context.json;
    job.child.ignore_sigpipe = context.sigpipe_was_ignored;
    if (!options.timeout.empty()) {
        job.child.timeout = parse_duration(options.timeout, "--timeout");
    }
    return job;
}

// The size that the output had, if the metadata of a completed key says that it was cut. The key
// may have been completed by something else, so the metadata may be anything.
std::optional<std::uint64_t> cut_output_bytes(const std::string& metadata) {
    const auto parsed = nlohmann::json::parse(metadata, nullptr, false);
    const auto member = [&parsed](const char* name) {
        return parsed.is_object() && parsed.contains(name) ? parsed[name] : nlohmann::json();
    };
    const nlohmann::json bytes = member("stdout_bytes");
    if (member("stdout_cut") != true || !bytes.is_number_unsigned()) {
        return std::nullopt;
    }
    return bytes.get<std::uint64_t>();
}

void tell(const Context& context, const std::string& text) {
    if (!context.quiet) {
        note(text);
    }
}

int say_done(Context& context, const ExecJob& job, dedup::Completed completed) {
    const bool fails = job.on_duplicate == "fail";
    const auto cut = cut_output_bytes(completed.metadata);
    if (context.json) {
        Json object = completed_json(context, job.key, completed, "duplicate");
        object["output_cut"] = cut.has_value();
        context.out.json(object);
    } else if (job.on_duplicate == "replay") {
        print_completed(context, job.key, completed, "duplicate", dedup::system_now_ms());
        context.out.flush();
    } else if (fails) {
        tell(context, "not run: the command ran to its end " +
                          format_time_and_age(completed.completed_at_ms, dedup::system_now_ms()));
    }
    if (cut && job.on_duplicate == "replay") {
        tell(context, fmt::format("the command ran before and wrote {} bytes, of which only the "
                                  "first {} are stored and were replayed",
                                  group_digits(*cut), group_digits(completed.receipt.size())));
    }
    return fails ? kExitCompleted : kExitOk;
}

int say_running(Context& context, const ExecJob& job, const dedup::InFlight& in_flight) {
    const std::int64_t now_ms = dedup::system_now_ms();
    if (context.json) {
        print_in_flight(context, job.key, in_flight, now_ms);
    } else {
        tell(context, fmt::format("not run: the key is in-flight, claimed by {} since {}",
                                  in_flight.owner.empty() ? "somebody" : escape(in_flight.owner),
                                  format_time_and_age(in_flight.since_ms, now_ms)));
    }
    return job.in_flight_exit;
}

int claim_and_run(const ExecJob& job, Context& context) {
    SignalPipe signals({SIGCHLD, SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2},
                       SecondSignal::queued);
    std::optional<int> signal;
    const auto stopped = [&] {
        const auto taken = signals.take();
        if (taken && taken->number != SIGCHLD) {
            signal = taken->number;
        }
        return signal.has_value();
    };
    ClaimAnswer answer;
    try {
        answer = claim_and_wait(context, job.key, job.claim, job.wait, stopped);
    } catch (const Failure&) {
        if (signal) {  // which ended the wait for the store
            throw Failure{.exit_code = kExitSignalBase + *signal,
                          .code = "interrupted",
                          .message = fmt::format("not run: ended by signal {}", *signal)};
        }
        throw;
    }
    if (const auto* claimed = std::get_if<dedup::Claimed>(&answer.outcome)) {
        return run_claimed(context, job, *claimed, signals);
    }
    if (signal) {
        throw Failure{.exit_code = kExitSignalBase + *signal,
                      .code = "interrupted",
                      .message = fmt::format("not run: ended by signal {}", *signal)};
    }
    if (const auto* completed = std::get_if<dedup::Completed>(&answer.outcome)) {
        return say_done(context, job, *completed);
    }
    if (const auto* in_flight = std::get_if<dedup::InFlight>(&answer.outcome)) {
        return say_running(context, job, *in_flight);
    }
    if (const auto* held = std::get_if<dedup::Held>(&answer.outcome)) {
        return print_held(context, job.key, *held, dedup::system_now_ms(), Explain::on_error);
    }
    return print_mismatch(context, job.key, std::get<dedup::Mismatch>(answer.outcome),
                          dedup::system_now_ms());
}

int run_exec(const ExecArguments& options, Context& context) {
    context.check_globals();
    context.check_key(options.key);
    return claim_and_run(make_job(options, context), context);
}

}  // namespace

Command exec_command(Context& context) {
    const auto options = std::make_shared<ExecArguments>();
    return {
        .name = "exec",
        .help = "Run a command once; then replay its output",
        .options = {{.name = "--key",
                     .to = &options->key,
                     .help = "What stands for this run of the command",
                     .type = "KEY",
                     .required = true},
                    {.name = "--lease",
                     .to = &options->lease,
                     .help = "If dedupctl dies, others may run the command after this long",
                     .type = "D",
                     .filled = true,
                     .shows_default = true},
                    {.name = "--hold",
                     .to = &options->hold,
                     .help = "If dedupctl dies, nobody runs it again by itself, see `held`"},
                    {.name = "--attempts-max",
                     .to = &options->attempts_max,
                     .help = "If it fails this often, nobody runs it again by itself, see `held`",
                     .type = "N",
                     .filled = true},
                    {.name = "--ttl",
                     .to = &options->ttl,
                     .help = "Forget it after this long (24h), or 'never'",
                     .type = "D",
                     .filled = true},
                    {.name = "--owner",
                     .to = &options->owner,
                     .help = "Who runs it; for people (host:pid)",
                     .type = "O",
                     .filled = true},
                    {.name = "--wait",
                     .to = &options->wait,
                     .help = "If it runs elsewhere, wait this long for it to end",
                     .type = "D",
                     .filled = true},
                    {.name = "--timeout",
                     .to = &options->timeout,
                     .help = "End the command after this long: SIGTERM, and SIGKILL 10s later",
                     .type = "D",
                     .filled = true},
                    {.name = "--on-duplicate",
                     .to = &options->on_duplicate,
                     .help = "If it ran before: replay its output, be quiet, or fail with 11",
                     .type = "WHAT",
                     .shows_default = true,
                     .choices = {"replay", "quiet", "fail"}},
                    {.name = "--in-flight-exit",
                     .to = &options->in_flight_exit,
                     .help = "Exit code if it runs elsewhere, 0 to 255",
                     .type = "N",
                     .filled = true,
                     .shows_default = true},
                    {.name = "--output-limit",
                     .to = &options->output_limit,
                     .help = "How much of the command's output is stored, at most 16MiB",
                     .type = "SIZE",
                     .shows_default = true},
                    {.name = "--no-output",
                     .to = &options->no_output,
                     .help = "Store none of the command's output; a duplicate prints nothing"},
                    {.name = "CMD",
                     .to = &options->command,
                     .help = "The command and its arguments, after '--'; it gets DEDUP_STORE, "
                             "DEDUP_NAMESPACE, DEDUP_KEY, DEDUP_CLAIM and DEDUP_ATTEMPT"}},
        .run = [options, &context] { return run_exec(*options, context); },
        .examples =
            "  dedupctl exec --key \"invoices-$(date +%F)\" --lease 5m -- ./send-invoices\n"
            "  dedupctl exec --key \"deploy-$SHA\" --ttl never --wait 10m -- make deploy\n"
            "  dedupctl exec --key nightly --ttl 20h --on-duplicate quiet "
            "--in-flight-exit 0 -- ./nightly\n",
        .error_exit = kExitExecError};
}

}  // namespace dedupctl
