#include "serve_page.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "claim_notes.hpp"
#include "common/text.hpp"
#include "common/time_text.hpp"
#include "dedup/metrics.hpp"
#include "output.hpp"
#include "record_text.hpp"
#include "report_sections.hpp"
#include "stats_json.hpp"

namespace dedupctl {
namespace {

using dedup::HttpRequest;
using dedup::HttpResponse;

constexpr const char* kHtmlType = "text/html; charset=utf-8";
constexpr std::size_t kOwnersShown = 50;
constexpr std::size_t kReceiptColumns = 4096;
// Of a key's page: its versions are in memory at once, and each has a row.
constexpr std::size_t kVersionsShown = 1000;
constexpr std::size_t kVersionsBytes = 32 * 1024 * 1024;

std::string percent_encoded(std::string_view bytes) {
    constexpr std::string_view kPlain =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    std::string text;
    for (const char byte : bytes) {
        if (kPlain.find(byte) != std::string_view::npos) {
            text += byte;
        } else {
            text += fmt::format("%{:02X}", static_cast<unsigned char>(byte));
        }
    }
    return text;
}

std::string key_link(const dedup::Record& record) {
    return fmt::format("<a href=\"/key?ns={}&amp;key={}\"><code>{}</code></a>",
                       percent_encoded(record.ns), percent_encoded(record.key),
                       html(preview(record.key, 80)));
}

Page begin_page(std::string_view title) {
    Page page(title, "<link rel=\"stylesheet\" href=\"/style.css\">\n");
    page.add(
        "<a class=\"skip\" href=\"#content\">To the content</a>\n<header><nav "
        "aria-label=\"Pages\"><ul>"
        "<li><a href=\"/\">Overview</a></li><li><a href=\"/key\">Look up a key</a></li>"
        "<li><a href=\"/stats.json\">Statistics as JSON</a></li>"
        "<li><a href=\"/metrics\">Metrics</a></li></ul></nav></header>\n"
        "<main id=\"content\">\n");
    return page;
}

HttpResponse finished(Page page, int status = 200) {
    page.add("</main>\n");
    return {.status = status, .type = kHtmlType, .body = page.take()};
}

void add_hour(Page& page, const std::deque<Sample>& samples) {
    page.begin("The last hour");
    if (samples.size() < 2) {
        page.add("<p>The server has just begun; it looks every {}.</p>\n",
                 format_duration(ServeWatch::kEvery));
        return page.end();
    }
    constexpr double kMsPerMinute = 60'000;
    const std::int64_t first_ms = samples.front().at_ms;
    const double span_ms = std::max(1.0, static_cast<double>(samples.back().at_ms - first_ms));
    std::vector<double> from;
    from.reserve(samples.size());
    for (const Sample& sample : samples) {
        from.push_back(
            std::clamp(static_cast<double>(sample.at_ms - first_ms) / span_ms, 0.0, 1.0));
    }
    const auto line = [&](std::string_view name, std::string_view style, double Sample::*value) {
        Line made{.name = name, .style = style, .values = {}};
        for (const Sample& sample : samples) {
            made.values.push_back(sample.*value);
        }
        return made;
    };
    const auto plot = [&](std::string_view title, std::string_view unit,
                          const std::vector<Line>& lines) {
        page.add("<div>\n");
        add_lines(page, title, unit, span_ms / kMsPerMinute, from, lines);
        page.add("</div>\n");
    };
    page.add("<div class=\"plots\">\n");
    plot("Rates", "a second",
         {line("requests", "done", &Sample::requests),
          line("records appended", "open", &Sample::records)});
    plot("Flushes", "ms",
         {line("median", "done", &Sample::flush_median_ms),
          line("99 %", "open", &Sample::flush_p99_ms)});
    plot("Records flushed together", "",
         {line("mean", "done", &Sample::group_mean), line("99 %", "open", &Sample::group_p99)});
    plot("Keys in-flight, connections", "",
         {line("keys in-flight", "done", &Sample::in_flight),
          line("connections", "open", &Sample::connections)});
    page.add("</div>\n<details><summary>The numbers, every minute</summary>\n");
    page.begin_table({"Time", "#Requests/s", "#Records/s", "#Flush, median ms", "#99 %",
                      "#Group, mean", "#99 %", "#In flight", "#Connections"});
    constexpr std::size_t kEach = 6;
    for (std::size_t i = samples.size(); i > 0; i = i > kEach ? i - kEach : 0) {
        const Sample& at = samples[i - 1];
        page.row({format_time(at.at_ms), fmt::format("{:.1f}", at.requests),
                  fmt::format("{:.1f}", at.records), fmt::format("{:.3g}", at.flush_median_ms),
                  fmt::format("{:.3g}", at.flush_p99_ms), fmt::format("{:.1f}", at.group_mean),
                  fmt::format("{:.0f}", at.group_p99), fmt::format("{:.0f}", at.in_flight),
                  fmt::format("{:.0f}", at.connections)});
    }
    page.end_table();
    page.add("</details>\n");
    page.end();
}

double milliseconds_of(std::uint64_t ns) {
    constexpr double kNsPerMs = 1e6;
    return static_cast<double>(ns) / kNsPerMs;
}

void add_commands(Page& page, const std::vector<dedup::CommandTime>& times) {
    page.begin("Commands since the server began");
    if (times.empty()) {
        page.add("<p>None.</p>\n");
        return page.end();
    }
    page.begin_table({"Command", "#Number", "#Mean ms", "#Median, at most", "#99 %", "#99.9 %"});
    for (const auto& [command, ns] : times) {
        const auto within = [&ns](double share) {
            return fmt::format("{:.3g}", milliseconds_of(ns.quantile(share)));
        };
        const double mean = milliseconds_of(ns.sum) / static_cast<double>(ns.count());
        page.row({fmt::format("<code>{}</code>", command), group_digits(ns.count()),
                  fmt::format("{:.3g}", mean), within(0.5), within(0.99), within(0.999)});
    }
    page.end_table();
    page.end();
}

Json commands_json(const std::vector<dedup::CommandTime>& times) {
    constexpr std::uint64_t kNsPerUs = 1000;
    Json object = Json::object();
    for (const auto& [command, ns] : times) {
        object[command] = {{"count", ns.count()},
                           {"sum_us", ns.sum / kNsPerUs},
                           {"median_us", ns.quantile(0.5) / kNsPerUs},
                           {"p99_us", ns.quantile(0.99) / kNsPerUs}};
    }
    return object;
}

void add_owners(Page& page, const Report& report) {
    page.begin("Claims in-flight by owner");
    if (report.owners.empty()) {
        page.add("<p>None.</p>\n");
        return page.end();
    }
    std::vector<std::pair<std::string, OwnerCounts>> owners(report.owners.begin(),
                                                            report.owners.end());
    std::ranges::sort(owners, std::greater{}, [](const auto& owner) {
        return std::pair(owner.second.stuck + owner.second.held, owner.second.in_flight);
    });
    page.begin_table({"Owner", "#In flight", "#Past their lease", "#Held", "Oldest"});
    for (std::size_t i = 0; i < std::min(kOwnersShown, owners.size()); ++i) {
        const auto& [owner, counts] = owners[i];
        page.row({html(owner.empty() ? "-" : preview(owner, 60)), group_digits(counts.in_flight),
                  group_digits(counts.stuck), group_digits(counts.held),
                  format_time_and_age(counts.oldest_ms, report.moment.now_ms)});
    }
    page.end_table();
    if (owners.size() > kOwnersShown) {
        page.add("<p>And {} more owners.</p>\n", group_digits(owners.size() - kOwnersShown));
    }
    if (const OwnerCounts& others = report.other_owners; others.in_flight > 0) {
        page.add(
            "<p>Not told apart, beyond {} owners: {} in-flight, {} past their lease, {} "
            "held.</p>\n",
            group_digits(Report::kOwners), group_digits(others.in_flight),
            group_digits(others.stuck), group_digits(others.held));
    }
    page.end();
}

void add_working(Page& page, const Report& report) {
    constexpr std::size_t kShown = 20;
    if (report.working_first.empty()) {
        return;
    }
    page.begin("Claims that are worked on longest");
    page.begin_table({"Claimed", "Lease until", "#Attempt", "Owner", "Namespace", "Key"});
    for (std::size_t i = 0; i < std::min(kShown, report.working_first.size()); ++i) {
        const dedup::Record& record = report.working_first[i];
        page.row({format_time_and_age(record.timestamp_ms, report.moment.now_ms),
                  record.lease_until_ms == 0
                      ? "-"
                      : format_time_and_age(record.lease_until_ms, report.moment.now_ms),
                  std::to_string(record.attempt),
                  html(record.owner.empty() ? "-" : preview(record.owner, 40)), html(record.ns),
                  key_link(record)});
    }
    page.end_table();
    page.end();
}

void add_keys_of_store(Page& page, ServeWatch& watch) {
    const std::shared_ptr<const Report> report = watch.keys();
    const std::string error = watch.count_error();
    if (!error.empty()) {
        page.add("<p class=\"bad\">The keys could not be counted: {}</p>\n", html(error));
    } else if (!report) {
        page.add(
            "<p>The keys are being counted. <a href=\"/\">Look again</a> in a few seconds.</p>\n");
    }
    if (!report) {
        return;
    }
    const KeyCounts all = report->total();
    page.add("<p class=\"soft\">Keys as of {}.</p>\n", format_time(report->moment.now_ms));
    add_cards(page,
              {{"claims in-flight", group_digits(all.in_flight)},
               {"of these past their lease", group_digits(all.stuck), all.stuck != 0},
               {"held for a decision", group_digits(all.held), all.held != 0},
               {"keys completed", group_digits(all.completed)},
               {"released", group_digits(all.released)},
               {"expired, to be swept", group_digits(all.expired)},
               {"requests in conflict", group_digits(report->conflicts), report->conflicts != 0}});
    add_waiting(page, *report, key_link);
    add_working(page, *report);
    add_owners(page, *report);
    add_keys(page, *report);
}

HttpResponse overview(ServeWatch& watch, const std::string& store) {
    Page page = begin_page("dedup store");
    const auto stats = watch.store().stats();
    page.add("<h1>A dedup store, served</h1>\n<p><code>{}</code></p>\n", html(escape(store)));
    if (!stats) {
        page.add("<p class=\"bad\" role=\"alert\">The store does not answer: {}</p>\n",
                 html(escape(stats.error().message)));
        return finished(std::move(page), 503);
    }
    page.add(
        "<p class=\"soft\">Store id {}; {} in {} of log and {} of catalog. This page is of "
        "{}.</p>\n",
        html(stats->store_id), count_of(stats->streams(), "key"), human_bytes(stats->log_bytes),
        human_bytes(stats->catalog_bytes), format_time(dedup::system_now_ms()));
    add_troubles(page, *stats);
    add_keys_of_store(page, watch);
    add_hour(page, watch.samples());
    add_commands(page, watch.command_times());
    if (const auto sweeps = watch.store().sweep_history()) {
        add_sweeps(page, *sweeps);
    }
    return finished(std::move(page));
}

void add_lookup_form(Page& page, std::string_view ns, std::string_view key) {
    page.add(
        "<form action=\"/key\" method=\"get\" role=\"search\">\n"
        "<label>Namespace <input name=\"ns\" value=\"{}\" autocomplete=\"off\"></label>\n"
        "<label>Key <input name=\"key\" value=\"{}\" autocomplete=\"off\" required></label>\n"
        "<button>Look up</button>\n</form>\n",
        html(is_utf8(ns) ? ns : ""), html(is_utf8(key) ? key : ""));
}

std::string note_cell(const dedup::Record& record, bool shown) {
    const std::string text = note_of(record);
    if (text.empty()) {
        return "-";
    }
    return shown ? fmt::format("<code>{}</code>", html(preview(text, kReceiptColumns)))
                 : human_bytes(text.size());
}

std::string receipt_cell(const dedup::Record& record, bool shown) {
    if (!record.receipt) {
        return "-";
    }
    std::string text = human_bytes(record.receipt->size());
    if (shown && !record.receipt->empty()) {
        text += fmt::format("<br><code>{}</code>", html(preview(*record.receipt, kReceiptColumns)));
    }
    return text;
}

void add_versions(Page& page, const std::vector<dedup::Version>& versions, const Moment& moment,
                  bool with_receipts) {
    const dedup::Record& head = versions.back().record;
    page.add("<p>{}</p>\n", html(state_sentence(head, moment)));
    if (!with_receipts) {
        page.add(
            "<p class=\"soft\">Receipts and notes are shown by a server that has a token.</p>\n");
    }
    page.begin_table({"#Sequence", "State", "Time", "Owner", "Note", "Receipt", "Expires",
                      "Lease until", "#Claim", "#Attempt"});
    const auto time = [&](std::int64_t time_ms, const char* none) {
        return time_ms == 0 ? std::string(none) : format_time_and_age(time_ms, moment.now_ms);
    };
    for (std::size_t i = versions.size(); i > 0; --i) {
        const dedup::Record& record = versions[i - 1].record;
        page.row({std::to_string(record.sequence), std::string(dedup::name(record.state())),
                  time(record.timestamp_ms, "-"),
                  html(record.owner.empty() ? "-" : preview(record.owner, 60)),
                  note_cell(record, with_receipts), receipt_cell(record, with_receipts),
                  time(record.expires_at_ms, "never"), time(record.lease_until_ms, "-"),
                  std::to_string(record.claim_sequence), std::to_string(record.attempt)});
    }
    page.end_table();
}

std::size_t bytes_of(const std::vector<dedup::Version>& versions) {
    std::size_t bytes = 0;
    for (const dedup::Version& version : versions) {
        bytes += version.record.metadata.size() + version.record.receipt.value_or("").size();
    }
    return bytes;
}

HttpResponse key_page(ServeWatch& watch, const HttpRequest& request) {
    const std::string_view ns = request.parameter("ns").value_or("default");
    const auto key = request.parameter("key");
    Page page = begin_page("dedup store: a key");
    page.add("<h1>A key and its history</h1>\n");
    add_lookup_form(page, ns, key.value_or(""));
    if (!key) {
        return finished(std::move(page));
    }
    page.begin("Versions, the newest first");
    page.add("<p>Key <code>{}</code> in namespace <code>{}</code></p>\n", html(escape(*key)),
             html(escape(ns)));
    const auto versions = watch.store().history(
        {ns, *key}, {.versions_max = kVersionsShown, .bytes_max = kVersionsBytes});
    int status = 200;
    if (!versions) {
        page.add("<p class=\"bad\" role=\"alert\">{}</p>\n",
                 html(escape(versions.error().message)));
        status = versions.error().code == dedup::Code::invalid_argument ? 400 : 503;
    } else if (versions->empty()) {
        page.add("<p>There is no such key: nobody has claimed it, or it has expired.</p>\n");
        status = 404;
    } else {
        if (versions->size() == kVersionsShown || bytes_of(*versions) >= kVersionsBytes) {
            page.add("<p>These are the newest {}; there may be older ones.</p>\n",
                     count_of(versions->size(), "version"));
        }
        add_versions(page, *versions, {watch.store().now_ms(), watch.store().grace()},
                     request.with_token);
    }
    page.end();
    return finished(std::move(page), status);
}

HttpResponse stats_page(ServeWatch& watch, const std::string& store) {
    const auto stats = watch.store().stats();
    if (!stats) {
        return {.status = 503, .body = escape(stats.error().message) + "\n"};
    }
    Json object = stats_json(store, *stats, nullptr);
    object["commands"] = commands_json(watch.command_times());
    return {.type = "application/json", .body = json_line(object) + "\n"};
}

}  // namespace

std::function<std::optional<HttpResponse>(const HttpRequest&)> serve_pages(ServeWatch& watch,
                                                                           std::string store) {
    return [&watch,
            store = std::move(store)](const HttpRequest& request) -> std::optional<HttpResponse> {
        if (request.path == "/") {
            return overview(watch, store);
        }
        if (request.path == "/key") {
            return key_page(watch, request);
        }
        if (request.path == "/stats.json") {
            return stats_page(watch, store);
        }
        if (request.path == "/style.css") {
            return HttpResponse{.type = "text/css; charset=utf-8",
                                .body = std::string(page_style())};
        }
        return std::nullopt;
    };
}

std::string open_claims_text(ServeWatch& watch) {
    std::vector<dedup::OpenClaims> open;
    if (const auto report = watch.known_keys()) {
        for (const auto& [ns, counts] : report->namespaces.rows()) {
            if (counts.in_flight != 0) {
                open.push_back({.ns = ns,
                                .count = counts.in_flight,
                                .past_lease = counts.stuck,
                                .held = counts.held,
                                .oldest_ms = counts.oldest_ms});
            }
        }
    }
    return dedup::prometheus_text(open);
}

}  // namespace dedupctl
