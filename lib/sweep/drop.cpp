#include "sweep/drop.hpp"

#include <algorithm>
#include <thread>
#include <utility>

#include "index/index_file.hpp"
#include "metrics/counter.hpp"
#include "record/try.hpp"

namespace dedup {
namespace {

// Beside appends, a sweep rests so many times as long as it has made them wait: for moves, of which
// each holds up one group, and for a file's removal, which may hold up a flush for tens of ms.
constexpr std::uint64_t kRestShare = 3;
constexpr std::uint64_t kRemovalRests = 4;
constexpr std::uint64_t kRestMaxUs = 250'000;  // nobody waits longer for a sweep to stop
constexpr std::chrono::microseconds kReadersPoll{50};

}  // namespace

Result<void> with_reserve(StoreContext& context, const std::function<Result<void>()>& work) {
    auto done = work();
    if (!done && done.error().code == Code::out_of_space &&
        context.env.remove(context.path / kReserveName)) {
        done = work();
    }
    return done;
}

void keep_reserve(StoreContext& context) {
    const Path path = context.path / kReserveName;
    const auto type = context.env.type(path);
    if (!type || *type != PathType::absent) {
        return;
    }
    auto file = context.env.open(path, OpenMode::create);
    if (file && !(*file)->reserve(kReserveBytes)) {
        file->reset();
        (void)context.env.remove(path);
    }
}

Result<void> Dropper::give_up(std::vector<std::uint64_t> segments, SweepReport& report) {
    DEDUP_TRY(with_reserve(context_, [&] {
        return writer_.alone([&](const Turn& turn) -> Result<void> {
            DEDUP_TRY(context_.check_writable());
            const auto start = std::chrono::steady_clock::now();
            Manifest manifest = writer_.manifest(turn);
            std::erase_if(manifest.segments, [&](const SegmentLength& segment) {
                return std::ranges::find(segments, segment.id) != segments.end();
            });
            manifest.given_up = std::ranges::max(segments);
            auto written = writer_.write_manifest(turn, std::move(manifest));
            report.longest_pause_us = std::max(report.longest_pause_us, microseconds_since(start));
            return written;
        });
    }));
    context_.damage.forget(segments);
    given_up_ = std::move(segments);
    return {};
}

Result<void> Dropper::finish(SweepState& state) {
    if (given_up_.empty()) {
        return {};
    }
    SweepState dropped = state;
    dropped.steps = reader_.steps();
    std::vector<std::shared_ptr<const Segment>> segments;
    DEDUP_TRY(with_reserve(context_, [&] {
        return catalog_.write([&](Catalog& catalog) -> Result<void> {
            const ViewPtr view = DEDUP_TRY(reader_.view());
            segments.clear();
            for (const std::uint64_t id : given_up_) {
                const SealedSegment* const sealed = view->sealed->find(id);
                segments.push_back(sealed == nullptr ? nullptr : sealed->segment);
            }
            return catalog.drop(given_up_, dropped);
        });
    }));
    state = dropped;
    Result<void> done;
    const auto until = std::chrono::steady_clock::now() + context_.internals.readers_wait;
    for (std::size_t i = 0; i < given_up_.size(); ++i) {
        wait_for_readers(segments[i], until);
        const auto start = std::chrono::steady_clock::now();
        auto removed = remove_file(given_up_[i]);
        if (!removed && done) {
            done = removed;
        }
        segments[i].reset();
        // Flushes wait for the file system to give a large file's blocks back.
        rest_beside_appends(microseconds_since(start) * kRemovalRests);
    }
    given_up_.clear();
    return done;
}

// Where memory ran out in the middle of it, the next sweep does it again.
Result<void> Dropper::remove_file(std::uint64_t segment) {
    DEDUP_TRY(remove_if_there(context_.env, context_.log_path / segment_file_name(segment)));
    return remove_if_there(context_.env, context_.log_path / index_file_name(segment));
}

// Until nobody else has `segment` open, or until that has taken too long: the blocks of a removed
// file are given back by whoever closes it last, and an append must not have to wait for that.
void Dropper::wait_for_readers(const std::shared_ptr<const Segment>& segment,
                               std::chrono::steady_clock::time_point until) const {
    while (segment.use_count() > 1 && !context_.closed &&
           std::chrono::steady_clock::now() < until) {
        std::this_thread::sleep_for(kReadersPoll);
    }
}

void Dropper::rest_beside_appends(std::uint64_t pause_us) {
    if (!context_.closed && queue_.is_busy()) {
        std::this_thread::sleep_for(
            std::chrono::microseconds(std::min(pause_us * kRestShare, kRestMaxUs)));
    }
}

}  // namespace dedup
