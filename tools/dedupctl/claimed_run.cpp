#include "claimed_run.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <thread>

#include "common/file_descriptor.hpp"
#include "common/text.hpp"
#include "exec_environment.hpp"
#include "lease_keeper.hpp"
#include "outcome.hpp"

namespace dedupctl {
namespace {

using OpenedStore = dedup::Result<std::unique_ptr<dedup::StreamStore>>;

// How long to wait in silence for another writer before saying what we wait for.
constexpr milliseconds kSilentWait{2000};
// How often a server or a database is tried again that cannot be reached.
constexpr milliseconds kReachEvery{500};
// A shell says by 128 + N that signal N has ended what it ran.
constexpr int kLastSignal = 64;

std::string metadata_of(const ExecJob& job, const ChildEnd& end) {
    Json metadata;
    metadata["exit"] = 0;
    if (end.output_cut()) {
        metadata[job.stores_output ? "stdout_cut" : "stdout_left_out"] = true;
        metadata["stdout_bytes"] = end.output_bytes;
    }
    return metadata.dump();
}

// Whether the store may be had a little later.
bool may_come_back(const OpenedStore& store) {
    return !store && (store.error().code == dedup::Code::busy ||
                      store.error().code == dedup::Code::unavailable);
}

// What becomes of the key of a command that did not end well: it may be somebody else who has
// answered for it.
enum class GivenUp { released, held, answered };

class ClaimedRun {
  public:
    ClaimedRun(Context& context, const ExecJob& job, const dedup::Claimed& claimed,
               SignalPipe& signals)
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
        has_begun_ = true;
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

    void tell(const std::string& text) const {
        if (!context_.quiet) {
            note(text);
        }
    }

    // Nobody else may be able to say how the command ended, so whoever holds the store is waited
    // for as long as it takes. Two signals end that: the first one may have been for the command.
    OpenedStore open_to_record() {
        auto store = context_.try_open_writer(kSilentWait);
        if (may_come_back(store)) {
            note(how_it_ended() + "; waiting to record that: " + store.error().message);
        }
        while (may_come_back(store) && !gives_up()) {
            if (store.error().code == dedup::Code::unavailable) {
                std::this_thread::sleep_for(kReachEvery);
            }
            store = context_.try_open_writer(milliseconds::max(), [this] { return !gives_up(); });
        }
        return store;
    }

    bool gives_up() {
        while (const auto signal = signals_.take()) {
            if (signal->number == SIGCHLD) {
                continue;
            }
            ++signals_heard_;
            if (signals_heard_ == 1) {
                note("how the command ended is not recorded yet; a second signal gives that up");
            }
        }
        return signals_heard_ >= 2;
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
            tell(
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

    void complete() {
        try {
            const auto store = take(open_to_record());
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
                    "\n  the command ran to its end, but that is not recorded: once its lease ({}) "
                    "is over, {}\n  this records it: {}",
                    format_duration(job_.lease),
                    stays_held() ? "the key is held" : "it may run again", completing_command());
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

    [[nodiscard]] bool was_the_last_attempt() const {
        const auto most = job_.claim.attempts_max;
        return most && claim_.attempt >= *most;
    }

    // Nobody takes the claim over when its lease has run out.
    [[nodiscard]] bool stays_held() const {
        return job_.claim.unanswered == dedup::Unanswered::hold || was_the_last_attempt();
    }

    // Somebody or something has ended the command at its work, or what a shell ran for it.
    [[nodiscard]] bool was_cut_off() const {
        const bool by_shell =
            end_.exit_status > kExitSignalBase && end_.exit_status <= kExitSignalBase + kLastSignal;
        return has_begun_ && (end_.timed_out || end_.told_by != 0 || end_.signal != 0 || by_shell);
    }

    // Whether the command must not run again by itself. Of one that was cut off nobody knows
    // whether it had its effect, if it is one that must not run twice, or had noted what it does.
    [[nodiscard]] bool has_to_wait(dedup::StreamStore& store) const {
        if (has_begun_ && was_the_last_attempt()) {
            return true;
        }
        if (!was_cut_off()) {
            return false;
        }
        return stays_held() || context_.cache(store).may_have_noted(claim_).value_or(true);
    }

    dedup::Result<GivenUp> give_up() {
        const auto store = was_cut_off() ? open_to_record()
                                         : context_.try_open_writer(context_.lock_timeout, [this] {
                                               const auto signal = signals_.take();
                                               return !signal || signal->number == SIGCHLD;
                                           });
        if (!store) {
            return std::unexpected(store.error());
        }
        dedup::Cache cache = context_.cache(**store);
        if (has_to_wait(**store)) {
            const auto held = cache.hold(claim_, how_it_ended());
            return held ? dedup::Result<GivenUp>(GivenUp::held) : std::unexpected(held.error());
        }
        const auto released = cache.release(claim_);
        if (!released) {
            return std::unexpected(released.error());
        }
        return *released ? GivenUp::released : GivenUp::answered;
    }

    // Does not hide how the command ended: that is what exec exits with.
    int end_badly() {
        const auto given_up = give_up();
        if (!given_up) {
            say_unrecorded(given_up.error());
        } else if (*given_up == GivenUp::released) {
            tell(how_it_ended() + "; the key is released");
            print_json("released", nullptr);
        } else if (*given_up == GivenUp::answered) {
            note(
                fmt::format("{}; there was nothing to release any more, as somebody else has "
                            "answered claim {}, or it has expired: {}",
                            how_it_ended(), claim_.claim_sequence,
                            context_.command_line("inspect", job_.key, {})));
            print_json("lost", nullptr);
        } else {
            tell(fmt::format("{}; {}, so the key is held: see `dedupctl held`", how_it_ended(),
                             was_the_last_attempt() ? "that was its last attempt"
                                                    : "it may have done its work"));
            print_json("held", nullptr);
        }
        return end_.exit_code();
    }

    void say_unrecorded(const dedup::Error& error) {
        const bool is_lost = error.code == dedup::Code::stale_claim;
        Failure failure = last_failure(error);
        failure.message = how_it_ended() + "; that is not recorded: " + error.message +
                          (is_lost ? "" : "\n  " + by_hand());
        note(failure.message);
        print_json(is_lost ? "lost" : "in_flight", &failure);
    }

    // What somebody has to know and to do if the end of the command could not be recorded.
    [[nodiscard]] std::string by_hand() const {
        const std::string claim = std::to_string(claim_.claim_sequence);
        const std::string lease = format_duration(job_.lease);
        if (has_begun_ && (was_the_last_attempt() || (was_cut_off() && stays_held()))) {
            const auto answers = context_.answers_to(context_.ns, job_.key, claim_.claim_sequence);
            return fmt::format(
                "once its lease ({}) is over the key is held, and somebody has to say what became "
                "of it\n  done:     {}\n  not done: {}",
                lease, answers.done, answers.not_done);
        }
        if (was_cut_off()) {
            return fmt::format(
                "it may have done its work, and it may run again once its lease ({}) is over\n  "
                "this holds the key instead: {}",
                lease,
                context_.command_line("hold", job_.key,
                                      {"--claim", claim, "--reason", how_it_ended()}));
        }
        return fmt::format("{}\n  this releases it: {}",
                           stays_held() ? "once its lease (" + lease + ") is over the key is held"
                                        : "the key stays claimed for up to " + lease,
                           context_.command_line("release", job_.key, {"--claim", claim}));
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
        if (end_.well()) {
            return "the command has ended well";
        }
        return end_.signal != 0
                   ? fmt::format("the command was ended by signal {} ({})", end_.signal,
                                 ::strsignal(end_.signal))
                   : fmt::format("the command failed with status {}", end_.exit_status);
    }

    Context& context_;
    const ExecJob& job_;
    const dedup::Claim claim_;
    const std::optional<dedup::Previous> previous_;
    SignalPipe& signals_;
    ChildEnd end_;
    bool has_begun_ = false;
    int signals_heard_ = 0;
};

}  // namespace

int run_claimed(Context& context, const ExecJob& job, const dedup::Claimed& claimed,
                SignalPipe& signals) {
    return ClaimedRun(context, job, claimed, signals).run();
}

}  // namespace dedupctl
