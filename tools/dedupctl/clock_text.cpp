#include "clock_text.hpp"

#include <fmt/format.h>

#include "context.hpp"

namespace dedupctl {

void warn_if_ahead(std::int64_t store_ms, std::int64_t system_ms) {
    static bool said = false;
    const milliseconds ahead{store_ms - system_ms};
    if (!said && store_ms > system_ms && ahead > kAheadWorthSaying) {
        said = true;
        note(fmt::format(
            "warning: the store's time, {}, is {} ahead of the system's; leases and expiry go by "
            "it. See `dedupctl clock`; if the system's clock is right, `dedupctl clock --reset`",
            format_time(store_ms), format_duration(ahead)));
    }
}

Json clock_json(const dedup::ClockHistory& clock) {
    Json jumps = Json::array();
    for (const dedup::ClockJump& jump : clock.jumps) {
        const bool written = jump.sequence != dedup::ClockJump::kNotWritten;
        jumps.push_back({{"from_ms", jump.from_ms},
                         {"to_ms", jump.to_ms},
                         {"sequence", written ? Json(jump.sequence) : Json(nullptr)},
                         {"settled", jump.settled}});
    }
    Json resets = Json::array();
    for (const dedup::ClockReset& reset : clock.resets) {
        resets.push_back({{"from_ms", reset.from_ms},
                          {"to_ms", reset.to_ms},
                          {"sequence", reset.sequence},
                          {"finished", reset.finished}});
    }
    Json object;
    object["jumps"] = std::move(jumps);
    object["resets"] = std::move(resets);
    return object;
}

Json withheld_json(const std::optional<dedup::SweepWithheld>& withheld) {
    if (!withheld) {
        return nullptr;
    }
    Json object;
    object["jump_from_ms"] = withheld->jump_from_ms;
    object["since_ms"] = withheld->since_ms;
    object["until_ms"] = withheld->until_ms;
    object["by_reset"] = withheld->by_reset;
    object["hint"] = withheld_hint(*withheld);
    return object;
}

std::string withheld_text(const dedup::SweepWithheld& withheld) {
    const std::string until =
        fmt::format("no sweep removes what has expired until the store's time is {}",
                    format_time(withheld.until_ms));
    if (withheld.by_reset) {
        return fmt::format(
            "the clock was reset from {} to {}, and a sweep in between had believed "
            "it: {}",
            format_time(withheld.jump_from_ms), format_time(withheld.since_ms), until);
    }
    return fmt::format(
        "the clock jumped forward by {}, from {} to {}, or the store rested for so long: {}",
        format_duration(milliseconds{withheld.since_ms - withheld.jump_from_ms}),
        format_time(withheld.jump_from_ms), format_time(withheld.since_ms), until);
}

std::string withheld_hint(const dedup::SweepWithheld& withheld) {
    return withheld.by_reset
               ? "wait, or export the store and import it into a new one"
               : "if the time is right, say so: `dedupctl sweep --trust-clock`; if it is wrong, "
                 "set the clock, then `dedupctl clock --reset`";
}

void add_clock_rows(Table& table, const dedup::ClockHistory& clock) {
    for (const dedup::ClockJump& jump : clock.jumps) {
        table.add({{"clock jumped"},
                   {fmt::format("from {} to {}, by {}{}", format_time(jump.from_ms),
                                format_time(jump.to_ms),
                                format_duration(milliseconds{jump.to_ms - jump.from_ms}),
                                jump.settled ? "; settled" : "")}});
    }
    for (const dedup::ClockReset& reset : clock.resets) {
        table.add({{"clock reset"},
                   {fmt::format("from {} to {}, by {}{}", format_time(reset.from_ms),
                                format_time(reset.to_ms),
                                format_duration(milliseconds{reset.from_ms - reset.to_ms}),
                                reset.finished ? "" : "; not finished, the next write goes on")}});
    }
}

}  // namespace dedupctl
