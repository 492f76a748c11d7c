#include "engine/append.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include "contract/check_batch.hpp"
#include "engine/commit.hpp"
#include "record/try.hpp"

namespace dedup {

// What can be checked without the turn. The error is of all items; some may have one of their own.
Result<void> Appender::check(std::span<const Append> batch, Batch mode,
                             AppendRequest& request) const {
    DEDUP_TRY(context_.check_writable());
    DEDUP_TRY(check_batch(batch, mode));
    for (std::size_t i = 0; i < batch.size(); ++i) {
        const Record& record = batch[i].record;
        if (mode == Batch::each) {
            if (auto checked = check_record(record); !checked) {
                request.results[i] = std::unexpected(checked.error());
            }
        }
        request.ids[i] = context_.locator.id({record.ns, record.key});
    }
    return {};
}

std::vector<Result<std::uint64_t>> Appender::append(std::span<const Append> batch, Batch mode,
                                                    Refused& refused) {
    AppendRequest request{batch, mode, refused, std::vector<StreamId>(batch.size()),
                          std::vector<Result<std::uint64_t>>(batch.size(), kUnanswered)};
    auto done = check(batch, mode, request);
    if (done && !batch.empty()) {
        done = queue_.commit(request, [&](const Turn& turn, CommitQueue::Requests& requests) {
            lead(turn, requests);
        });
    }
    if (!done) {
        std::ranges::fill(request.results, std::unexpected(done.error()));
    }
    return std::move(request.results);
}

// Answers all requests, whatever comes: their callers wait for it.
void Appender::lead(const Turn& turn, CommitQueue::Requests& requests) noexcept {
    std::size_t items = 0;
    for (const AppendRequest* request : requests) {
        items += request->batch.size();
    }
    std::optional<Commit> commit;
    try {
        commit.emplace(context_, reader_, writer_, turn, items);
        for (AppendRequest* request : requests) {
            commit->add(*request);
        }
        commit->finish();
    } catch (const std::bad_alloc&) {
        const Error error = writer_.abandon(turn);
        if (commit) {
            commit->give_up(error);
        }
        for (AppendRequest* request : requests) {
            // It may be incomplete; and there is no room for a sweep, either.
            request->refused = {};
            for (auto& result : request->results) {
                if (result == kUnanswered) {
                    result = std::unexpected(error);
                }
            }
        }
    }
}

Applied encode_again(SegmentWriter& file, const RecordAgain& again) {
    const RecordView& record = again.record;
    const std::uint32_t offset = file.begin();
    add_moved(file.buffer(), file.segment()->id(), again.encoded, again.link);
    file.finish(FrameKind::moved, 1, record.sequence);
    return {{again.id, record.sequence, offset, pack(record.state(), record.expires_at_ms)},
            again.link,
            again.replaced,
            record.ns,
            record.timestamp_ms,
            record.expires_at_ms,
            file.end() - offset,
            true};
}

}  // namespace dedup
