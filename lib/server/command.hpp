// One request that has been understood: what it looks at, what it comes to, what is replied.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cache/decide.hpp"
#include "dedup/store.hpp"
#include "server/command_times.hpp"
#include "server/reply_writer.hpp"
#include "server/user_use.hpp"

namespace dedup::server {

// What a command that runs on its own (see Command::Kind) gets.
struct Chore {
    StreamStore& store;
    std::stop_token stop;           // the server ends
    const std::atomic<bool>& gone;  // nobody takes the reply

    [[nodiscard]] bool is_wanted() const { return !stop.stop_requested() && !gone; }
};

// A command has parts, each about one stream. The executor reads the heads of the parts' streams,
// lets each part decide, appends what they ask for together with what all other commands ask for,
// and has the reply written when all of that is durable. decide() is called again for a part whose
// append has lost a race; so it may write down what it found, but never what it has found before.
//
// One thread at a time uses a command: the reactor makes it, the executor carries it out.
class Command {
  public:
    enum class Kind : std::uint8_t {
        reply,  // needs nothing but reply()
        parts,  // has parts
        chore,  // run() may take long, and nobody else is to wait for it
        sweep,  // a chore that may take very long: nor are other chores to wait for it
    };

    Command(Kind kind, Protocol protocol) : kind_(kind), protocol_(protocol) {}
    virtual ~Command() = default;
    Command(const Command&) = delete;
    Command& operator=(const Command&) = delete;

    [[nodiscard]] Kind kind() const { return kind_; }
    [[nodiscard]] Protocol protocol() const { return protocol_; }
    Timing timing = {};
    const UserUse* asked_by = nullptr;  // whose it is; null: of nobody who has logged in
    std::uint64_t turn = 0;             // among those that wait; 0: it has not waited yet

    [[nodiscard]] virtual std::size_t parts() const { return 0; }
    // Valid as long as the command is.
    [[nodiscard]] virtual StreamKey stream(std::size_t /*part*/) const { return {}; }
    // False: none of its parts ever appends.
    [[nodiscard]] virtual bool appends() const { return true; }
    // Before the parts decide, also where no head can be read: the time that they are judged by.
    virtual void begin(std::int64_t /*now_ms*/) {}
    // Then asked for each part whose head can be read, before any decides: whether there is
    // something that keeps the command from doing anything, which it has noted.
    [[nodiscard]] virtual bool refuses(std::size_t /*part*/, const Seen& /*seen*/) { return false; }
    // What `part` comes to, which the command keeps for reply(), and what must be appended first.
    virtual std::optional<Append> decide(std::size_t /*part*/, const Seen& /*seen*/) { return {}; }
    virtual void landed(std::size_t /*part*/, std::uint64_t /*sequence*/) {}
    // What keeps the command from its reply; the first is what the client gets.
    void failed(Error error) {
        if (!error_) {
            error_ = std::move(error);
        }
    }
    // The store's answer to a part: an error of the whole command, unless that replies to each part
    // on its own.
    virtual void part_failed(std::size_t /*part*/, Error error) { failed(std::move(error)); }

    // Whether all that it appends takes effect together, or nothing does. Then decide_all() is
    // asked instead of decide(), with the heads of all streams, none of which comes twice.
    [[nodiscard]] virtual bool atomic() const { return false; }
    [[nodiscard]] virtual std::vector<Append> decide_all(
        std::vector<std::optional<Record>>& /*heads*/, std::int64_t /*now_ms*/) {
        return {};
    }
    // What decide_all() asked for has taken effect, with these sequences.
    virtual void landed_all(std::span<const Result<std::uint64_t>> /*sequences*/) {}
    // The store's answer to what decide_all() asked for, other than that somebody was faster.
    virtual void append_failed(Error error) { failed(std::move(error)); }

    // Of a chore: the one namespace that it reads; nullopt: it may read all.
    [[nodiscard]] virtual std::optional<std::string_view> reads_namespace() const {
        return std::nullopt;
    }
    // Of a chore.
    virtual void run(const Chore& /*chore*/) {}

    // Known before it is carried out to come to an error.
    [[nodiscard]] virtual bool is_error() const { return false; }

    // Set: there is no reply yet, as the command waits for somebody else's answer about its one
    // stream. It decides again when that changes, after so long, and now and then.
    [[nodiscard]] virtual std::optional<std::chrono::milliseconds> waits(
        std::int64_t /*now_ms*/) const {
        return std::nullopt;
    }

    // Whether what follows in the connection need not wait until it is answered: its reply says
    // what it is a reply to.
    [[nodiscard]] bool of_any_order() const { return of_any_order_; }

    void write_reply(std::string& out) {
        ReplyWriter writer(out, protocol_);
        error_ ? writer.error(*error_) : reply(writer, out);
    }

  protected:
    virtual void reply(ReplyWriter& writer, std::string& out) = 0;
    void set_of_any_order(bool is) { of_any_order_ = is; }

  private:
    friend void refuse(std::unique_ptr<Command>& command, std::unique_ptr<Command> with);

    const Kind kind_;
    const Protocol protocol_;
    bool of_any_order_ = false;
    std::optional<Error> error_;
};

using CommandPtr = std::unique_ptr<Command>;

// Has `with` answer in the place of `command`, which is not carried out.
inline void refuse(CommandPtr& command, CommandPtr with) {
    with->of_any_order_ = command->of_any_order_;
    command = std::move(with);
}

// A reply that is known before the store is asked.
class KnownReply final : public Command {
  public:
    KnownReply(Protocol protocol, std::string bytes)
        : Command(Kind::reply, protocol), bytes_(std::move(bytes)) {}
    [[nodiscard]] bool is_error() const override { return bytes_.starts_with('-'); }

  protected:
    void reply(ReplyWriter& /*writer*/, std::string& out) override { out += bytes_; }

  private:
    std::string bytes_;
};

// A reply that `write(ReplyWriter&)` writes.
template <class Write>
[[nodiscard]] CommandPtr known_reply(Protocol protocol, Write write) {
    std::string bytes;
    ReplyWriter writer(bytes, protocol);
    write(writer);
    return std::make_unique<KnownReply>(protocol, std::move(bytes));
}

[[nodiscard]] inline CommandPtr error_reply(Protocol protocol, std::string_view text) {
    return known_reply(protocol, [text](ReplyWriter& writer) { writer.error(text); });
}

}  // namespace dedup::server
