// DEDUP.NOTE, HOLD, RESOLVE and FORGET: what is said about work whose end nobody can be sure of.
#include <array>
#include <utility>

#include "server/command_table.hpp"
#include "server/native_command.hpp"

namespace dedup::server {
namespace {

class NoteCommand final : public FencedCommand<NoteOp, NoteCommand> {
  public:
    NoteCommand(const Request& request, NativeOptions options, std::uint64_t fence)
        : FencedCommand(request, std::move(options), fence), text_(request.argument(3)) {}
    [[nodiscard]] NoteOp op() const { return {options_.cache, key_, claim(), text_}; }
    void write(const Result<void>& /*answer*/, std::string& out) const {
        MapWriter map = outcome_map(protocol(), "noted", options_.cache.ns, key_);
        map.number("claim_sequence", claim_.claim_sequence);
        map.add_to(out);
    }

  private:
    std::string text_;
};

class HoldCommand final : public FencedCommand<HoldOp, HoldCommand> {
  public:
    HoldCommand(const Request& request, NativeOptions options, std::uint64_t fence)
        : FencedCommand(request, std::move(options), fence), why_(request.argument(3)) {}
    [[nodiscard]] HoldOp op() const { return {options_.cache, key_, claim(), why_}; }
    void write(const Result<void>& /*answer*/, std::string& out) const {
        MapWriter map = outcome_map(protocol(), "held", options_.cache.ns, key_);
        map.number("claim_sequence", claim_.claim_sequence);
        map.add_to(out);
    }

  private:
    std::string why_;
};

class ResolveCommand final : public FencedCommand<ResolveOp, ResolveCommand> {
  public:
    ResolveCommand(const Request& request, NativeOptions options, std::uint64_t fence,
                   std::optional<std::string> receipt)
        : FencedCommand(request, std::move(options), fence),
          resolution_{.receipt = std::move(receipt),
                      .reason = options_.reason,
                      .by = options_.by,
                      .ttl = options_.claim.ttl} {}
    [[nodiscard]] ResolveOp op() const {
        return {options_.cache, key_, claim_.claim_sequence, resolution_};
    }
    void write(const Result<void>& /*answer*/, std::string& out) const {
        MapWriter map = outcome_map(protocol(), resolution_.receipt ? "completed" : "released",
                                    options_.cache.ns, key_);
        map.number("claim_sequence", claim_.claim_sequence);
        map.add_to(out);
    }

  private:
    Resolution resolution_;
};

class ForgetCommand final : public FencedCommand<ForgetOp, ForgetCommand> {
  public:
    using FencedCommand::FencedCommand;
    [[nodiscard]] ForgetOp op() const {
        return {options_.cache, key_, claim_.claim_sequence, options_.reason, options_.by};
    }
    // Which state there was nothing to forget in is what the store said of it then.
    std::optional<Append> decide(std::size_t part, const Seen& seen) override {
        was_in_flight_ = seen.in_flight();
        return FencedCommand::decide(part, seen);
    }
    void write(const Result<bool>& answer, std::string& out) const {
        const std::string_view outcome = *answer          ? "forgotten"
                                         : was_in_flight_ ? "in_flight"
                                                          : "absent";
        outcome_map(protocol(), outcome, options_.cache.ns, key_).add_to(out);
    }

  private:
    bool was_in_flight_ = false;
};

CommandPtr make_note(const Request& request) {
    const auto fence = fence_of(request, false);
    return fence ? make_native<NoteCommand>(request, 4, kTakesNs, *fence) : bad_fence(request);
}

CommandPtr make_hold(const Request& request) {
    const auto fence = fence_of(request, false);
    return fence ? make_native<HoldCommand>(request, 4, kTakesNs, *fence) : bad_fence(request);
}

CommandPtr make_resolve(const Request& request) {
    const auto fence = fence_of(request, false);
    if (!fence) {
        return bad_fence(request);
    }
    if (is_word(request.argument(3), "NOTDONE")) {
        return make_native<ResolveCommand>(request, 4, kTakesReason, *fence,
                                           std::optional<std::string>());
    }
    if (is_word(request.argument(3), "DONE") && request.size() > 4) {
        return make_native<ResolveCommand>(request, 5, kTakesReason | kTakesTtl, *fence,
                                           std::optional<std::string>(request.argument(4)));
    }
    return request.error(
        "ERR syntax error: DEDUP.RESOLVE key fence DONE receipt|NOTDONE REASON text [BY who] "
        "[TTL ms] [NS namespace]");
}

CommandPtr make_forget(const Request& request) {
    const auto fence = fence_of(request, true);
    return fence ? make_native<ForgetCommand>(request, 3, kTakesReason, *fence)
                 : bad_fence(request);
}

}  // namespace

std::span<const CommandEntry> decision_commands() {
    static constexpr std::array<CommandEntry, 4> kCommands = {{
        {"DEDUP.FORGET", -3, 1, 1, 1, true, kDecides, make_forget},
        {"DEDUP.HOLD", -4, 1, 1, 1, true, kClaims, make_hold},
        {"DEDUP.NOTE", -4, 1, 1, 1, true, kClaims, make_note},
        {"DEDUP.RESOLVE", -4, 1, 1, 1, true, kDecides, make_resolve},
    }};
    return kCommands;
}

}  // namespace dedup::server
