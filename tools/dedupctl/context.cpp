#include "context.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "clock_text.hpp"
#include "common/text.hpp"

namespace dedupctl {

void Context::check_globals() {
    lock_timeout = parse_duration(lock_timeout_text, "--lock-timeout", milliseconds{0});
    if (const auto checked = dedup::check_namespace(ns); !checked) {
        throw usage_failure("--namespace: " + checked.error().message);
    }
    if (store_path.empty()) {
        throw usage_failure("--store: the path is empty");
    }
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
}

bool Context::in_database() const {
    return dedup::is_postgres_url(store_path);
}

std::string Context::shown_store() const {
    if (!in_database()) {
        return store_path;
    }
    const std::size_t user = store_path.find("://") + 3;
    const std::size_t end = store_path.find('/', user);
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
    return take(dedup::open(store_path, {.read_only = true, .create = false}));
}

std::unique_ptr<dedup::StreamStore> Context::open_writer() const {
    return take(try_open_writer(lock_timeout));
}

dedup::Result<std::unique_ptr<dedup::StreamStore>> Context::try_open_writer(milliseconds timeout,
                                                                            bool create) const {
    dedup::OpenOptions options;
    options.create = create;
    options.lock_timeout = timeout;
    auto store = dedup::open(store_path, options);
    if (store) {
        warn_if_ahead((*store)->now_ms(), dedup::system_now_ms());
    }
    return store;
}

Json Context::outcome(std::string_view name, std::string_view key) const {
    Json object;
    object["outcome"] = name;
    object["namespace"] = ns;
    add_bytes(object, "key", key);
    return object;
}

void note(std::string_view text) {
    static_cast<void>(write_all(STDERR_FILENO, fmt::format("dedupctl: {}\n", message_text(text))));
}

void report(const Failure& failure, bool json, Output& json_out) {
    if (!failure.message.empty()) {
        note(failure.message);
    }
    try {
        if (json && !failure.message.empty()) {
            Json object;
            object["error"] = {{"code", failure.code}, {"message", failure.message}};
            json_out.json(object);
        }
        json_out.flush();  // also what the command had printed before it failed
    } catch (const Failure&) {
        // Standard output is broken too, and standard error has had the message.
    }
}

}  // namespace dedupctl
