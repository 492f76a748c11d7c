#include "server/command_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "server/transaction.hpp"

namespace dedup::server {
namespace {

// Of an unknown name, so that a client's mistake does not fill the reply.
constexpr std::size_t kShownBytesMax = 64;

// Of all commands but the one that brings a batch for the store.
constexpr std::size_t kArgumentsMax = 16 * 1024;
constexpr std::string_view kBatchCommand = "DEDUP.APPEND";

std::vector<const CommandEntry*> sorted_commands() {
    std::vector<const CommandEntry*> all;
    for (const auto& group :
         {connection_commands(), native_commands(), decision_commands(), native_chores(),
          store_commands(), store_chores(), string_commands(), expiry_commands(), script_commands(),
          sweep_commands(), transaction_commands()}) {
        for (const CommandEntry& entry : group) {
            all.push_back(&entry);
        }
    }
    std::ranges::sort(all, {}, &CommandEntry::name);
    return all;
}

bool without_password(std::string_view name) {
    constexpr std::array<std::string_view, 4> kAllowed = {"AUTH", "HELLO", "QUIT", "RESET"};
    return std::ranges::find(kAllowed, name) != kAllowed.end();
}

// Or has an answer of its own while one is open.
bool ends_transaction(std::string_view name) {
    constexpr std::array<std::string_view, 5> kNames = {"DISCARD", "EXEC", "MULTI", "QUIT",
                                                        "RESET"};
    return std::ranges::find(kNames, name) != kNames.end();
}

bool fits_arity(const CommandEntry& entry, std::size_t arguments) {
    return entry.arity >= 0 ? std::cmp_equal(arguments, entry.arity)
                            : std::cmp_greater_equal(arguments, -entry.arity);
}

// What a command is about is what it says when it is carried out, and nothing else.
bool may_touch(const User& user, const Command& command) {
    if (user.may_everywhere() || command.kind() == Command::Kind::reply) {
        return true;
    }
    if (command.kind() != Command::Kind::parts) {
        const auto ns = command.reads_namespace();
        return ns && user.may_in(*ns);
    }
    for (std::size_t part = 0; part < command.parts(); ++part) {
        if (!user.may_in(command.stream(part).ns)) {
            return false;
        }
    }
    return true;
}

}  // namespace

bool look_again(Session& session, Facts& facts) {
    const Users& users = facts.users;
    const auto keeps = [](const UserPtr& before, const UserPtr& now) {
        return now && now->covers(*before);
    };
    const bool earlier_keep = std::ranges::all_of(
        session.earlier, [&](const UserPtr& user) { return keeps(user, users.now(user)); });
    if (!session.user || session.users_generation == users.generation()) {
        return earlier_keep;
    }
    session.users_generation = users.generation();
    const UserPtr before = session.user;
    session.user = users.now(before);
    if (!session.user && before->name == session.certified) {
        log_in_certified(session, facts);  // its secret is another one, which it has not shown
    }
    return earlier_keep && keeps(before, session.user);
}

CommandPtr no_permission(const Request& request, std::string_view command, std::string_view why) {
    return request.error(
        fmt::format("NOPERM this user has no permissions to run the '{}' command: {}",
                    lower_case(command), why));
}

CommandPtr make_allowed(const Request& request, const CommandEntry& entry) {
    const UserPtr user = request.session.user;
    if (!user) {
        return entry.make(request);  // nobody has to log in, or for this not
    }
    const auto& [rights, scope] = entry.access;
    if (!user->may(rights)) {
        return no_permission(request, entry.name, missing_rights(*user, rights));
    }
    if (scope == Scope::store && !user->may_everywhere()) {
        return no_permission(request, entry.name,
                             fmt::format("it is for users of all namespaces, and '{}' is none "
                                         "(namespaces=*; see `dedupctl user`)",
                                         user->name));
    }
    CommandPtr command = entry.make(request);
    if (scope == Scope::streams && !may_touch(*user, *command)) {
        return no_permission(request, entry.name,
                             fmt::format("'{}' may not use this namespace, which is not among the "
                                         "namespaces= of its line (see `dedupctl user`)",
                                         user->name));
    }
    return command;
}

std::span<const CommandEntry* const> all_commands() {
    static const std::vector<const CommandEntry*> kAll = sorted_commands();
    return kAll;
}

const CommandEntry* find_command(std::string_view name) {
    const std::string wanted = upper_case(name.substr(0, kShownBytesMax));
    const auto all = all_commands();
    const auto found = std::ranges::lower_bound(
        all, std::string_view(wanted), {}, [](const CommandEntry* entry) { return entry->name; });
    return found != all.end() && (*found)->name == wanted && wanted.size() == name.size() ? *found
                                                                                          : nullptr;
}

CommandPtr understand(const Request& request) {
    const std::string_view name = request.argument(0);
    const CommandEntry* entry = find_command(name);
    const bool needs_password = request.facts.users.needed() && !request.session.user;
    if (needs_password && (entry == nullptr || !without_password(entry->name))) {
        return request.error("NOAUTH Authentication required.");
    }
    if (entry == nullptr || !fits_arity(*entry, request.size())) {
        request.session.transaction.bad = true;
    }
    if (entry == nullptr) {
        return request.error(
            fmt::format("ERR unknown command '{}'; docs/server.md lists those that there are",
                        name.substr(0, kShownBytesMax)));
    }
    if (!fits_arity(*entry, request.size())) {
        return request.error(
            fmt::format("ERR wrong number of arguments for '{}' command", lower_case(entry->name)));
    }
    if (request.size() > kArgumentsMax && entry->name != kBatchCommand) {
        return request.error(fmt::format("ERR {} arguments; at most {} are allowed for '{}'",
                                         request.size(), kArgumentsMax, entry->name));
    }
    const bool queued = request.session.transaction.open && !ends_transaction(entry->name);
    if (queued) {
        return queue_command(request, *entry);
    }
    CommandPtr command = make_allowed(request, *entry);
    if (command->kind() != Command::Kind::reply) {
        command->timing.histogram = &request.facts.times.of(*entry);
        command->asked_by = request.session.seat.use().get();
    }
    return command;
}

}  // namespace dedup::server
