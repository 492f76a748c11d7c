// The bounds of Capacity. What there is, is counted when a bound seems to be met, and otherwise
// kept up by what this store appends itself.
#include <algorithm>
#include <utility>

#include "postgres/postgres_store.hpp"
#include "record/try.hpp"

namespace dedup::pg {
namespace {

constexpr std::string_view kName = "the store in the database";

// How long a count stands while other clients may append.
constexpr std::chrono::seconds kCountAge{2};

}  // namespace

// Under room_mutex_, like all that follows.
void PostgresStore::write_bounded(std::span<const Pending> items) {
    const std::lock_guard lock(room_mutex_);
    const auto begins = which_begin(items);
    if (!begins) {
        for (const Pending& item : items) {
            *item.result = std::unexpected(begins.error());
        }
        return;
    }
    std::vector<Pending> fitting;
    Room wanted;
    const auto write_fitting = [&] {
        write(fitting, Batch::each);
        for (const Pending& item : fitting) {
            if (item.result->has_value() && item.item->expected_sequence == 0) {
                held_ += {1, head_bytes(item.item->record)};
            }
        }
        fitting.clear();
        wanted = {};
    };
    for (std::size_t i = 0; i < items.size(); ++i) {
        if ((*begins)[i]) {
            const Room one{1, head_bytes(items[i].item->record)};
            Room both = wanted;
            both += one;
            if (!counted_ || !fits(target_.options.capacity, held_, both)) {
                write_fitting();
                if (Result<void> room = make_room(one); !room) {
                    *items[i].result = std::unexpected(std::move(room).error());
                    continue;
                }
            }
            wanted += one;
        }
        fitting.push_back(items[i]);
    }
    write_fitting();
}

// Makes room for a batch that lands whole, unless it will conflict. `wanted`: what it takes.
Result<void> PostgresStore::room_for_all(std::span<const Pending> items, Room& wanted) {
    const auto begins = DEDUP_TRY(which_begin(items));
    for (std::size_t i = 0; i < items.size(); ++i) {
        if (items[i].item->expected_sequence != 0) {
            continue;
        }
        if (!begins[i]) {
            return {};
        }
        wanted += {1, head_bytes(items[i].item->record)};
    }
    return make_room(wanted);
}

// Which items would begin a stream; those that will conflict need no room.
Result<std::vector<bool>> PostgresStore::which_begin(std::span<const Pending> items) {
    if (counted_ && std::chrono::steady_clock::now() - *counted_ > kCountAge) {
        counted_.reset();
    }
    std::vector<StreamKey> streams;
    std::vector<std::size_t> places;
    std::vector<bool> begins(items.size());
    for (std::size_t i = 0; i < items.size(); ++i) {
        if (items[i].item->expected_sequence == 0) {
            begins[i] = true;
            places.push_back(i);
            streams.push_back({items[i].item->record.ns, items[i].item->record.key});
        }
    }
    if (streams.empty()) {
        return begins;
    }
    const auto table = read({&statements_.sequences, stream_parameters(streams)});
    if (!table) {
        return std::unexpected(table.error());
    }
    for (std::size_t row = 0; row < table->size(); ++row) {
        begins[places[DEDUP_TRY(asked_for(*table, row, 0, places.size()))]] = false;
    }
    return begins;
}

Result<Usage> PostgresStore::count_usage(std::int64_t now_ms) {
    const bool keeps_all = time_.withheld(now_ms, time_.saw_time(0)).has_value();
    const std::int64_t cut = keeps_all ? INT64_MIN : now_ms - grace().count();
    const auto counted = std::chrono::steady_clock::now();
    const auto table = read({&statements_.usage, {number_parameter(cut)}}, kScanTimes);
    if (!table) {
        return std::unexpected(table.error());
    }
    const auto room = [&](int column) {
        return Room{static_cast<std::uint64_t>(table->number(0, column)),
                    static_cast<std::uint64_t>(table->number(0, column + 1))};
    };
    counted_ = counted;
    held_ = room(0);
    return Usage{.held = room(2), .live = room(2), .evictable = room(4)};
}

Result<void> PostgresStore::make_room(const Room& wanted) {
    const Capacity& capacity = target_.options.capacity;
    if (counted_ && fits(capacity, held_, wanted)) {
        return {};
    }
    const std::int64_t time_ms = now_ms();
    const auto usage = count_usage(time_ms);
    if (!usage) {
        return std::unexpected(usage.error());
    }
    if (fits(capacity, held_, wanted)) {
        return {};
    }
    if (!capacity.evict_oldest) {
        return std::unexpected(no_room(kName, capacity, held_, wanted));
    }
    // Whoever sweeps may be waiting for this append: in the progress of its sweep it may append.
    if (sweeper_.load() == std::this_thread::get_id()) {
        return std::unexpected(no_room(kName, capacity, held_, wanted));
    }
    std::unique_lock sweep_lock(sweep_mutex_, std::try_to_lock);
    if (!sweep_lock.owns_lock()) {
        return std::unexpected(
            Error{Code::unavailable, "the store is full, and a sweep is making room; try again"});
    }
    const auto evict = plan_eviction(kName, capacity, *usage, wanted);
    const auto swept = run_sweep({}, evict ? *evict : Room());
    if (!swept) {
        return std::unexpected(swept.error());
    }
    if (!evict) {
        return std::unexpected(evict.error());
    }
    if (auto again = count_usage(time_ms); !again) {
        return std::unexpected(again.error());
    }
    if (!fits(capacity, held_, wanted)) {
        return std::unexpected(
            Error{Code::unavailable,
                  "the store is full: transactions of others hold what would have to go, or take "
                  "the room that is made; try again"});
    }
    return {};
}

}  // namespace dedup::pg
