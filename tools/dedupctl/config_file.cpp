#include "config_file.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>

#include <toml++/toml.h>

#include "common/failure.hpp"
#include "common/text.hpp"
#include "dedup/postgres_store.hpp"
#include "dedup/remote_store.hpp"

namespace dedupctl {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kName = "dedup.toml";

std::string variable(const char* name) {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
}

bool is_url(const std::string& store) {
    return dedup::is_postgres_url(store) || dedup::is_remote_url(store);
}

// Empty: there is no place for one.
std::string users_file() {
    if (std::string named = variable("DEDUP_CONFIG"); !named.empty()) {
        return named;
    }
    std::string home = variable("XDG_CONFIG_HOME");
    if (home.empty()) {
        home = variable("HOME");
        home = home.empty() ? "" : home + "/.config";
    }
    return home.empty() ? "" : fmt::format("{}/dedup/{}", home, kName);
}

std::string file_beside(const std::string& store) {
    if (store.empty() || is_url(store)) {
        return "";
    }
    std::error_code error;
    fs::path path = fs::absolute(store, error).lexically_normal();
    if (!path.has_filename()) {  // "store/"
        path = path.parent_path();
    }
    return (path.parent_path() / kName).string();
}

std::string place_of(const std::string& path, const toml::source_region& where) {
    return fmt::format("{}:{}", path, where.begin.line);
}

[[noreturn]] void fail(const std::string& path, const toml::source_region& where,
                       std::string_view what) {
    throw usage_failure(fmt::format("{}: {}", escape(place_of(path, where)), what));
}

// None: there is no such file.
std::optional<toml::table> load(const std::string& path, Settings& settings) {
    struct stat status {};
    if (path.empty()) {
        return std::nullopt;
    }
    settings.files.push_back({path, false});
    // In a directory that is closed to this user, as root's is to one that root has become.
    if (::stat(path.c_str(), &status) != 0 &&
        (errno == ENOENT || errno == ENOTDIR || errno == EACCES)) {
        if (path == variable("DEDUP_CONFIG")) {
            throw usage_failure("DEDUP_CONFIG: there is no file " + escape(path));
        }
        return std::nullopt;
    }
    if (S_ISDIR(status.st_mode)) {
        throw system_failure("cannot read " + escape(path), EISDIR);
    }
    std::ifstream file(path, std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(file)),
                           std::istreambuf_iterator<char>());
    if (!file.is_open() || file.bad()) {
        throw system_failure("cannot read " + escape(path), errno);
    }
    settings.files.back().is_there = true;
    try {
        return toml::parse(text, path);
    } catch (const toml::parse_error& error) {
        fail(path, error.source(),
             fmt::format("{}; texts stand in quotes, as in lock-timeout = \"5s\"",
                         error.description()));
    }
}

const Option* find_option(const std::vector<Option>& options, std::string_view name) {
    for (const Option& option : options) {
        if (long_name(option) == name) {
            return &option;
        }
    }
    return nullptr;
}

std::string all_names(const std::vector<Option>& options) {
    std::string names;
    for (const Option& option : options) {
        names += (names.empty() ? "" : ", ") + std::string(long_name(option));
    }
    return names;
}

void set(const Option& option, const toml::node& value, const std::string& path,
         std::string_view name) {
    if (bool* const* flag = std::get_if<bool*>(&option.to)) {
        const auto given = value.value_exact<bool>();
        if (!given) {
            fail(path, value.source(), fmt::format("'{}' is either true or false", name));
        }
        **flag = *given;
        return;
    }
    const auto given = value.value_exact<std::string>();
    if (!given) {
        fail(path, value.source(), fmt::format("'{}' is a text, in quotes", name));
    }
    *std::get<std::string*>(option.to) = *given;
}

void apply(const toml::table& table, const std::string& path, const std::vector<Option>& options,
           Settings& settings) {
    for (const auto& [key, value] : table) {
        const Option* option = find_option(options, key.str());
        if (option == nullptr) {
            fail(path, key.source(),
                 fmt::format("'{}' is no global option; there are {}", escape(key.str()),
                             all_names(options)));
        }
        if (!settings.origins.contains(option->name)) {
            set(*option, value, path, key.str());
            settings.origins[option->name] = place_of(path, value.source());
        }
    }
}

}  // namespace

void read_config_files(const std::vector<Option>& options, std::string& store, Settings& settings) {
    const std::string users = users_file();
    const std::optional<toml::table> user = load(users, settings);
    if (const Option* option = find_option(options, "store");
        user && !settings.origins.contains(option->name)) {
        if (const toml::node* place = user->get("store")) {
            set(*option, *place, users, "store");
            settings.origins[option->name] = place_of(users, place->source());
            if (!is_url(store)) {
                store = (fs::path(users).parent_path() / store).lexically_normal().string();
            }
        }
    }
    const std::string beside = file_beside(store);
    std::error_code error;
    if (!fs::equivalent(beside, users, error)) {
        if (const auto table = load(beside, settings)) {
            if (const toml::node* place = table->get("store")) {
                fail(beside, place->source(),
                     "'store' cannot stand in the file that lies beside the store; " +
                         (users.empty() ? std::string("DEDUP_STORE says it")
                                        : "it belongs into " + escape(users)));
            }
            apply(*table, beside, options, settings);
        }
    }
    if (user) {
        apply(*user, users, options, settings);
    }
}

}  // namespace dedupctl
