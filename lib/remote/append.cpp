// Appending, and finding out what became of an append whose answer was lost.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "contract/check_batch.hpp"
#include "record/codec.hpp"
#include "remote/remote_store.hpp"

namespace dedup::remote {

namespace {

using wire::Reply;
using wire::RequestWriter;

// In one request. What a batch has more is sent behind it.
constexpr std::size_t kItemsMax = 8'192;
constexpr std::size_t kItemsBytesMax = 8 * 1024 * 1024;

constexpr std::size_t kFirstResult = 3;

Error unknown(std::string_view why, std::uint64_t head = 0) {
    return {.code = Code::outcome_unknown,
            .message = fmt::format(
                "nobody can say whether the append is durable: {}; look the key up", why),
            .head_sequence = head};
}

// Whether `head` is what the item's record becomes when it is appended.
bool is_record_of(const Append& item, const Record& head) {
    std::string wanted;
    std::string found;
    encode_as(item.record, head.sequence, wanted);
    encode(head, found);
    return wanted == found;
}

}  // namespace

// Some items of a batch on their way: a request of their own.
struct RemoteStore::Sending {
    std::span<const Append> batch;
    std::vector<std::size_t> places = {};  // of the items, in the batch
    Results* results = nullptr;            // of the batch
    Batch mode = Batch::each;
    std::string id = {};
    bool was_lost = false;  // it has been sent, and no answer came
    bool certain = true;    // what the server says is true of all times that it was sent

    [[nodiscard]] const Append& item(std::size_t i) const { return batch[places[i]]; }
    [[nodiscard]] Result<std::uint64_t>& result(std::size_t i) { return (*results)[places[i]]; }
    void fail(const Error& error) {
        for (std::size_t i = 0; i < places.size(); ++i) {
            result(i) = std::unexpected(was_lost ? unknown(error.message) : error);
        }
    }
    // `since`: "0" the first time.
    [[nodiscard]] std::string request(std::string_view since) const {
        RequestWriter writer(4 + 2 * places.size());
        writer.add("DEDUP.APPEND").add(mode == Batch::atomic ? "ATOMIC" : "EACH");
        writer.add(id).add(since);
        std::string record;
        for (const std::size_t place : places) {
            record.clear();
            encode_as(batch[place].record, 0, record);
            writer.add_number(batch[place].expected_sequence).add(record);
        }
        return writer.bytes();
    }
};

std::vector<Result<std::uint64_t>> RemoteStore::append(std::span<const Append> batch, Batch mode) {
    const Call call(*this, true);
    if (!call) {
        return Results(batch.size(), std::unexpected(call.error()));
    }
    Results results(batch.size());
    if (auto checked = check_batch(batch, mode); !checked) {
        results.assign(batch.size(), std::unexpected(checked.error()));
        parts_->counters.count_failed(results);
        return results;
    }
    const NoCancel whole;
    Sending sending{.batch = batch, .results = &results, .mode = mode};
    std::size_t bytes = 0;
    const auto send_them = [&] {
        if (!sending.places.empty()) {
            sending.id = fmt::format("{}.{}", parts_->client, ++parts_->appends);
            try {
                send(sending);
            } catch (const std::bad_alloc&) {
                sending.was_lost = true;
                sending.fail({Code::out_of_space, "out of memory"});
            }
        }
        sending.places.clear();
        sending.was_lost = false;
        sending.certain = true;
        bytes = 0;
    };
    for (std::size_t i = 0; i < batch.size(); ++i) {
        const Record& record = batch[i].record;
        if (auto checked = check_record(record); !checked) {
            results[i] = std::unexpected(std::move(checked).error());
            continue;
        }
        sending.places.push_back(i);
        bytes += record.key.size() + record.metadata.size() +
                 (record.receipt ? record.receipt->size() : 0);
        const bool full = sending.places.size() == kItemsMax || bytes >= kItemsBytesMax;
        if (full && mode == Batch::each) {
            send_them();
        }
    }
    send_them();
    parts_->counters.count_failed(results);
    std::uint64_t landed = 0;
    for (std::size_t i = 0; i < batch.size(); ++i) {
        if (results[i]) {
            ++landed;
            time_.saw_time(batch[i].record.timestamp_ms);
        }
    }
    if (landed != 0) {
        parts_->counters.count_group(landed);
    }
    return results;
}

// Until there is an answer. It is the same append however often it is sent: the id says so.
void RemoteStore::send(Sending& sending) {
    const TimePoint until = deadline();
    const std::string token = last_token();
    for (;;) {
        auto channel = parts_->hot.channel(until);
        if (!channel) {
            sending.fail(channel.error());
            return;
        }
        Reply reply;
        const auto outcome =
            (*channel)->exchange(sending.request(sending.was_lost ? token : "0"), reply, until);
        const bool answered = outcome == Channel::Outcome::answered;
        if (answered && is_logged_out(reply)) {
            parts_->hot.leave(*channel);
        } else if (answered && !is_full_queue(reply)) {
            if (reply.is_error()) {
                sending.fail(error_of(reply));
            } else if (!take_answer(sending, reply)) {
                sending.was_lost = true;
                sending.fail(odd_reply("DEDUP.APPEND").error());
            } else if (!sending.certain) {
                settle_uncertain(sending, until);
            }
            return;
        }
        sending.was_lost = sending.was_lost || outcome == Channel::Outcome::lost;
        if (!pause_until(until)) {
            sending.fail(answered ? error_of(reply)
                                  : Error{Code::unavailable, "the server did not answer in time"});
            return;
        }
    }
}

// False: it is none.
bool RemoteStore::take_answer(Sending& sending, const Reply& reply) {
    const auto& list = reply.list;
    if (list.size() != kFirstResult + sending.places.size()) {
        return false;
    }
    if (!sending.was_lost) {  // else it may be the reply that it got before
        source_->saw(list[0].integer);
    }
    note_token(list[1].text);
    sending.certain = list[2].integer != 0;
    for (std::size_t i = 0; i < sending.places.size(); ++i) {
        const Reply& item = list[kFirstResult + i];
        if (item.is_integer()) {
            sending.result(i) = static_cast<std::uint64_t>(item.integer);
        } else {
            sending.result(i) = std::unexpected(item_error(item));
        }
    }
    return true;
}

// The server that answers is not the one that the append was sent to first, or has forgotten it. A
// conflict may be with the append itself, and what fails otherwise may have landed before. Where
// the head is the same byte for byte, and has a fence that the caller gave, nobody else can have
// meant another thing by it; a claim that is the same may be another's, though.
void RemoteStore::settle_uncertain(Sending& sending, TimePoint until) {
    std::vector<std::size_t> open;  // items that their head tells about
    std::vector<StreamKey> streams;
    for (std::size_t i = 0; i < sending.places.size(); ++i) {
        auto& result = sending.result(i);
        if (!result && result.error().code == Code::sequence_conflict) {
            open.push_back(i);
            streams.push_back({sending.item(i).record.ns, sending.item(i).record.key});
        } else if (!result && result.error().code != Code::outcome_unknown) {
            result = std::unexpected(unknown(result.error().message));
        }
    }
    std::size_t same = 0;
    bool fenced = false;
    const auto settle = [&](std::size_t i, const Result<std::optional<Record>>& head) {
        if (!head) {
            sending.result(i) = std::unexpected(unknown(head.error().message));
            return;
        }
        const Append& item = sending.item(i);
        const bool is_same = *head && is_record_of(item, **head);
        const bool is_fenced = item.record.claim_sequence != 0;
        same += is_same ? 1 : 0;
        fenced = fenced || (is_same && is_fenced);
        const std::uint64_t sequence = *head ? (*head)->sequence : 0;
        const bool is_mine = is_same && (is_fenced || sending.mode == Batch::atomic);
        sending.result(i) =
            is_mine ? Result<std::uint64_t>(sequence)
                    : std::unexpected(unknown(
                          "the answer to it was lost, and the stream has another head", sequence));
    };
    for (std::size_t at = 0; at < open.size();) {
        const Heads heads = some_heads(std::span(streams).subspan(at), until);
        const bool gone = std::ranges::none_of(heads, [](const auto& head) { return bool{head}; });
        for (const auto& head : heads) {
            settle(open[at++], head);
        }
        while (gone && at < open.size()) {
            settle(open[at++], heads.front());
        }
    }
    const bool whole = same == sending.places.size() && fenced;
    if (sending.mode == Batch::each || whole) {
        return;
    }
    for (const std::size_t i : open) {
        auto& result = sending.result(i);
        const std::uint64_t head = result ? *result : result.error().head_sequence;
        result = std::unexpected(
            unknown("the answer to it was lost, and a stream has another head", head));
    }
}

void RemoteStore::note_token(const std::string& token) {
    const MutexLock lock(parts_->token_mutex);
    parts_->token = token;
}

std::string RemoteStore::last_token() {
    const MutexLock lock(parts_->token_mutex);
    return parts_->token;
}

}  // namespace dedup::remote
