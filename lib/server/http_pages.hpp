// What the HTTP port answers by itself, and who may ask for what.
#pragma once

#include <atomic>
#include <functional>

#include "dedup/server.hpp"
#include "server/http_server.hpp"
#include "server/secret.hpp"

namespace dedup::server {

struct HttpPages {
    StreamStore& store;
    std::function<ServerMetrics()> metrics;
    const std::atomic<bool>& closing;  // outlives the server of HTTP
    const Secret& token;               // likewise
    std::function<std::optional<HttpResponse>(const HttpRequest&)> pages;
    std::function<std::string()> more_metrics;
};

[[nodiscard]] HttpAnswers http_answers(HttpPages pages);

}  // namespace dedup::server
