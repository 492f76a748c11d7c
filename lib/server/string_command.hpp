// Redis' strings as records. A key that is there is a completed record, its value the receipt; one
// that is not has no head, an expired one, or a tombstone. It expires to the millisecond: the
// store's grace, which is for clocks of several hosts, would let a lock of 500 ms last three times
// as long. A claim in flight in such a namespace is a key of another type.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "server/session.hpp"

namespace dedup::server {

// A key as a command finds it.
class StringSeen {
  public:
    StringSeen(const Seen& seen, StreamKey stream)
        : head_(seen.head), stream_(stream), now_ms_(seen.now_ms) {}

    [[nodiscard]] bool exists() const { return live() && head_->receipt; }
    [[nodiscard]] bool is_claim() const { return live() && !head_->receipt; }
    // Of a key that exists:
    [[nodiscard]] const std::string& value() const { return *head_->receipt; }
    [[nodiscard]] std::int64_t expires_at_ms() const { return head_->expires_at_ms; }  // 0: never

    [[nodiscard]] bool equals(std::string_view other) const { return exists() && value() == other; }
    [[nodiscard]] std::int64_t now_ms() const { return now_ms_; }

    // The key has this value from now on.
    [[nodiscard]] Append put(std::string_view value, std::int64_t expires_at_ms) const;
    // The key that exists goes at this time; now, if that is not later.
    [[nodiscard]] Append expire(std::int64_t expires_at_ms) const;
    // The key that exists stays.
    [[nodiscard]] Append persist() const { return with_expiry(0); }
    // The key that exists goes.
    [[nodiscard]] Append remove() const;

  private:
    [[nodiscard]] Append with_expiry(std::int64_t expires_at_ms) const;
    [[nodiscard]] bool live() const {
        return head_ && head_->kind == Kind::active &&
               !expired(head_->expires_at_ms, now_ms_, std::chrono::milliseconds{0});
    }
    [[nodiscard]] std::uint64_t sequence() const { return head_ ? head_->sequence : 0; }

    const std::optional<Record>& head_;
    StreamKey stream_;
    std::int64_t now_ms_;
};

// A command about one key.
class StringCommand : public Command {
  public:
    StringCommand(const Request& request, std::string_view key)
        : Command(Kind::parts, request.session.protocol),
          ns_(request.session.database_namespace()),
          key_(key) {}

    [[nodiscard]] std::size_t parts() const override { return 1; }
    [[nodiscard]] StreamKey stream(std::size_t /*part*/) const override { return {ns_, key_}; }
    std::optional<Append> decide(std::size_t part, const Seen& seen) override;

  protected:
    virtual std::optional<Append> decide_key(const StringSeen& seen) = 0;
    // The key is a claim in flight. An error, if the command does not say otherwise.
    virtual std::optional<Append> decide_claim(const StringSeen& seen);
    virtual void write(ReplyWriter& writer) = 0;
    void reply(ReplyWriter& writer, std::string& out) final;

    bool wrong_type_ = false;

  private:
    const std::string ns_;
    const std::string key_;
};

// An error if no key of a store can have this name.
[[nodiscard]] std::optional<std::string> key_problem(std::string_view key);

// Makes a command about the key in argument 1.
template <class Made, class... More>
[[nodiscard]] CommandPtr make_string_command(const Request& request, More&&... more) {
    if (const auto problem = key_problem(request.argument(1))) {
        return request.error(*problem);
    }
    return std::make_unique<Made>(request, request.argument(1), std::forward<More>(more)...);
}

inline constexpr std::string_view kSyntaxError = "ERR syntax error";
inline constexpr std::string_view kNotAnInteger = "ERR value is not an integer or out of range";

// When a key expires: in so long, at a time, or as it would have anyway.
struct Expiry {
    enum class Kind : std::uint8_t { never, in, at, keep };
    Kind kind = Kind::never;
    std::int64_t ms = 0;

    // `kept_ms` is when the key, as it is, expires. 0: never.
    [[nodiscard]] std::int64_t at_ms(std::int64_t now_ms, std::int64_t kept_ms) const;
};

// A number of seconds or milliseconds, from now or since 1970, as EX, PX, EXAT and PXAT name them;
// nullopt if that is out of range. (Redis' rule: it must be at least 1.)
[[nodiscard]] std::optional<Expiry> expiry_in(std::string_view unit, std::string_view number);
// The error for a `number` that is none, or out of range.
[[nodiscard]] CommandPtr bad_expiry(const Request& request, std::string_view number);
// Whether so long from now is a time that there is.
[[nodiscard]] bool is_time_in(std::int64_t ms);
[[nodiscard]] bool is_expiry_unit(std::string_view word);

}  // namespace dedup::server
