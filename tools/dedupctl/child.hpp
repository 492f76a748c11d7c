// Runs a command with its standard output passed on and kept.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "signal_pipe.hpp"

namespace dedupctl {

struct ChildOptions {
    std::vector<std::string> command;      // at least the program
    std::size_t output_bytes_max = 0;      // how much of the output is kept; the rest only passes
    bool pass_output_on = true;            // to our own standard output, as it comes
    bool ignore_sigpipe = false;           // whether the command starts with SIGPIPE ignored
    std::vector<std::string> environment;  // "NAME=value", besides our own
    std::chrono::milliseconds timeout{0};  // it is ended after this long; 0: never
};

struct ChildEnd {
    int start_error = 0;             // errno, if the command could not be started
    int exit_status = 0;             // if no signal ended it
    int signal = 0;                  // the signal that ended it, or 0
    std::string output;              // what was kept
    std::uint64_t output_bytes = 0;  // all that it wrote
    int pass_on_error = 0;           // errno, if our standard output failed meanwhile
    bool timed_out = false;          // we ended it
    int told_by = 0;                 // the signal that made us kill it, or 0

    [[nodiscard]] bool well() const { return start_error == 0 && signal == 0 && exit_status == 0; }
    [[nodiscard]] bool output_cut() const { return output_bytes > output.size(); }

    // What a shell would report: the status, 128 + the signal, 127 or 126. 124 after a timeout, as
    // of timeout(1), and 128 + the signal that we were told to end by.
    [[nodiscard]] int exit_code() const;
};

// Returns when the command itself has ended; what its own children still write after that is not
// waited for. `signals` must include SIGCHLD; the others are forwarded to the command, except
// those that the terminal has already sent to it: it stays in our process group, so that it can
// read from the terminal and is stopped and continued with us. A second SIGINT, SIGTERM, SIGHUP or
// SIGQUIT kills it, for it has not obeyed the first. Of the terminal's, only one that follows
// within a second: they are what a program that talks to people may live with.
[[nodiscard]] ChildEnd run_child(const ChildOptions& options, SignalPipe& signals);

}  // namespace dedupctl
