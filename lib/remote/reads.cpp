// Reading records.
#include <algorithm>
#include <iterator>
#include <utility>

#include "contract/check_stream.hpp"
#include "contract/history_room.hpp"
#include "record/try.hpp"
#include "remote/remote_store.hpp"
#include "wire/error_word.hpp"

namespace dedup::remote {
namespace {

using wire::Reply;
using wire::RequestWriter;

constexpr std::size_t kHeadsMax = 4'096;  // in one request
constexpr std::size_t kPageHeadsMax = 10'000;

// [record, segment, offset, bytes]
Result<Version> version_in(const Reply& row) {
    if (row.list.size() != 4 || !row.list[0].is_text()) {
        return odd_reply("a question for versions");
    }
    auto record = DEDUP_TRY(decode(row.list[0].text));
    return Version{.record = std::move(record),
                   .segment = static_cast<std::uint64_t>(row.list[1].integer),
                   .offset = static_cast<std::uint64_t>(row.list[2].integer),
                   .bytes = static_cast<std::uint64_t>(row.list[3].integer)};
}

Result<std::vector<Version>> versions_in(const Reply& list) {
    std::vector<Version> versions;
    for (const Reply& row : list.list) {
        auto version = DEDUP_TRY(version_in(row));
        versions.push_back(std::move(version));
    }
    return versions;
}

}  // namespace

// Of an item of a reply: [word, message, os_error, head_sequence].
Error item_error(const Reply& item) {
    if (item.list.size() != 4 || !item.list[0].is_text()) {
        return odd_reply("DEDUP.APPEND or DEDUP.HEADS").error();
    }
    return {.code = wire::code_of_word(item.list[0].text).value_or(Code::failed),
            .message = item.list[1].text,
            .os_error = static_cast<int>(item.list[2].integer),
            .head_sequence = static_cast<std::uint64_t>(item.list[3].integer)};
}

RemoteStore::Heads RemoteStore::some_heads(std::span<const StreamKey> streams, TimePoint until) {
    streams = streams.first(std::min(kHeadsMax, streams.size()));
    RequestWriter request(1 + 2 * streams.size());
    request.add("DEDUP.HEADS");
    for (const StreamKey& stream : streams) {
        request.add(stream.ns).add(stream.key);
    }
    const auto reply = parts_->hot.ask(request.bytes(), until);
    if (!reply) {
        return Heads(streams.size(), std::unexpected(reply.error()));
    }
    if (reply->list.size() < 2 || reply->list.size() > 1 + streams.size()) {
        return Heads(streams.size(), odd_reply("DEDUP.HEADS"));
    }
    source_->saw(reply->list[0].integer);
    Heads heads;
    for (std::size_t i = 1; i < reply->list.size(); ++i) {
        const Reply& item = reply->list[i];
        if (item.is_null()) {
            heads.emplace_back();
        } else if (item.is_text()) {
            auto record = decode(item.text);
            record ? heads.emplace_back(*std::move(record))
                   : heads.emplace_back(std::unexpected(std::move(record).error()));
        } else {
            heads.emplace_back(std::unexpected(item_error(item)));
        }
    }
    return heads;
}

std::vector<Result<std::optional<Record>>> RemoteStore::heads(std::span<const StreamKey> streams) {
    const Call call(*this, false);
    if (!call) {
        return Heads(streams.size(), std::unexpected(call.error()));
    }
    const NoCancel whole;
    Heads heads(streams.size());
    const auto [asked, places] = asked_streams(streams, heads);
    for (std::size_t from = 0; from < asked.size();) {
        for (auto& head : some_heads(std::span(asked).subspan(from), deadline())) {
            heads[places[from++]] = std::move(head);
        }
    }
    return heads;
}

Result<std::vector<Version>> RemoteStore::history(StreamKey stream, const HistoryLimits& limits) {
    if (auto checked = check_stream(stream); !checked) {
        const Call call(*this, false);
        return std::unexpected(call ? std::move(checked).error() : call.error());
    }
    const bool all = limits.versions_max == SIZE_MAX;
    RequestWriter request(all ? 5 : 7);
    request.add("DEDUP.HISTORY").add(stream.key).add("NS").add(stream.ns);
    if (!all) {
        request.add("NEWEST").add_number(std::max<std::size_t>(limits.versions_max, 1));
    }
    const auto reply = DEDUP_TRY(ask_chore(request.add("RAW")));
    auto versions = DEDUP_TRY(versions_in(reply));
    // What is more than was asked for has come already.
    HistoryRoom room(limits);
    auto oldest = versions.rbegin();
    while (oldest != versions.rend() && room.is_left_after(oldest->record)) {
        ++oldest;
    }
    if (oldest != versions.rend()) {
        versions.erase(versions.begin(), std::prev(oldest.base()));
    }
    return versions;
}

Result<ScanPage> RemoteStore::scan(const ScanOptions& options) {
    if (options.heads_max == 0) {
        return std::unexpected(
            Error{Code::invalid_argument, "heads_max is 0; it must be at least 1"});
    }
    const std::size_t arguments =
        5U + (options.ns.empty() ? 0U : 2U) + (options.key_prefix.empty() ? 0U : 2U);
    RequestWriter request(arguments);
    request.add("DEDUP.SCAN").add(options.cursor);
    request.add("COUNT").add_number(std::min(options.heads_max, kPageHeadsMax));
    if (!options.ns.empty()) {
        request.add("NS").add(options.ns);
    }
    if (!options.key_prefix.empty()) {
        request.add("PREFIX").add(options.key_prefix);
    }
    const auto reply = ask_chore(request.add("RAW"));
    if (!reply) {
        return std::unexpected(reply.error());
    }
    const Reply* const cursor = reply->value_of("cursor");
    const Reply* const heads = reply->value_of("heads");
    if (cursor == nullptr || heads == nullptr) {
        return odd_reply("DEDUP.SCAN");
    }
    auto versions = DEDUP_TRY(versions_in(*heads));
    return ScanPage{.heads = std::move(versions), .cursor = cursor->text};
}

}  // namespace dedup::remote
