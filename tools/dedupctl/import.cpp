// dedupctl import: takes records in from an export, or from another system.
//
// Running it again is safe at any time: what is there already is recognised, and nothing that is
// there is replaced. So an import that was cut short is simply started anew.

#include <fmt/format.h>
#include <sys/stat.h>

#include <memory>

#include "commands.hpp"
#include "common/file_descriptor.hpp"
#include "common/text.hpp"
#include "importer.hpp"
#include "progress.hpp"
#include "stop_signal.hpp"

namespace dedupctl {
namespace {

constexpr std::uint64_t kBadShown = 100;

struct ImportArguments {
    std::string file = "-";
    std::string from = "export";
    std::string ttl = "never";
    bool ttl_given = false;
    bool skip_bad = false;
};

std::uint64_t size_of(const FileDescriptor& file) {
    struct stat status {};
    const bool known = ::fstat(file.get(), &status) == 0 && S_ISREG(status.st_mode);
    return known ? static_cast<std::uint64_t>(status.st_size) : 0;
}

std::string name_of(const ImportArguments& options) {
    return options.file == "-" ? "standard input" : escape(options.file);
}

std::unique_ptr<ImportSource> make_source(const ImportArguments& options, ForeignDefaults defaults,
                                          const FileDescriptor& file, StopSignal& stop) {
    ImportInput input{.name = name_of(options), .fd = file.get(), .wait = [&] {
                          return !stop.requested_before(file.get());
                      }};
    if (options.from == "export") {
        return export_source(std::move(input));
    }
    return options.from == "csv" ? events_source(std::move(input), std::move(defaults))
                                 : reservations_source(std::move(input), std::move(defaults));
}

std::string counts_text(const ImportCounts& counts) {
    std::string text = fmt::format("{} imported, {} there already",
                                   count_of(counts.imported, "record"), group_digits(counts.equal));
    const auto add = [&](std::uint64_t number, const char* what) {
        text += number == 0 ? "" : fmt::format(", {} {}", group_digits(number), what);
    };
    add(counts.differ, "there with another record");
    add(counts.expired, "expired");
    add(counts.bad, "bad and left out");
    return text;
}

void print_counts(Context& context, const ImportCounts& counts) {
    if (!context.json) {
        context.out.line(counts_text(counts));
        return;
    }
    Json object;
    object["read"] = counts.read();
    object["imported"] = counts.imported;
    object["equal"] = counts.equal;
    object["differ"] = counts.differ;
    object["expired"] = counts.expired;
    object["bad"] = counts.bad;
    context.out.json(object);
}

class Import {
  public:
    Import(const ImportArguments& options, dedup::StreamStore& store, ImportSource& source,
           std::uint64_t bytes_total, StopSignal& stop)
        : options_(options),
          importer_(store),
          source_(source),
          progress_("import", bytes_total),
          stop_(stop) {}

    // What was taken in before a failure is in the store when the failure is told.
    void run() {
        try {
            take_all();
            progress_.clear();
            importer_.finish();
        } catch (Failure& failure) {
            progress_.clear();
            finish_before(failure);
            throw;
        }
    }

    [[nodiscard]] const ImportCounts& counts() const { return importer_.counts(); }

  private:
    void take_all() {
        ImportItem item;
        while (!stop_.requested() && source_.next(item)) {
            const std::string place = item.place;
            if (item.lacks_others) {
                complain(place + ": " + item.record.error());
            } else if (const std::string why = importer_.add(std::move(item)); !why.empty()) {
                leave_out(place, why);
            }
            item = {};
            progress_.update(source_.bytes_read(), progress_.shown() ? progress_detail() : "");
        }
        std::string complaint = stop_.requested() ? "" : source_.complaint();
        if (complaint_.empty()) {
            complaint_ = std::move(complaint);
        }
        if (!complaint_.empty()) {
            throw Failure{.code = "invalid_argument", .message = complaint_};
        }
    }

    // What is missing is no bad record that could be left out: with --skip-bad it is told at the
    // end, when the rest is in.
    void complain(const std::string& what) {
        if (complaint_.empty()) {
            complaint_ = name_of(options_) + ": " + what;
        }
        if (!options_.skip_bad) {
            throw Failure{.code = "invalid_argument", .message = complaint_};
        }
    }

    [[nodiscard]] std::string progress_detail() const {
        return group_digits(importer_.counts().read()) + " records";
    }

    void leave_out(const std::string& place, const std::string& why) {
        if (!options_.skip_bad) {
            throw Failure{.code = "invalid_argument",
                          .message = fmt::format("{}: {}: {}; --skip-bad leaves it out",
                                                 name_of(options_), place, why)};
        }
        importer_.skip();
        if (importer_.counts().bad <= kBadShown) {
            progress_.clear();
            note(fmt::format("{}: {}; left out", place, why));
        } else if (importer_.counts().bad == kBadShown + 1) {
            note("further bad records are counted, not listed");
        }
    }

    void finish_before(Failure& failure) {
        try {
            importer_.finish();
        } catch (const Failure&) {
            // The first one is what is to be told.
        }
        if (counts().read() != 0) {
            failure.message +=
                "\n  before that: " + counts_text(counts()) + "; running the import again is safe";
        }
    }

    const ImportArguments& options_;
    Importer importer_;
    ImportSource& source_;
    Progress progress_;
    StopSignal& stop_;
    std::string complaint_;  // about the input as a whole
};

int run_import(const ImportArguments& options, Context& context) {
    context.check_globals();
    if (options.from == "export" && (context.ns_given || options.ttl_given)) {
        throw usage_failure(std::string(context.ns_given ? "--namespace" : "--ttl") +
                            ": the lines of an export say that themselves");
    }
    ForeignDefaults defaults{.ns = context.ns, .ttl = parse_ttl(options.ttl)};
    const FileDescriptor file = open_for_reading(options.file);
    const auto store = context.open_writer();
    StopSignal stop;  // until here a signal ends the process, and nothing is lost
    const auto source = make_source(options, std::move(defaults), file, stop);
    Import import(options, *store, *source, size_of(file), stop);
    import.run();
    take(store->close());
    print_counts(context, import.counts());
    if (stop.signal()) {
        note("ended by a signal; running the import again goes on with the rest");
        return kExitSignalBase + *stop.signal();
    }
    const ImportCounts& counts = import.counts();
    if (counts.bad != 0 && counts.bad == counts.read()) {
        note("there was nothing but bad records");
        return kExitError;
    }
    return counts.differ == 0 ? kExitOk : kExitError;
}

}  // namespace

Command import_command(Context& context) {
    const auto options = std::make_shared<ImportArguments>();
    return {.name = "import",
            .help = "Take in records that `dedupctl export` or another system has written",
            .options = {{.name = "FILE",
                         .to = &options->file,
                         .help = "File to read; standard input if none, or '-'"},
                        {.name = "--from",
                         .to = &options->from,
                         .help = "What the file is: 'export', 'reservations' (JSON) or 'csv'",
                         .type = "FORMAT",
                         .shows_default = true,
                         .choices = {"export", "reservations", "csv"}},
                        {.name = "--ttl",
                         .to = &options->ttl,
                         .help = "Of foreign records without an expiry, from their own time; or "
                                 "'never'",
                         .type = "D",
                         .filled = true,
                         .shows_default = true,
                         .given = &options->ttl_given},
                        {.name = "--skip-bad",
                         .to = &options->skip_bad,
                         .help = "Leave out and report what cannot be imported, instead of "
                                 "stopping there"}},
            .run = [options, &context] { return run_import(*options, context); }};
}

}  // namespace dedupctl
