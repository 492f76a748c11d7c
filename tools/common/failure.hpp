// How a command ends when it does not end well, and the exit codes that scripts rely on.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "dedup/error.hpp"

namespace dedupctl {

inline constexpr int kExitOk = 0;
inline constexpr int kExitError = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitInFlight = 10;
inline constexpr int kExitCompleted = 11;  // also: a duplicate
inline constexpr int kExitMismatch = 12;
inline constexpr int kExitAbsent = 13;  // also: there is no claim to complete
inline constexpr int kExitStale = 14;   // also: completed with another receipt
inline constexpr int kExitBusy = 15;    // another process writes to the store
inline constexpr int kExitUnavailable = 16;
inline constexpr int kExitHeld = 17;  // nobody answered its last claim, and somebody has to decide
inline constexpr int kExitDoneError = 3;    // `done`: 1 says no there
inline constexpr int kExitTimeout = 124;    // of `exec`, as the next two: CMD took too long
inline constexpr int kExitExecError = 125;  // for 1 is what many a CMD exits with
inline constexpr int kExitNotExecutable = 126;
inline constexpr int kExitNotFound = 127;
inline constexpr int kExitSignalBase = 128;

// All of them, one a line, for the help.
[[nodiscard]] std::string exit_codes_text();

// Thrown by a command, caught in main, which prints it and exits.
struct Failure {
    int exit_code = kExitError;
    std::string code;     // for --json: a name of dedup::Code, or "usage"
    std::string message;  // empty: exit without a word
};

[[nodiscard]] Failure usage_failure(std::string message);

// An errno as "<what>: No space left on device", with the way out where there is an obvious one.
[[nodiscard]] Failure system_failure(const std::string& what, int os_error);

// For an output that failed after the work was done: what holds all the same. It takes the place of
// the advice to try again.
void say_done(Failure& failure, std::string_view fact);

// Gives an error of the library its exit code and, where the library cannot know it, a hint.
[[nodiscard]] Failure library_failure(const dedup::Error& error);

// The same without a hint: for the commands that hints lead to.
[[nodiscard]] Failure last_failure(const dedup::Error& error);

template <class T>
T take(dedup::Result<T> result) {
    if (!result) {
        throw library_failure(result.error());
    }
    if constexpr (!std::is_void_v<T>) {
        return std::move(*result);
    }
}

}  // namespace dedupctl
