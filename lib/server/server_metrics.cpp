#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <iterator>
#include <string>

#include "dedup/server.hpp"

namespace dedup {

std::string prometheus_text(const ServerMetrics& metrics) {
    struct Row {
        const char* name;
        const char* type;
        const char* help;
        std::uint64_t value;
    };
    const std::array<Row, 6> rows = {{
        {"dedup_server_connections", "gauge", "Connections that are open.", metrics.connections},
        {"dedup_server_connections_total", "counter", "Connections that were accepted.",
         metrics.connected},
        {"dedup_server_connections_refused_total", "counter",
         "Connections that were refused, as there were too many.", metrics.refused},
        {"dedup_server_requests_total", "counter", "Requests.", metrics.requests},
        {"dedup_server_requests_busy_total", "counter", "Requests that were answered BUSY.",
         metrics.busy},
        {"dedup_server_untaken_bytes", "gauge", "Of replies that clients have not taken.",
         metrics.untaken_bytes},
    }};
    std::string text;
    for (const Row& row : rows) {
        fmt::format_to(std::back_inserter(text), "# HELP {0} {1}\n# TYPE {0} {2}\n{0} {3}\n",
                       row.name, row.help, row.type, row.value);
    }
    return text;
}

}  // namespace dedup
