#include "stats_json.hpp"

#include "clock_text.hpp"

namespace dedupctl {

double bytes_per_key(const dedup::StoreStats& stats) {
    return stats.streams() == 0 ? 0
                                : static_cast<double>(stats.log_bytes + stats.catalog_bytes) /
                                      static_cast<double>(stats.streams());
}

// What of the log could not be read, and the first place: the sweep to come reads more of it.
std::pair<std::uint64_t, std::string> known_damage(const dedup::StoreStats& stats,
                                                   const NextSweep* next) {
    return next != nullptr && *next && (*next)->damaged > stats.damaged
               ? std::pair{(*next)->damaged, (*next)->damage}
               : std::pair{stats.damaged, stats.damage};
}

namespace {

void add_sweeps_json(Json& object, const dedup::StoreStats& stats, const NextSweep* next) {
    object["evicted"] = stats.evicted;
    object["last_sweep_ms"] = time_or_null(stats.last_sweep_ms);
    if (!stats.sweep_error.empty()) {
        object["sweep_error"] = stats.sweep_error;
    }
    const auto& [damaged, damage] = known_damage(stats, next);
    object["damaged"] = damaged;
    if (damaged != 0) {
        object["damage"] = damage;
    }
    if (next != nullptr && *next) {
        object["next_sweep"] = {{"streams", (*next)->removed.total()},
                                {"bytes", (*next)->bytes_reclaimed()}};
    } else if (next != nullptr) {
        object["next_sweep_error"] = next->error().message;
    }
}

}  // namespace

Json stats_json(const std::string& store, const dedup::StoreStats& stats, const NextSweep* next) {
    Json object;
    object["store"] = store;
    object["store_id"] = stats.store_id;
    object["streams"] = stats.streams();
    object["in_flight"] = stats.in_flight;
    object["completed"] = stats.completed;
    object["released"] = stats.released;
    object["records"] = stats.records;
    object["last_sequence"] = stats.last_sequence;
    object["time_high_ms"] = stats.time_high_ms;
    object["clock_ms"] = stats.clock_ms;
    object["clock"] = clock_json(stats.clock);
    object["sweeps_withheld"] = withheld_json(stats.withheld);
    object["segments_sealed"] = stats.segments_sealed;
    object["segments_unsealed"] = stats.segments_unsealed;
    object["log_bytes"] = stats.log_bytes;
    object["catalog_bytes"] = stats.catalog_bytes;
    object["bytes_per_key"] = bytes_per_key(stats);
    object["tail_bytes"] = stats.tail_bytes;
    object["memory_bytes"] = stats.memory_bytes;
    object["torn_bytes_dropped"] = stats.torn_bytes_dropped;
    object["catalog_rebuilt"] = stats.catalog_rebuilt;
    add_sweeps_json(object, stats, next);
    if (!stats.background_error.empty()) {
        object["background_error"] = stats.background_error;
    }
    if (!stats.write_error.empty()) {
        object["write_error"] = stats.write_error;
    }
    return object;
}

}  // namespace dedupctl
