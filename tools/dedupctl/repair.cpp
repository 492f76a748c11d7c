// dedupctl repair: makes a new store of what is intact in a damaged one.

#include <fmt/format.h>

#include "commands.hpp"
#include "common/text.hpp"
#include "progress.hpp"
#include "table.hpp"

namespace dedupctl {
namespace {

void print_json(Context& context, const std::string& target, const dedup::RepairReport& report) {
    Json losses = Json::array();
    for (const dedup::RepairLoss& loss : report.losses) {
        Json object;
        object["file"] = loss.file;
        object["offset"] = loss.offset;
        object["bytes"] = loss.bytes;
        object["after_sequence"] = loss.after_sequence;
        object["before_sequence"] = loss.before_sequence == 0 ? Json() : Json(loss.before_sequence);
        object["what"] = loss.what;
        losses.push_back(object);
    }
    Json object;
    object["store"] = context.store_path;
    object["target"] = target;
    object["ok"] = report.losses.empty();
    object["segments"] = report.segments;
    object["frames"] = report.frames;
    object["records"] = report.records;
    object["streams"] = report.streams;
    object["bytes_lost"] = report.bytes_lost;
    object["losses"] = losses;
    context.out.json(object);
}

// The sequences that are lost, as far as what is intact tells.
std::string sequences(const dedup::RepairLoss& loss) {
    if (loss.before_sequence == 0) {
        return fmt::format("after {}", loss.after_sequence);
    }
    if (loss.before_sequence == loss.after_sequence + 1) {
        return "none";
    }
    const std::uint64_t first = loss.after_sequence + 1;
    const std::uint64_t last = loss.before_sequence - 1;
    return first == last ? std::to_string(first) : fmt::format("{} to {}", first, last);
}

void print_text(Context& context, const std::string& target, const dedup::RepairReport& report) {
    context.out.line(fmt::format(
        "{} of {} are in {}, read from {}", count_of(report.records, "record"),
        count_of(report.streams, "key"), escape(target), count_of(report.segments, "segment")));
    if (report.losses.empty()) {
        context.out.line(paint("nothing was lost", Colour::green));
        return;
    }
    Table table({{"FILE"}, {"OFFSET", true}, {"BYTES", true}, {"SEQUENCES"}, {"WHAT"}});
    for (const dedup::RepairLoss& loss : report.losses) {
        table.add({{escape(loss.file)},
                   {std::to_string(loss.offset)},
                   {std::to_string(loss.bytes)},
                   {sequences(loss)},
                   {escape(loss.what), Colour::red}});
    }
    table.print(context.out);
    context.out.line(fmt::format("{} lost in {}", human_bytes(report.bytes_lost),
                                 count_of(report.losses.size(), "place")));
}

int run_repair(Context& context, const std::string& target) {
    context.check_globals();
    context.need_directory("repair", "restore it from a backup of the database");
    Progress progress("repair", 0);
    const auto repaired =
        dedup::repair(context.store_path, target, [&](std::uint64_t done, std::uint64_t total) {
            progress.set_total(total);
            progress.update(done);
        });
    progress.clear();
    if (!repaired) {
        throw last_failure(repaired.error());
    }
    const dedup::RepairReport& report = *repaired;
    if (context.json) {
        print_json(context, target, report);
    } else {
        print_text(context, target, report);
    }
    return report.losses.empty() ? kExitOk : kExitError;
}

}  // namespace

Command repair_command(Context& context) {
    const auto target = std::make_shared<std::string>();
    return {
        .name = "repair",
        .help = "Make a new store of what is intact in a damaged one; exit 1 if anything is lost",
        .options = {{.name = "TARGET",
                     .to = target.get(),
                     .help = "Where the new store will be",
                     .required = true}},
        .run = [target, &context] { return run_repair(context, *target); }};
}

}  // namespace dedupctl
