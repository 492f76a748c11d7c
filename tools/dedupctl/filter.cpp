// dedupctl filter: prints the lines whose key was never seen before, in this run or an earlier one.
//
// A batch is looked up, printed, flushed to standard output, and only then remembered: a crash
// between the two repeats lines in the next run, and never loses one.

#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <unordered_map>

#include "commands.hpp"
#include "common/file_descriptor.hpp"
#include "common/text.hpp"
#include "line_batch.hpp"
#include "line_reader.hpp"
#include "progress.hpp"
#include "signal_pipe.hpp"
#include "writer_turns.hpp"

namespace dedupctl {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

struct FilterArguments {
    std::vector<std::string> files;
    std::string field;
    std::string delimiter;
    std::string json_pointer;
    std::string regex;
    std::string ttl;
    bool by_json = false;  // the pointer may be empty: the whole document
    bool trim = false;
    bool ignore_case = false;
    bool null_ended = false;
    bool strict = false;
    bool count = false;
    bool repeats = false;

    [[nodiscard]] char end_of_line() const { return null_ended ? '\0' : '\n'; }
};

// What is done with a batch of lines, and what is printed of it.
struct Passing {
    bool prints_lines = true;  // not with --count
    char end_of_line = '\n';
};

std::unique_ptr<LineKey> find_line_key(const FilterArguments& options) {
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

std::unique_ptr<LineKey> make_line_key(const FilterArguments& options) {
    std::unique_ptr<LineKey> key = find_line_key(options);
    return options.trim || options.ignore_case
               ? folded_key(std::move(key), options.trim, options.ignore_case)
               : std::move(key);
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
    Filter(Context& context, LineBatch& batch, Passing passing, std::uint64_t bytes_total)
        : context_(context),
          batch_(batch),
          passing_(passing),
          progress_("filter", bytes_total),
          stop_({SIGINT, SIGTERM}, SecondSignal::exits),
          turns_(context, [this] { return stopped(); }) {}

    // False if a signal said to stop; what had been read by then has been dealt with.
    bool run(const std::string& name, int fd) {
        LineReader reader(fd, passing_.end_of_line);
        std::uint64_t lines = 0;
        while (true) {
            if (!reader.ended()) {
                turns_.rest(fd);
                if (wait_for_input(fd)) {
                    fill(reader, name);
                }
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

    // Opens the store: what is wrong with it is said before anything is read.
    void begin() { static_cast<void>(turns_.store()); }
    void finish() { turns_.close(); }

    [[nodiscard]] const LineCounts& counts() const { return counts_; }
    // New lines of a batch that failed: printed or not, the next run prints them.
    [[nodiscard]] std::uint64_t not_remembered() const { return not_remembered_; }
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
    static void fill(LineReader& reader, const std::string& name) {
        if (const int error = reader.fill_ready(kBufferedBytesEnough); error != 0) {
            throw system_failure("cannot read " + escape(name), error);
        }
    }

    // A batch costs a flush, so small ones are filled up, but only with what can be had at once.
    bool should_read_first(const LineReader& reader, int fd) {
        return !reader.ended() && !stopped() && reader.bytes_buffered() < kBufferedBytesEnough &&
               readable_within(fd, milliseconds{0});
    }

    // Of a signal that comes while another process holds the store, the batch is left: nothing of
    // it has been printed, so the next run prints it.
    void pass() {
        dedup::StreamStore* const store = lines_.empty() ? nullptr : turns_.store();
        if (store == nullptr) {
            return;
        }
        dedup::Cache cache = context_.cache(*store);
        const std::string_view text = batch_.sort_out(cache, lines_);
        counts_ += batch_.counts();
        try {
            print(text);
            batch_.remember(cache);
        } catch (Failure& failure) {
            not_remembered_ = batch_.counts().fresh;
            if (!failure.message.empty()) {
                failure.message += fmt::format("\n  the last {} may come again in the next run",
                                               count_of(not_remembered_, "new line"));
            }
            throw;
        }
    }

    void print(std::string_view text) {
        if (text.empty() || !passing_.prints_lines) {
            return;
        }
        // The last line of the file before may have had no end: keep the two apart.
        if (unfinished_line_) {
            context_.out.write({&passing_.end_of_line, 1});
        }
        context_.out.write(text);
        unfinished_line_ = text.back() != passing_.end_of_line;
        context_.out.flush();
    }

    [[nodiscard]] std::string progress_detail() const {
        return progress_.shown() ? fmt::format("{} new of {} lines", group_digits(counts_.fresh),
                                               group_digits(counts_.read))
                                 : "";
    }

    Context& context_;
    LineBatch& batch_;
    const Passing passing_;
    Progress progress_;
    SignalPipe stop_;
    WriterTurns turns_;
    std::vector<std::string_view> lines_;
    LineCounts counts_;
    std::uint64_t not_remembered_ = 0;
    std::uint64_t bytes_before_ = 0;  // of the files that are done
    bool unfinished_line_ = false;
    std::optional<int> signal_;
};

// How often each key came again; the most frequent first.
class Repeats {
  public:
    void add(std::string_view key) { ++counts_[std::string(key)]; }

    void print(const Context& context) const {
        std::vector<std::pair<std::string, std::uint64_t>> sorted(counts_.begin(), counts_.end());
        std::ranges::sort(sorted, [](const auto& a, const auto& b) {
            return a.second != b.second ? a.second > b.second : a.first < b.first;
        });
        for (const auto& [key, count] : sorted) {
            Json object;
            add_bytes(object, "key", key);
            object["repeats"] = count;
            static_cast<void>(write_all(
                STDERR_FILENO,
                context.json ? json_line(object) : fmt::format("{}\t{}\n", count, escape(key))));
        }
    }

  private:
    std::unordered_map<std::string, std::uint64_t> counts_;
};

void print_json_summary(const Context& context, const Filter& filter, double seconds, double rate) {
    const LineCounts& counts = filter.counts();
    Json object;
    object["read"] = counts.read;
    object["new"] = counts.fresh;
    object["repeated"] = counts.repeated;
    object["no_key"] = counts.no_key;
    object["in_flight"] = counts.in_flight;
    object["not_remembered"] = filter.not_remembered();
    object["seconds"] = seconds;
    object["lines_per_second"] = rate;
    if (context.made_store) {
        object["made_store"] = context.absolute_store();
    }
    static_cast<void>(write_all(STDERR_FILENO, json_line(object)));
}

void print_summary(const Context& context, const Filter& filter, SteadyTime started) {
    const LineCounts& counts = filter.counts();
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    const double rate = seconds > 0 ? static_cast<double>(counts.read) / seconds : 0;
    if (context.json) {
        print_json_summary(context, filter, seconds, rate);
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

void run_files(const FilterArguments& options, Filter& filter,
               const std::vector<FileDescriptor>& files) {
    filter.begin();
    for (std::size_t i = 0; i < files.size(); ++i) {
        if (!filter.run(options.files[i], files[i].get())) {
            break;
        }
    }
    filter.finish();
}

void print_end(const FilterArguments& options, Context& context, const Filter& filter,
               SteadyTime started) {
    if (options.count) {
        context.out.line(std::to_string(filter.counts().fresh + filter.counts().no_key +
                                        filter.counts().in_flight));
    }
    if (!context.quiet) {
        print_summary(context, filter, started);
    }
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
    LineBatch batch(*line_key, options.end_of_line(), std::move(claim));
    Repeats repeats;
    if (options.repeats) {
        batch.on_repeated = [&](std::string_view key) { repeats.add(key); };
    }
    Filter filter(context, batch, {!options.count, options.end_of_line()}, total_bytes(files));
    const SteadyTime started = std::chrono::steady_clock::now();
    try {
        run_files(options, filter, files);
    } catch (const Failure&) {
        filter.clear_progress();
        print_end(options, context, filter, started);
        throw;
    }
    filter.clear_progress();
    print_end(options, context, filter, started);
    if (options.repeats) {
        repeats.print(context);
    }
    if (filter.signal()) {
        return kExitSignalBase + *filter.signal();
    }
    return options.strict && filter.counts().no_key != 0 ? kExitError : kExitOk;
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
                        {.name = "--trim",
                         .to = &options->trim,
                         .help = "Blanks around a key do not matter"},
                        {.name = "--ignore-case",
                         .to = &options->ignore_case,
                         .help = "Nor does the case of ASCII letters in it"},
                        {.name = "-0,--null",
                         .to = &options->null_ended,
                         .help = "Lines end with a NUL, as of `find -print0`"},
                        {.name = "--strict",
                         .to = &options->strict,
                         .help = "Exit with 1 if there was a line without a key"},
                        {.name = "--count",
                         .to = &options->count,
                         .help = "Print how many are new, not the lines; remembers all the same"},
                        {.name = "--repeats",
                         .to = &options->repeats,
                         .help = "At the end say on standard error how often each key came again"}},
            .run = [options, &context] { return run_filter(*options, context); },
            .examples =
                "  dedupctl filter --ttl 30d access.log > new.log\n"
                "  tail -F app.log | dedupctl filter --json /request_id\n"
                "  find . -name '*.xml' -print0 | dedupctl filter -0 | xargs -0 ./load\n",
            .chosen = &context.prints_data};
}

}  // namespace dedupctl
