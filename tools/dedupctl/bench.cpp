// dedupctl bench: what this disk and this machine give, beside what the disk alone can do.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>

#include "bench_measure.hpp"
#include "commands.hpp"
#include "common/text.hpp"
#include "signal_pipe.hpp"
#include "table.hpp"

namespace dedupctl {
namespace {

struct BenchArguments {
    std::string keys = "3000000";
    std::string seconds = "3";
    std::string rounds = "3";
};

struct Row {
    std::string name;
    std::string json_name;
    bool on_disk = false;  // compared with the disk's own rate
    std::function<double(milliseconds)> measure;
    std::vector<double> rates;   // one a round
    std::vector<double> ratios;  // to the disk's rate just before; one a round
};

struct Memory {
    std::uint64_t empty = 0;   // with an empty store open
    std::uint64_t loaded = 0;  // with all keys loaded
    std::uint64_t ended = 0;
};

// A fresh directory that goes with everything in it.
class ScratchDirectory {
  public:
    explicit ScratchDirectory(const std::filesystem::path& parent)
        : path_((parent / "dedup-bench-XXXXXX").string()) {
        if (::mkdtemp(path_.data()) == nullptr) {
            throw system_failure("cannot make a scratch directory in " + escape(parent.string()),
                                 errno);
        }
    }
    ScratchDirectory(const ScratchDirectory&) = delete;
    ScratchDirectory& operator=(const ScratchDirectory&) = delete;
    ~ScratchDirectory() {
        std::error_code error;
        std::filesystem::remove_all(path_, error);
        if (error) {
            note("cannot remove " + escape(path_) + ": " + error.message());
        }
    }

    [[nodiscard]] const std::string& path() const { return path_; }

  private:
    std::string path_;
};

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    const std::size_t half = values.size() / 2;
    return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

std::vector<Row> make_rows(Bench& bench) {
    std::vector<Row> rows;
    for (const std::size_t group : {1U, 16U, 64U, 256U, 1024U}) {
        rows.push_back({fmt::format("claims, {} a group", group_digits(group)),
                        fmt::format("claims_group_{}", group),
                        true,
                        [&bench, group](milliseconds time) { return bench.claims(group, time); },
                        {},
                        {}});
    }
    rows.push_back({"claims, 64 threads one each",
                    "claims_threads_64",
                    true,
                    [&bench](milliseconds time) { return bench.claims_by_threads(64, time); },
                    {},
                    {}});
    for (const unsigned threads : {1U, 2U}) {
        rows.push_back(
            {fmt::format("lookups, {} thread{}", threads, threads == 1 ? "" : "s"),
             fmt::format("lookups_threads_{}", threads),
             false,
             [&bench, threads](milliseconds time) { return bench.lookups(threads, time); },
             {},
             {}});
    }
    return rows;
}

// One round: every row once, each that writes right behind a look at the disk, so that a disk
// whose speed drifts does not bend the ratios.
void run_round(Bench& bench, std::vector<Row>& rows, std::vector<double>& disk, milliseconds time) {
    for (Row& row : rows) {
        if (row.on_disk) {
            disk.push_back(bench.disk_flushes(std::max(time / 3, milliseconds{100})));
        }
        row.rates.push_back(row.measure(time));
        if (row.on_disk) {
            row.ratios.push_back(row.rates.back() / disk.back());
        }
    }
}

// Two threads' rate to one's, in the same round; the rows are the last two.
double lookup_scaling(const std::vector<Row>& rows) {
    std::vector<double> scalings;
    const Row& one = rows[rows.size() - 2];
    const Row& two = rows.back();
    for (std::size_t i = 0; i < one.rates.size(); ++i) {
        scalings.push_back(two.rates[i] / one.rates[i]);
    }
    return median(scalings);
}

double memory_per_key(const Memory& memory, std::uint64_t keys) {
    return memory.loaded < memory.empty
               ? 0
               : static_cast<double>(memory.loaded - memory.empty) / static_cast<double>(keys);
}

void print_json(Context& context, std::uint64_t keys, const std::vector<Row>& rows,
                const std::vector<double>& disk, const Memory& memory,
                const dedup::StoreStats& stats) {
    Json object;
    object["keys"] = keys;
    object["rounds"] = rows.front().rates.size();
    object["disk_flushes_per_second"] = median(disk);
    object["rows"] = Json::array();
    for (const Row& row : rows) {
        Json entry;
        entry["name"] = row.json_name;
        entry["per_second"] = median(row.rates);
        if (row.on_disk) {
            entry["ratio_to_disk"] = median(row.ratios);
        }
        entry["rounds"] = row.rates;
        object["rows"].push_back(std::move(entry));
    }
    object["lookup_scaling"] = lookup_scaling(rows);
    object["memory_empty_bytes"] = memory.empty;
    object["memory_loaded_bytes"] = memory.loaded;
    object["memory_bytes_per_key"] = memory_per_key(memory, keys);
    object["memory_end_bytes"] = memory.ended;
    object["disk_bytes_per_key"] =
        static_cast<double>(stats.log_bytes + stats.catalog_bytes) / static_cast<double>(keys);
    object["segments_sealed"] = stats.segments_sealed;
    object["tail_bytes"] = stats.tail_bytes;
    context.out.json(object);
}

std::string per_second(double rate) {
    return group_digits(static_cast<std::uint64_t>(rate));
}

void print_table(Context& context, std::uint64_t keys, const std::vector<Row>& rows,
                 const std::vector<double>& disk, const Memory& memory,
                 const dedup::StoreStats& stats) {
    Table table({{"", false, 28},
                 {"A SECOND", true},
                 {"TIMES THE DISK", true},
                 {"LOW", true},
                 {"HIGH", true}});
    const auto low = [](const std::vector<double>& rates) {
        return per_second(*std::min_element(rates.begin(), rates.end()));
    };
    const auto high = [](const std::vector<double>& rates) {
        return per_second(*std::max_element(rates.begin(), rates.end()));
    };
    table.add({{"disk alone: write, fdatasync"},
               {per_second(median(disk))},
               {"1"},
               {low(disk)},
               {high(disk)}});
    for (const Row& row : rows) {
        table.add({{row.name},
                   {per_second(median(row.rates))},
                   {row.on_disk ? fmt::format("{:.2f}", median(row.ratios)) : ""},
                   {low(row.rates)},
                   {high(row.rates)}});
    }
    table.print(context.out);
    context.out.line("");
    context.out.line(
        fmt::format("two threads look up {:.2f} times as fast as one", lookup_scaling(rows)));
    context.out.line(
        fmt::format("memory with {} keys: {}, {:.1f} bytes a key above an empty "
                    "store's; {} at the end",
                    group_digits(keys), human_bytes(memory.loaded), memory_per_key(memory, keys),
                    human_bytes(memory.ended)));
    context.out.line(fmt::format(
        "disk after loading: {:.1f} bytes a key, {} segments sealed, tail of {}",
        static_cast<double>(stats.log_bytes + stats.catalog_bytes) / static_cast<double>(keys),
        stats.segments_sealed, human_bytes(stats.tail_bytes)));
}

int run_bench(const BenchArguments& options, Context& context) {
    context.check_globals();
    context.need_directory("bench", "tools/bench measures PostgreSQL");
    const std::uint64_t keys = parse_number(options.keys, "--keys", 1, 1'000'000'000);
    const milliseconds time{1000 * parse_number(options.seconds, "--seconds", 1, 3600)};
    const std::uint64_t rounds = parse_number(options.rounds, "--rounds", 1, 1000);

    SignalPipe signals({SIGINT, SIGTERM, SIGHUP}, SecondSignal::queued);
    const CheckStop check_stop = [&signals] {
        if (const auto signal = signals.take()) {
            throw Failure{.exit_code = kExitSignalBase + signal->number,
                          .code = "interrupted",
                          .message = "bench: interrupted; its scratch store is removed"};
        }
    };
    const auto store_path = std::filesystem::absolute(context.store_path + "/")
                                .lexically_normal()
                                .parent_path()
                                .parent_path();
    const ScratchDirectory scratch(store_path);
    const auto store = take(dedup::open(scratch.path() + "/store"));
    dedup::Cache cache = context.cache(*store);
    Bench bench(scratch.path(), cache, check_stop);
    Memory memory{.empty = anonymous_memory_bytes()};

    note(fmt::format("loading {} keys into {}", group_digits(keys), escape(scratch.path())));
    bench.load(keys);
    memory.loaded = anonymous_memory_bytes();
    const dedup::StoreStats stats = take(store->stats());
    std::vector<Row> rows = make_rows(bench);
    std::vector<double> disk;
    for (std::uint64_t round = 1; round <= rounds; ++round) {
        note(fmt::format("round {} of {}", round, rounds));
        run_round(bench, rows, disk, time);
    }
    memory.ended = anonymous_memory_bytes();
    take(store->close());
    if (context.json) {
        print_json(context, keys, rows, disk, memory, stats);
    } else {
        print_table(context, keys, rows, disk, memory, stats);
    }
    return kExitOk;
}

}  // namespace

Command bench_command(Context& context) {
    const auto options = std::make_shared<BenchArguments>();
    return {.name = "bench",
            .help = "Measure a scratch store beside this one",
            .options = {{.name = "--keys",
                         .to = &options->keys,
                         .help = "How many keys to load first",
                         .type = "N",
                         .shows_default = true},
                        {.name = "--seconds",
                         .to = &options->seconds,
                         .help = "How long each row runs, in each round",
                         .type = "S",
                         .shows_default = true},
                        {.name = "--rounds",
                         .to = &options->rounds,
                         .help = "How often each row runs; medians are shown",
                         .type = "R",
                         .shows_default = true}},
            .run = [options, &context] { return run_bench(*options, context); }};
}

}  // namespace dedupctl
