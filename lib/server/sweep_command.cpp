// DEDUP.SWEEP.
#include <fmt/format.h>

#include <array>
#include <utility>

#include "env/finally.hpp"
#include "server/chore.hpp"
#include "server/command_table.hpp"
#include "server/field_map.hpp"

namespace dedup::server {
namespace {

struct SweepRequest {
    SweepOptions options;
    std::string id;
    bool stopped = false;
};

bool take_flag(SweepRequest& sweep, std::string_view word) {
    SweepOptions& options = sweep.options;
    constexpr std::array<std::pair<std::string_view, bool SweepOptions::*>, 3> kFlags = {
        {{"DRYRUN", &SweepOptions::dry_run},
         {"COMPACT", &SweepOptions::compact},
         {"TRUSTCLOCK", &SweepOptions::trust_clock}}};
    for (const auto& [name, flag] : kFlags) {
        if (is_word(word, name)) {
            options.*flag = true;
            return true;
        }
    }
    if (is_word(word, "UNCOUNTED")) {
        options.count_retained = false;
        return true;
    }
    sweep.stopped = sweep.stopped || is_word(word, "STOPPED");
    return is_word(word, "STOPPED");
}

// False: not one of these, or not with such a value.
bool take_value(SweepRequest& sweep, std::string_view word, std::string_view value) {
    SweepOptions& options = sweep.options;
    if (is_word(word, "ID")) {
        sweep.id = value.substr(0, 64);
        return true;
    }
    const auto number = whole_number(value);
    if (!number) {
        return false;
    }
    if (is_word(word, "NOW")) {
        options.now_ms = number;
        return true;
    }
    if (*number < 0) {
        return false;
    }
    const auto count = static_cast<std::uint64_t>(*number);
    if (is_word(word, "MAXTIME") && count > 0) {
        options.time_max = std::chrono::milliseconds{*number};
    } else if (is_word(word, "MAXRECORDS")) {
        options.records_max = count;
    } else if (is_word(word, "MAXBYTES")) {
        options.bytes_max = count;
    } else if (is_word(word, "UNANSWERED")) {
        options.unanswered_max = static_cast<std::size_t>(count);
    } else {
        return false;
    }
    return true;
}

// A sweep that can be watched and stopped by its id.
Result<SweepReport> run_watched(SweepRequest sweep, SweepWatch& watch, const Chore& work) {
    std::stop_source stop = watch.begin(sweep.id);
    const Finally end([&] { watch.end(sweep.id); });
    const std::stop_callback with_server(work.stop, [&] { stop.request_stop(); });
    if (sweep.stopped) {
        stop.request_stop();
    }
    sweep.options.stop = stop.get_token();
    sweep.options.progress = [&](std::uint64_t done, std::uint64_t total) {
        watch.note(sweep.id, {done, total});
    };
    return work.store.sweep(sweep.options);
}

CommandPtr make_sweep(const Request& request) {
    SweepRequest sweep;
    for (std::size_t i = 1; i < request.size(); ++i) {
        if (take_flag(sweep, request.argument(i))) {
            continue;
        }
        if (i + 1 == request.size() ||
            !take_value(sweep, request.argument(i), request.argument(i + 1))) {
            return request.error(
                "ERR syntax error: DEDUP.SWEEP [DRYRUN] [COMPACT] [TRUSTCLOCK] [UNCOUNTED] "
                "[STOPPED] [MAXTIME ms] [MAXRECORDS n] [MAXBYTES n] [UNANSWERED n] [NOW ms] "
                "[ID id]");
        }
        ++i;
    }
    return chore(
        request,
        [sweep, &watch = request.facts.sweeps,
         protocol = request.session.protocol](const Chore& work) {
            return written(run_watched(sweep, watch, work), [protocol](const SweepReport& done) {
                return bytes_of(field_map(protocol, done));
            });
        },
        Command::Kind::sweep);
}

}  // namespace

std::span<const CommandEntry> sweep_commands() {
    static constexpr std::array<CommandEntry, 1> kCommands = {
        {{"DEDUP.SWEEP", -1, 0, 0, 0, true, kSweepsStore, make_sweep}}};
    return kCommands;
}

}  // namespace dedup::server
