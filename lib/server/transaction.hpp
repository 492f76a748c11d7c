// MULTI and EXEC: commands on strings that take effect together or not at all, as one atomic batch.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "server/command_table.hpp"

namespace dedup::server {

// What a client may say since MULTI. Its bytes count as those of requests; EXEC comes within
// ServerOptions::stall_timeout, or the connection is closed.
inline constexpr std::size_t kTransactionCommandsMax = 1024;
inline constexpr std::size_t kTransactionBytesMax = 1024 * 1024;
inline constexpr std::size_t kTransactionValuesMax = 256 * 1024 * 1024;  // as they are asked for
inline constexpr std::size_t kTransactionPartsMax = 4096;  // keys, each as often as it is named

// The commands decide one after the other, each on what those before it have left, and each stream
// gets one append: what the last of them made of it.
class TransactionCommand final : public Command {
  public:
    TransactionCommand(Protocol protocol, std::vector<CommandPtr> commands);

    [[nodiscard]] std::size_t parts() const override { return streams_.size(); }
    [[nodiscard]] StreamKey stream(std::size_t part) const override { return streams_[part]; }
    [[nodiscard]] bool appends() const override { return true; }
    [[nodiscard]] bool atomic() const override { return true; }
    [[nodiscard]] std::vector<Append> decide_all(std::vector<std::optional<Record>>& heads,
                                                 std::int64_t now_ms) override;

  protected:
    void reply(ReplyWriter& writer, std::string& out) override;

  private:
    [[nodiscard]] bool does_nothing(std::size_t command, std::vector<std::optional<Record>>& heads,
                                    std::int64_t now_ms);

    std::vector<CommandPtr> commands_;
    std::vector<StreamKey> streams_;                 // each once; they lie in the commands
    std::vector<std::vector<std::size_t>> part_of_;  // a command's part: which of the streams
};

// While a transaction is being said: keeps the command for EXEC and replies QUEUED.
[[nodiscard]] CommandPtr queue_command(const Request& request, const CommandEntry& entry);

[[nodiscard]] std::span<const CommandEntry> transaction_commands();

}  // namespace dedup::server
