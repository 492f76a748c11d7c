#include "server/transaction.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <string_view>
#include <utility>

namespace dedup::server {

TransactionCommand::TransactionCommand(Protocol protocol, std::vector<CommandPtr> commands)
    : Command(Kind::parts, protocol), commands_(std::move(commands)) {
    std::map<std::pair<std::string_view, std::string_view>, std::size_t> places;
    for (const CommandPtr& command : commands_) {
        std::vector<std::size_t>& parts = part_of_.emplace_back();
        for (std::size_t part = 0; part < command->parts(); ++part) {
            const StreamKey wanted = command->stream(part);
            const auto [at, is_new] = places.try_emplace({wanted.ns, wanted.key}, streams_.size());
            parts.push_back(at->second);
            if (is_new) {
                streams_.push_back(wanted);
            }
        }
    }
}

std::vector<Append> TransactionCommand::decide_all(std::vector<std::optional<Record>>& heads,
                                                   std::int64_t now_ms) {
    std::vector<std::optional<Append>> last(heads.size());
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < commands_.size(); ++i) {
        if (does_nothing(i, heads, now_ms)) {
            continue;
        }
        for (std::size_t part = 0; part < part_of_[i].size(); ++part) {
            const std::size_t stream = part_of_[i][part];
            std::optional<Record>& head = heads[stream];
            bytes += head && head->receipt ? head->receipt->size() : 0;
            if (bytes > kTransactionValuesMax) {
                failed({Code::invalid_argument, "the values are too long for one transaction"});
                return {};
            }
            auto append = commands_[i]->decide(part, {head, now_ms, std::chrono::milliseconds{0}});
            if (append) {
                // For the next ones the stream is so, and what is appended for it has the same
                // sequence to expect.
                head = append->record;
                head->sequence = append->expected_sequence;
                last[stream] = std::move(append);
            }
        }
    }
    std::vector<Append> batch;
    for (std::optional<Append>& append : last) {
        if (append) {
            batch.push_back(*std::move(append));
        }
    }
    return batch;
}

// Whether the command does nothing, for what it finds: the others go on, as with Redis.
bool TransactionCommand::does_nothing(std::size_t command,
                                      std::vector<std::optional<Record>>& heads,
                                      std::int64_t now_ms) {
    commands_[command]->begin(now_ms);
    for (std::size_t part = 0; part < part_of_[command].size(); ++part) {
        std::optional<Record>& head = heads[part_of_[command][part]];
        if (commands_[command]->refuses(part, {head, now_ms, std::chrono::milliseconds{0}})) {
            return true;
        }
    }
    return false;
}

void TransactionCommand::reply(ReplyWriter& writer, std::string& out) {
    writer.array(commands_.size());
    for (const CommandPtr& command : commands_) {
        command->write_reply(out);
    }
}

namespace {

// Those on strings, and those that ask nothing of the store. What changes the connection, or takes
// long, or gives fences has no place in a transaction.
bool fits_transaction(const CommandEntry& entry) {
    constexpr std::array<std::string_view, 4> kOthers = {"ECHO", "EVAL", "EVALSHA", "PING"};
    return !entry.name.starts_with("DEDUP.") &&
           (entry.first_key != 0 || std::ranges::find(kOthers, entry.name) != kOthers.end());
}

CommandPtr make_multi(const Request& request) {
    Transaction& transaction = request.session.transaction;
    if (transaction.open) {
        return request.error("ERR MULTI calls can not be nested");
    }
    transaction = {};
    transaction.open = true;
    return request.reply([](ReplyWriter& writer) { writer.ok(); });
}

CommandPtr make_discard(const Request& request) {
    Transaction& transaction = request.session.transaction;
    if (!transaction.open) {
        return request.error("ERR DISCARD without MULTI");
    }
    transaction = {};
    return request.reply([](ReplyWriter& writer) { writer.ok(); });
}

CommandPtr make_exec(const Request& request) {
    Transaction transaction = std::exchange(request.session.transaction, {});
    if (!transaction.open) {
        return request.error("ERR EXEC without MULTI");
    }
    if (transaction.bad) {
        return request.error("EXECABORT Transaction discarded because of previous errors.");
    }
    return std::make_unique<TransactionCommand>(request.session.protocol,
                                                std::move(transaction.commands));
}

}  // namespace

CommandPtr queue_command(const Request& request, const CommandEntry& entry) {
    Transaction& transaction = request.session.transaction;
    const auto refuse = [&](std::string_view why) {
        transaction.bad = true;
        return request.error(why);
    };
    if (!fits_transaction(entry)) {
        return refuse(fmt::format("ERR {} is not possible in a transaction", entry.name));
    }
    for (const std::string_view argument : request.arguments) {
        transaction.bytes += argument.size();
    }
    if (transaction.commands.size() == kTransactionCommandsMax ||
        transaction.bytes > kTransactionBytesMax) {
        return refuse(fmt::format("ERR a transaction has at most {} commands and {} bytes",
                                  kTransactionCommandsMax, kTransactionBytesMax));
    }
    CommandPtr command = make_allowed(request, entry);
    if (command->is_error()) {
        transaction.bad = true;
        return command;
    }
    transaction.parts += command->parts();
    if (transaction.parts > kTransactionPartsMax) {
        return refuse(fmt::format("ERR a transaction names at most {} keys", kTransactionPartsMax));
    }
    transaction.commands.push_back(std::move(command));
    return request.reply([](ReplyWriter& writer) { writer.simple("QUEUED"); });
}

std::span<const CommandEntry> transaction_commands() {
    static constexpr std::array<CommandEntry, 3> kCommands = {{
        {"DISCARD", 1, 0, 0, 0, false, kOfConnection, make_discard},
        {"EXEC", 1, 0, 0, 0, false, Access(0, Scope::streams), make_exec},
        {"MULTI", 1, 0, 0, 0, false, kOfConnection, make_multi},
    }};
    return kCommands;
}

}  // namespace dedup::server
