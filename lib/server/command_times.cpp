#include "server/command_times.hpp"

#include "server/command_table.hpp"

namespace dedup::server {

CommandTimes::CommandTimes() {
    for (const CommandEntry* entry : all_commands()) {
        times_.try_emplace(entry);
    }
}

std::vector<CommandTime> CommandTimes::snapshot() const {
    std::vector<CommandTime> taken;
    for (const CommandEntry* entry : all_commands()) {
        const Histogram time = times_.at(entry).snapshot();
        if (time.count() != 0) {
            taken.push_back({.command = lower_case(entry->name), .ns = time});
        }
    }
    return taken;
}

}  // namespace dedup::server
