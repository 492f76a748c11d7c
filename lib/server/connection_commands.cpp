// What clients ask about the connection and the server rather than about keys.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "dedup/store_clock.hpp"
#include "dedup/version.hpp"
#include "server/command_table.hpp"
#include "server/string_command.hpp"

namespace dedup::server {
namespace {

// Clients choose what they send by the version of Redis. This is the one whose commands are
// answered here, of those that there are.
constexpr std::string_view kRedisVersion = "7.0.0";

bool is_valid_name(std::string_view name) {
    if (name.size() > 256) {  // it stays in memory
        return false;
    }
    for (const char byte : name) {
        if (byte < '!' || byte > '~') {
            return false;
        }
    }
    return true;
}

// The session is that user's from now on. What is wrong, or empty.
std::string_view seat(Session& session, Facts& facts, UserPtr user, std::uint64_t generation) {
    const auto& use = facts.uses.of(user->name);
    if (session.seat.use() != use) {
        if (use->connections >= facts.uses.connections_max) {
            return "ERR max number of clients of this user reached";
        }
        session.seat = UserSeat(use);
    }
    session.become(std::move(user));
    session.users_generation = generation;
    return "";
}

// Likewise.
std::string_view authenticate(const Request& request, std::string_view user,
                              std::string_view password) {
    Facts& facts = request.facts;
    Session& session = request.session;
    if (!facts.users.needed()) {
        return "ERR AUTH <password> called without any password configured for the default user. "
               "Are you sure your configuration is correct?";
    }
    const std::uint64_t generation = facts.users.generation();
    UserPtr known = facts.users.login(user, password);
    if (!known) {
        // Not what was said: who mistakes one for the other says a secret as a name.
        session.failed_login = facts.users.named(user) ? user : "";
        return "WRONGPASS invalid username-password pair or user is disabled.";
    }
    return seat(session, facts, std::move(known), generation);
}

CommandPtr ok(const Request& request) {
    return request.reply([](ReplyWriter& writer) { writer.ok(); });
}

CommandPtr make_auth(const Request& request) {
    if (request.size() > 3) {
        return request.error("ERR syntax error");
    }
    const bool has_user = request.size() == 3;
    const std::string_view wrong = authenticate(request, has_user ? request.argument(1) : "default",
                                                request.argument(has_user ? 2 : 1));
    return wrong.empty() ? ok(request) : request.error(wrong);
}

void write_hello(ReplyWriter& writer, const Session& session) {
    writer.map(7);
    writer.bulk("server");
    writer.bulk("dedup");
    writer.bulk("version");
    writer.bulk(kRedisVersion);
    writer.bulk("proto");
    writer.integer(session.protocol == Protocol::resp3 ? 3 : 2);
    writer.bulk("id");
    writer.integer(static_cast<std::int64_t>(session.id));
    writer.bulk("mode");
    writer.bulk("standalone");
    writer.bulk("role");
    writer.bulk("master");
    writer.bulk("modules");
    writer.array(0);
}

CommandPtr make_hello(const Request& request) {
    Session& session = request.session;
    Protocol protocol = session.protocol;
    std::string name = session.name;
    if (request.size() > 1) {
        const auto version = unsigned_number(request.argument(1));
        if (!version || (*version != 2 && *version != 3)) {
            return request.error("NOPROTO unsupported protocol version");
        }
        protocol = *version == 3 ? Protocol::resp3 : Protocol::resp2;
    }
    for (std::size_t i = 2; i < request.size();) {
        if (is_word(request.argument(i), "AUTH") && i + 2 < request.size()) {
            const auto wrong =
                authenticate(request, request.argument(i + 1), request.argument(i + 2));
            if (!wrong.empty()) {
                return request.error(wrong);
            }
            i += 3;
        } else if (is_word(request.argument(i), "SETNAME") && i + 1 < request.size() &&
                   is_valid_name(request.argument(i + 1))) {
            name = request.argument(i + 1);
            i += 2;
        } else {
            return request.error(
                fmt::format("ERR Syntax error in HELLO option '{}'", request.argument(i)));
        }
    }
    if (request.facts.users.needed() && !session.user) {
        return request.error(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the "
            "HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and "
            "select the RESP protocol version at the same time");
    }
    session.protocol = protocol;
    session.name = std::move(name);
    return request.reply([&session](ReplyWriter& writer) { write_hello(writer, session); });
}

CommandPtr make_ping(const Request& request) {
    if (request.size() > 2) {
        return request.error("ERR wrong number of arguments for 'ping' command");
    }
    return request.reply([&request](ReplyWriter& writer) {
        request.size() == 2 ? writer.bulk(request.argument(1)) : writer.simple("PONG");
    });
}

CommandPtr make_echo(const Request& request) {
    return request.reply([&request](ReplyWriter& writer) { writer.bulk(request.argument(1)); });
}

CommandPtr make_select(const Request& request) {
    const auto database = whole_number(request.argument(1));
    if (!database) {
        return request.error("ERR value is not an integer or out of range");
    }
    if (*database < 0 || std::cmp_greater_equal(*database, kDatabases)) {
        return request.error("ERR DB index is out of range");
    }
    request.session.database = static_cast<std::uint64_t>(*database);
    return ok(request);
}

CommandPtr make_quit(const Request& request) {
    request.session.closing = true;
    return ok(request);
}

CommandPtr make_reset(const Request& request) {
    Session& session = request.session;
    session.protocol = Protocol::resp2;
    session.database = 0;
    session.become(nullptr);
    session.seat = UserSeat();
    session.name.clear();
    session.transaction = {};
    log_in_certified(session, request.facts);  // as if it had just connected
    return request.reply([](ReplyWriter& writer) { writer.simple("RESET"); });
}

// Tells the server of the library alone.
CommandPtr set_info(const Request& request) {
    const std::string_view name = request.argument(2);
    if (!is_word(name, "LIB-NAME") && !is_word(name, "LIB-VER")) {
        return request.error(fmt::format("ERR Unrecognized option '{}'", name.substr(0, 32)));
    }
    if (!is_valid_name(request.argument(3))) {
        return request.error(
            fmt::format("ERR {} cannot contain spaces, newlines or special characters.", name));
    }
    return ok(request);
}

CommandPtr make_client(const Request& request) {
    const std::string_view what = request.argument(1);
    Session& session = request.session;
    if (is_word(what, "SETNAME") && request.size() == 3) {
        if (!is_valid_name(request.argument(2))) {
            return request.error(
                "ERR Client names cannot contain spaces, newlines or special characters.");
        }
        session.name = request.argument(2);
        return ok(request);
    }
    if (is_word(what, "GETNAME") && request.size() == 2) {
        return request.reply([&session](ReplyWriter& writer) {
            session.name.empty() ? writer.null() : writer.bulk(session.name);
        });
    }
    if (is_word(what, "ID") && request.size() == 2) {
        return request.reply([&session](ReplyWriter& writer) {
            writer.integer(static_cast<std::int64_t>(session.id));
        });
    }
    if (is_word(what, "SETINFO") && request.size() == 4) {
        return set_info(request);
    }
    // What these ask for holds here in any case.
    if ((is_word(what, "NO-EVICT") || is_word(what, "NO-TOUCH")) && request.size() == 3) {
        const bool known =
            is_word(request.argument(2), "ON") || is_word(request.argument(2), "OFF");
        return known ? ok(request) : request.error(kSyntaxError);
    }
    return request.error(
        fmt::format("ERR unknown subcommand '{}' of CLIENT, or wrong number of "
                    "arguments",
                    what.substr(0, 32)));
}

// As Redis has it. Nothing of it is for a user who is to see a part of the store only.
std::string command_counts(const std::vector<CommandTime>& times) {
    constexpr double kPerUs = 1e3;
    std::string lines = "# Commandstats\r\n";
    for (const auto& [command, ns] : times) {
        const double sum_us = static_cast<double>(ns.sum) / kPerUs;
        const std::uint64_t calls = ns.count();
        lines += fmt::format("cmdstat_{}:calls={},usec={:.0f},usec_per_call={:.2f}\r\n", command,
                             calls, sum_us, sum_us / static_cast<double>(calls));
    }
    return lines;
}

std::string command_shares(const std::vector<CommandTime>& times) {
    constexpr double kPerUs = 1e3;
    std::string lines = "# Latencystats\r\n";
    for (const auto& [command, ns] : times) {
        const auto us = [&ns](double share) {
            return static_cast<double>(ns.quantile(share)) / kPerUs;
        };
        lines += fmt::format("latency_percentiles_usec_{}:p50={:.3f},p99={:.3f},p99.9={:.3f}\r\n",
                             command, us(0.5), us(0.99), us(0.999));
    }
    return lines;
}

// Those that are named, or all; as with Redis, there may be none of a name.
CommandPtr make_info(const Request& request) {
    const auto wanted = [&request](std::string_view section) {
        const auto names = request.arguments.subspan(1);
        return names.empty() || std::ranges::any_of(names, [section](std::string_view name) {
                   return is_word(name, section) || is_word(name, "ALL") ||
                          is_word(name, "DEFAULT") || is_word(name, "EVERYTHING");
               });
    };
    std::string text;
    const auto add = [&](std::string_view section, const auto& write) {
        if (wanted(section)) {
            text += (text.empty() ? "" : "\r\n") + write();
        }
    };
    add("SERVER", [&] {
        return fmt::format(
            "# Server\r\nredis_version:{}\r\nredis_mode:standalone\r\ndedup_version:{}\r\n"
            "uptime_in_seconds:{}\r\n",
            kRedisVersion, version(), (system_now_ms() - request.facts.started_ms) / 1000);
    });
    add("PERSISTENCE", [] { return std::string("# Persistence\r\nloading:0\r\n"); });
    add("REPLICATION",
        [] { return std::string("# Replication\r\nrole:master\r\nconnected_slaves:0\r\n"); });
    const UserPtr& user = request.session.user;
    if (!user || (user->may(kMayRead) && user->may_everywhere())) {
        const auto times = request.facts.times.snapshot();
        add("COMMANDSTATS", [&] { return command_counts(times); });
        add("LATENCYSTATS", [&] { return command_shares(times); });
    }
    return request.reply([&text](ReplyWriter& writer) { writer.bulk(text); });
}

void write_command(ReplyWriter& writer, const CommandEntry& entry) {
    writer.array(6);
    std::string name(entry.name);
    for (char& byte : name) {
        byte = byte >= 'A' && byte <= 'Z' ? static_cast<char>(byte - 'A' + 'a') : byte;
    }
    writer.bulk(name);
    writer.integer(entry.arity);
    writer.array(1);
    writer.simple(entry.writes ? "write" : "readonly");
    writer.integer(entry.first_key);
    writer.integer(entry.last_key);
    writer.integer(entry.key_step);
}

CommandPtr make_command(const Request& request) {
    const auto all = all_commands();
    if (request.size() == 1) {
        return request.reply([all](ReplyWriter& writer) {
            writer.array(all.size());
            for (const CommandEntry* entry : all) {
                write_command(writer, *entry);
            }
        });
    }
    if (is_word(request.argument(1), "COUNT") && request.size() == 2) {
        return request.reply(
            [all](ReplyWriter& writer) { writer.integer(static_cast<std::int64_t>(all.size())); });
    }
    if (is_word(request.argument(1), "INFO")) {
        return request.reply([&request](ReplyWriter& writer) {
            writer.array(request.size() - 2);
            for (std::size_t i = 2; i < request.size(); ++i) {
                const CommandEntry* entry = find_command(request.argument(i));
                entry != nullptr ? write_command(writer, *entry) : writer.null_array();
            }
        });
    }
    if (is_word(request.argument(1), "DOCS")) {
        return request.reply([](ReplyWriter& writer) { writer.map(0); });
    }
    return request.error("ERR unknown subcommand of COMMAND");
}

// No parameter of Redis exists here; its tools ask for some, and take none for an answer.
CommandPtr make_config(const Request& request) {
    if (!is_word(request.argument(1), "GET")) {
        return request.error("ERR only CONFIG GET is known here; options are given at the start");
    }
    if (request.size() == 2) {
        return request.error("ERR wrong number of arguments for 'config|get' command");
    }
    return request.reply([](ReplyWriter& writer) { writer.map(0); });
}

CommandPtr make_cluster(const Request& request) {
    return request.error("ERR This instance has cluster support disabled");
}

// What is wrong with how long to wait, in milliseconds.
std::string_view bad_timeout(std::string_view text) {
    const auto timeout = whole_number(text);
    return !timeout       ? "ERR timeout is not an integer or out of range"
           : *timeout < 0 ? "ERR timeout is negative"
                          : "";
}

// Every reply is durable when it is sent, and there are no replicas: nothing is waited for.
CommandPtr make_wait(const Request& request) {
    if (!whole_number(request.argument(1))) {
        return request.error(kNotAnInteger);
    }
    if (const auto wrong = bad_timeout(request.argument(2)); !wrong.empty()) {
        return request.error(wrong);
    }
    return request.reply([](ReplyWriter& writer) { writer.integer(0); });
}

CommandPtr make_waitaof(const Request& request) {
    const auto local = whole_number(request.argument(1));
    const auto replicas = whole_number(request.argument(2));
    if (!local) {
        return request.error(kNotAnInteger);
    }
    if (*local < 0 || *local > 1) {
        return request.error("ERR value is out of range, value must between 0 and 1");
    }
    if (!replicas || *replicas < 0) {
        return request.error("ERR value is out of range, must be positive");
    }
    if (const auto wrong = bad_timeout(request.argument(3)); !wrong.empty()) {
        return request.error(wrong);
    }
    return request.reply([](ReplyWriter& writer) {
        writer.array(2);
        writer.integer(1);
        writer.integer(0);
    });
}

}  // namespace

std::string_view log_in_certified(Session& session, Facts& facts) {
    const std::uint64_t generation = facts.users.generation();
    UserPtr known = session.certified.empty() ? nullptr : facts.users.named(session.certified);
    return known ? seat(session, facts, std::move(known), generation) : "";
}

std::span<const CommandEntry> connection_commands() {
    static constexpr std::array<CommandEntry, 14> kCommands = {{
        {"AUTH", -2, 0, 0, 0, false, kOfConnection, make_auth},
        {"CLIENT", -2, 0, 0, 0, false, kOfConnection, make_client},
        {"CLUSTER", -2, 0, 0, 0, false, kOfConnection, make_cluster},
        {"COMMAND", -1, 0, 0, 0, false, kOfConnection, make_command},
        {"CONFIG", -2, 0, 0, 0, false, kOfConnection, make_config},
        {"ECHO", 2, 0, 0, 0, false, kOfConnection, make_echo},
        {"HELLO", -1, 0, 0, 0, false, kOfConnection, make_hello},
        {"INFO", -1, 0, 0, 0, false, kOfConnection, make_info},
        {"PING", -1, 0, 0, 0, false, kOfConnection, make_ping},
        {"QUIT", -1, 0, 0, 0, false, kOfConnection, make_quit},
        {"RESET", 1, 0, 0, 0, false, kOfConnection, make_reset},
        {"SELECT", 2, 0, 0, 0, false, kOfConnection, make_select},
        {"WAIT", 3, 0, 0, 0, false, kOfConnection, make_wait},
        {"WAITAOF", 4, 0, 0, 0, false, kOfConnection, make_waitaof},
    }};
    return kCommands;
}

}  // namespace dedup::server
