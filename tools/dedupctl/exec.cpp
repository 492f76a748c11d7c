// dedupctl exec: runs a command once, however often it is asked to.
//
// The store is open only for the claim, each renewal and the completion: other processes can use
// it while the command runs.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>

#include "child.hpp"
#include "commands.hpp"
#include "common/text.hpp"
#include "lease_keeper.hpp"
#include "outcome.hpp"

namespace dedupctl {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

// How long to wait in silence for another writer before saying what we wait for.
constexpr milliseconds kSilentWait{2000};

struct ExecArguments {
    std::string key;
    std::string lease = "60s";
    std::string ttl;
    std::string output_limit = "1MiB";
    std::vector<std::string> command;  // for --help; the arguments are taken as they came
};

struct Job {
    std::string key;
    milliseconds lease{0};
    dedup::ClaimOptions claim;
    ChildOptions child;
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

Job make_job(const ExecArguments& options, const Context& context) {
    Job job;
    job.key = options.key;
    job.lease = parse_duration(options.lease, "--lease");
    job.claim.lease = job.lease;
    job.claim.owner = process_name();
    if (!options.ttl.empty()) {
        job.claim.ttl = parse_ttl(options.ttl);
    }
    job.child.command = command_of(context);
    job.child.output_bytes_max =
        parse_size(options.output_limit, "--output-limit", dedup::kReceiptBytesMax);
    // With --json, standard output is one object, and the command's output is in it.
    job.child.pass_output_on = !context.json;
    job.child.ignore_sigpipe = context.sigpipe_was_ignored;
    return job;
}

dedup::ClaimOutcome claim_once(const Context& context, const Job& job) {
    const auto store = context.open_writer();
    dedup::ClaimOutcome outcome = take(context.cache(*store).claim(job.key, job.claim));
    take(store->close());
    return outcome;
}

std::string metadata_of(const ChildEnd& end) {
    Json metadata;
    metadata["exit"] = 0;
    if (end.output_cut()) {
        metadata["stdout_cut"] = true;
        metadata["stdout_bytes"] = end.output_bytes;
    }
    return metadata.dump();
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

int replay(Context& context, const Job& job, const dedup::Completed& completed) {
    print_completed(context, job.key, completed, "duplicate", dedup::system_now_ms());
    context.out.flush();
    if (const auto bytes = cut_output_bytes(completed.metadata)) {
        throw Failure{.exit_code = kExitError,
                      .code = "output_cut",
                      .message = fmt::format("the command ran before and wrote {} bytes, of which "
                                             "only the first {} are stored and were replayed",
                                             *bytes, completed.receipt.size())};
    }
    return kExitOk;
}

int say_running(Context& context, const Job& job, const dedup::InFlight& in_flight) {
    const std::int64_t now_ms = dedup::system_now_ms();
    if (context.json) {
        return print_in_flight(context, job.key, in_flight, now_ms);
    }
    note(fmt::format("not run: the key is in flight, claimed by {} since {}",
                     in_flight.owner.empty() ? "somebody" : escape(in_flight.owner),
                     format_time_and_age(in_flight.since_ms, now_ms)));
    return kExitInFlight;
}

// The work is done, and nobody will do it again for us: wait at least as long as the lease for a
// process that holds the store.
std::unique_ptr<dedup::StreamStore> open_to_complete(const Context& context, milliseconds lease) {
    const SteadyTime until =
        std::chrono::steady_clock::now() +
        std::min<milliseconds>(std::max(lease, context.lock_timeout), std::chrono::hours{24});
    auto store = context.try_open_writer(kSilentWait);
    bool said = false;
    while (!store && store.error().code == dedup::Code::busy &&
           std::chrono::steady_clock::now() < until) {
        if (!said) {
            said = true;
            note("the command has ended well; waiting to record that: " + store.error().message);
        }
        store = context.try_open_writer(kSilentWait);
    }
    return take(std::move(store));
}

void complete(const Context& context, const Job& job, const dedup::Claim& claim,
              const ChildEnd& end) {
    try {
        const auto store = open_to_complete(context, job.lease);
        take(context.cache(*store).complete(claim, end.output,
                                            {.ttl = std::nullopt, .metadata = metadata_of(end)}));
        take(store->close());
    } catch (Failure& failure) {
        if (failure.exit_code == kExitStale) {
            failure.message =
                "the command ran to its end, but its claim was lost meanwhile, so it may have run "
                "twice; its output is not stored: " +
                failure.message + "\n  a longer --lease keeps a claim through longer pauses";
        } else {
            failure.message += fmt::format(
                "\n  the command ran to its end, but that is not recorded: it may run again once "
                "its lease ({}) is over\n  to record it now: dedupctl complete KEY --claim {}",
                format_duration(job.lease), claim.claim_sequence);
        }
        throw;
    }
}

// Failing to release only delays the next attempt, so it does not hide how the command ended.
bool release(const Context& context, const Job& job, const dedup::Claim& claim) {
    auto store = context.try_open_writer(context.lock_timeout);
    const dedup::Result<bool> released = store
                                             ? context.cache(**store).release(claim)
                                             : dedup::Result<bool>(std::unexpected(store.error()));
    if (!released) {
        note(fmt::format("cannot release the key, which stays claimed for up to {}: {}",
                         format_duration(job.lease), released.error().message));
    }
    return released.has_value();
}

int end_badly(Context& context, const Job& job, const dedup::Claim& claim, const ChildEnd& end) {
    const bool released = release(context, job, claim);
    const char* then = released ? "the key is released" : "the key is not released";
    if (end.start_error != 0) {
        note(fmt::format("cannot run {}: {}; {}", escape(job.child.command.front()),
                         std::generic_category().message(end.start_error), then));
    } else if (end.signal != 0) {
        note(fmt::format("the command was ended by signal {} ({}); {}", end.signal,
                         ::strsignal(end.signal), then));
    } else {
        note(fmt::format("the command failed with status {}; {}", end.exit_status, then));
    }
    if (context.json) {
        Json object = context.outcome(released ? "released" : "in_flight", job.key);
        object["claim_sequence"] = claim.claim_sequence;
        object["exit"] = end.exit_code();
        add_bytes(object, "output", end.output);
        object["output_bytes"] = end.output_bytes;
        context.out.json(object);
    }
    return end.exit_code();
}

int end_well(Context& context, const Job& job, const dedup::Claim& claim, const ChildEnd& end) {
    complete(context, job, claim, end);
    if (context.json) {
        Json object = context.outcome("completed", job.key);
        object["claim_sequence"] = claim.claim_sequence;
        object["exit"] = 0;
        add_bytes(object, "receipt", end.output);
        object["output_bytes"] = end.output_bytes;
        context.out.json(object);
    }
    if (end.output_cut()) {
        throw Failure{.exit_code = kExitError,
                      .code = "output_cut",
                      .message = fmt::format(
                          "the command ended well and is recorded as done, but of its {} bytes of "
                          "output only the first {} are stored\n  a higher --output-limit (at "
                          "most 16MiB) stores more",
                          end.output_bytes, end.output.size())};
    }
    if (end.pass_on_error != 0) {
        throw Failure{.exit_code = kExitError,
                      .code = "io",
                      .message = fmt::format("the command ended well and is recorded as done, but "
                                             "its output could not be passed on: {}\n  the same "
                                             "dedupctl command replays it",
                                             std::generic_category().message(end.pass_on_error))};
    }
    return kExitOk;
}

int run_claimed(Context& context, const Job& job, const dedup::Claim& claim, SignalPipe& signals) {
    if (const auto signal = signals.take()) {  // came while the store was opened
        release(context, job, claim);
        return kExitSignalBase + signal->number;
    }
    ChildEnd end;
    {
        const LeaseKeeper keeper(context, claim, job.lease);
        end = run_child(job.child, signals);
    }
    return end.well() ? end_well(context, job, claim, end) : end_badly(context, job, claim, end);
}

int run_exec(const ExecArguments& options, Context& context) {
    context.check_globals();
    context.check_key(options.key);
    const Job job = make_job(options, context);
    SignalPipe signals({SIGCHLD, SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2},
                       SecondSignal::queued);
    const dedup::ClaimOutcome outcome = claim_once(context, job);
    if (const auto* claimed = std::get_if<dedup::Claimed>(&outcome)) {
        return run_claimed(context, job, claimed->claim, signals);
    }
    if (const auto* completed = std::get_if<dedup::Completed>(&outcome)) {
        return replay(context, job, *completed);
    }
    if (const auto* in_flight = std::get_if<dedup::InFlight>(&outcome)) {
        return say_running(context, job, *in_flight);
    }
    return print_mismatch(context, job.key, std::get<dedup::Mismatch>(outcome),
                          dedup::system_now_ms());
}

}  // namespace

Command exec_command(Context& context) {
    const auto options = std::make_shared<ExecArguments>();
    return {.name = "exec",
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
                        {.name = "--ttl",
                         .to = &options->ttl,
                         .help = "Forget it after this long (24h), or 'never'",
                         .type = "D",
                         .filled = true},
                        {.name = "--output-limit",
                         .to = &options->output_limit,
                         .help = "How much of the command's output is stored, at most 16MiB",
                         .type = "SIZE",
                         .shows_default = true},
                        {.name = "CMD",
                         .to = &options->command,
                         .help = "The command and its arguments, after '--'"}},
            .run = [options, &context] { return run_exec(*options, context); }};
}

}  // namespace dedupctl
