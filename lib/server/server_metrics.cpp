#include "dedup/server.hpp"
#include "metrics/prometheus_page.hpp"

namespace dedup {

std::string prometheus_text(const ServerMetrics& metrics) {
    prometheus::Page page;
    page.gauge("dedup_server_connections", "Connections that are open.", metrics.connections);
    page.counter("dedup_server_connections_total", "Connections that were accepted.",
                 metrics.connected);
    page.counter("dedup_server_connections_refused_total",
                 "Connections that were refused, as there were too many.", metrics.refused);
    page.counter("dedup_server_logins_failed_total",
                 "Logins with a wrong secret, or as nobody who is a user.", metrics.logins_failed);
    page.counter("dedup_server_requests_total", "Requests.", metrics.requests);
    page.counter("dedup_server_requests_busy_total", "Requests that were answered BUSY.",
                 metrics.busy);
    page.gauge("dedup_server_untaken_bytes", "Of replies that clients have not taken.",
               metrics.untaken_bytes);
    page.metric("dedup_server_command_duration_seconds", "histogram",
                "From when a command was read until its reply was there.");
    for (const CommandTime& time : metrics.commands) {
        page.samples(time.ns, prometheus::kPerSecondNs, prometheus::label("command", time.command));
    }
    return page.take();
}

}  // namespace dedup
