// dedupctl exec: runs a command once, however often it is asked to.
//
// The store is open only for the claim, each renewal and the completion: other processes can use
// it while the command runs.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>

#include "child.hpp"
#include "claim_and_wait.hpp"
#include "commands.hpp"
#include "common/file_descriptor.hpp"
#include "common/text.hpp"
#include "exec_environment.hpp"
#include "lease_keeper.hpp"
#include "outcome.hpp"

namespace dedupctl {
namespace {

// How long to wait in silence for another writer before saying what we wait for.
constexpr milliseconds kSilentWait{2000};

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

struct Job {
    std::string key;
    milliseconds lease{0};
    milliseconds wait{0};
    std::string on_duplicate;
    int in_flight_exit = kExitInFlight;
    bool stores_output = true;
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

std::string metadata_of(const Job& job, const ChildEnd& end) {
    Json metadata;
    metadata["exit"] = 0;
    if (end.output_cut()) {
        metadata[job.stores_output ? "stdout_cut" : "stdout_left_out"] = true;
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

void tell(const Context& context, const std::string& text) {
    if (!context.quiet) {
        note(text);
    }
}

int say_done(Context& context, const Job& job, dedup::Completed completed) {
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

int say_running(Context& context, const Job& job, const dedup::InFlight& in_flight) {
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

// One run of the command under a claim, to its record in the store.
class ClaimedRun {
  public:
    ClaimedRun(Context& context, const Job& job, const dedup::Claimed& claimed, SignalPipe& signals)
        : context_(context),
          job_(job),
          claim_(claimed.claim),
          previous_(claimed.previous),
          signals_(signals) {}

    int run() {
        if (const auto signal = signals_.take()) {  // came while the store was opened
            end_.told_by = signal->number;
            return end_badly();
        }
        note_previous(context_, previous_, dedup::system_now_ms());
        ChildOptions child = job_.child;
        child.environment = exec_environment(context_, claim_, previous_);
        {
            const LeaseKeeper keeper(context_, claim_, job_.lease);
            end_ = run_child(child, signals_);
        }
        return end_.well() ? end_well() : end_badly();
    }

  private:
    // What the command did is in one object, whatever became of its record.
    void print_json(std::string_view outcome, const Failure* failure) {
        if (!context_.json) {
            return;
        }
        Json object = context_.outcome(outcome, job_.key);
        object["claim_sequence"] = claim_.claim_sequence;
        add_previous(object, previous_);
        object["exit"] = end_.exit_code();
        if (outcome == "completed") {
            add_bytes(object, "receipt", end_.output);
        } else {
            add_bytes(object, "output", end_.output);
        }
        object["output_bytes"] = end_.output_bytes;
        object["output_cut"] = end_.output_cut() && job_.stores_output;
        if (failure != nullptr) {
            object["error"] = {{"code", failure->code}, {"message", failure->message}};
        }
        context_.out.json(object);
    }

    int end_well() {
        try {
            complete();
        } catch (const Failure& failure) {
            note(failure.message);
            print_json(failure.exit_code == kExitStale ? "lost" : "in_flight", &failure);
            return failure.exit_code == kExitStale ? kExitStale : kExitExecError;
        }
        print_json("completed", nullptr);
        if (end_.output_cut() && job_.stores_output) {
            tell(context_,
                 fmt::format("of the command's {} bytes of output only the first {} are "
                             "stored\n  a higher --output-limit (at most 16MiB) stores "
                             "more, --no-output none",
                             group_digits(end_.output_bytes), group_digits(end_.output.size())));
        }
        if (end_.pass_on_error != 0) {
            throw Failure{.exit_code = kExitExecError,
                          .code = "io",
                          .message = fmt::format(
                              "the command ended well and is recorded as done, but its output "
                              "could not be passed on: {}\n  the same dedupctl command replays it",
                              std::generic_category().message(end_.pass_on_error))};
        }
        return kExitOk;
    }

    // The work is done, and nobody will do it again for us: waits for a process that holds the
    // store as long as it takes. Two signals end that: the first one may have been for the command.
    std::unique_ptr<dedup::StreamStore> open_to_complete() {
        auto store = context_.try_open_writer(kSilentWait);
        if (!store && store.error().code == dedup::Code::busy) {
            note("the command has ended well; waiting to record that: " + store.error().message);
            store = context_.try_open_writer(milliseconds::max(), [this] { return !gives_up(); });
        }
        return take(std::move(store));
    }

    bool gives_up() {
        while (const auto signal = signals_.take()) {
            if (signal->number == SIGCHLD) {
                continue;
            }
            ++signals_heard_;
            if (signals_heard_ == 1) {
                note("the command's success is not recorded yet; a second signal gives that up");
            }
        }
        return signals_heard_ >= 2;
    }

    void complete() {
        try {
            const auto store = open_to_complete();
            take(context_.cache(*store).complete(
                claim_, end_.output, {.ttl = std::nullopt, .metadata = metadata_of(job_, end_)}));
            take(store->close());
        } catch (Failure& failure) {
            if (failure.exit_code == kExitStale) {
                failure.message =
                    "the command ran to its end, but its claim was lost meanwhile, so it may have "
                    "run twice; its output is not stored: " +
                    failure.message + "\n  a longer --lease keeps a claim through longer pauses";
            } else {
                failure.message += fmt::format(
                    "\n  the command ran to its end, but that is not recorded: it may run again "
                    "once its lease ({}) is over\n  this records it: {}",
                    format_duration(job_.lease), completing_command());
            }
            throw;
        }
    }

    // With the output in a file, if there is any: it is the receipt. Where there is no room for
    // that either, somebody has to find it elsewhere, as an empty receipt would be a wrong one.
    std::string completing_command() {
        std::vector<std::string> options{"--claim", std::to_string(claim_.claim_sequence)};
        if (!end_.output.empty()) {
            const char* directory = std::getenv("TMPDIR");
            std::string path = directory == nullptr || *directory == '\0' ? "/tmp" : directory;
            path += "/dedup-receipt-XXXXXX";
            const FileDescriptor file(::mkstemp(path.data()));
            if (file.get() >= 0 && write_all(file.get(), end_.output) == 0) {
                options.insert(options.end(), {"--receipt-file", path});
            } else {
                options.insert(options.end(), {"--receipt-file", "OUTPUT"});
                if (file.get() >= 0) {
                    ::unlink(path.c_str());
                }
            }
        }
        return context_.command_line("complete", job_.key, options);
    }

    // Whether the command may have had its effect although it did not end well: somebody or
    // something has cut it off, and it is one that must not run again by itself, or had noted what
    // it does.
    [[nodiscard]] bool may_have_done_it(dedup::Cache& cache) const {
        if (!end_.timed_out && end_.told_by == 0 && end_.signal == 0) {
            return false;
        }
        if (job_.claim.unanswered == dedup::Unanswered::hold) {
            return true;
        }
        const auto found = cache.lookup(job_.key);
        const auto* mine = found ? std::get_if<dedup::InFlight>(&*found) : nullptr;
        return mine != nullptr && mine->claim_sequence == claim_.claim_sequence &&
               !mine->metadata.empty();
    }

    [[nodiscard]] bool was_the_last_attempt() const {
        const auto most = job_.claim.attempts_max;
        return most && claim_.attempt >= *most;
    }

    // Failing to release only delays the next attempt, so it does not hide how the command ended.
    bool give_up(bool& held) {
        auto store = context_.try_open_writer(context_.lock_timeout, [this] {
            const auto signal = signals_.take();
            return !signal || signal->number == SIGCHLD;
        });
        dedup::Result<void> released;
        if (store) {
            dedup::Cache cache = context_.cache(**store);
            held = was_the_last_attempt() || may_have_done_it(cache);
            if (held) {
                released = cache.hold(claim_, how_it_ended());
            } else if (const auto freed = cache.release(claim_); !freed) {
                released = std::unexpected(freed.error());
            }
        } else {
            released = std::unexpected(store.error());
        }
        if (!released) {
            note(fmt::format(
                "cannot release the key, which stays claimed for up to {}: {}\n  this "
                "releases it: {}",
                format_duration(job_.lease), released.error().message,
                context_.command_line("release", job_.key,
                                      {"--claim", std::to_string(claim_.claim_sequence)})));
        }
        return released.has_value();
    }

    int end_badly() {
        bool held = false;
        const bool released = give_up(held);
        tell(context_,
             how_it_ended() + (!released ? "; the key is not released"
                               : !held   ? "; the key is released"
                               : was_the_last_attempt()
                                   ? "; that was its last attempt, so the key is held: see "
                                     "`dedupctl held`"
                                   : "; it may have done its work, so the key is held: see "
                                     "`dedupctl held`"));
        print_json(!released ? "in_flight" : held ? "held" : "released", nullptr);
        return end_.exit_code();
    }

    [[nodiscard]] std::string how_it_ended() const {
        if (end_.start_error != 0) {
            return fmt::format("cannot run {}: {}", escape(job_.child.command.front()),
                               std::generic_category().message(end_.start_error));
        }
        if (end_.timed_out) {
            return "the command was ended after " + format_duration(job_.child.timeout);
        }
        if (end_.told_by != 0) {
            return fmt::format("ended by signal {} ({})", end_.told_by, ::strsignal(end_.told_by));
        }
        return end_.signal != 0
                   ? fmt::format("the command was ended by signal {} ({})", end_.signal,
                                 ::strsignal(end_.signal))
                   : fmt::format("the command failed with status {}", end_.exit_status);
    }

    Context& context_;
    const Job& job_;
    const dedup::Claim claim_;
    const std::optional<dedup::Previous> previous_;
    SignalPipe& signals_;
    ChildEnd end_;
    int signals_heard_ = 0;
};

int claim_and_run(const Job& job, Context& context) {
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
        return ClaimedRun(context, job, *claimed, signals).run();
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
