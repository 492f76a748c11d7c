// dedupctl export: the newest record of every live key, one JSON object a line.

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <optional>

#include "commands.hpp"
#include "common/file_descriptor.hpp"
#include "common/text.hpp"
#include "export_format.hpp"
#include "progress.hpp"
#include "record_json.hpp"
#include "stop_signal.hpp"

namespace dedupctl {
namespace {

constexpr std::size_t kHeadsAtOnce = 64;  // receipts may be large

// Where an export goes. A file gets its name once it is whole and on the disk, so that there is
// never half an export under it.
class Target {
  public:
    explicit Target(const std::string& path) : path_(path) {
        if (path == "-") {
            file_ = FileDescriptor(STDOUT_FILENO);
            return;
        }
        struct stat status {};
        const bool special = ::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode);
        unfinished_ = special ? "" : path + ".unfinished";
        const std::string opened = special ? path : unfinished_;
        const int flags = special ? O_WRONLY : O_WRONLY | O_CREAT | O_TRUNC;
        file_ = FileDescriptor(::open(opened.c_str(), flags | O_CLOEXEC, 0600));
        if (file_.get() < 0) {
            const int error = errno;
            unfinished_.clear();
            throw system_failure("cannot create " + escape(opened), error);
        }
    }
    Target(const Target&) = delete;
    Target& operator=(const Target&) = delete;
    ~Target() {
        if (!unfinished_.empty()) {
            ::unlink(unfinished_.c_str());
        }
    }

    [[nodiscard]] int fd() const { return file_.get(); }

    void finish() {
        if (unfinished_.empty()) {
            return;
        }
        if (::fsync(fd()) != 0 || ::rename(unfinished_.c_str(), path_.c_str()) != 0) {
            throw system_failure("cannot finish " + escape(path_), errno);
        }
        unfinished_.clear();
    }

  private:
    std::string path_;
    std::string unfinished_;
    FileDescriptor file_;
};

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
    dedup::ScanOptions options{.ns = ns};
    options.heads_max = kHeadsAtOnce;
    do {
        const dedup::ScanPage page = take(store.scan(options));
        for (const dedup::Version& version : page.heads) {
            const dedup::Record& record = version.record;
            if (dedup::expired(record.expires_at_ms, store.now_ms(), store.grace())) {
                ++done.expired;
            } else {
                out.line(checked_line(record));
                ++done.records;
            }
            if (stop.requested()) {
                return std::nullopt;
            }
        }
        progress.update_count(done.records + done.expired);
        options.cursor = page.cursor;
    } while (!options.cursor.empty() && !stop.requested());
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
    Target target(path);
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
