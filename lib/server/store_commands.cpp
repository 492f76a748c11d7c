// DEDUP.HEADS and DEDUP.APPEND: the store's contract itself, for clients of ours. Records travel in
// their own encoding, so that whatever a record has arrives.
#include <fmt/format.h>

#include <array>
#include <chrono>
#include <utility>

#include "contract/check_batch.hpp"
#include "record/codec.hpp"
#include "server/append_rights.hpp"
#include "server/command_table.hpp"
#include "wire/error_word.hpp"

namespace dedup::server {
namespace {

// A reply of heads ends with the one that has brought it above this; the client asks for the rest.
constexpr std::size_t kHeadsBytesMax = 16 * 1024 * 1024;
constexpr std::size_t kIdBytesMax = 64;

// Whether it may be what somebody notes or decides of a claim, which is durable before it is
// acknowledged. Append::flush does not travel.
bool says_of_claim(const Record& record) {
    return record.verdict.kind != Verdict::Kind::none ||
           (record.state() == State::in_flight && record.claim_sequence != 0);
}

// [word, message, os_error, head_sequence]
void write_item_error(ReplyWriter& writer, const Error& error) {
    writer.array(4);
    writer.bulk(wire::error_word(error.code));
    writer.bulk(error.message);
    writer.integer(error.os_error);
    writer.integer(static_cast<std::int64_t>(error.head_sequence));
}

// [now_ms, record or null or error, ...]
class HeadsCommand final : public Command {
  public:
    explicit HeadsCommand(const Request& request)
        : Command(Kind::parts, request.session.protocol),
          names_(request.arguments.begin() + 1, request.arguments.end()) {}

    [[nodiscard]] std::size_t parts() const override { return names_.size() / 2; }
    [[nodiscard]] StreamKey stream(std::size_t part) const override {
        return {names_[2 * part], names_[2 * part + 1]};
    }
    [[nodiscard]] bool appends() const override { return false; }
    // The time is told even if no head can be read.
    void begin(std::int64_t now_ms) override { now_ms_ = now_ms; }
    std::optional<Append> decide(std::size_t /*part*/, const Seen& seen) override {
        if (items_.size() <= kHeadsBytesMax) {
            ++count_;
            ReplyWriter writer(items_, protocol());
            if (seen.head) {
                std::string bytes;
                encode(*seen.head, bytes);
                writer.bulk(bytes);
            } else {
                writer.null();
            }
        }
        return std::nullopt;
    }
    void part_failed(std::size_t /*part*/, Error error) override {
        if (items_.size() <= kHeadsBytesMax) {
            ++count_;
            ReplyWriter writer(items_, protocol());
            write_item_error(writer, error);
        }
    }

  protected:
    void reply(ReplyWriter& writer, std::string& out) override {
        writer.array(1 + count_);
        writer.integer(now_ms_);
        out += items_;
    }

  private:
    const std::vector<std::string> names_;
    std::string items_;  // as they are replied
    std::size_t count_ = 0;
    std::int64_t now_ms_ = 0;
};

// [now_ms, token, certain, sequence or error, ...]
class AppendCommand final : public Command {
  public:
    AppendCommand(const Request& request, bool atomic, std::vector<Append> items)
        : Command(Kind::parts, request.session.protocol),
          memory_(request.facts.appends),
          id_(id_of(request)),
          since_(request.argument(3)),
          atomic_(atomic),
          user_(request.session.user),
          grace_(request.facts.grace),
          items_(std::move(items)),
          results_(items_.size()) {}

    [[nodiscard]] std::size_t parts() const override { return items_.size(); }
    [[nodiscard]] StreamKey stream(std::size_t part) const override {
        return {items_[part].record.ns, items_[part].record.key};
    }
    // The time is told even if no head can be read.
    void begin(std::int64_t now_ms) override { now_ms_ = now_ms; }
    std::optional<Append> decide(std::size_t part, const Seen& seen) override {
        now_ms_ = seen.now_ms;
        if (is_known() || !is_expected(part, seen.head) || !is_of_now(part) ||
            !is_allowed(part, seen.head)) {
            return std::nullopt;
        }
        return items_[part];
    }
    void landed(std::size_t part, std::uint64_t sequence) override { results_[part] = sequence; }
    void part_failed(std::size_t part, Error error) override {
        results_[part] = std::unexpected(std::move(error));
    }

    [[nodiscard]] bool atomic() const override { return atomic_; }
    [[nodiscard]] std::vector<Append> decide_all(std::vector<std::optional<Record>>& heads,
                                                 std::int64_t now_ms) override {
        if (is_known()) {
            return {};
        }
        now_ms_ = now_ms;
        bool all = true;
        for (std::size_t part = 0; part < items_.size(); ++part) {
            all = is_expected(part, heads[part]) && all;
        }
        for (std::size_t part = 0; part < items_.size(); ++part) {
            if (!is_of_now(part) || (all && !is_allowed(part, heads[part]))) {
                results_.assign(items_.size(), results_[part]);
                return {};
            }
        }
        if (!all) {
            for (std::size_t part = 0; part < items_.size(); ++part) {
                results_[part] = std::unexpected(conflict(part, heads[part]));
            }
            return {};
        }
        return items_;
    }
    void landed_all(std::span<const Result<std::uint64_t>> sequences) override {
        results_.assign(sequences.begin(), sequences.end());
    }
    // A result like any other: when the append comes again, it gets that, and is not tried again.
    void append_failed(Error error) override {
        results_.assign(items_.size(), std::unexpected(std::move(error)));
    }

  protected:
    void reply(ReplyWriter& writer, std::string& out) override {
        if (is_known()) {  // also where no part could be decided
            out += *known_;
            return;
        }
        const std::size_t begin = out.size();
        writer.array(3 + results_.size());
        writer.integer(now_ms_);
        writer.bulk(memory_.token());
        writer.integer(static_cast<int>(since_ == "0" || memory_.knows_since(since_)));
        for (const auto& result : results_) {
            result ? writer.integer(static_cast<std::int64_t>(*result))
                   : write_item_error(writer, result.error());
        }
        memory_.remember(id_, out.substr(begin));
    }

  private:
    // As the client gave it; no other user's.
    static std::string id_of(const Request& request) {
        const std::string id(request.argument(2));
        return request.session.user ? request.session.user->name + ' ' + id : id;
    }
    // Whether it has been carried out before: another connection of the client's has asked for it.
    bool is_known() {
        if (const std::string* const reply = known_ ? nullptr : memory_.find(id_)) {
            known_ = *reply;
        }
        return known_.has_value();
    }
    // Otherwise the part's result is that conflict.
    bool is_expected(std::size_t part, const std::optional<Record>& head) {
        if ((head ? head->sequence : 0) == items_[part].expected_sequence) {
            return true;
        }
        results_[part] = std::unexpected(conflict(part, head));
        return false;
    }
    // A record from the future moves the store's time, which is everybody's. Otherwise the part's
    // result is that error.
    bool is_of_now(std::size_t part) {
        constexpr std::int64_t kAheadMs = 1000;  // of clients whose clocks run fast
        const bool may_set_time = !user_ || (user_->may(kMayAdmin) && user_->may_everywhere());
        if (may_set_time ||
            items_[part].record.timestamp_ms <= std::max(now_ms_, system_now_ms() + kAheadMs)) {
            return true;
        }
        results_[part] = std::unexpected(Error{
            Code::invalid_argument,
            fmt::format("the record's timestamp_ms, {}, is ahead of the store's time, {}; that is "
                        "for users with the right admin in all namespaces",
                        items_[part].record.timestamp_ms, now_ms_)});
        return false;
    }
    // Likewise.
    bool is_allowed(std::size_t part, const std::optional<Record>& head) {
        if (!user_) {
            return true;
        }
        const unsigned wanted = rights_for(items_[part].record, head, now_ms_, grace_);
        if (!user_->may(wanted)) {
            results_[part] =
                std::unexpected(Error{Code::invalid_argument,
                                      "this user has no permissions to make that of the "
                                      "key: " +
                                          missing_rights(*user_, wanted)});
        }
        return user_->may(wanted);
    }
    [[nodiscard]] Error conflict(std::size_t part, const std::optional<Record>& head) const {
        return sequence_conflict(items_[part], head ? head->sequence : 0);
    }

    AppendMemory& memory_;
    const std::string id_;
    const std::string since_;
    const bool atomic_;
    const UserPtr user_;                     // null: whoever may do everything
    const std::chrono::milliseconds grace_;  // the store's
    const std::vector<Append> items_;
    std::vector<Result<std::uint64_t>> results_;
    std::optional<std::string> known_;  // the reply that it got before
    std::int64_t now_ms_ = 0;
};

CommandPtr make_heads(const Request& request) {
    if (request.size() % 2 == 0) {
        return request.error("ERR syntax error: DEDUP.HEADS namespace key [namespace key ...]");
    }
    return std::make_unique<HeadsCommand>(request);
}

CommandPtr make_append(const Request& request) {
    constexpr std::size_t kFirstItem = 4;
    const bool atomic = is_word(request.argument(1), "ATOMIC");
    if ((!atomic && !is_word(request.argument(1), "EACH")) || request.size() % 2 != 0 ||
        request.argument(2).size() > kIdBytesMax || request.argument(3).size() > kIdBytesMax) {
        return request.error(
            "ERR syntax error: DEDUP.APPEND EACH|ATOMIC id since [expected record ...]");
    }
    std::vector<Append> items;
    items.reserve((request.size() - kFirstItem) / 2);
    for (std::size_t i = kFirstItem; i < request.size(); i += 2) {
        const auto expected = unsigned_number(request.argument(i));
        auto record = decode(request.argument(i + 1));
        const Result<void> checked =
            record ? check_record(*record) : std::unexpected(record.error());
        if (!expected || !checked) {
            return request.error(fmt::format(
                "ERR item {}: {}", items.size(),
                expected ? checked.error().message : "the expected sequence is no number"));
        }
        const UserPtr& user = request.session.user;
        if (const unsigned wanted = rights_for(*record); user && !user->may(wanted)) {
            return no_permission(request, request.argument(0), missing_rights(*user, wanted));
        }
        const bool flush = says_of_claim(*record);
        items.push_back({*expected, *std::move(record), flush});
    }
    if (const auto checked = check_batch(items, atomic ? Batch::atomic : Batch::each); !checked) {
        return request.error("ERR " + checked.error().message);
    }
    return std::make_unique<AppendCommand>(request, atomic, std::move(items));
}

}  // namespace

std::span<const CommandEntry> store_commands() {
    static constexpr std::array<CommandEntry, 2> kCommands = {{
        {"DEDUP.APPEND", -6, 0, 0, 0, true, kWritesRecords, make_append},
        {"DEDUP.HEADS", -3, 0, 0, 0, false, kReads, make_heads},
    }};
    return kCommands;
}

}  // namespace dedup::server
