#include "server/string_command.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <limits>

namespace dedup::server {
namespace {

// How long the history says that a key was removed. Nothing else depends on it.
constexpr std::int64_t kTombstoneMs = std::chrono::milliseconds(std::chrono::hours{1}).count();

constexpr std::int64_t kTimeMax = std::numeric_limits<std::int64_t>::max();

}  // namespace

Append StringSeen::put(std::string_view value, std::int64_t expires_at_ms) const {
    Record record;
    record.ns = stream_.ns;
    record.key = stream_.key;
    record.timestamp_ms = now_ms_;
    record.expires_at_ms = expires_at_ms;
    record.receipt = value;
    return {sequence(), std::move(record)};
}

Append StringSeen::expire(std::int64_t expires_at_ms) const {
    return expires_at_ms <= now_ms_ ? remove() : with_expiry(expires_at_ms);
}

Append StringSeen::with_expiry(std::int64_t expires_at_ms) const {
    Record record = *head_;
    record.sequence = 0;
    record.expires_at_ms = expires_at_ms;
    return {sequence(), std::move(record)};
}

Append StringSeen::remove() const {
    Record record;
    record.kind = Kind::tombstone;
    record.ns = stream_.ns;
    record.key = stream_.key;
    record.claim_sequence = head_->claim_sequence;
    record.timestamp_ms = now_ms_;
    record.expires_at_ms = now_ms_ + kTombstoneMs;
    return {sequence(), std::move(record)};
}

std::optional<Append> StringCommand::decide(std::size_t /*part*/, const Seen& seen) {
    const StringSeen found(seen, {ns_, key_});
    wrong_type_ = false;
    return found.is_claim() ? decide_claim(found) : decide_key(found);
}

std::optional<Append> StringCommand::decide_claim(const StringSeen& /*seen*/) {
    wrong_type_ = true;
    return std::nullopt;
}

void StringCommand::reply(ReplyWriter& writer, std::string& /*out*/) {
    if (wrong_type_) {
        writer.error(
            "WRONGTYPE the key is a claim in flight; DEDUP.LOOKUP shows it, DEDUP.COMPLETE and "
            "DEDUP.RELEASE answer it");
        return;
    }
    write(writer);
}

std::optional<std::string> key_problem(std::string_view key) {
    const auto checked = check_key(key);
    return checked ? std::nullopt : std::optional("ERR " + checked.error().message);
}

std::int64_t Expiry::at_ms(std::int64_t now_ms, std::int64_t kept_ms) const {
    switch (kind) {
        case Kind::never:
            return 0;
        case Kind::in:
            return ms > kTimeMax - now_ms ? kTimeMax : now_ms + ms;
        case Kind::at:
            return std::max<std::int64_t>(ms, 1);  // 0 is never
        case Kind::keep:
            return kept_ms;
    }
    return 0;
}

bool is_expiry_unit(std::string_view word) {
    return is_word(word, "EX") || is_word(word, "PX") || is_word(word, "EXAT") ||
           is_word(word, "PXAT");
}

std::optional<Expiry> expiry_in(std::string_view unit, std::string_view number) {
    constexpr std::int64_t kMsPerSecond = 1000;
    const bool in_ms = unit.front() == 'P' || unit.front() == 'p';
    auto value = whole_number(number);
    if (!value || *value < 1 || (!in_ms && *value > kTimeMax / kMsPerSecond)) {
        return std::nullopt;
    }
    const auto kind = unit.size() == 2 ? Expiry::Kind::in : Expiry::Kind::at;
    const std::int64_t ms = in_ms ? *value : *value * kMsPerSecond;
    return kind == Expiry::Kind::in && !is_time_in(ms) ? std::nullopt
                                                       : std::optional(Expiry{kind, ms});
}

bool is_time_in(std::int64_t ms) {
    return ms <= kTimeMax - system_now_ms();
}

CommandPtr bad_expiry(const Request& request, std::string_view number) {
    if (!whole_number(number)) {
        return request.error(kNotAnInteger);
    }
    return request.error(
        fmt::format("ERR invalid expire time in '{}' command", lower_case(request.argument(0))));
}

}  // namespace dedup::server
