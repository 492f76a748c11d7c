// dedupctl filter: prints the lines whose key was never seen before, in this run or an earlier one.
//
// A batch is looked up, printed, flushed to standard output, and only then remembered: a crash
// between the two repeats lines in the next run, and never loses one.

#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <memory>

#include "commands.hpp"
#include "common/file_descriptor.hpp"
#include "common/text.hpp"
#include "line_batch.hpp"
#include "line_reader.hpp"
#include "progress.hpp"
#include "signal_pipe.hpp"

namespace dedupctl {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

// Enough for a full batch of ordinary lines; more would only be copied to and fro.
constexpr std::size_t kBufferedBytesEnough = 1024 * 1024;

// A line is held in memory until its end is seen. What never ends is no line of text.
constexpr std::size_t kLineBytesMax = 16 * 1024 * 1024;

struct FilterArguments {
    std::vector<std::string> files;
    std::string field;
    std::string delimiter;
    std::string json_pointer;
    std::string regex;
    std::string ttl;
    bool by_json = false;  // the pointer may be empty: the whole document
    bool quiet = false;
};

std::unique_ptr<LineKey> make_line_key(const FilterArguments& options) {
    if (options.by_json) {
        return json_key(options.json_pointer);
    }
    if (!options.regex.empty()) {
        return regex_key(options.regex);
    }
    if (options.field.empty()) {
        return whole_line_key();
    }
    // People write '\t' in quotes and mean a tab.
    const std::string delimiter = options.delimiter == "\\t" ? "\t" : options.delimiter;
    if (columns(delimiter) > 1 || !is_utf8(delimiter)) {
        if (delimiter.size() != 1) {
            throw usage_failure("--delimiter: '" + escape(delimiter) + "' is not one character");
        }
    }
    if (delimiter == "\n") {
        throw usage_failure("--delimiter: a newline ends lines and cannot be in one");
    }
    return field_key(parse_number(options.field, "--field", 1, UINT32_MAX), delimiter);
}

// The sum of the files' sizes, or 0 if one of them is not a regular file.
std::uint64_t total_bytes(const std::vector<FileDescriptor>& files) {
    std::uint64_t total = 0;
    for (const FileDescriptor& file : files) {
        struct stat status {};
        if (::fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
            return 0;
        }
        total += static_cast<std::uint64_t>(status.st_size);
    }
    return total;
}

bool readable_now(int fd) {
    pollfd event{.fd = fd, .events = POLLIN, .revents = 0};
    return ::poll(&event, 1, 0) > 0;
}

Failure too_long_line(const std::string& name, std::uint64_t line) {
    return {
        .exit_code = kExitError,
        .code = "invalid_argument",
        .message = fmt::format("line {} of {} is longer than {}; all before it is done\n  what "
                               "has no newlines is not for filter; `fold` or `tr` makes lines",
                               group_digits(line), name == "-" ? "standard input" : escape(name),
                               human_bytes(kLineBytesMax))};
}

class Filter {
  public:
    Filter(Context& context, LineBatch& batch, std::uint64_t bytes_total)
        : context_(context),
          batch_(batch),
          progress_("filter", bytes_total),
          stop_({SIGINT, SIGTERM}, SecondSignal::exits) {}

    // False if a signal said to stop; what had been read by then has been dealt with.
    bool run(const std::string& name, int fd) {
        LineReader reader(fd);
        std::uint64_t lines = 0;
        while (true) {
            if (!reader.ended() && wait_for_input(fd)) {
                fill(reader, name, fd);
            }
            do {
                reader.take_lines(kBatchLinesMax, lines_);
                lines += lines_.size();
                pass();
                progress_.update(bytes_before_ + reader.bytes_read(), progress_detail());
            } while (!lines_.empty() && !should_read_first(reader, fd));
            if (stopped()) {
                return false;
            }
            if (lines_.empty() && reader.bytes_buffered() > kLineBytesMax) {
                throw too_long_line(name, lines + 1);
            }
            if (reader.ended() && reader.bytes_buffered() == 0) {
                bytes_before_ += reader.bytes_read();
                return true;
            }
        }
    }

    [[nodiscard]] const LineCounts& counts() const { return counts_; }
    [[nodiscard]] std::optional<int> signal() const { return signal_; }
    void clear_progress() { progress_.clear(); }

  private:
    bool stopped() {
        if (const auto signal = stop_.take()) {
            signal_ = signal->number;
        }
        return signal_.has_value();
    }

    // Blocks until there is input (or its end); false if a signal comes first.
    bool wait_for_input(int fd) {
        std::array<pollfd, 2> events{pollfd{.fd = fd, .events = POLLIN, .revents = 0},
                                     pollfd{.fd = stop_.fd(), .events = POLLIN, .revents = 0}};
        while (::poll(events.data(), events.size(), -1) < 0 && errno == EINTR) {
        }
        return !stopped();
    }

    // Reads what is there, up to a batch or so; does not wait for more once it has something.
    static void fill(LineReader& reader, const std::string& name, int fd) {
        do {
            if (const int error = reader.fill(); error != 0) {
                throw system_failure("cannot read " + escape(name), error);
            }
        } while (!reader.ended() && reader.bytes_buffered() < kBufferedBytesEnough &&
                 readable_now(fd));
    }

    // A batch costs a flush, so small ones are filled up, but only with what can be had at once.
    bool should_read_first(const LineReader& reader, int fd) {
        return !reader.ended() && !stopped() && reader.bytes_buffered() < kBufferedBytesEnough &&
               readable_now(fd);
    }

    void pass() {
        if (lines_.empty()) {
            return;
        }
        const std::string_view text = batch_.sort_out(lines_);
        if (!text.empty()) {
            // The last line of the file before may have had no newline: keep the two apart.
            if (unfinished_line_) {
                context_.out.write("\n");
            }
            context_.out.write(text);
            unfinished_line_ = text.back() != '\n';
        }
        context_.out.flush();
        try {
            counts_ += batch_.remember();
        } catch (Failure& failure) {
            failure.message += "\n  the lines printed last may come again in the next run";
            throw;
        }
    }

    [[nodiscard]] std::string progress_detail() const {
        return progress_.shown() ? fmt::format("{} new of {} lines", group_digits(counts_.fresh),
                                               group_digits(counts_.read))
                                 : "";
    }

    Context& context_;
    LineBatch& batch_;
    Progress progress_;
    SignalPipe stop_;
    std::vector<std::string_view> lines_;
    LineCounts counts_;
    std::uint64_t bytes_before_ = 0;  // of the files that are done
    bool unfinished_line_ = false;
    std::optional<int> signal_;
};

void print_json_summary(const LineCounts& counts, double seconds, double rate) {
    Json object;
    object["read"] = counts.read;
    object["new"] = counts.fresh;
    object["repeated"] = counts.repeated;
    object["no_key"] = counts.no_key;
    object["in_flight"] = counts.in_flight;
    object["seconds"] = seconds;
    object["lines_per_second"] = rate;
    static_cast<void>(write_all(STDERR_FILENO, object.dump() + "\n"));
}

void print_summary(const Context& context, const LineCounts& counts, SteadyTime started) {
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    const double rate = seconds > 0 ? static_cast<double>(counts.read) / seconds : 0;
    if (context.json) {
        print_json_summary(counts, seconds, rate);
        return;
    }
    note(fmt::format("{} read: {} new, {} repeated; {:.1f}s, {} lines/s",
                     count_of(counts.read, "line"), group_digits(counts.fresh),
                     group_digits(counts.repeated), seconds,
                     group_digits(static_cast<std::uint64_t>(rate))));
    const auto not_remembered = [](std::uint64_t lines, const char* why) {
        if (lines != 0) {
            note(fmt::format("{} {}: printed, not remembered", count_of(lines, "line"), why));
        }
    };
    not_remembered(counts.no_key, "without a key");
    not_remembered(counts.in_flight, "whose key somebody holds a claim on");
}

int run_files(const FilterArguments& options, Context& context, Filter& filter,
              const std::vector<FileDescriptor>& files) {
    const SteadyTime started = std::chrono::steady_clock::now();
    const auto end = [&] {
        filter.clear_progress();
        if (!options.quiet) {
            print_summary(context, filter.counts(), started);
        }
    };
    try {
        for (std::size_t i = 0; i < files.size(); ++i) {
            if (!filter.run(options.files[i], files[i].get())) {
                break;
            }
        }
    } catch (const Failure&) {
        end();
        throw;
    }
    end();
    return filter.signal() ? kExitSignalBase + *filter.signal() : kExitOk;
}

int run_filter(FilterArguments options, Context& context) {
    context.check_globals();
    const std::unique_ptr<LineKey> line_key = make_line_key(options);
    dedup::ClaimOptions claim;
    claim.ttl = options.ttl.empty() ? dedup::kForever : parse_ttl(options.ttl);
    if (options.files.empty()) {
        options.files.emplace_back("-");
    }
    std::vector<FileDescriptor> files;
    for (const std::string& file : options.files) {
        files.push_back(open_for_reading(file));
    }

    const auto store = context.open_writer();
    dedup::Cache cache = context.cache(*store);
    LineBatch batch(cache, *line_key, std::move(claim));
    Filter filter(context, batch, total_bytes(files));
    const int exit_code = run_files(options, context, filter, files);
    take(store->close());
    return exit_code;
}

}  // namespace

Command filter_command(Context& context) {
    const auto options = std::make_shared<FilterArguments>();
    // The parser reads "[a]" as a list; ./[a] is the way to name such a file, as docs say.
    return {.name = "filter",
            .help = "Print the lines whose key was never seen before",
            .options = {{.name = "FILE",
                         .to = &options->files,
                         .help = "Files to read; standard input if none, or '-'"},
                        {.name = "--field",
                         .to = &options->field,
                         .help = "The key is field N, from 1",
                         .type = "N",
                         .filled = true},
                        {.name = "--delimiter",
                         .to = &options->delimiter,
                         .help = "What separates fields; runs of blanks if not given",
                         .type = "C",
                         .filled = true,
                         .needs = "--field"},
                        {.name = "--json",
                         .to = &options->json_pointer,
                         .help = "Lines are JSON; the key is at POINTER (--json without a pointer "
                                 "goes before `filter`)",
                         .type = "POINTER",
                         .excludes = {"--field"},
                         .given = &options->by_json},
                        {.name = "--regex",
                         .to = &options->regex,
                         .help = "The key is what RE, or its first group, matches",
                         .type = "RE",
                         .filled = true,
                         .excludes = {"--field", "--json"}},
                        {.name = "--ttl",
                         .to = &options->ttl,
                         .help = "Forget a line after this long (never)",
                         .type = "D",
                         .filled = true},
                        {.name = "-q,--quiet", .to = &options->quiet, .help = "No summary"}},
            .run = [options, &context] { return run_filter(*options, context); }};
}

}  // namespace dedupctl
