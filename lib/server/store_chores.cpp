// What a client of ours asks of a store as a whole.
#include <array>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "server/chore.hpp"
#include "server/command_table.hpp"
#include "server/field_map.hpp"

namespace dedup::server {
namespace {

// What a client has to know of the store before anything else. The number rises when an older
// client would misunderstand something.
constexpr int kProtocolVersion = 1;

std::string store_map(const Facts& facts, Protocol protocol, std::optional<std::int64_t> now_ms) {
    MapWriter map(protocol);
    map.number("version", kProtocolVersion);
    map.text("store_id", facts.store_id);
    map.number("grace_ms", facts.grace.count());
    if (now_ms) {
        map.number("now_ms", *now_ms);
    }
    map.text("token", facts.appends.token());
    return bytes_of(map);
}

// Says what time it is, too. Part of a round, which looks at the store's clock: a client that
// connects does not wait for what others scan.
class TimeCommand final : public Command {
  public:
    explicit TimeCommand(const Request& request)
        : Command(Kind::parts, request.session.protocol), facts_(request.facts) {}
    [[nodiscard]] bool appends() const override { return false; }
    void begin(std::int64_t now_ms) override { now_ms_ = now_ms; }

  protected:
    void reply(ReplyWriter& /*writer*/, std::string& out) override {
        out += store_map(facts_, protocol(), now_ms_);
    }

  private:
    const Facts& facts_;
    std::int64_t now_ms_ = 0;
};

CommandPtr make_store(const Request& request) {
    if (request.size() == 2 && is_word(request.argument(1), "TIME")) {
        return std::make_unique<TimeCommand>(request);
    }
    if (request.size() > 1) {
        return request.error("ERR syntax error: DEDUP.STORE [TIME]");
    }
    const Protocol protocol = request.session.protocol;
    return std::make_unique<KnownReply>(protocol, store_map(request.facts, protocol, std::nullopt));
}

CommandPtr make_flush(const Request& request) {
    return chore(request, [](const Chore& work) {
        auto flushed = work.store.flush();
        return flushed ? Result<std::string>("+OK\r\n")
                       : Result<std::string>(std::unexpected(std::move(flushed).error()));
    });
}

CommandPtr make_sweeps(const Request& request) {
    return chore(request, [protocol = request.session.protocol](const Chore& work) {
        return written(work.store.sweep_history(), [&](const std::vector<SweepReport>& reports) {
            std::string bytes;
            ReplyWriter(bytes, protocol).array(reports.size());
            for (const SweepReport& report : reports) {
                field_map(protocol, report).add_to(bytes);
            }
            return bytes;
        });
    });
}

// [done, total] of a sweep that runs, or null. Answered at once, while the sweep goes on.
CommandPtr make_sweeping(const Request& request) {
    const bool stop = request.size() == 3 && is_word(request.argument(2), "STOP");
    if (request.size() > 2 && !stop) {
        return request.error("ERR syntax error: DEDUP.SWEEPING id [STOP]");
    }
    const auto progress = request.facts.sweeps.look(request.argument(1), stop);
    return request.reply([&](ReplyWriter& writer) {
        if (!progress) {
            writer.null_array();
            return;
        }
        writer.array(2);
        writer.integer(static_cast<std::int64_t>(progress->done));
        writer.integer(static_cast<std::int64_t>(progress->total));
    });
}

}  // namespace

std::span<const CommandEntry> store_chores() {
    static constexpr std::array<CommandEntry, 4> kCommands = {{
        {"DEDUP.FLUSH", 1, 0, 0, 0, false, kFlushes, make_flush},
        {"DEDUP.STORE", -1, 0, 0, 0, false, kOfConnection, make_store},
        {"DEDUP.SWEEPING", -2, 0, 0, 0, false, kSweepsStore, make_sweeping},
        {"DEDUP.SWEEPS", 1, 0, 0, 0, false, kSweepsStore, make_sweeps},
    }};
    return kCommands;
}

}  // namespace dedup::server
