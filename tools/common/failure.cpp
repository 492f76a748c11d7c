#include "common/failure.hpp"

#include <cerrno>
#include <system_error>

namespace dedupctl {
namespace {

constexpr std::string_view kTryAgain = "; free some space and try again";

int exit_code_of(dedup::Code code) {
    switch (code) {
        case dedup::Code::stale_claim:
        case dedup::Code::receipt_mismatch:
            return kExitStale;
        case dedup::Code::not_claimed:
            return kExitAbsent;
        case dedup::Code::busy:
            return kExitBusy;
        case dedup::Code::unavailable:
            return kExitUnavailable;
        default:
            return kExitError;
    }
}

const char* hint_of(dedup::Code code) {
    switch (code) {
        case dedup::Code::busy:
            return "--lock-timeout 1m waits longer";
        case dedup::Code::out_of_space:
            return "nothing that was acknowledged before is lost";
        case dedup::Code::outcome_unknown:
            return "see what was stored with `dedupctl lookup`, then run the command again";
        case dedup::Code::corruption:
            return "see the extent of the damage with `dedupctl verify`, and save what is "
                   "intact in a new store with `dedupctl repair`";
        default:
            return nullptr;
    }
}

}  // namespace

std::string exit_codes_text() {
    return "  0   done: claimed, completed, released, renewed, new\n"
           "  1   an error; `done`: no\n"
           "  2   a usage error; nothing was done\n"
           "  3   `done`: an error, as 1 is an answer\n"
           "  10  in-flight: somebody holds a claim on the key\n"
           "  11  completed, or a duplicate\n"
           "  12  mismatch: the key is known with another fingerprint\n"
           "  13  absent\n"
           "  14  stale claim, or completed with another receipt\n"
           "  15  busy: another process writes to the store\n"
           "  16  unavailable: the database cannot be reached\n"
           "  17  held: nobody answered its last claim, and somebody has to decide\n"
           "  124 `exec`: the command was ended by --timeout\n"
           "  125 `exec`: an error of its own, as 1 may be the command's\n"
           "  126, 127  `exec`: the command cannot be executed, or is not there\n"
           "  128 + N  ended by signal N\n";
}

Failure usage_failure(std::string message) {
    return {.exit_code = kExitUsage, .code = "usage", .message = std::move(message)};
}

Failure system_failure(const std::string& what, int os_error) {
    const bool full = os_error == ENOSPC || os_error == EDQUOT;
    std::string message = what + ": " + std::generic_category().message(os_error);
    if (full) {
        message += kTryAgain;
    }
    return {.exit_code = kExitError,
            .code = full ? "out_of_space" : "io",
            .message = std::move(message)};
}

void say_done(Failure& failure, std::string_view fact) {
    std::string& message = failure.message;
    if (message.empty()) {
        message = "nobody reads standard output any more";
    } else if (message.ends_with(kTryAgain)) {
        message.resize(message.size() - kTryAgain.size());
    }
    message.append("\n  ").append(fact);
}

Failure library_failure(const dedup::Error& error) {
    Failure failure = last_failure(error);
    if (const char* hint = hint_of(error.code)) {
        failure.message.append("\n  ").append(hint);
    }
    return failure;
}

Failure last_failure(const dedup::Error& error) {
    return {.exit_code = exit_code_of(error.code),
            .code = std::string(dedup::name(error.code)),
            .message = error.message};
}

}  // namespace dedupctl
