// Commands that run on a thread of their own, and what they share.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "server/session.hpp"

namespace dedup::server {

// `Work` gets the chore, and gives the reply as bytes or an error.
class ChoreCommand final : public Command {
  public:
    using Work = std::function<Result<std::string>(const Chore&)>;
    ChoreCommand(Kind kind, Protocol protocol, Work work, std::optional<std::string> ns)
        : Command(kind, protocol), work_(std::move(work)), ns_(std::move(ns)) {}
    [[nodiscard]] std::optional<std::string_view> reads_namespace() const override { return ns_; }
    void run(const Chore& chore) override {
        auto done = work_(chore);
        if (done) {
            bytes_ = *std::move(done);
        } else {
            failed(std::move(done).error());
        }
    }

  protected:
    void reply(ReplyWriter& /*writer*/, std::string& out) override { out += bytes_; }

  private:
    Work work_;
    const std::optional<std::string> ns_;
    std::string bytes_;
};

// About the whole store.
[[nodiscard]] inline CommandPtr chore(const Request& request, ChoreCommand::Work work,
                                      Command::Kind kind = Command::Kind::chore) {
    return std::make_unique<ChoreCommand>(kind, request.session.protocol, std::move(work),
                                          std::nullopt);
}

// That reads `ns` alone.
[[nodiscard]] inline CommandPtr chore_in(std::string ns, const Request& request,
                                         ChoreCommand::Work work) {
    return std::make_unique<ChoreCommand>(Command::Kind::chore, request.session.protocol,
                                          std::move(work), std::move(ns));
}

// What `write` makes of a result, or its error.
template <class T, class Write>
Result<std::string> written(Result<T> result, Write write) {
    if (!result) {
        return std::unexpected(std::move(result).error());
    }
    return write(*result);
}

[[nodiscard]] inline std::string bytes_of(const MapWriter& map) {
    std::string bytes;
    map.add_to(bytes);
    return bytes;
}

}  // namespace dedup::server
