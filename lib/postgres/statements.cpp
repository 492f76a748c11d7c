#include "postgres/statements.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace dedup::pg {
namespace {

// Those of a head that are read.
std::string read_columns() {
    std::string columns;
    for (const Column& column : kColumns) {
        if (column.read) {
            columns += fmt::format("{}h.{}", columns.empty() ? "" : ", ", column.name);
        }
    }
    return columns;
}

// What a head counts against Capacity::bytes_max; head_bytes() computes the same.
constexpr std::string_view kBytes =
    "(192 + octet_length(h.ns) + octet_length(h.key) + octet_length(h.owner) + "
    "octet_length(h.fingerprint) + octet_length(h.event_id) + "
    "coalesce(octet_length(h.receipt), 0) + octet_length(h.metadata) + octet_length(h.rest))::int8";

// What a sweep must know of what it removes.
constexpr std::string_view kRemoved =
    "h.ns, h.state, CASE WHEN h.state = 0 THEN h.sequence END, "
    "CASE WHEN h.state = 0 THEN h.key END, CASE WHEN h.state = 0 THEN h.owner END, "
    "CASE WHEN h.state = 0 THEN h.fence END, CASE WHEN h.state = 0 THEN h.timestamp_ms END, "
    "CASE WHEN h.state = 0 THEN h.expires_ms END, CASE WHEN h.state = 0 THEN h.attempt END, "
    "CASE WHEN h.state = 0 THEN h.event_id END, "
    "CASE WHEN h.state = 0 THEN substr(h.metadata, 1, 256) END";  // kUnansweredNoteBytesMax

std::string_view type_name(Type type) {
    switch (type) {
        case Type::int2:
            return "int2";
        case Type::int4:
            return "int4";
        case Type::int8:
            return "int8";
        case Type::text:
            return "text";
        case Type::bytea:
            break;
    }
    return "bytea";
}

constexpr auto kInserted = static_cast<std::size_t>(At::expected);  // all but what is expected
constexpr auto kIdentity = static_cast<std::size_t>(At::sequence);  // which an update leaves

// How a statement names the values of its rows.
struct Values {
    bool one = false;

    // The array for a column, and its first element.
    [[nodiscard]] static std::string array(std::size_t column) {
        return fmt::format("${}::{}[]", column + 1, type_name(kColumns.at(column).type));
    }
    [[nodiscard]] static std::string first(std::size_t column) {
        return fmt::format("({})[1]", array(column));
    }
    [[nodiscard]] std::string value(std::size_t column) const {
        const Column& c = kColumns.at(column);
        return one        ? first(column)
               : c.varies ? fmt::format("t.{}", c.name)
                          : fmt::format("coalesce(t.{}, {})", c.name, first(column));
    }
    [[nodiscard]] std::string value(At column) const {
        return value(static_cast<std::size_t>(column));
    }
    // The values of `count` columns from `from` on.
    [[nodiscard]] std::string values(std::size_t from, std::size_t count) const {
        std::vector<std::string> all;
        all.reserve(count);
        for (std::size_t i = from; i < from + count; ++i) {
            all.push_back(value(i));
        }
        return fmt::format("{}", fmt::join(all, ", "));
    }
    // Where the rows come from, behind `word`: nothing for one of them.
    [[nodiscard]] std::string rows(std::string_view word, std::size_t count) const {
        if (one) {
            return {};
        }
        std::vector<std::string> arrays;
        arrays.reserve(count);
        for (std::size_t i = 0; i < count; ++i) {
            arrays.push_back(array(i));
        }
        return fmt::format("{} unnest({}) AS t({}) ", word, fmt::join(arrays, ", "),
                           names(0, count));
    }
    [[nodiscard]] static std::string names(std::size_t from, std::size_t count) {
        std::vector<std::string_view> all;
        all.reserve(count);
        for (std::size_t i = from; i < from + count; ++i) {
            all.push_back(kColumns.at(i).name);
        }
        return fmt::format("{}", fmt::join(all, ", "));
    }
};

std::string insert_text(Values v) {
    return fmt::format(
        "INSERT INTO @.head ({}) SELECT {} {}WHERE {} > (SELECT sequence_floor FROM @.meta) "
        "ON CONFLICT (bucket, ns, key) DO NOTHING RETURNING sequence",
        Values::names(0, kInserted), v.values(0, kInserted), v.rows("FROM", kInserted),
        v.value(At::sequence));
}

std::string update_text(Values v) {
    return fmt::format(
        "UPDATE @.head h SET ({}) = ROW({}) {}WHERE h.bucket = {} AND h.ns = {} AND h.key = {} "
        "AND h.sequence = {} RETURNING h.sequence",
        Values::names(kIdentity, kInserted - kIdentity), v.values(kIdentity, kInserted - kIdentity),
        v.rows("FROM", kColumns.size()), v.value(At::bucket), v.value(At::ns), v.value(At::key),
        v.value(At::expected));
}

// A role's own choice of something stronger stays.
std::string settings(bool transaction, bool relaxed, std::chrono::milliseconds lock_wait) {
    const std::string_view scope = transaction ? "true" : "false";
    return fmt::format(
        "SELECT set_config('default_transaction_isolation', 'read committed', {0}), "
        "set_config('plan_cache_mode', 'force_generic_plan', {0}), "
        "set_config('lock_timeout', '{3}ms', {0}), "
        "set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit') "
        "{1} THEN current_setting('synchronous_commit') ELSE '{2}' END, {0})",
        scope, relaxed ? "<> 'off'" : "IN ('on', 'remote_apply')", relaxed ? "local" : "on",
        lock_wait.count());
}

// Rows that somebody's transaction holds are left to the next sweep.
constexpr std::string_view kSkipHeld = "FOR UPDATE SKIP LOCKED";

// The first rows that have expired by $2, the end of slot $1, and have a sequence up to $4.
std::string expired_rows(std::string_view columns, std::string_view end) {
    return fmt::format(
        "SELECT {} FROM @.head WHERE expiry_slot > 0 AND expiry_slot <= $1::int8 "
        "AND expires_ms < $2::int8 AND sequence <= $4::int8 "
        "ORDER BY expiry_slot LIMIT $3::int8 {}",
        columns, end);
}

// By where a row lies, which is a third of the time that its key takes to find. A row that moved
// meanwhile is another version, which the next batch sees.
std::string remove_by_place(std::string_view end) {
    return fmt::format(
        "DELETE FROM @.head h WHERE h.ctid = ANY (ARRAY({})) AND h.expiry_slot > 0 "
        "AND h.expires_ms < $2 AND h.sequence <= $4 RETURNING {}",
        expired_rows("ctid", end), kRemoved);
}

std::string remove_by_key(std::string_view end) {
    return fmt::format(
        "WITH dead AS ({}) DELETE FROM @.head h USING dead d WHERE h.bucket = d.bucket "
        "AND h.ns = d.ns AND h.key = d.key AND h.expiry_slot > 0 "
        "AND h.expires_ms < $2 AND h.sequence <= $4 RETURNING {}",
        expired_rows("bucket, ns, key", end), kRemoved);
}

std::string evict_text(std::string_view end) {
    return fmt::format(
        "WITH free AS (SELECT o.bucket, o.ns, o.key FROM unnest($1::int2[], $2::text[], "
        "$3::bytea[]) AS t(b, n, k) JOIN @.head o ON o.bucket = t.b AND o.ns = t.n "
        "AND o.key = t.k WHERE o.state = 1 AND o.sequence <= $4::int8 {}) "
        "DELETE FROM @.head h USING free f WHERE h.bucket = f.bucket AND h.ns = f.ns "
        "AND h.key = f.key AND h.state = 1 AND h.sequence <= $4 RETURNING {}, {}",
        end, kRemoved, kBytes);
}

// For this transaction: the server itself ends a statement that takes too long, so that none goes
// on behind the sweep's back, and it hardly waits for locks. A role's own limit that is lower
// stays.
std::string batch_limits_text(std::chrono::milliseconds lock_wait) {
    return fmt::format(
        "SELECT set_config('lock_timeout', '{}ms', true), set_config('statement_timeout', "
        "(SELECT least(nullif(setting::int8, 0), {})::text FROM pg_settings "
        "WHERE name = 'statement_timeout'), true)",
        std::clamp<std::int64_t>(lock_wait.count() / 2, 1, 50), 2 * lock_wait.count());
}

}  // namespace

Result<std::string> quote_schema(std::string_view name) {
    const auto usual = [](char c) {
        return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
               (c >= '0' && c <= '9');
    };
    if (name.empty() || name.size() > 63 || !std::ranges::all_of(name, usual) ||
        (name[0] >= '0' && name[0] <= '9')) {
        return std::unexpected(
            Error{Code::invalid_argument,
                  "the schema's name must be 1 to 63 letters, digits and '_', not beginning with a "
                  "digit"});
    }
    return fmt::format("\"{}\"", name);
}

std::string in_schema(std::string_view text, std::string_view quoted_schema) {
    std::string out;
    for (const char c : text) {
        if (c == '@') {
            out += quoted_schema;
        } else {
            out += c;
        }
    }
    return out;
}

Statements::Statements(const std::string& schema, bool local, std::chrono::milliseconds lock_wait) {
    const auto make = [&](std::string_view name, std::string_view sql) {
        return Statement{name.empty() ? "" : fmt::format("dedup_{}", name), in_schema(sql, schema)};
    };
    begin = make("", "BEGIN ISOLATION LEVEL READ COMMITTED");
    commit = make("", "COMMIT");
    rollback = make("", "ROLLBACK");
    local_settings = make("", settings(true, local, lock_wait));
    session_settings = make("", settings(false, local, lock_wait));
    hurry = make("", "SET LOCAL lock_timeout = '50ms'");

    prove =
        make("",
             "SELECT current_setting('server_version_num')::int8, pg_is_in_recovery(), "
             "current_setting('transaction_read_only') = 'on', "
             "current_setting('fsync') = 'off', "
             "current_setting('synchronous_standby_names') = '', "
             // Not backups, nor what reads changes of tables.
             "(SELECT count(*) FROM pg_stat_replication r WHERE coalesce(state, '') <> 'backup' "
             "AND NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid "
             "AND (s.temporary OR s.slot_type = 'logical'))) + "
             "(SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'physical' "
             "AND NOT temporary), "
             "current_setting('synchronous_commit'), "
             "(extract(epoch FROM clock_timestamp()) * 1000)::int8");
    meta = make("",
                "SELECT format, store_id, time_high_ms, clock, clock_version, evicted, "
                "last_sweep_ms, (SELECT CASE WHEN is_called THEN last_value ELSE 0 END "
                "FROM @.block) FROM @.meta");

    insert = {make("insert", insert_text({})), make("insert_one", insert_text({.one = true}))};
    update = {make("update", update_text({})), make("update_one", update_text({.one = true}))};
    sequences = make("sequences",
                     "SELECT t.i, h.sequence, h.fence FROM unnest($1::int2[], $2::text[], "
                     "$3::bytea[], $4::int4[]) AS t(b, n, k, i) JOIN @.head h "
                     "ON h.bucket = t.b AND h.ns = t.n AND h.key = t.k");
    const std::string clock_ms = "(extract(epoch FROM clock_timestamp()) * 1000)::int8";
    block =
        make("block", fmt::format("SELECT @.next_block(), {}, time_high_ms FROM @.meta", clock_ms));
    // A number that a sequence gives need not have been written by its commit; the lock of a row
    // is. It keeps nobody waiting who takes a block, or writes down the time.
    keep_block = make("keep_block", "SELECT 1 FROM @.meta FOR KEY SHARE");
    clock = make("clock", fmt::format("SELECT {}", clock_ms));
    raise_time = make("raise_time",
                      "UPDATE @.meta SET time_high_ms = $1::int8 WHERE time_high_ms <= $2::int8 "
                      "RETURNING time_high_ms");
    saw_time = make("saw_time",
                    "UPDATE @.meta SET time_high_ms = greatest(time_high_ms, $1::int8) "
                    "RETURNING time_high_ms, clock_version");
    set_clock = make("set_clock",
                     "UPDATE @.meta SET clock = $1::bytea, clock_version = clock_version + 1 "
                     "WHERE clock_version = $2::int8 RETURNING clock_version");

    heads = {
        make("heads", fmt::format("SELECT {}, t.i FROM unnest($1::int2[], $2::text[], $3::bytea[], "
                                  "$4::int4[]) AS t(b, n, k, i) JOIN @.head h "
                                  "ON h.bucket = t.b AND h.ns = t.n AND h.key = t.k",
                                  read_columns())),
        make("heads_one",
             fmt::format("SELECT {}, ($4::int4[])[1] FROM @.head h WHERE h.bucket = "
                         "($1::int2[])[1] AND h.ns = ($2::text[])[1] AND h.key = ($3::bytea[])[1]",
                         read_columns()))};
    // A page ends where its records have 64 MiB, but has one at least.
    scan = make("scan",
                fmt::format("SELECT {0}, h.bucket, h.total > h.number FROM (SELECT h.*, "
                            "sum({1}) OVER w - {1} AS before, count(*) OVER () AS total, "
                            "row_number() OVER w AS number FROM "
                            "(SELECT * FROM @.head WHERE (bucket, ns, key) > "
                            "($1::int2, $2::text, $3::bytea) AND ($4::text = '' OR ns = $4::text) "
                            "AND substring(key FROM 1 FOR octet_length($5::bytea)) = $5::bytea "
                            "ORDER BY bucket, ns, key LIMIT $6::int8 + 1) h "
                            "WINDOW w AS (ORDER BY h.bucket, h.ns, h.key)) h "
                            "WHERE h.number <= $6::int8 AND (h.before < 67108864 OR h.number = 1) "
                            "ORDER BY h.bucket, h.ns, h.key",
                            read_columns(), kBytes));
    count_states = make("count_states", "SELECT state, count(*) FROM @.head GROUP BY state");
    sizes = make("sizes", "SELECT pg_total_relation_size('@.head'::regclass)");

    lock_sweep = make("lock_sweep", "SELECT 1 FROM @.sweeper FOR UPDATE");
    batch_limits = make("", batch_limits_text(lock_wait));
    remove_expired = {make("remove_expired", remove_by_place("")),
                      make("remove_free", remove_by_place(kSkipHeld)),
                      make("remove_free_by_key", remove_by_key(kSkipHeld)),
                      make("remove_by_key", remove_by_key("OFFSET $5::int8"))};
    oldest = make("oldest",
                  fmt::format("SELECT array_agg(o.bucket), array_agg(o.ns), array_agg(o.key) FROM "
                              "(SELECT h.*, row_number() OVER w AS number, "
                              "sum(h.size) OVER w - h.size AS before FROM "
                              "(SELECT h.bucket, h.ns, h.key, h.sequence, {} AS size "
                              "FROM @.head h WHERE h.state = 1 AND h.sequence <= $1::int8 "
                              "ORDER BY h.sequence LIMIT $4::int8 OFFSET $5::int8) h "
                              "WINDOW w AS (ORDER BY h.sequence)) o "
                              "WHERE o.number <= $2::int8 OR o.before < $3::int8",
                              kBytes));
    evict = {make("evict_free", evict_text("FOR UPDATE OF o SKIP LOCKED")),
             make("evict", evict_text(""))};
    constexpr std::string_view kExpired =
        "FROM @.head h WHERE h.expiry_slot > 0 AND h.expiry_slot <= $1::int8 "
        "AND h.expires_ms < $2::int8";
    would_remove =
        make("would_remove",
             fmt::format("SELECT h.ns, h.state, count(*) {} GROUP BY h.ns, h.state", kExpired));
    would_tell = make("would_tell", fmt::format("SELECT {} {} AND h.state = 0 ORDER BY h.sequence "
                                                "LIMIT $3::int8",
                                                kRemoved, kExpired));
    retained = make("retained",
                    "SELECT ns, state, count(*) FROM @.head WHERE expires_ms = 0 OR "
                    "expires_ms >= $1::int8 GROUP BY ns, state");
    next_expiry = make("next_expiry",
                       "SELECT min(expires_ms) FROM @.head WHERE expiry_slot = "
                       "(SELECT min(expiry_slot) FROM @.head WHERE expiry_slot > 0 AND "
                       "expiry_slot >= $1::int8 AND expires_ms >= $2::int8) "
                       "AND expires_ms >= $2");
    usage =
        make("usage", fmt::format("SELECT count(*), coalesce(sum({0}), 0)::int8, "
                                  "count(*) FILTER (WHERE live), "
                                  "coalesce(sum({0}) FILTER (WHERE live), 0)::int8, "
                                  "count(*) FILTER (WHERE live AND h.state = 1), "
                                  "coalesce(sum({0}) FILTER (WHERE live AND h.state = 1), 0)::int8 "
                                  "FROM @.head h, LATERAL (SELECT h.expires_ms = 0 OR "
                                  "h.expires_ms >= $1::int8 AS live) l",
                                  kBytes));
    raise_floor = make("raise_floor",
                       "UPDATE @.meta SET sequence_floor = greatest(sequence_floor, "
                       "((SELECT last_value FROM @.block) << 16) | 65535) "
                       "RETURNING sequence_floor");
    any_expired = make("any_expired",
                       "SELECT 1 FROM @.head WHERE expiry_slot > 0 AND expiry_slot <= $1::int8 "
                       "AND expires_ms < $2::int8 LIMIT 1");
    put_report = make("put_report",
                      "INSERT INTO @.sweep (id, report) VALUES ($1::int8, $2::bytea) "
                      "ON CONFLICT (id) DO UPDATE SET report = excluded.report");
    trim_reports = make("trim_reports",
                        "DELETE FROM @.sweep WHERE id <= (SELECT id FROM @.sweep "
                        "ORDER BY id DESC OFFSET 100 LIMIT 1)");
    swept = make("swept",
                 "UPDATE @.meta SET last_sweep_ms = $1::int8, evicted = evicted + $2::int8, "
                 "time_high_ms = greatest(time_high_ms, $1)");
    reports = make("reports", "SELECT report FROM @.sweep ORDER BY id DESC LIMIT 100");
}

}  // namespace dedup::pg
