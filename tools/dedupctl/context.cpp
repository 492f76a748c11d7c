#include "context.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "clock_text.hpp"
#include "common/text.hpp"
#include "progress.hpp"

namespace dedupctl {
namespace {

// The password may be in the URL, where others could read it, or in the environment.
dedup::Result<std::unique_ptr<dedup::StreamStore>> open_behind_server(const std::string& url,
                                                                      bool read_only) {
    const char* const password = std::getenv("DEDUP_PASSWORD");
    auto opened = dedup::open_remote(
        url, {.read_only = read_only, .password = password != nullptr ? password : ""});
    if (!opened && opened.error().message.find("password") != std::string::npos) {
        opened.error().message += " (the password may be in DEDUP_PASSWORD)";
    }
    return opened;
}

}  // namespace

void Context::check_globals() {
    show_times_in_utc(utc);
    if (quiet) {
        forbid_progress();
    }
    lock_timeout = parse_duration(lock_timeout_text, said_by("--lock-timeout", "--lock-timeout"),
                                  milliseconds{0});
    if (const auto checked = dedup::check_namespace(ns); !checked) {
        throw usage_failure(said_by("-n,--namespace", "--namespace") + ": " +
                            checked.error().message);
    }
    if (store_path.empty()) {
        throw usage_failure(said_by("-s,--store", "--store") + ": the path is empty");
    }
}

std::string Context::said_by(std::string_view option, std::string_view long_name) const {
    const auto found = settings.origins.find(option);
    if (found == settings.origins.end() || found->second == kFromCommandLine) {
        return std::string(long_name);
    }
    const std::string& origin = found->second;
    return origin.starts_with('$') ? origin.substr(1)
                                   : escape(origin) + ": " + std::string(long_name.substr(2));
}

void Context::check_key(std::string_view key) const {
    if (const auto checked = dedup::check_key(key); !checked) {
        throw usage_failure(checked.error().message);
    }
}

void Context::need_directory(std::string_view command, std::string_view instead) const {
    if (in_database()) {
        throw usage_failure(
            fmt::format("{} works on a store in a directory, and this one is in a "
                        "database: {}",
                        command, instead));
    }
    if (behind_server()) {
        throw usage_failure(
            fmt::format("{} works on a store in a directory, and this one is behind a server: run "
                        "it where the store is, with its path",
                        command));
    }
}

bool Context::in_database() const {
    return dedup::is_postgres_url(store_path);
}

bool Context::behind_server() const {
    return dedup::is_remote_url(store_path);
}

std::string Context::socket_beside() const {
    std::string path = store_path;
    while (path.size() > 1 && path.ends_with('/')) {
        path.pop_back();
    }
    return path + ".sock";
}

std::string Context::shown_store() const {
    if (!has_url() || store_path.find("://") == std::string::npos) {
        return store_path;
    }
    const std::size_t user = store_path.find("://") + 3;
    // A server's address has no path, so what is a slash there may be one of the password's.
    const std::size_t end = in_database() ? store_path.find('/', user) : std::string::npos;
    const std::size_t at = store_path.substr(0, end).rfind('@');
    const std::size_t colon = store_path.find(':', user);
    std::string shown = store_path;
    if (at != std::string::npos && colon < at) {
        shown.replace(colon, at - colon, "");
    }
    const std::size_t parameter = shown.find("password=");
    if (parameter != std::string::npos) {
        const std::size_t value = parameter + std::string_view("password=").size();
        shown.replace(value, std::min(shown.find('&', value), shown.size()) - value, "...");
    }
    return shown;
}

std::unique_ptr<dedup::StreamStore> Context::open_reader() const {
    if (behind_server()) {
        return take(open_behind_server(store_path, true));
    }
    return take(dedup::open(store_path, {.read_only = true, .create = false}));
}

std::unique_ptr<dedup::StreamStore> Context::open_writer(
    const std::function<bool()>& keeps_waiting) const {
    auto store = try_open_writer(lock_timeout, keeps_waiting);
    if (store || has_url() || store.error().code != dedup::Code::invalid_argument) {
        return take(std::move(store));
    }
    if (must_exist) {
        Failure failure = library_failure(store.error());
        failure.message +=
            "\n  --must-exist, or DEDUP_MUST_EXIST, says not to make it; `dedupctl "
            "init` does";
        throw failure;
    }
    auto made = open_or_create(made_store, keeps_waiting);
    if (made_store && !quiet && !(json && prints_data)) {
        note("there was no store, so a new one was made at " + escape(absolute_store()));
    }
    return made;
}

std::unique_ptr<dedup::StreamStore> Context::open_existing() const {
    return take(try_open_writer(lock_timeout));
}

std::unique_ptr<dedup::StreamStore> Context::open_or_create(
    bool& created, const std::function<bool()>& keeps_waiting) const {
    dedup::OpenOptions options;
    options.lock_timeout = lock_timeout;
    options.keeps_waiting = keeps_waiting;
    auto store = take(dedup::open(store_path, options));
    created = take(store->stats()).last_sequence == 0;  // or another has just made it
    return store;
}

std::string Context::absolute_store() const {
    std::error_code error;
    const std::filesystem::path path = std::filesystem::absolute(store_path, error);
    return has_url() || error ? shown_store() : path.lexically_normal().string();
}

std::optional<dedup::Result<std::unique_ptr<dedup::StreamStore>>> Context::try_server() const {
    struct stat status {};
    const std::string socket = socket_beside();
    struct stat directory {};
    if (needs_lock || has_url() || ::stat(socket.c_str(), &status) != 0 ||
        ::stat(store_path.c_str(), &directory) != 0 || !S_ISSOCK(status.st_mode)) {
        return std::nullopt;
    }
    // It is sent a password, so it must not be anybody's.
    if (status.st_uid != directory.st_uid && status.st_uid != ::geteuid() && status.st_uid != 0) {
        return std::nullopt;
    }
    auto served = open_behind_server("unix:" + socket, false);
    if (!served) {
        // Nobody listens there any more; anything else is worth saying, but the lock says it too.
        if (served.error().code == dedup::Code::invalid_argument) {
            served.error().code = dedup::Code::failed;  // there is a store
            served.error().message = fmt::format("the store is served at {}, and {}",
                                                 escape(socket), served.error().message);
            return served;
        }
        return std::nullopt;
    }
    // Whose socket it is says its name alone, and stores are moved.
    const auto here = dedup::open(store_path, {.read_only = true, .create = false});
    const auto mine = here ? (*here)->stats() : std::unexpected(here.error());
    const auto theirs = (*served)->stats();
    if (!mine || !theirs || mine->store_id != theirs->store_id) {
        return std::nullopt;
    }
    return served;
}

dedup::Result<std::unique_ptr<dedup::StreamStore>> Context::try_open_writer(
    milliseconds timeout, const std::function<bool()>& keeps_waiting) const {
    if (behind_server()) {
        return open_behind_server(store_path, false);
    }
    // Who holds the lock is asked only if somebody does: a server whose store was moved away and
    // replaced by a copy listens beside the copy, and has another one open.
    dedup::OpenOptions options;
    options.create = false;
    options.keeps_waiting = keeps_waiting;
    struct stat status {};
    const bool looks_served = ::stat(socket_beside().c_str(), &status) == 0;
    auto store = dedup::Result<std::unique_ptr<dedup::StreamStore>>();
    for (const milliseconds wait : {looks_served ? milliseconds{0} : timeout, timeout}) {
        options.lock_timeout = wait;
        store = dedup::open(store_path, options);
        if (store || store.error().code != dedup::Code::busy) {
            break;
        }
        if (auto served = try_server()) {  // also if it has begun to serve meanwhile
            return *std::move(served);
        }
        if (wait == timeout) {
            break;
        }
    }
    if (store) {
        warn_if_ahead((*store)->now_ms(), dedup::system_now_ms());
    }
    return store;
}

std::string Context::command_line(std::string_view command, std::string_view key,
                                  const std::vector<std::string>& options) const {
    return command_line_in(ns, command, key, options);
}

std::string Context::command_line_in(std::string_view in_ns, std::string_view command,
                                     std::string_view key,
                                     const std::vector<std::string>& options) const {
    std::string line = "dedupctl -s " + shell_word(absolute_store());
    if (in_ns != "default") {
        line += " -n " + shell_word(in_ns);
    }
    line.append(" ").append(command);
    for (const std::string& option : options) {
        line += " " + shell_word(option);
    }
    return line + " -- " + shell_word(key);
}

Context::Answers Context::answers_to(std::string_view in_ns, std::string_view key,
                                     std::uint64_t claim_sequence) const {
    const std::string claim = std::to_string(claim_sequence);
    return {
        command_line_in(in_ns, "resolve", key, {"--claim", claim, "--receipt", "", "--reason", ""}),
        command_line_in(in_ns, "resolve", key, {"--claim", claim, "--not-done", "--reason", ""})};
}

Json Context::outcome(std::string_view name, std::string_view key) const {
    Json object;
    object["outcome"] = name;
    object["namespace"] = ns;
    add_bytes(object, "key", key);
    return object;
}

void note(std::string_view text) {
    static_cast<void>(
        write_all(STDERR_FILENO,
                  fmt::format("dedupctl: {}\n", message_text(with_times_told(std::string(text))))));
}

void print_done(Context& context, std::string_view fact, const std::function<void()>& print) {
    try {
        print();
        context.out.flush();
    } catch (Failure& failure) {
        say_done(failure, fact);
        throw;
    }
}

void report(const Failure& failure, Context& context) {
    Json object;
    object["error"] = {{"code", failure.code}, {"message", failure.message}};
    const bool silent = failure.message.empty();
    if (!silent && context.json && context.prints_data) {
        static_cast<void>(write_all(STDERR_FILENO, json_line(object)));
    } else if (!silent) {
        note(failure.message);
    }
    try {
        if (!silent && context.json && !context.prints_data) {
            context.out.json(object);
        }
        context.out.flush();  // also what the command had printed before it failed
    } catch (const Failure&) {
        // Standard output is broken too, and standard error has had the message.
    }
}

}  // namespace dedupctl
