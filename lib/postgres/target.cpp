#include "postgres/target.hpp"

#include <fmt/format.h>
#include <libpq-fe.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <ranges>
#include <string_view>

#include "postgres/libpq.hpp"
#include "postgres/statements.hpp"
#include "record/try.hpp"

namespace dedup {

bool is_postgres_url(std::string_view path) {
    return path.starts_with("postgresql://") || path.starts_with("postgres://");
}

namespace pg {
namespace {

std::unexpected<Error> bad_target(std::string message) {
    return std::unexpected(Error{Code::invalid_argument, std::move(message)});
}

// Takes over one parameter of the store's own. False: it is none.
Result<bool> take_parameter(std::string_view name, std::string_view value,
                            PostgresOptions& options) {
    if (name == "schema") {
        options.schema = value;
        return true;
    }
    if (name == "durability") {
        if (value != "local" && value != "failover") {
            return bad_target("durability in the store's URL must be local or failover");
        }
        options.durability =
            value == "local" ? PostgresDurability::local : PostgresDurability::failover;
        return true;
    }
    if (name == "prepared") {
        if (value != "true" && value != "false") {
            return bad_target("prepared in the store's URL must be true or false");
        }
        options.prepared = value == "true";
        return true;
    }
    if (name == "connections") {
        const char* const end = value.data() + value.size();
        const auto [read, error] = std::from_chars(value.data(), end, options.connections_max);
        if (error != std::errc() || read != end) {
            return bad_target("connections in the store's URL must be a number");
        }
        return true;
    }
    return false;
}

// The URL without the parameters that are not libpq's.
Result<std::string> take_parameters(const std::string& url, PostgresOptions& options) {
    const std::size_t query = url.find('?');
    if (query == std::string::npos) {
        return url;
    }
    std::string rest = url.substr(0, query);
    char separator = '?';
    std::string_view parameters = std::string_view(url).substr(query + 1);
    while (!parameters.empty()) {
        const std::string_view one = parameters.substr(0, parameters.find('&'));
        parameters.remove_prefix(std::min(parameters.size(), one.size() + 1));
        const std::size_t equals = one.find('=');
        const auto taken = take_parameter(
            one.substr(0, equals),
            equals == std::string_view::npos ? std::string_view() : one.substr(equals + 1),
            options);
        if (!taken) {
            return std::unexpected(taken.error());
        }
        if (!*taken) {
            rest += separator;
            rest += one;
            separator = '&';
        }
    }
    return rest;
}

Result<void> check_limits(const PostgresOptions& options) {
    if (options.connections_max < 1 || options.connections_max > 100) {
        return bad_target(
            fmt::format("connections_max is {}; it must be 1 to 100", options.connections_max));
    }
    if (options.timeout < std::chrono::milliseconds(100) ||
        options.timeout > std::chrono::hours(1)) {
        return bad_target(
            fmt::format("timeout is {} ms; it must be 100 ms to 1 h", options.timeout.count()));
    }
    if (options.grace < std::chrono::milliseconds(0)) {
        return bad_target(
            fmt::format("grace is {} ms; it must not be negative", options.grace.count()));
    }
    return {};
}

std::vector<std::string> split(std::string_view list) {
    std::vector<std::string> parts;
    for (const auto part : std::views::split(list, ',')) {
        parts.emplace_back(part.begin(), part.end());
    }
    return parts;
}

// libpq itself tries the next host only if the one before refuses the connection. One behind a
// balancer or a container's port accepts it, and ends it; and one that is frozen says nothing.
Result<std::vector<Parameters>> hosts_of(const PQconninfoOption* options) {
    std::vector<Parameters> hosts(1);
    for (const PQconninfoOption* option = options; option->keyword != nullptr; ++option) {
        const std::string_view name = option->keyword;
        if (option->val == nullptr || (name != "host" && name != "hostaddr" && name != "port")) {
            continue;
        }
        const std::vector<std::string> parts = split(option->val);
        if (parts.size() == 1 && name == "port") {
            continue;  // the same for all
        }
        if (hosts.size() == 1) {
            hosts.resize(parts.size(), hosts.front());
        }
        if (parts.size() != hosts.size()) {
            return std::unexpected(
                Error{Code::invalid_argument,
                      fmt::format("the store's URL: {} of {} and {} of {}", hosts.size(),
                                  hosts.front().empty() ? "ports" : hosts.front().front().first,
                                  parts.size(), name)});
        }
        for (std::size_t i = 0; i < parts.size(); ++i) {
            hosts[i].emplace_back(name, parts[i]);
        }
    }
    return hosts;
}

// libpq's own check, whose message names what is wrong; and the hosts that it finds.
Result<std::vector<Parameters>> parse_url(const std::string& url) {
    char* message = nullptr;
    PQconninfoOption* const parsed = PQconninfoParse(url.c_str(), &message);
    const std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)> options(parsed,
                                                                               PQconninfoFree);
    const std::unique_ptr<char, decltype(&PQfreemem)> text(message, PQfreemem);
    if (parsed == nullptr) {
        std::string why = message == nullptr ? "out of memory" : message;
        std::ranges::replace(why, '\n', ' ');
        return bad_target(fmt::format("the store's URL: {}", why));
    }
    return hosts_of(parsed);
}

}  // namespace

Result<Target> parse_target(const std::string& url, PostgresOptions options) {
    if (!is_postgres_url(url)) {
        return bad_target("the store's URL must begin with postgresql://");
    }
    if (url.contains('\0')) {
        return bad_target("the store's URL has a byte 0 in it");
    }
    DEDUP_TRY(load_libpq());
    auto plain = DEDUP_TRY(take_parameters(url, options));
    DEDUP_TRY(check_limits(options));
    auto hosts = DEDUP_TRY(parse_url(plain));
    auto schema = DEDUP_TRY(quote_schema(options.schema));
    Target target{.hosts = {}, .schema = std::move(schema), .options = std::move(options)};
    // What the URL says of these wins, but for the host, which is one of the URL's.
    const Parameters common = {{"target_session_attrs", "primary"},
                               {"fallback_application_name", "dedup"},
                               {"tcp_user_timeout", std::to_string(target.options.timeout.count())},
                               {"keepalives_idle", "30"},
                               {"dbname", std::move(plain)},
                               {"client_encoding", "UTF8"}};
    for (const Parameters& host : hosts) {
        target.hosts.push_back(common);
        target.hosts.back().insert(target.hosts.back().end(), host.begin(), host.end());
    }
    return target;
}

}  // namespace pg
}  // namespace dedup
