// dedupctl dump: what lies in one file of a store's log, piece by piece.

#include "dedup/dump.hpp"

#include <algorithm>
#include <memory>

#include "commands.hpp"
#include "common/text.hpp"
#include "dump_json.hpp"
#include "dump_text.hpp"

namespace dedupctl {
namespace {

struct DumpArguments {
    std::string segment;
    bool index = false;
};

bool is_damage(const dedup::DumpItem& item) {
    const auto* damage = std::get_if<dedup::DamageDump>(&item);
    const auto* table = std::get_if<dedup::TableDump>(&item);
    return (damage != nullptr && !damage->at_end) || (table != nullptr && !table->damaged.empty());
}

std::filesystem::path file_of(const DumpArguments& options, const Context& context) {
    const bool number =
        !options.segment.empty() &&
        std::ranges::all_of(options.segment, [](char c) { return c >= '0' && c <= '9'; });
    if (!number && options.index) {
        throw usage_failure("--index: goes with the number of a segment, not with a file");
    }
    return number ? dedup::segment_path(context.store_path,
                                        parse_number(options.segment, "SEGMENT", 1, UINT64_MAX),
                                        options.index)
                  : std::filesystem::path(options.segment);
}

int run_dump(const DumpArguments& options, Context& context) {
    context.check_globals();
    bool damaged = false;
    TextDump text(context.out);
    const auto done = dedup::dump(file_of(options, context), [&](const dedup::DumpItem& item) {
        damaged = damaged || is_damage(item);
        context.json ? context.out.json(dump_json(item)) : std::visit(text, item);
        return true;
    });
    if (!done) {
        throw last_failure(done.error());
    }
    return damaged ? kExitError : kExitOk;
}

}  // namespace

Command dump_command(Context& context) {
    const auto options = std::make_shared<DumpArguments>();
    return {.name = "dump",
            .help = "Show what lies in a segment or its index; exit 1 if anything is damaged",
            .options = {{.name = "SEGMENT",
                         .to = &options->segment,
                         .help = "A file (.log or .idx), or the number of a segment of the store",
                         .required = true,
                         .filled = true},
                        {.name = "--index",
                         .to = &options->index,
                         .help = "The index of the segment of this number"}},
            .run = [options, &context] { return run_dump(*options, context); }};
}

}  // namespace dedupctl
