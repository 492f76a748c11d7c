// Opening, reading and closing.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "catalog/report.hpp"
#include "contract/check_stream.hpp"
#include "postgres/call.hpp"
#include "postgres/clock_codec.hpp"
#include "postgres/postgres_store.hpp"
#include "postgres/schema.hpp"
#include "record/try.hpp"

namespace dedup::pg {
namespace {

constexpr std::size_t kLookupStreamsMax = 8'192;  // in one request
constexpr std::string_view kHexDigits = "0123456789abcdef";

std::string hex_of(std::string_view bytes) {
    std::string text;
    for (const char c : bytes) {
        const auto byte = static_cast<unsigned char>(c);
        text += kHexDigits[byte >> 4U];
        text += kHexDigits[byte & 15U];
    }
    return text;
}

std::optional<std::string> bytes_of(std::string_view hex) {
    std::string bytes;
    if (hex.size() % 2 != 0) {
        return std::nullopt;
    }
    for (std::size_t i = 0; i < hex.size(); i += 2) {
        const auto high = kHexDigits.find(hex[i]);
        const auto low = kHexDigits.find(hex[i + 1]);
        if (high == std::string_view::npos || low == std::string_view::npos) {
            return std::nullopt;
        }
        bytes += static_cast<char>(high << 4U | low);
    }
    return bytes;
}

// Where a page ends: "<bucket>.<namespace>.<key>", the latter two in hex.
struct Place {
    std::int16_t bucket = -1;
    std::string ns;
    std::string key;

    [[nodiscard]] std::string cursor() const {
        return fmt::format("{}.{}.{}", bucket, hex_of(ns), hex_of(key));
    }
};

Result<Place> place_of(std::string_view cursor) {
    Place place;
    if (cursor.empty()) {
        return place;
    }
    const std::size_t first = cursor.find('.');
    const std::size_t second =
        cursor.find('.', first == std::string_view::npos ? first : first + 1);
    if (second != std::string_view::npos) {
        const char* const end = cursor.data() + first;
        const auto [read, error] = std::from_chars(cursor.data(), end, place.bucket);
        auto ns = bytes_of(cursor.substr(first + 1, second - first - 1));
        auto key = bytes_of(cursor.substr(second + 1));
        if (error == std::errc() && read == end && place.bucket >= 0 && ns && key &&
            check_stream({*ns, *key})) {
            place.ns = *std::move(ns);
            place.key = *std::move(key);
            return place;
        }
    }
    return std::unexpected(
        Error{Code::invalid_argument, "cursor is not one that a scan has given"});
}

}  // namespace

std::int64_t TimeSource::now_ms() {
    const std::int64_t now = given ? given() : server.now_ms();
    PostgresStore* const owner = store;
    if (owner != nullptr && owner->looks_like_jump(now) && !owner->learn_time()) {
        // Nobody knows whether it is one: time stands still until the server can be asked.
        return owner->highest_time_ms();
    }
    return now;
}

PostgresStore::PostgresStore(Target target, std::shared_ptr<TimeSource> time)
    : StreamStore(
          [time] { return time->now_ms(); }, target.options.grace,
          target.options.trust_clock ? StoreClock::Jumps::trust : StoreClock::Jumps::withhold),
      target_(std::move(target)),
      statements_(target_.schema, target_.options.durability == PostgresDurability::local,
                  target_.options.timeout / 4),
      source_(std::move(time)),
      pool_(target_, statements_, source_->server),
      writer_(pool_, statements_, target_.options.timeout) {}

PostgresStore::~PostgresStore() {
    source_->store = nullptr;
    static_cast<void>(close());
}

Result<void> PostgresStore::begin() {
    auto lease = DEDUP_TRY(pool_.try_once(deadline()));
    auto meta = lease->run({&statements_.meta}, deadline());
    if (!meta) {
        Error error = std::move(meta).error().error;
        if (error.code == Code::invalid_argument) {
            error.message = fmt::format("the database has no store in schema {}: {}",
                                        target_.options.schema, error.message);
        }
        return std::unexpected(std::move(error));
    }
    if (meta->size() != 1) {
        return std::unexpected(Error{Code::corruption, "the store's meta row is gone"});
    }
    DEDUP_TRY(check_format(meta->number(0, 0), target_.options.schema));
    store_id_ = meta->bytes(0, 1);
    time_.saw_time(meta->number(0, 2));
    written_time_ms_ = meta->number(0, 2);
    auto jumps = DEDUP_TRY(decode_jumps(meta->bytes(0, 3)));
    const std::lock_guard lock(clock_mutex_);
    time_.set_clock_history(std::move(jumps));
    written_changes_ = time_.clock_changes();
    clock_version_ = meta->number(0, 4);
    source_->store = this;
    return {};
}

std::optional<Error> PostgresStore::unusable(bool writes) const {
    if (process_.inherited()) {
        return process_.inherited_error("the store in the database");
    }
    if (writes && target_.options.read_only) {
        return Error{Code::read_only, "the store in the database is open for reading only"};
    }
    return std::nullopt;
}

Result<Table> PostgresStore::read(const Query& query, int times) {
    const TimePoint until = std::chrono::steady_clock::now() + times * target_.options.timeout;
    for (int attempt = 0;; ++attempt) {
        auto lease = DEDUP_TRY(pool_.take(until));
        std::vector<Query> queries = {query};
        // Its time comes last, so it is not older than its way here.
        const bool asks_time =
            times == 1 && !source_->given && source_->server.age_ms() > age_max().count();
        if (asks_time) {
            queries.push_back({&statements_.clock});
        }
        auto tables = lease->ask(queries, until);
        if (tables) {
            if (asks_time) {
                source_->server.saw(tables->back().number(0, 0), std::chrono::steady_clock::now());
            }
            return std::move(tables->front());
        }
        // The server may have been started again since the connection was last used.
        if (!tables.error().unknown || attempt == 2) {
            return std::unexpected(std::move(tables).error().error);
        }
    }
}

Result<Table> PostgresStore::read_meta() {
    auto meta = read({&statements_.meta});
    if (meta && meta->size() != 1) {
        return std::unexpected(Error{Code::corruption, "the store's meta row is gone"});
    }
    return meta;
}

bool PostgresStore::learn_time() {
    const auto meta = read_meta();
    if (meta) {
        take_meta(*meta);
    }
    return meta.has_value();
}

std::vector<Result<std::optional<Record>>> PostgresStore::heads(
    std::span<const StreamKey> streams) {
    using Heads = std::vector<Result<std::optional<Record>>>;
    const Call call(*this, false);
    if (!call) {
        return Heads(streams.size(), std::unexpected(call.error()));
    }
    Heads heads(streams.size());
    const auto [asked, places] = asked_streams(streams, heads);
    for (std::size_t from = 0; from < asked.size(); from += kLookupStreamsMax) {
        const std::size_t count = std::min(kLookupStreamsMax, asked.size() - from);
        const std::span places_here = std::span(places).subspan(from, count);
        if (auto read = read_heads(std::span(asked).subspan(from, count), places_here, heads);
            !read) {
            for (const std::size_t place : places_here) {
                heads[place] = std::unexpected(read.error());
            }
        }
    }
    return heads;
}

// Those of one request, each into its place.
Result<void> PostgresStore::read_heads(std::span<const StreamKey> asked,
                                       std::span<const std::size_t> places,
                                       std::vector<Result<std::optional<Record>>>& heads) {
    const auto table =
        DEDUP_TRY(read({statements_.heads.of(asked.size()), stream_parameters(asked)}));
    for (std::size_t row = 0; row < table.size(); ++row) {
        const std::size_t at = DEDUP_TRY(asked_for(table, row, kReadColumns, asked.size()));
        heads[places[at]] = read_head(table, row);
    }
    return {};
}

Result<std::vector<Version>> PostgresStore::history(StreamKey stream,
                                                    const HistoryLimits& /*limits*/) {
    auto found = DEDUP_TRY(head(stream));
    std::vector<Version> versions;
    if (found) {
        versions.push_back({.record = *std::move(found)});
    }
    return versions;
}

Result<ScanPage> PostgresStore::scan(const ScanOptions& options) {
    const Call call(*this, false);
    if (!call) {
        return std::unexpected(call.error());
    }
    if (options.heads_max == 0) {
        return std::unexpected(
            Error{Code::invalid_argument, "heads_max is 0; it must be at least 1"});
    }
    auto place = DEDUP_TRY(place_of(options.cursor));
    ScanPage page;
    if (!options.ns.empty() && !check_stream({options.ns, "-"})) {
        return page;  // no namespace has this name, and it may be no text of the server's
    }
    const auto limit = static_cast<std::int64_t>(std::min<std::size_t>(options.heads_max, 100'000));
    auto table = DEDUP_TRY(read({&statements_.scan,
                                 {number_parameter(place.bucket), place.ns, place.key, options.ns,
                                  options.key_prefix, number_parameter(limit)}},
                                kScanTimes));
    for (std::size_t row = 0; row < table.size(); ++row) {
        auto head = DEDUP_TRY(read_head(table, row));
        page.heads.push_back({.record = std::move(head)});
    }
    const std::size_t rows = table.size();
    if (rows != 0 && table.number(rows - 1, kReadColumns + 1) != 0) {
        const Record& last = page.heads.back().record;
        page.cursor = Place{static_cast<std::int16_t>(table.number(rows - 1, kReadColumns)),
                            last.ns, last.key}
                          .cursor();
    }
    return page;
}

Result<std::vector<SweepReport>> PostgresStore::sweep_history() {
    const Call call(*this, false);
    if (!call) {
        return std::unexpected(call.error());
    }
    auto table = DEDUP_TRY(read({&statements_.reports}));
    std::vector<SweepReport> reports;
    for (std::size_t row = 0; row < table.size(); ++row) {
        auto report = DEDUP_TRY(decode_report(table.bytes(row, 0)));
        reports.push_back(std::move(report));
    }
    return reports;
}

Result<StoreStats> PostgresStore::stats() {
    const Call call(*this, false);
    if (!call) {
        return std::unexpected(call.error());
    }
    const auto meta = read_meta();
    if (!meta) {
        return std::unexpected(meta.error());
    }
    const auto counts = read({&statements_.count_states}, kScanTimes);
    if (!counts) {
        return std::unexpected(counts.error());
    }
    const auto sizes = read({&statements_.sizes});
    if (!sizes) {
        return std::unexpected(sizes.error());
    }
    StoreStats stats;
    for (std::size_t row = 0; row < counts->size(); ++row) {
        const auto count = static_cast<std::uint64_t>(counts->number(row, 1));
        const auto state = static_cast<State>(counts->number(row, 0));
        (state == State::in_flight   ? stats.in_flight
         : state == State::completed ? stats.completed
                                     : stats.released) = count;
    }
    stats.store_id = store_id_;
    stats.records = stats.streams();
    if (const std::int64_t block = meta->number(0, 7); block != 0) {
        stats.last_sequence = static_cast<std::uint64_t>(block + 1) * kBlockSequences - 1;
    }
    stats.time_high_ms = time_.saw_time(meta->number(0, 2));
    stats.clock_ms = source_->given ? source_->given() : source_->server.now_ms();
    stats.clock = time_.clock_history();
    stats.withheld =
        time_.withheld(std::max(stats.time_high_ms, stats.clock_ms), stats.time_high_ms);
    stats.catalog_bytes = static_cast<std::uint64_t>(sizes->number(0, 0));
    stats.evicted = static_cast<std::uint64_t>(meta->number(0, 5));
    stats.last_sweep_ms = meta->number(0, 6);
    const std::lock_guard lock(error_mutex_);
    stats.sweep_error = sweep_error_;
    return stats;
}

Result<void> PostgresStore::flush() {
    const Call call(*this, false);
    return call ? Result<void>() : std::unexpected(call.error());
}

Result<void> PostgresStore::close() {
    if (process_.inherited()) {
        return std::unexpected(process_.inherited_error("the store in the database"));
    }
    if (sweeper_.load() == std::this_thread::get_id()) {
        return std::unexpected(
            Error{Code::busy, "the store cannot be closed from within its own sweep"});
    }
    {
        std::unique_lock lock(calls_mutex_);
        closing_ = true;
        calls_changed_.wait(lock, [&] { return calls_ == 0; });
    }
    // What this client has seen of time, for the next one.
    if (!target_.options.read_only && !store_id_.empty() && time_.saw_time(0) > written_time_ms_) {
        if (auto lease = pool_.try_once(deadline())) {
            const std::int64_t high = time_.saw_time(0);
            if ((*lease)->run({&statements_.saw_time, {number_parameter(high)}}, deadline())) {
                written_time_ms_ = high;
            }
            static_cast<void>(write_clock(*lease, deadline()));
        }
    }
    source_->store = nullptr;
    pool_.close_idle();
    return {};
}

}  // namespace dedup::pg
