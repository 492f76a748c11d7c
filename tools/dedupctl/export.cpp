// dedupctl export: the newest record of every live key, one JSON object a line.

#include <fmt/format.h>

#include <memory>
#include <optional>

#include "commands.hpp"
#include "common/text.hpp"
#include "dedup/scan.hpp"
#include "export_format.hpp"
#include "output_file.hpp"
#include "progress.hpp"
#include "record_json.hpp"
#include "stop_signal.hpp"

namespace dedupctl {
namespace {

constexpr std::size_t kHeadsAtOnce = 64;  // receipts may be large

// A record as such a line must have come out of the same program: a difference would be a defect
// that a backup must not carry on.
std::string checked_line(const dedup::Record& record) {
    std::string line = json_text(record_to_json(record).dump());
    const auto parsed = parse_json(line);
    const auto back =
        parsed ? record_from_json(parsed->value, parsed->members) : std::unexpected(parsed.error());
    if (!back) {
        throw Failure{.code = "internal",
                      .message = fmt::format("key \"{}\" cannot be exported: {}",
                                             escape(record.key), back.error())};
    }
    return line;
}

struct Done {
    std::uint64_t records = 0;
    std::uint64_t expired = 0;
};

// `ns` is empty for all namespaces.
std::optional<Done> write_all_heads(dedup::StreamStore& store, const std::string& ns, Output& out,
                                    StopSignal& stop) {
    const dedup::StoreStats stats = take(store.stats());
    Json frame;
    frame[kExportMember] = kExportName;
    frame["version"] = kExportVersion;
    frame["store_id"] = stats.store_id;
    frame["exported_at_ms"] = store.now_ms();
    frame["last_sequence"] = stats.last_sequence;
    out.json(frame);
    Progress progress("export", ns.empty() ? stats.streams() : 0);
    Done done;
    const dedup::ScanOptions options{.ns = ns, .heads_max = kHeadsAtOnce};
    take(for_each_page(store, options, [&](const dedup::ScanPage& page) {
        for (const dedup::Version& version : page.heads) {
            const dedup::Record& record = version.record;
            if (dedup::expired(record.expires_at_ms, store.now_ms(), store.grace())) {
                ++done.expired;
            } else {
                out.line(checked_line(record));
                ++done.records;
            }
            if (stop.requested()) {
                return false;
            }
        }
        progress.update_count(done.records + done.expired);
        return true;
    }));
    if (stop.requested()) {
        return std::nullopt;
    }
    frame["records"] = done.records;
    out.json(frame);
    return done;
}

int run_export(const std::string& path, Context& context) {
    context.check_globals();
    StopSignal stop;
    const auto store = context.open_reader();
    OutputFile target(path);
    Output out(target.fd());
    const auto done = write_all_heads(*store, context.ns_given ? context.ns : "", out, stop);
    if (!done) {
        return kExitSignalBase + *stop.signal();
    }
    out.flush();
    target.finish();
    if (context.quiet) {
        return kExitOk;
    }
    note(fmt::format("{} exported{}", count_of(done->records, "record"),
                     done->expired == 0
                         ? ""
                         : fmt::format(", {} expired and left out", group_digits(done->expired))));
    return kExitOk;
}

}  // namespace

Command export_command(Context& context) {
    const auto path = std::make_shared<std::string>("-");
    return {
        .name = "export",
        .help = "Write the newest record of every live key as JSON lines, for `dedupctl import`",
        .options = {{.name = "FILE",
                     .to = path.get(),
                     .help = "File to write; standard output if none, or '-'"}},
        .run = [path, &context] { return run_export(*path, context); },
        .examples =
            "  dedupctl export backup.jsonl\n"
            "  dedupctl -s old export | dedupctl -s new import\n",
        .chosen = &context.prints_data};
}

}  // namespace dedupctl
