// EXPIRE, TTL and their kin.
#include <fmt/format.h>

#include <array>
#include <limits>
#include <optional>

#include "server/command_table.hpp"
#include "server/string_command.hpp"

namespace dedup::server {
namespace {

constexpr std::int64_t kMs = 1000;
constexpr std::int64_t kLatestMs = std::numeric_limits<std::int64_t>::max();

struct ExpireOptions {
    std::int64_t ms = 0;
    bool absolute = false;
    bool if_none = false;     // NX
    bool if_some = false;     // XX
    bool if_later = false;    // GT
    bool if_earlier = false;  // LT
};

class ExpireCommand final : public StringCommand {
  public:
    ExpireCommand(const Request& request, std::string_view key, ExpireOptions options)
        : StringCommand(request, key), options_(options) {}

  protected:
    std::optional<Append> decide_key(const StringSeen& seen) override {
        const std::int64_t at_ms = options_.absolute ? options_.ms : later(seen.now_ms());
        done_ = seen.exists() && allowed(seen.expires_at_ms(), at_ms);
        return done_ ? std::optional(seen.expire(at_ms)) : std::nullopt;
    }
    void write(ReplyWriter& writer) override { writer.integer(done_ ? 1 : 0); }

  private:
    [[nodiscard]] std::int64_t later(std::int64_t now_ms) const {
        return options_.ms > kLatestMs - now_ms ? kLatestMs : now_ms + options_.ms;
    }
    // A key that never expires does so later than any other.
    [[nodiscard]] bool allowed(std::int64_t was_ms, std::int64_t at_ms) const {
        const bool has_one = was_ms != 0;
        return !(options_.if_none && has_one) && !(options_.if_some && !has_one) &&
               !(options_.if_later && (!has_one || at_ms <= was_ms)) &&
               !(options_.if_earlier && has_one && at_ms >= was_ms);
    }
    const ExpireOptions options_;
    bool done_ = false;
};

class PersistCommand final : public StringCommand {
  public:
    using StringCommand::StringCommand;

  protected:
    std::optional<Append> decide_key(const StringSeen& seen) override {
        done_ = seen.exists() && seen.expires_at_ms() != 0;
        return done_ ? std::optional(seen.persist()) : std::nullopt;
    }
    void write(ReplyWriter& writer) override { writer.integer(done_ ? 1 : 0); }

  private:
    bool done_ = false;
};

class TtlCommand final : public StringCommand {
  public:
    TtlCommand(const Request& request, std::string_view key, bool in_ms, bool absolute)
        : StringCommand(request, key), in_ms_(in_ms), absolute_(absolute) {}
    [[nodiscard]] bool appends() const override { return false; }

  protected:
    std::optional<Append> decide_key(const StringSeen& seen) override {
        constexpr std::int64_t kAbsent = -2;
        constexpr std::int64_t kNever = -1;
        if (!seen.exists() || seen.expires_at_ms() == 0) {
            answer_ = seen.exists() ? kNever : kAbsent;
            return std::nullopt;
        }
        const std::int64_t ms = seen.expires_at_ms() - (absolute_ ? 0 : seen.now_ms());
        answer_ = in_ms_ ? ms : ms / kMs + (ms % kMs >= kMs / 2 ? 1 : 0);
        return std::nullopt;
    }
    void write(ReplyWriter& writer) override { writer.integer(answer_); }

  private:
    const bool in_ms_;
    const bool absolute_;
    std::int64_t answer_ = 0;
};

CommandPtr make_expire_with(const Request& request, bool in_ms, bool absolute) {
    ExpireOptions options{.absolute = absolute};
    for (std::size_t i = 3; i < request.size(); ++i) {
        const std::string_view word = request.argument(i);
        bool* const flag = is_word(word, "NX")   ? &options.if_none
                           : is_word(word, "XX") ? &options.if_some
                           : is_word(word, "GT") ? &options.if_later
                           : is_word(word, "LT") ? &options.if_earlier
                                                 : nullptr;
        if (flag == nullptr) {
            return request.error(fmt::format("ERR Unsupported option {}", word));
        }
        *flag = true;
    }
    if (options.if_none && (options.if_some || options.if_later || options.if_earlier)) {
        return request.error("ERR NX and XX, GT or LT options at the same time are not compatible");
    }
    if (options.if_later && options.if_earlier) {
        return request.error("ERR GT and LT options at the same time are not compatible");
    }
    const auto number = whole_number(request.argument(2));
    if (!number) {
        return request.error(kNotAnInteger);
    }
    const std::int64_t most = in_ms ? kLatestMs : kLatestMs / kMs;
    if (*number > most || *number < -most) {
        return bad_expiry(request, request.argument(2));
    }
    options.ms = in_ms ? *number : *number * kMs;
    if (!absolute && !is_time_in(options.ms)) {
        return bad_expiry(request, request.argument(2));
    }
    return make_string_command<ExpireCommand>(request, options);
}

CommandPtr make_expire(const Request& request) {
    return make_expire_with(request, false, false);
}
CommandPtr make_pexpire(const Request& request) {
    return make_expire_with(request, true, false);
}
CommandPtr make_expireat(const Request& request) {
    return make_expire_with(request, false, true);
}
CommandPtr make_pexpireat(const Request& request) {
    return make_expire_with(request, true, true);
}
CommandPtr make_persist(const Request& request) {
    return make_string_command<PersistCommand>(request);
}
CommandPtr make_ttl(const Request& request) {
    return make_string_command<TtlCommand>(request, false, false);
}
CommandPtr make_pttl(const Request& request) {
    return make_string_command<TtlCommand>(request, true, false);
}
CommandPtr make_expiretime(const Request& request) {
    return make_string_command<TtlCommand>(request, false, true);
}
CommandPtr make_pexpiretime(const Request& request) {
    return make_string_command<TtlCommand>(request, true, true);
}

}  // namespace

std::span<const CommandEntry> expiry_commands() {
    static constexpr std::array<CommandEntry, 9> kCommands = {{
        {"EXPIRE", -3, 1, 1, 1, true, kRewrites, make_expire},
        {"EXPIREAT", -3, 1, 1, 1, true, kRewrites, make_expireat},
        {"EXPIRETIME", 2, 1, 1, 1, false, kReads, make_expiretime},
        {"PERSIST", 2, 1, 1, 1, true, kRewrites, make_persist},
        {"PEXPIRE", -3, 1, 1, 1, true, kRewrites, make_pexpire},
        {"PEXPIREAT", -3, 1, 1, 1, true, kRewrites, make_pexpireat},
        {"PEXPIRETIME", 2, 1, 1, 1, false, kReads, make_pexpiretime},
        {"PTTL", 2, 1, 1, 1, false, kReads, make_pttl},
        {"TTL", 2, 1, 1, 1, false, kReads, make_ttl},
    }};
    return kCommands;
}

}  // namespace dedup::server
