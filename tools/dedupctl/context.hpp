// What all commands share: the global options, the open store, the outputs.
#pragma once

#include <unistd.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/failure.hpp"
#include "common/time_text.hpp"
#include "config_file.hpp"
#include "dedup/cache.hpp"
#include "dedup/log_store.hpp"
#include "dedup/postgres_store.hpp"
#include "dedup/remote_store.hpp"
#include "output.hpp"

namespace dedupctl {

struct Context {
    std::string store_path = "./dedup-store";
    std::string ns = "default";
    bool ns_given = false;  // by name on the command line, also if it is the default
    std::string lock_timeout_text = "30s";
    bool json = false;
    bool quiet = false;
    bool utc = false;
    bool must_exist = false;
    bool needs_lock = false;   // the command must be the one that writes: through no server
    bool prints_data = false;  // standard output is for data: errors in JSON go to standard error
    Settings settings;         // who says what the above are
    mutable bool made_store = false;     // open_writer() has
    std::vector<std::string> arguments;  // as they came, without the program's name
    bool sigpipe_was_ignored = false;    // before main ignored it; for children
    int error_exit = 1;                  // see Command::error_exit

    milliseconds lock_timeout{30'000};
    Output out{STDOUT_FILENO};

    // The checks that every command makes before it touches a store. Throw usage Failures.
    void check_globals();
    void check_key(std::string_view key) const;
    // Where a global option's value comes from, to begin an error with: "--lock-timeout",
    // "DEDUP_LOCK_TIMEOUT" or "/etc/dedup.toml: lock-timeout". `option` is its Option::name.
    [[nodiscard]] std::string said_by(std::string_view option, std::string_view long_name) const;
    // For commands that work on a store's files. `instead`: what to do with a database.
    void need_directory(std::string_view command, std::string_view instead) const;

    // The store is in a database, or behind a server, and not in a directory.
    [[nodiscard]] bool in_database() const;
    [[nodiscard]] bool behind_server() const;
    [[nodiscard]] bool has_url() const { return in_database() || behind_server(); }
    // Where `dedupctl serve` listens for a store in a directory: beside it.
    [[nodiscard]] std::string socket_beside() const;
    // Its name for people: a URL without its password.
    [[nodiscard]] std::string shown_store() const;

    // Readers take no lock, write nothing and never create a store.
    [[nodiscard]] std::unique_ptr<dedup::StreamStore> open_reader() const;
    // Writers go through the server of the store if it is in a directory and one listens beside it;
    // otherwise they wait for another writer. This one creates the store if there is none, unless
    // told not to, and says so.
    // `keeps_waiting`: false ends the wait, which gives `busy`.
    [[nodiscard]] std::unique_ptr<dedup::StreamStore> open_writer(
        const std::function<bool()>& keeps_waiting = nullptr) const;
    [[nodiscard]] dedup::Result<std::unique_ptr<dedup::StreamStore>> try_open_writer(
        milliseconds timeout, const std::function<bool()>& keeps_waiting = nullptr) const;
    // The same, for what makes sense only where there is a store: makes none.
    [[nodiscard]] std::unique_ptr<dedup::StreamStore> open_existing() const;
    // Makes the store if there is none; `created` says whether.
    [[nodiscard]] std::unique_ptr<dedup::StreamStore> open_or_create(
        bool& created, const std::function<bool()>& keeps_waiting = nullptr) const;
    // The store behind the server beside it; nullopt if there is none, or another store's.
    [[nodiscard]] std::optional<dedup::Result<std::unique_ptr<dedup::StreamStore>>> try_server()
        const;
    // The path made absolute, or the URL without its password.
    [[nodiscard]] std::string absolute_store() const;

    [[nodiscard]] dedup::Cache cache(dedup::StreamStore& store) const {
        return dedup::Cache(store, {.ns = ns});
    }

    // A command about this store and namespace that can be pasted into a shell.
    [[nodiscard]] std::string command_line(std::string_view command, std::string_view key,
                                           const std::vector<std::string>& options) const;

    // The same in another namespace.
    [[nodiscard]] std::string command_line_in(std::string_view in_ns, std::string_view command,
                                              std::string_view key,
                                              const std::vector<std::string>& options) const;

    // The two answers to a held claim, as commands. Their reason is empty, which `resolve` refuses:
    // whoever pastes one has to fill it in.
    struct Answers {
        std::string done;
        std::string not_done;
    };
    [[nodiscard]] Answers answers_to(std::string_view in_ns, std::string_view key,
                                     std::uint64_t claim_sequence) const;

    // {"outcome": ..., "namespace": ..., "key": ..., "key_base64": ...}, to be added to.
    [[nodiscard]] Json outcome(std::string_view name, std::string_view key) const;
};

// One line on standard error, for people: "dedupctl: <text>". Failing to write it is not an error.
void note(std::string_view text);

// Prints what a command has done. If that cannot be written, the Failure also says `fact`: what is
// done all the same.
void print_done(Context& context, std::string_view fact, const std::function<void()>& print);

// Prints a failure: on standard error for people and, with --json, as an object on standard output.
// Of a command whose standard output is data, the object is what goes to standard error.
void report(const Failure& failure, Context& context);

}  // namespace dedupctl
