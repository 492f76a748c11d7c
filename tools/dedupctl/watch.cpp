// dedupctl watch: what a store holds and does, looked at again and again beside its writer.

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>

#include "commands.hpp"
#include "common/text.hpp"
#include "stop_signal.hpp"
#include "table.hpp"
#include "terminal.hpp"

namespace dedupctl {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

struct Look {
    SteadyTime at;
    dedup::StoreStats stats;
};

// What happened in a second between two looks.
struct Rates {
    double appends = 0;
    double bytes = 0;
};

// A sweep or a new sequence mark makes the log shorter or skips sequences; no rate is negative.
double per_second(std::uint64_t before, std::uint64_t now, double seconds) {
    return now <= before || seconds <= 0 ? 0 : static_cast<double>(now - before) / seconds;
}

std::optional<Rates> rates_between(const std::optional<Look>& before, const Look& now) {
    if (!before) {
        return std::nullopt;
    }
    const double seconds = std::chrono::duration<double>(now.at - before->at).count();
    return Rates{
        .appends = per_second(before->stats.last_sequence, now.stats.last_sequence, seconds),
        .bytes = per_second(before->stats.log_bytes, now.stats.log_bytes, seconds)};
}

std::string appends_text(const std::optional<Rates>& rates) {
    return rates ? group_digits(static_cast<std::uint64_t>(rates->appends)) + "/s" : "-";
}

std::string bytes_text(const std::optional<Rates>& rates) {
    return rates ? human_bytes(static_cast<std::uint64_t>(rates->bytes)) + "/s" : "-";
}

std::string sweep_text(const dedup::StoreStats& stats, std::int64_t now_ms) {
    return stats.last_sweep_ms == 0 ? "none" : format_age(stats.last_sweep_ms, now_ms);
}

// The errors that stats reports; a live view must not hide them.
std::string trouble(const dedup::StoreStats& stats) {
    std::string text;
    for (const std::string& error :
         {stats.write_error, stats.sweep_error, stats.background_error}) {
        if (!error.empty()) {
            text += (text.empty() ? "" : "; ") + error;
        }
    }
    return escape(text);
}

std::vector<std::vector<Cell>> rows_of(const Context& context, const Look& look,
                                       const std::optional<Rates>& rates, milliseconds every) {
    const dedup::StoreStats& stats = look.stats;
    const std::int64_t now_ms = dedup::system_now_ms();
    std::vector<std::vector<Cell>> rows{
        {{"store"}, {escape(context.shown_store())}},
        {{"at"},
         {fmt::format("{}, every {}; Ctrl-C ends", format_time(now_ms), format_duration(every))}},
        {{"keys"}, {group_digits(stats.streams()), Colour::bold}},
        {{"  in-flight"}, {group_digits(stats.in_flight), Colour::yellow}},
        {{"  completed"}, {group_digits(stats.completed), Colour::green}},
        {{"  released"}, {group_digits(stats.released)}},
        {{"appends"}, {appends_text(rates), Colour::bold}},
        {{"log grows by"}, {bytes_text(rates)}},
        {{"last sequence"}, {group_digits(stats.last_sequence)}},
        {{"last activity"},
         {stats.time_high_ms == 0 ? "none" : format_age(stats.time_high_ms, now_ms)}},
        {{"segments"},
         {fmt::format("{} sealed, {} unsealed", stats.segments_sealed, stats.segments_unsealed)}},
        {{"log"}, {human_bytes(stats.log_bytes)}},
        {{"catalog"}, {human_bytes(stats.catalog_bytes)}},
        {{"tail to replay"}, {human_bytes(stats.tail_bytes)}},
        {{"last sweep"}, {sweep_text(stats, now_ms)}},
        {{"evicted"}, {group_digits(stats.evicted)}}};
    if (const std::string text = trouble(stats); !text.empty()) {
        rows.push_back({{"error"}, {text, Colour::red}});
    }
    return rows;
}

class Watch {
  public:
    Watch(Context& context, milliseconds every)
        : context_(context), every_(every), on_terminal_(can_draw_on(STDOUT_FILENO)) {}

    void show(const Look& look) {
        const auto rates = rates_between(before_, look);
        if (context_.json) {
            print_json(look, rates);
        } else if (on_terminal_) {
            redraw(look, rates);
        } else {
            print_line(look, rates);
        }
        context_.out.flush();
        before_ = look;
    }

    // Leaves a clean line behind: the terminal has written "^C" into it.
    void end() {
        if (on_terminal_ && !context_.json) {
            context_.out.write("\r\033[K");
            context_.out.flush();
        }
    }

  private:
    void print_json(const Look& look, const std::optional<Rates>& rates) {
        const dedup::StoreStats& stats = look.stats;
        Json object;
        object["at_ms"] = dedup::system_now_ms();
        object["in_flight"] = stats.in_flight;
        object["completed"] = stats.completed;
        object["released"] = stats.released;
        object["appends_per_second"] = rates ? Json(rates->appends) : Json();
        object["log_bytes_per_second"] = rates ? Json(rates->bytes) : Json();
        object["last_sequence"] = stats.last_sequence;
        object["time_high_ms"] = stats.time_high_ms;
        object["segments_sealed"] = stats.segments_sealed;
        object["segments_unsealed"] = stats.segments_unsealed;
        object["log_bytes"] = stats.log_bytes;
        object["catalog_bytes"] = stats.catalog_bytes;
        object["tail_bytes"] = stats.tail_bytes;
        object["last_sweep_ms"] = time_or_null(stats.last_sweep_ms);
        object["evicted"] = stats.evicted;
        context_.out.json(object);
    }

    // Over the lines that were drawn before: up to their first one, and each wiped to its end. A
    // line that is wider than the terminal would take two, and one too many would scroll: they are
    // cut.
    void redraw(const Look& look, const std::optional<Rates>& rates) {
        const TerminalSize size = terminal_size(STDOUT_FILENO);
        if (drawn_size_ && *drawn_size_ != size) {
            context_.out.write("\033[2J\033[H");  // what was drawn has been wrapped anew
        } else if (lines_drawn_ != 0) {
            context_.out.write(fmt::format("\033[{}A\r", lines_drawn_));
        }
        drawn_size_ = size;
        auto rows = rows_of(context_, look, rates, every_);
        if (rows.size() > size.rows - 1) {
            rows.resize(std::max<std::size_t>(size.rows - 1, 1), rows.back());
        }
        for (const auto& row : rows) {
            const std::string name = cut_to(fmt::format("{:16}", row[0].text), size.columns);
            const std::string value = cut_to(row[1].text, size.columns - columns(name));
            context_.out.line(name + paint(value, row[1].colour) + "\033[K");
        }
        context_.out.write("\033[J");  // a line that is not there any more
        lines_drawn_ = rows.size();
    }

    void print_line(const Look& look, const std::optional<Rates>& rates) {
        const dedup::StoreStats& stats = look.stats;
        const std::string text = trouble(stats);
        context_.out.line(fmt::format(
            "{}  in-flight {}  completed {}  released {}  appends {}  segments {}+{}  log {}  "
            "tail {}  last sweep {}{}",
            format_time(dedup::system_now_ms()), group_digits(stats.in_flight),
            group_digits(stats.completed), group_digits(stats.released), appends_text(rates),
            stats.segments_sealed, stats.segments_unsealed, human_bytes(stats.log_bytes),
            human_bytes(stats.tail_bytes), sweep_text(stats, dedup::system_now_ms()),
            text.empty() ? "" : "  error: " + text));
    }

    Context& context_;
    milliseconds every_;
    bool on_terminal_;
    std::size_t lines_drawn_ = 0;
    std::optional<TerminalSize> drawn_size_;
    std::optional<Look> before_;
};

// Which store is at the path: its log and the time at which that was made, since the system gives
// the number of a file that is gone to the next one. Empty if there is none.
std::string which_store(const Context& context) {
    struct statx status {};
    const std::string log = context.store_path + "/log";
    if (context.has_url() ||
        ::statx(AT_FDCWD, log.c_str(), 0, STATX_INO | STATX_BTIME, &status) != 0) {
        return "";
    }
    return fmt::format("{}:{}:{}:{}.{}", status.stx_dev_major, status.stx_dev_minor, status.stx_ino,
                       status.stx_btime.tv_sec, status.stx_btime.tv_nsec);
}

int run_watch(const std::string& every_text, Context& context) {
    context.check_globals();
    const milliseconds every = parse_duration(every_text, "--every");
    StopSignal stop;
    std::string which = which_store(context);
    auto store = context.open_reader();
    Watch watch(context, every);
    do {
        // One that is gone could be read for ever, and would never change again.
        if (std::string now = which_store(context); now != which) {
            store = context.open_reader();
            which = std::move(now);
            note("another store is at " + escape(context.absolute_store()) +
                 " now; watching that one");
        }
        watch.show({std::chrono::steady_clock::now(), take(store->stats())});
    } while (!stop.requested_within(every));
    watch.end();
    return kExitOk;
}

}  // namespace

Command watch_command(Context& context) {
    const auto every = std::make_shared<std::string>("1s");
    return {.name = "watch",
            .help = "Show what the store holds and does, again and again, until Ctrl-C",
            .options = {{.name = "--every",
                         .to = every.get(),
                         .help = "How long between two looks",
                         .type = "D",
                         .filled = true,
                         .shows_default = true}},
            .run = [every, &context] { return run_watch(*every, context); }};
}

}  // namespace dedupctl
