// What the native commands share.
#pragma once

#include <fmt/format.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "server/native_options.hpp"
#include "server/native_reply.hpp"

namespace dedup::server {

// A command that is one operation of the claim protocol. `Made` gives the operation as op(), and
// writes its answer.
template <class Op, class Made>
class NativeCommand : public Command {
  public:
    // NOLINTNEXTLINE(bugprone-crtp-constructor-accessibility): FencedCommand stands between
    NativeCommand(const Request& request, NativeOptions options)
        : Command(Kind::parts, request.session.protocol),
          options_(std::move(options)),
          key_(request.argument(1)) {}

    [[nodiscard]] std::size_t parts() const override { return 1; }
    [[nodiscard]] StreamKey stream(std::size_t /*part*/) const override {
        return {options_.cache.ns, key_};
    }
    [[nodiscard]] bool appends() const override { return !std::is_same_v<Op, LookupOp>; }
    std::optional<Append> decide(std::size_t /*part*/, const Seen& seen) override {
        auto decision = made().op().decide(seen);
        answer_ = std::move(decision.answer);
        return std::move(decision.append);
    }
    void landed(std::size_t /*part*/, std::uint64_t sequence) override {
        Op::landed(answer_, sequence);
    }
    [[nodiscard]] Result<void> check() { return made().op().check(); }

  protected:
    void reply(ReplyWriter& writer, std::string& out) override {
        answer_ ? made().write(answer_, out) : writer.error(answer_.error());
    }

    NativeOptions options_;
    std::string key_;
    Result<typename Op::Answer> answer_;

  private:
    Made& made() { return static_cast<Made&>(*this); }
};

// Those that answer for a claim. A fence of CURRENT is whatever claim there is.
template <class Op, class Made>
class FencedCommand : public NativeCommand<Op, Made> {
  public:
    // NOLINTNEXTLINE(bugprone-crtp-constructor-accessibility): as above
    FencedCommand(const Request& request, NativeOptions options, std::uint64_t fence)
        : NativeCommand<Op, Made>(request, std::move(options)),
          claim_{.ns = this->options_.cache.ns, .key = this->key_, .claim_sequence = fence} {}

  protected:
    [[nodiscard]] const Claim* claim() const {
        return claim_.claim_sequence == 0 ? nullptr : &claim_;
    }
    Claim claim_;
};

template <class Made, class... More>
[[nodiscard]] CommandPtr make_native(const Request& request, std::size_t from, unsigned takes,
                                     const More&... more) {
    NativeOptions options;
    if (const std::string wrong = read_options(request, from, takes, options); !wrong.empty()) {
        return request.error(wrong);
    }
    auto made = std::make_unique<Made>(request, std::move(options), more...);
    if (const auto checked = made->check(); !checked) {
        return request.error("ERR " + checked.error().message);
    }
    return made;
}

// The fence in argument 2: 0 for CURRENT.
[[nodiscard]] inline std::optional<std::uint64_t> fence_of(const Request& request,
                                                           bool or_current) {
    if (or_current && is_word(request.argument(2), "CURRENT")) {
        return 0;
    }
    const auto fence = unsigned_number(request.argument(2));
    return fence && *fence != 0 ? fence : std::nullopt;
}

[[nodiscard]] inline CommandPtr bad_fence(const Request& request) {
    return request.error(
        fmt::format("ERR {} is not a claim_sequence; a claim's reply has it", request.argument(2)));
}

}  // namespace dedup::server
