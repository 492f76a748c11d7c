// Appends to a store of bounded capacity that is full.

#include <algorithm>
#include <utility>

#include "record/try.hpp"
#include "sweep/log_sweep.hpp"

namespace dedup {
namespace {

// The share of bytes_max that each further round of making room frees beyond what is wanted.
constexpr std::uint64_t kMoreRoomShare = 16;
// How often an append makes room that others take before it gives up.
constexpr std::uint64_t kRoomRoundsMax = 16;

// Answers those that can never have room with `error`: the first, and what wants as much. Leaves
// the others in `refused`.
void refuse(const Error& error, Batch mode, Refused& refused,
            std::vector<Result<std::uint64_t>>& results) {
    const bool never = error.code == Code::out_of_space;
    const Room most = refused.wanted.front();
    Refused others;
    for (std::size_t i = 0; i < refused.items.size(); ++i) {
        const Room& wanted = refused.wanted[mode == Batch::atomic ? 0 : i];
        if (!never || (wanted.keys >= most.keys && wanted.bytes >= most.bytes)) {
            results[refused.items[i]] = std::unexpected(error);
        } else {
            others.items.push_back(refused.items[i]);
            others.wanted.push_back(wanted);
        }
    }
    refused = std::move(others);
}

}  // namespace

Result<Room> LogSweep::make_room(std::span<const Room> wanted, std::uint64_t round) {
    const OwnedLock one_at_a_time(planner_.mutex());
    const Capacity& capacity = context_.options.capacity;
    const auto is_room = [&](const Room& room) {
        return writer_.alone([&](const Turn& turn) { return writer_.check_room(turn, 0, room); })
            .has_value();
    };
    if (is_room(wanted.front())) {
        return wanted.front();  // another append has made it
    }
    MakeRoom room;
    (void)DEDUP_TRY(run({}, &room));
    if (is_room(wanted.front())) {
        return wanted.front();
    }
    const std::string name = context_.name();
    Room plan = DEDUP_TRY(plan_eviction(name, capacity, room.usage, wanted.front()));
    Room made = wanted.front();
    for (const Room& more : wanted.subspan(1)) {
        const Room all{made.keys + more.keys, made.bytes + more.bytes};
        const auto for_all = plan_eviction(name, capacity, room.usage, all);
        if (!for_all) {
            break;
        }
        plan = *for_all;
        made = all;
    }
    const std::uint64_t spare = capacity.bytes_max / kMoreRoomShare;
    if (const auto ample = plan_eviction(name, capacity, room.usage,
                                         {made.keys + round, made.bytes + round * spare})) {
        plan = *ample;
    }
    room.evict = plan;
    room.log_bytes = capacity.bytes_max - std::min(capacity.bytes_max, made.bytes + spare / 2);
    (void)DEDUP_TRY(run({}, &room));
    return made;
}

void make_room_and_append(Appender& appender, LogSweep& sweep, std::span<const Append> batch,
                          Batch mode, Refused refused,
                          std::vector<Result<std::uint64_t>>& results) {
    for (std::uint64_t round = 0; round < kRoomRoundsMax && !refused.items.empty(); ++round) {
        if (const auto made = sweep.make_room(refused.wanted, round); !made) {
            refuse(made.error(), mode, refused, results);
            round = 0;
            continue;
        }
        std::vector<Append> rest;
        rest.reserve(refused.items.size());
        for (const std::size_t i : refused.items) {
            rest.push_back(batch[i]);
        }
        Refused again;
        auto retried = appender.append(rest, mode, again);
        for (std::size_t i = 0; i < rest.size(); ++i) {
            results[refused.items[i]] = std::move(retried[i]);
        }
        round = again.items.size() < refused.items.size() ? 0 : round;
        for (std::size_t& item : again.items) {
            item = refused.items[item];
        }
        refused = std::move(again);
    }
}

}  // namespace dedup
