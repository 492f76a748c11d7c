// Commands that may read or change much of the store. They run on a thread of their own, one after
// the other, and hold up nobody but the connection that asked.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <utility>

#include "server/command_table.hpp"
#include "server/native_reply.hpp"

namespace dedup::server {
namespace {

constexpr std::size_t kScanCountDefault = 100;
constexpr std::size_t kScanCountMax = 10'000;
constexpr std::size_t kPatternBytesMax = 1024;
// A page of Redis' SCAN looks through so many pages of the store at most, so that a pattern that
// matches nothing gives an answer in between.
constexpr int kScanPagesMax = 10;

// `Work` gets the chore, and gives the reply as bytes or an error.
class ChoreCommand final : public Command {
  public:
    using Work = std::function<Result<std::string>(const Chore&)>;
    ChoreCommand(Protocol protocol, Work work)
        : Command(Kind::chore, protocol), work_(std::move(work)) {}
    void run(const Chore& chore) override {
        auto done = work_(chore);
        if (done) {
            bytes_ = *std::move(done);
        } else {
            failed(std::move(done).error());
        }
    }

  protected:
    void reply(ReplyWriter& /*writer*/, std::string& out) override { out += bytes_; }

  private:
    Work work_;
    std::string bytes_;
};

CommandPtr chore(const Request& request, ChoreCommand::Work work) {
    return std::make_unique<ChoreCommand>(request.session.protocol, std::move(work));
}

// What `write` makes of a result, or its error.
template <class T, class Write>
Result<std::string> written(Result<T> result, Write write) {
    if (!result) {
        return std::unexpected(std::move(result).error());
    }
    return write(*result);
}

std::string bytes_of(const MapWriter& map) {
    std::string bytes;
    map.add_to(bytes);
    return bytes;
}

std::string stats_bytes(Protocol protocol, const StoreStats& stats) {
    MapWriter map(protocol);
    map.text("store_id", stats.store_id);
    map.number("streams", stats.streams());
    map.number("in_flight", stats.in_flight);
    map.number("completed", stats.completed);
    map.number("released", stats.released);
    map.number("records", stats.records);
    map.number("last_sequence", stats.last_sequence);
    map.number("time_high_ms", stats.time_high_ms);
    map.number("clock_ms", stats.clock_ms);
    map.number("segments_sealed", stats.segments_sealed);
    map.number("segments_unsealed", stats.segments_unsealed);
    map.number("log_bytes", stats.log_bytes);
    map.number("catalog_bytes", stats.catalog_bytes);
    map.number("tail_bytes", stats.tail_bytes);
    map.number("memory_bytes", stats.memory_bytes);
    map.number("evicted", stats.evicted);
    map.time_or_null("last_sweep_ms", stats.last_sweep_ms);
    map.number("damaged", stats.damaged);
    for (const auto& [name, text] : {std::pair("sweep_error", &stats.sweep_error),
                                     std::pair("background_error", &stats.background_error),
                                     std::pair("damage", &stats.damage)}) {
        if (!text->empty()) {
            map.text(name, *text);
        }
    }
    return bytes_of(map);
}

MapWriter counts_map(Protocol protocol, const StateCounts& counts) {
    MapWriter map(protocol);
    map.number("in_flight", counts.in_flight);
    map.number("completed", counts.completed);
    map.number("released", counts.released);
    return map;
}

std::string sweep_bytes(Protocol protocol, const SweepReport& report) {
    MapWriter map(protocol);
    map.number("now_ms", report.now_ms);
    map.number("dry_run", static_cast<int>(report.dry_run));
    map.number("finished", static_cast<int>(report.finished));
    map.number("withheld", static_cast<int>(report.withheld.has_value()));
    map.map("removed", counts_map(protocol, report.removed));
    map.map("retained", counts_map(protocol, report.retained));
    map.number("evicted", report.evicted);
    map.time_or_null("next_expiry_ms", report.next_expiry_ms.value_or(0));
    map.number("segments_dropped", report.segments_dropped);
    map.number("segments_compacted", report.segments_compacted);
    map.number("records_dropped", report.records_dropped);
    map.number("records_moved", report.records_moved);
    map.number("bytes_before", report.bytes_before);
    map.number("bytes_after", report.bytes_after);
    map.number("duration_us", report.duration_us);
    ReplyWriter unanswered = map.value_of("unanswered");
    unanswered.array(report.unanswered.size());
    std::string rows;
    for (const UnansweredClaim& claim : report.unanswered) {
        MapWriter row(protocol);
        row.text("namespace", claim.ns);
        row.text("key", claim.key);
        row.text("owner", claim.owner);
        row.number("claim_sequence", claim.claim_sequence);
        row.number("claimed_at_ms", claim.claimed_at_ms);
        row.number("expired_at_ms", claim.expired_at_ms);
        row.add_to(rows);
    }
    return bytes_of(map) + rows;
}

CommandPtr make_stats(const Request& request) {
    return chore(request, [protocol = request.session.protocol](Chore work) {
        return written(work.store.stats(), [protocol](const StoreStats& stats) {
            return stats_bytes(protocol, stats);
        });
    });
}

CommandPtr make_sweep(const Request& request) {
    SweepOptions options;
    for (std::size_t i = 1; i < request.size(); ++i) {
        const bool has_value = i + 1 < request.size();
        if (is_word(request.argument(i), "DRYRUN")) {
            options.dry_run = true;
        } else if (is_word(request.argument(i), "COMPACT")) {
            options.compact = true;
        } else if (is_word(request.argument(i), "MAXTIME") && has_value) {
            const auto time = whole_number(request.argument(++i));
            if (!time || *time < 1) {
                return request.error("ERR MAXTIME is not a number of milliseconds");
            }
            options.time_max = std::chrono::milliseconds{*time};
        } else {
            return request.error("ERR syntax error: DEDUP.SWEEP [DRYRUN] [COMPACT] [MAXTIME ms]");
        }
    }
    return chore(request, [options, protocol = request.session.protocol](Chore work) {
        SweepOptions sweep = options;
        sweep.stop = work.stop;
        return written(work.store.sweep(sweep), [protocol](const SweepReport& report) {
            return sweep_bytes(protocol, report);
        });
    });
}

std::optional<std::string> namespace_option(const Request& request, std::size_t at) {
    return at + 2 == request.size() && is_word(request.argument(at), "NS")
               ? std::optional(std::string(request.argument(at + 1)))
           : at == request.size() ? std::optional(std::string("default"))
                                  : std::nullopt;
}

CommandPtr make_history(const Request& request) {
    const auto ns = namespace_option(request, 2);
    if (!ns) {
        return request.error("ERR syntax error: DEDUP.HISTORY key [NS namespace]");
    }
    return chore(request, [ns = *ns, key = std::string(request.argument(1)),
                           protocol = request.session.protocol](Chore work) {
        return written(work.store.history({ns, key}), [&](const std::vector<Version>& versions) {
            std::string bytes;
            ReplyWriter(bytes, protocol).array(versions.size());
            for (const Version& version : versions) {
                MapWriter map(protocol);
                add_version(map, version);
                map.add_to(bytes);
            }
            return bytes;
        });
    });
}

std::string page_bytes(Protocol protocol, const ScanPage& page) {
    MapWriter map(protocol);
    map.text("cursor", page.cursor);
    map.value_of("heads").array(page.heads.size());
    std::string rows;
    for (const Version& version : page.heads) {
        MapWriter row(protocol);
        row.text("namespace", version.record.ns);
        row.text("key", version.record.key);
        add_version(row, version);
        row.add_to(rows);
    }
    return bytes_of(map) + rows;
}

// The first cursor is "0" or empty, the one behind the last page is empty.
CommandPtr make_native_scan(const Request& request) {
    ScanOptions options;
    options.heads_max = kScanCountDefault;
    options.cursor = request.argument(1) == "0" ? "" : request.argument(1);
    for (std::size_t i = 2; i + 1 < request.size(); i += 2) {
        const std::string_view value = request.argument(i + 1);
        if (is_word(request.argument(i), "NS")) {
            options.ns = value;
        } else if (is_word(request.argument(i), "PREFIX")) {
            options.key_prefix = value;
        } else if (is_word(request.argument(i), "COUNT")) {
            const auto count = unsigned_number(value);
            if (!count || *count == 0 || *count > kScanCountMax) {
                return request.error(fmt::format("ERR COUNT is 1 to {}", kScanCountMax));
            }
            options.heads_max = *count;
        } else {
            return request.error(fmt::format("ERR {} is not an option of {}", request.argument(i),
                                             request.argument(0)));
        }
    }
    if (request.size() % 2 != 0) {
        return request.error("ERR an option stands without a value");
    }
    return chore(request, [options, protocol = request.session.protocol](Chore work) {
        return written(work.store.scan(options),
                       [protocol](const ScanPage& page) { return page_bytes(protocol, page); });
    });
}

// Redis' patterns: * ? [a-z] [^a] and \ before a character that means itself.
bool class_matches(std::string_view& pattern, char byte) {
    bool negated = false;
    bool matched = false;
    std::size_t i = 1;
    if (i < pattern.size() && pattern[i] == '^') {
        negated = true;
        ++i;
    }
    for (; i < pattern.size() && pattern[i] != ']'; ++i) {
        if (pattern[i] == '\\' && i + 1 < pattern.size()) {
            ++i;
        } else if (i + 2 < pattern.size() && pattern[i + 1] == '-' && pattern[i + 2] != ']') {
            const auto first = static_cast<unsigned char>(pattern[i]);
            const auto last = static_cast<unsigned char>(pattern[i + 2]);
            const auto value = static_cast<unsigned char>(byte);
            matched |= value >= std::min(first, last) && value <= std::max(first, last);
            i += 2;
            continue;
        }
        matched |= pattern[i] == byte;
    }
    pattern.remove_prefix(std::min(i + 1, pattern.size()));
    return matched != negated;
}

// Steps back to the last star alone: work is bounded by the product of the sizes.
bool matches(std::string_view pattern, std::string_view text) {
    std::optional<std::pair<std::string_view, std::string_view>> star;
    for (;;) {
        if (!pattern.empty() && pattern.front() == '*') {
            pattern.remove_prefix(1);
            star = {pattern, text};
            continue;
        }
        bool good = pattern.empty() && text.empty();
        if (good) {
            return true;
        }
        if (!pattern.empty() && !text.empty()) {
            if (pattern.front() == '[') {
                good = class_matches(pattern, text.front());
            } else {
                const bool any = pattern.front() == '?';
                if (pattern.front() == '\\' && pattern.size() > 1) {
                    pattern.remove_prefix(1);
                }
                good = any || pattern.front() == text.front();
                pattern.remove_prefix(1);
            }
            text.remove_prefix(1);
        }
        if (!good) {
            if (!star || star->second.empty()) {
                return false;
            }
            star->second.remove_prefix(1);
            std::tie(pattern, text) = *star;
        }
    }
}

struct RedisScan {
    std::string ns;
    std::uint64_t cursor = 0;
    std::string pattern = "*";
    std::size_t count = 10;
    bool strings = true;  // false: another type was asked for, of which there are none
};

Result<std::string> scan_strings(const RedisScan& scan, Facts& facts, Protocol protocol,
                                 StreamStore& store) {
    auto cursor = facts.cursors.cursor_of(scan.cursor);
    if (!cursor) {
        return std::unexpected(Error{Code::invalid_argument,
                                     "invalid cursor: this server gave none, or it is too old; "
                                     "begin again with 0"});
    }
    std::vector<std::string> keys;
    for (int pages = 0; pages < kScanPagesMax && keys.size() < scan.count; ++pages) {
        ScanOptions options;
        options.ns = scan.ns;
        options.cursor = *cursor;
        options.heads_max = scan.count;
        auto page = store.scan(options);
        if (!page) {
            return std::unexpected(std::move(page).error());
        }
        const std::int64_t now_ms = store.now_ms();
        for (Version& version : page->heads) {
            const Record& record = version.record;
            if (scan.strings && record.state() == State::completed &&
                !expired(record.expires_at_ms, now_ms, std::chrono::milliseconds{0}) &&
                matches(scan.pattern, record.key)) {
                keys.push_back(std::move(version.record.key));
            }
        }
        cursor = std::move(page->cursor);
        if (cursor->empty()) {
            break;
        }
    }
    std::string bytes;
    ReplyWriter writer(bytes, protocol);
    writer.array(2);
    writer.bulk(std::to_string(facts.cursors.number_of(*std::move(cursor))));
    writer.array(keys.size());
    for (const std::string& key : keys) {
        writer.bulk(key);
    }
    return bytes;
}

CommandPtr make_scan(const Request& request) {
    RedisScan scan{.ns = request.session.database_namespace()};
    const auto cursor = unsigned_number(request.argument(1));
    if (!cursor) {
        return request.error("ERR invalid cursor");
    }
    scan.cursor = *cursor;
    for (std::size_t i = 2; i < request.size(); i += 2) {
        const std::string_view value = i + 1 < request.size() ? request.argument(i + 1) : "";
        if (is_word(request.argument(i), "MATCH") && i + 1 < request.size()) {
            if (value.size() > kPatternBytesMax) {  // each key is held against it
                return request.error("ERR the pattern is too long");
            }
            scan.pattern = value;
        } else if (is_word(request.argument(i), "COUNT") && i + 1 < request.size()) {
            const auto count = unsigned_number(value);
            if (!count || *count == 0) {
                return request.error("ERR value is not an integer or out of range");
            }
            scan.count = std::min<std::size_t>(*count, kScanCountMax);
        } else if (is_word(request.argument(i), "TYPE") && i + 1 < request.size()) {
            scan.strings = is_word(value, "STRING");
        } else {
            return request.error("ERR syntax error");
        }
    }
    return chore(request,
                 [scan, &facts = request.facts, protocol = request.session.protocol](Chore work) {
                     return scan_strings(scan, facts, protocol, work.store);
                 });
}

}  // namespace

std::span<const CommandEntry> native_chores() {
    static constexpr std::array<CommandEntry, 5> kCommands = {{
        {"DEDUP.HISTORY", -2, 1, 1, 1, false, make_history},
        {"DEDUP.SCAN", -2, 0, 0, 0, false, make_native_scan},
        {"DEDUP.STATS", 1, 0, 0, 0, false, make_stats},
        {"DEDUP.SWEEP", -1, 0, 0, 0, true, make_sweep},
        {"SCAN", -2, 0, 0, 0, false, make_scan},
    }};
    return kCommands;
}

}  // namespace dedup::server
