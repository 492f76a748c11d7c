// Commands that may read or change much of the store. They run on a thread of their own, one after
// the other, and hold up nobody but the connection that asked.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "dedup/scan.hpp"
#include "record/try.hpp"
#include "server/chore.hpp"
#include "server/command_table.hpp"
#include "server/field_map.hpp"
#include "server/native_reply.hpp"

namespace dedup::server {
namespace {

constexpr std::size_t kScanCountDefault = 100;
constexpr std::size_t kScanCountMax = 10'000;
constexpr std::size_t kPageBytesMax = 16 * 1024 * 1024;
constexpr std::size_t kPatternBytesMax = 1024;
// A page of a scan looks through so many pages of the store at most, so that a prefix or pattern
// that matches nothing gives an answer in between, and others have their turn.
constexpr int kScanPagesMax = 10;

CommandPtr make_stats(const Request& request) {
    return chore(request, [protocol = request.session.protocol](const Chore& work) {
        return written(work.store.stats(), [protocol](const StoreStats& stats) {
            MapWriter map = field_map(protocol, stats);
            map.number("streams", stats.streams());
            return bytes_of(map);
        });
    });
}

std::string version_list(Protocol protocol, std::span<const Version> versions, bool with_names) {
    std::string bytes;
    ReplyWriter(bytes, protocol).array(versions.size());
    for (const Version& version : versions) {
        MapWriter map(protocol);
        if (with_names) {
            map.text("namespace", version.record.ns);
            map.text("key", version.record.key);
        }
        add_version(map, version);
        map.add_to(bytes);
    }
    return bytes;
}

// [[record, segment, offset, bytes], ...]
std::string raw_list(Protocol protocol, std::span<const Version> versions) {
    std::string bytes;
    ReplyWriter writer(bytes, protocol);
    writer.array(versions.size());
    std::string record;
    for (const Version& version : versions) {
        writer.array(4);
        record.clear();
        encode(version.record, record);
        writer.bulk(record);
        for (const std::uint64_t number : {version.segment, version.offset, version.bytes}) {
            writer.integer(static_cast<std::int64_t>(number));
        }
    }
    return bytes;
}

constexpr std::size_t kHistoryVersionsMax = 65'536;
constexpr std::size_t kHistoryBytesMax = 64 * 1024 * 1024;

// The newest `count` versions, and no fewer unless there are no more.
Result<std::vector<Version>> newest(StreamStore& store, StreamKey stream, std::size_t count) {
    auto versions = store.history(stream, {.versions_max = std::min(count, kHistoryVersionsMax + 1),
                                           .bytes_max = kHistoryBytesMax});
    if (!versions) {
        return versions;
    }
    std::size_t bytes = 0;
    for (const auto& [record, segment, offset, size] : *versions) {
        bytes += record.metadata.size() + (record.receipt ? record.receipt->size() : 0);
    }
    const bool cut = bytes >= kHistoryBytesMax && versions->size() < count;
    if (cut || versions->size() > kHistoryVersionsMax) {
        return std::unexpected(
            Error{Code::invalid_argument,
                  fmt::format("the history has more than {} versions, or {} MiB of receipts and "
                              "metadata: ask for fewer with NEWEST, or read it beside the server "
                              "(dedupctl -s DIRECTORY inspect)",
                              kHistoryVersionsMax, kHistoryBytesMax / 1024 / 1024)});
    }
    return versions;
}

CommandPtr make_history(const Request& request) {
    std::string ns = "default";
    std::size_t count = SIZE_MAX;
    const bool raw =
        is_word(request.argument(request.size() - 1), "RAW") && request.size() % 2 == 1;
    const std::size_t end = request.size() - (raw ? 1 : 0);
    for (std::size_t i = 2; i < end; i += 2) {
        const auto number = i + 1 < end ? unsigned_number(request.argument(i + 1)) : std::nullopt;
        if (i + 1 < end && is_word(request.argument(i), "NS")) {
            ns = request.argument(i + 1);
        } else if (number && *number > 0 && is_word(request.argument(i), "NEWEST")) {
            count = *number;
        } else {
            return request.error(
                "ERR syntax error: DEDUP.HISTORY key [NS namespace] [NEWEST n] [RAW]");
        }
    }
    return chore_in(ns, request,
                    [ns, raw, count, key = std::string(request.argument(1)),
                     protocol = request.session.protocol](const Chore& work) {
                        return written(newest(work.store, {ns, key}, count),
                                       [&](const std::vector<Version>& versions) {
                                           return raw ? raw_list(protocol, versions)
                                                      : version_list(protocol, versions, false);
                                       });
                    });
}

// A page of the store's, with fewer heads where they are large: nobody knows beforehand.
// One at least: it has the cursor.
Result<ScanPage> bounded_page(const Chore& work, ScanOptions options) {
    constexpr std::size_t kFirstHeads = 16;
    const std::size_t wanted = options.heads_max;
    ScanPage page;
    std::size_t bytes = 0;
    std::size_t heads = kFirstHeads;
    for (int pages = 0;
         pages < kScanPagesMax && page.heads.size() < wanted && bytes < kPageBytesMax;
         ++pages, heads *= 2) {
        options.heads_max = std::min(heads, wanted - page.heads.size());
        auto more = work.store.scan(options);
        if (!more) {
            return more;
        }
        std::size_t more_bytes = 0;
        for (Version& version : more->heads) {
            more_bytes += version.record.receipt.value_or("").size();
            page.heads.push_back(std::move(version));
        }
        bytes += more_bytes;
        if (more_bytes > kPageBytesMax / 16) {
            heads = kFirstHeads / 2;
        }
        page.cursor = std::move(more->cursor);
        if (page.cursor.empty() || !work.is_wanted()) {
            break;
        }
        options.cursor = page.cursor;
    }
    return page;
}

// The first cursor is "0" or empty, the one behind the last page is empty.
CommandPtr make_native_scan(const Request& request) {
    ScanOptions options;
    options.heads_max = kScanCountDefault;
    options.cursor = request.argument(1) == "0" ? "" : request.argument(1);
    const bool raw =
        is_word(request.argument(request.size() - 1), "RAW") && request.size() % 2 == 1;
    const std::size_t end = request.size() - (raw ? 1 : 0);
    for (std::size_t i = 2; i + 1 < end; i += 2) {
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
    if (end % 2 != 0) {
        return request.error("ERR an option stands without a value");
    }
    ChoreCommand::Work read = [options, raw,
                               protocol = request.session.protocol](const Chore& work) {
        return written(bounded_page(work, options), [&](const ScanPage& page) {
            MapWriter map(protocol);
            map.text("cursor", page.cursor);
            map.raw("heads", raw ? raw_list(protocol, page.heads)
                                 : version_list(protocol, page.heads, true));
            return bytes_of(map);
        });
    };
    return options.ns.empty() ? chore(request, std::move(read))
                              : chore_in(options.ns, request, std::move(read));
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

Result<std::string> scan_strings(const RedisScan& scan, ScanCursors& cursors, Protocol protocol,
                                 const Chore& work) {
    auto cursor = cursors.cursor_of(scan.cursor);
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
        auto page = work.store.scan(options);
        if (!page) {
            return std::unexpected(std::move(page).error());
        }
        const std::int64_t now_ms = work.store.now_ms();
        for (Version& version : page->heads) {
            const Record& record = version.record;
            if (scan.strings && record.state() == State::completed &&
                !expired(record.expires_at_ms, now_ms, std::chrono::milliseconds{0}) &&
                matches(scan.pattern, record.key)) {
                keys.push_back(std::move(version.record.key));
            }
        }
        cursor = std::move(page->cursor);
        if (cursor->empty() || !work.is_wanted()) {
            break;
        }
    }
    std::string bytes;
    ReplyWriter writer(bytes, protocol);
    writer.array(2);
    writer.bulk(std::to_string(cursors.number_of(*std::move(cursor))));
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
    const std::string user = request.session.user ? request.session.user->name : "";
    return chore_in(
        scan.ns, request,
        [scan, user, &facts = request.facts, protocol = request.session.protocol](
            const Chore& work) { return scan_strings(scan, facts.cursors[user], protocol, work); });
}

// As Redis counts: what has expired and is not swept yet, too.
Result<std::string> count_strings(const std::string& ns, const Chore& work) {
    std::int64_t count = 0;
    DEDUP_TRY(for_each_page(work.store, {.ns = ns}, [&](const ScanPage& page) {
        count += std::ranges::count_if(page.heads, [](const Version& version) {
            return version.record.state() == State::completed;
        });
        return work.is_wanted();
    }));
    if (!work.is_wanted()) {
        return std::unexpected(Error{Code::closed, "the server ends"});
    }
    return fmt::format(":{}\r\n", count);
}

CommandPtr make_dbsize(const Request& request) {
    const std::string ns = request.session.database_namespace();
    return chore_in(ns, request, [ns](const Chore& work) { return count_strings(ns, work); });
}

}  // namespace

std::span<const CommandEntry> native_chores() {
    static constexpr std::array<CommandEntry, 5> kCommands = {{
        {"DBSIZE", 1, 0, 0, 0, false, kReads, make_dbsize},
        {"DEDUP.HISTORY", -2, 1, 1, 1, false, kReads, make_history},
        {"DEDUP.SCAN", -2, 0, 0, 0, false, kReads, make_native_scan},
        {"DEDUP.STATS", 1, 0, 0, 0, false, kReadsStore, make_stats},
        {"SCAN", -2, 0, 0, 0, false, kReads, make_scan},
    }};
    return kCommands;
}

}  // namespace dedup::server
