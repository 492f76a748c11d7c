// DEDUP.*: the claim protocol itself, as decide.hpp has it.
#include <fmt/format.h>

#include <array>
#include <optional>
#include <utility>

#include "server/command_table.hpp"
#include "server/native_command.hpp"

namespace dedup::server {
namespace {

using std::chrono::milliseconds;

class LookupCommand : public NativeCommand<LookupOp, LookupCommand> {
  public:
    using NativeCommand::NativeCommand;
    [[nodiscard]] LookupOp op() const { return {options_.cache, key_}; }
    void write(const Result<LookupOutcome>& answer, std::string& out) const {
        const std::string& ns = options_.cache.ns;
        if (const auto* completed = std::get_if<Completed>(&*answer)) {
            completed_map(protocol(), ns, key_, *completed).add_to(out);
        } else if (const auto* held = std::get_if<InFlight>(&*answer)) {
            in_flight_map(protocol(), ns, key_, *held).add_to(out);
        } else {
            outcome_map(protocol(), "absent", ns, key_).add_to(out);
        }
    }
};

// Until when a command waits for the answer of whoever holds the key.
class Patience {
  public:
    void set(std::optional<milliseconds> wait) { wait_ = wait; }
    // How much is left: from the first look on, and at most as long as the lease of the claim runs.
    [[nodiscard]] std::optional<milliseconds> left(const InFlight& held,
                                                   std::int64_t now_ms) const {
        const auto now = std::chrono::steady_clock::now();
        if (!wait_ || held.held || (held.lease_until_ms != 0 && now_ms > held.lease_until_ms)) {
            return std::nullopt;
        }
        if (!since_) {
            since_ = now;
        }
        if (now - *since_ >= *wait_) {
            return std::nullopt;
        }
        auto left = std::chrono::ceil<milliseconds>(*wait_ - (now - *since_));
        if (held.lease_until_ms != 0) {
            left = std::min(left, milliseconds{held.lease_until_ms - now_ms + 1});
        }
        return left;
    }

  private:
    std::optional<milliseconds> wait_;
    mutable std::optional<std::chrono::steady_clock::time_point> since_;
};

// Of any order: the reply says of which stream, and no more. The client looks it up.
class WaitCommand final : public LookupCommand {
  public:
    WaitCommand(const Request& request, NativeOptions options)
        : LookupCommand(request, std::move(options)) {
        patience_.set(options_.wait);
        set_of_any_order(options_.any_order);
    }
    void part_failed(std::size_t part, Error error) override {
        if (!options_.any_order) {
            LookupCommand::part_failed(part, std::move(error));
        }
    }
    [[nodiscard]] std::optional<milliseconds> waits(std::int64_t now_ms) const override {
        const auto* held = answer_ ? std::get_if<InFlight>(&*answer_) : nullptr;
        return held != nullptr ? patience_.left(*held, now_ms) : std::nullopt;
    }

  protected:
    void reply(ReplyWriter& writer, std::string& out) override {
        if (!options_.any_order) {
            LookupCommand::reply(writer, out);
            return;
        }
        writer.array(2);
        writer.bulk(options_.cache.ns);
        writer.bulk(key_);
    }

  private:
    Patience patience_;
};

class ClaimCommand final : public NativeCommand<ClaimOp, ClaimCommand> {
  public:
    ClaimCommand(const Request& request, NativeOptions options)
        : NativeCommand(request, std::move(options)) {
        patience_.set(options_.wait);
    }
    [[nodiscard]] ClaimOp op() const { return {options_.cache, key_, options_.claim}; }
    [[nodiscard]] std::optional<milliseconds> waits(std::int64_t now_ms) const override {
        const auto* held = answer_ ? std::get_if<InFlight>(&*answer_) : nullptr;
        return held != nullptr ? patience_.left(*held, now_ms) : std::nullopt;
    }
    void write(const Result<ClaimOutcome>& answer, std::string& out) const {
        const std::string& ns = options_.cache.ns;
        if (const auto* claimed = std::get_if<Claimed>(&*answer)) {
            MapWriter map = claimed_map(protocol(), claimed->claim);
            if (claimed->previous) {
                map.map("previous", previous_map(protocol(), *claimed->previous));
            }
            map.add_to(out);
        } else if (const auto* completed = std::get_if<Completed>(&*answer)) {
            completed_map(protocol(), ns, key_, *completed).add_to(out);
        } else if (const auto* held = std::get_if<InFlight>(&*answer)) {
            in_flight_map(protocol(), ns, key_, *held).add_to(out);
        } else if (const auto* unanswered = std::get_if<Held>(&*answer)) {
            held_map(protocol(), ns, key_, *unanswered).add_to(out);
        } else {
            mismatch_map(protocol(), ns, key_, std::get<Mismatch>(*answer)).add_to(out);
        }
    }

  private:
    Patience patience_;
};

class RememberCommand final : public NativeCommand<RememberOp, RememberCommand> {
  public:
    RememberCommand(const Request& request, NativeOptions options)
        : NativeCommand(request, std::move(options)), receipt_(request.argument(2)) {}
    [[nodiscard]] RememberOp op() const { return {options_.cache, key_, receipt_, options_.claim}; }
    void write(const Result<RememberOutcome>& answer, std::string& out) const {
        const std::string& ns = options_.cache.ns;
        if (const auto* fresh = std::get_if<New>(&*answer)) {
            MapWriter map = outcome_map(protocol(), "new", ns, key_);
            map.number("claim_sequence", fresh->claim_sequence);
            if (fresh->previous) {
                map.map("previous", previous_map(protocol(), *fresh->previous));
            }
            map.add_to(out);
        } else if (const auto* completed = std::get_if<Completed>(&*answer)) {
            completed_map(protocol(), ns, key_, *completed, "duplicate").add_to(out);
        } else if (const auto* held = std::get_if<InFlight>(&*answer)) {
            in_flight_map(protocol(), ns, key_, *held).add_to(out);
        } else if (const auto* unanswered = std::get_if<Held>(&*answer)) {
            held_map(protocol(), ns, key_, *unanswered).add_to(out);
        } else {
            mismatch_map(protocol(), ns, key_, std::get<Mismatch>(*answer)).add_to(out);
        }
    }

  private:
    std::string receipt_;
};

class CompleteCommand final : public FencedCommand<CompleteOp, CompleteCommand> {
  public:
    CompleteCommand(const Request& request, NativeOptions options, std::uint64_t fence)
        : FencedCommand(request, std::move(options), fence),
          receipt_(request.argument(3)),
          completion_{options_.claim.ttl, options_.metadata} {}
    [[nodiscard]] CompleteOp op() const {
        return {options_.cache, key_, claim(), receipt_, completion_};
    }
    void write(const Result<void>& /*answer*/, std::string& out) const {
        MapWriter map = outcome_map(protocol(), "completed", options_.cache.ns, key_);
        if (claim() != nullptr) {
            map.number("claim_sequence", claim_.claim_sequence);
        }
        map.text("receipt", receipt_);
        map.add_to(out);
    }

  private:
    std::string receipt_;
    CompleteOptions completion_;
};

class ReleaseCommand final : public FencedCommand<ReleaseOp, ReleaseCommand> {
  public:
    using FencedCommand::FencedCommand;
    [[nodiscard]] ReleaseOp op() const { return {options_.cache, key_, claim()}; }
    // Which state there was nothing to release in is what the store said of it then.
    std::optional<Append> decide(std::size_t part, const Seen& seen) override {
        was_completed_ = seen.completed();
        return FencedCommand::decide(part, seen);
    }
    void write(const Result<bool>& answer, std::string& out) const {
        const std::string_view outcome = *answer          ? "released"
                                         : was_completed_ ? "completed"
                                                          : "absent";
        outcome_map(protocol(), outcome, options_.cache.ns, key_).add_to(out);
    }

  private:
    bool was_completed_ = false;
};

class RenewCommand final : public FencedCommand<RenewOp, RenewCommand> {
  public:
    RenewCommand(const Request& request, NativeOptions options, std::uint64_t fence,
                 milliseconds lease)
        : FencedCommand(request, std::move(options), fence), lease_(lease) {}
    [[nodiscard]] RenewOp op() const { return {options_.cache, key_, claim(), lease_}; }
    void write(const Result<Claim>& answer, std::string& out) const {
        claimed_map(protocol(), *answer, "renewed").add_to(out);
    }

  private:
    milliseconds lease_;
};

CommandPtr make_lookup(const Request& request) {
    return make_native<LookupCommand>(request, 2, kTakesNs);
}

CommandPtr make_native_wait(const Request& request) {
    const auto wait = unsigned_number(request.argument(2));
    if (!wait || *wait > INT32_MAX) {
        return request.error("ERR the time to wait is not a number of milliseconds");
    }
    NativeOptions options;
    if (const std::string wrong = read_options(request, 3, kTakesOrder, options); !wrong.empty()) {
        return request.error(wrong);
    }
    options.wait = milliseconds{*wait};
    if (const auto checked = check_key(request.argument(1)); !checked) {
        return request.error("ERR " + checked.error().message);
    }
    return std::make_unique<WaitCommand>(request, std::move(options));
}

CommandPtr make_claim(const Request& request) {
    return make_native<ClaimCommand>(
        request, 2,
        kTakesTtl | kTakesMetadata | kTakesRequest | kTakesLease | kTakesWait | kTakesUnanswered);
}

CommandPtr make_remember(const Request& request) {
    return make_native<RememberCommand>(request, 3, kTakesTtl | kTakesMetadata | kTakesRequest);
}

CommandPtr make_complete(const Request& request) {
    const auto fence = fence_of(request, true);
    return fence ? make_native<CompleteCommand>(request, 4, kTakesTtl | kTakesMetadata, *fence)
                 : bad_fence(request);
}

CommandPtr make_release(const Request& request) {
    const auto fence = fence_of(request, true);
    return fence ? make_native<ReleaseCommand>(request, 3, kTakesNs, *fence) : bad_fence(request);
}

CommandPtr make_renew(const Request& request) {
    const auto fence = fence_of(request, false);
    const auto lease = whole_number(request.argument(3));
    if (!lease) {
        return request.error("ERR the lease is not a number of milliseconds");
    }
    return fence ? make_native<RenewCommand>(request, 4, kTakesNs, *fence, milliseconds{*lease})
                 : bad_fence(request);
}

}  // namespace

std::span<const CommandEntry> native_commands() {
    static constexpr std::array<CommandEntry, 7> kCommands = {{
        {"DEDUP.CLAIM", -2, 1, 1, 1, true, kClaims, make_claim},
        {"DEDUP.COMPLETE", -4, 1, 1, 1, true, kCompletes, make_complete},
        {"DEDUP.LOOKUP", -2, 1, 1, 1, false, kReads, make_lookup},
        {"DEDUP.RELEASE", -3, 1, 1, 1, true, kClaims, make_release},
        {"DEDUP.REMEMBER", -3, 1, 1, 1, true, kClaimsAndCompletes, make_remember},
        {"DEDUP.RENEW", -4, 1, 1, 1, true, kClaims, make_renew},
        {"DEDUP.WAIT", -3, 1, 1, 1, false, kReads, make_native_wait},
    }};
    return kCommands;
}

}  // namespace dedup::server
