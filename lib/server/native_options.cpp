#include "server/native_options.hpp"

#include <fmt/format.h>

namespace dedup::server {
namespace {

using std::chrono::milliseconds;

std::optional<milliseconds> duration_in(std::string_view text) {
    if (is_word(text, "NEVER")) {
        return kForever;
    }
    const auto number = whole_number(text);
    return number ? std::optional(milliseconds{*number}) : std::nullopt;
}

// As with Unanswered. `good`: it is one of them.
bool set_unanswered(ClaimOptions& claim, std::string_view name, std::string_view value,
                    bool& good) {
    if (is_word(name, "UNANSWERED")) {
        claim.unanswered = is_word(value, "HOLD") ? Unanswered::hold : Unanswered::rerun;
        good = is_word(value, "HOLD") || is_word(value, "RERUN");
        return true;
    }
    if (is_word(name, "ATTEMPTSMAX")) {
        const auto number = unsigned_number(value);
        good = number && *number <= UINT32_MAX;
        claim.attempts_max = static_cast<std::uint32_t>(good ? *number : 0);
        return true;
    }
    return false;
}

bool set_option(NativeOptions& options, std::string_view name, std::string_view value,
                unsigned takes, bool& good) {
    ClaimOptions& claim = options.claim;
    if (is_word(name, "NS")) {
        options.cache.ns = value;
    } else if (is_word(name, "TTL") && (takes & kTakesTtl) != 0) {
        claim.ttl = duration_in(value);
        good = claim.ttl.has_value();
    } else if (is_word(name, "METADATA") && (takes & kTakesMetadata) != 0) {
        options.metadata = value;
        claim.metadata = value;
    } else if (is_word(name, "OWNER") && (takes & kTakesRequest) != 0) {
        claim.owner = value;
    } else if (is_word(name, "FINGERPRINT") && (takes & kTakesRequest) != 0) {
        claim.fingerprint = value;
    } else if (is_word(name, "EVENT") && (takes & kTakesRequest) != 0) {
        claim.event_id = value;
    } else if (is_word(name, "EXPIREAT") && (takes & kTakesRequest) != 0) {
        claim.expires_at_ms = whole_number(value);
        good = claim.expires_at_ms.has_value();
    } else if (is_word(name, "LEASE") && (takes & kTakesLease) != 0) {
        const auto lease = whole_number(value);
        claim.lease = milliseconds{lease.value_or(0)};
        good = lease.has_value();
    } else if (is_word(name, "WAIT") && (takes & kTakesWait) != 0) {
        const auto wait = whole_number(value);
        options.wait = milliseconds{wait.value_or(0)};
        good = wait && *wait >= 0 && *wait <= INT32_MAX;
    } else if (is_word(name, "ORDER") && (takes & kTakesOrder) != 0) {
        options.any_order = is_word(value, "ANY");
        good = options.any_order;
    } else if (is_word(name, "REASON") && (takes & kTakesReason) != 0) {
        options.reason = value;
    } else if (is_word(name, "BY") && (takes & kTakesReason) != 0) {
        options.by = value;
    } else {
        return (takes & kTakesUnanswered) != 0 && set_unanswered(claim, name, value, good);
    }
    return true;
}

// Who decides is what he says, and whom he has logged in as.
std::string with_user(const std::string& by, const std::string& user) {
    return by.empty() || by == user ? user : fmt::format("{}, logged in as {}", by, user);
}

}  // namespace

std::string read_options(const Request& request, std::size_t from, unsigned takes,
                         NativeOptions& options) {
    for (std::size_t i = from; i < request.size(); i += 2) {
        const std::string_view name = request.argument(i);
        bool good = i + 1 < request.size();
        if (!good) {
            return fmt::format("ERR {} stands without a value", name);
        }
        if (!set_option(options, name, request.argument(i + 1), takes, good)) {
            return fmt::format("ERR {} is not an option of {}", name, request.argument(0));
        }
        if (!good) {
            return fmt::format("ERR {} is not {}, for {}", request.argument(i + 1),
                               is_word(name, "UNANSWERED")    ? "HOLD or RERUN"
                               : is_word(name, "ATTEMPTSMAX") ? "a number"
                               : is_word(name, "ORDER")       ? "ANY"
                                                              : "a number of milliseconds",
                               name);
        }
    }
    if ((takes & kTakesReason) != 0 && request.session.user) {
        options.by = with_user(options.by, request.session.user->name);
    }
    if (auto checked = check_namespace(options.cache.ns); !checked) {
        return "ERR " + checked.error().message;
    }
    return "";
}

}  // namespace dedup::server
