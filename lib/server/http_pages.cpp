#include "server/http_pages.hpp"

#include <arpa/inet.h>

#include <memory>
#include <utility>

#include "dedup/metrics.hpp"
#include "server/session.hpp"

namespace dedup::server {
namespace {

constexpr const char* kPrometheusType = "text/plain; version=0.0.4; charset=utf-8";

// What a client on this machine calls it. A page from elsewhere whose name was made to mean
// 127.0.0.1 (DNS rebinding) has the browser send that name.
bool names_loopback(std::string_view host) {
    if (host.starts_with("[")) {
        return host.substr(0, host.find(']') + 1) == "[::1]";
    }
    const std::string name(host.substr(0, host.find(':')));
    in_addr address{};
    return is_word(name, "LOCALHOST") || (::inet_pton(AF_INET, name.c_str(), &address) == 1 &&
                                          (ntohl(address.s_addr) >> 24) == 127);
}

HttpResponse not_ready(const std::string& why, bool tells_why) {
    return {.status = 503, .body = tells_why ? "not ready: " + why + "\n" : "not ready\n"};
}

HttpResponse readiness(const HttpPages& pages, bool tells_why) {
    if (pages.closing) {
        return not_ready("the server ends", tells_why);
    }
    const auto stats = pages.store.stats();
    if (!stats) {
        return not_ready(stats.error().message, tells_why);
    }
    if (!stats->write_error.empty()) {
        return not_ready(stats->write_error, tells_why);
    }
    return {.body = "ready\n"};
}

HttpResponse metrics_page(const HttpPages& pages) {
    std::string body = prometheus_text(pages.store.metrics()) + prometheus_text(pages.metrics());
    // Of a store that cannot say how much it holds, the rest is of interest all the more.
    if (const auto stats = pages.store.stats()) {
        body += prometheus_text(*stats);
    }
    if (pages.more_metrics) {
        body += pages.more_metrics();
    }
    return {.type = kPrometheusType, .body = std::move(body)};
}

HttpResponse slow_answer(const HttpPages& pages, const HttpRequest& request) {
    if (request.path == "/readyz") {
        return readiness(pages, !pages.token.is_needed() || request.with_token);
    }
    if (request.path == "/metrics") {
        return metrics_page(pages);
    }
    if (pages.pages) {
        if (auto page = pages.pages(request)) {
            return *std::move(page);
        }
    }
    return {.status = 404, .body = "there is no such page\n"};
}

// What can be said without the store, and to those who may not ask for more.
std::optional<HttpResponse> quick_answer(const HttpPages& pages, const HttpHead& head) {
    if (head.request.path == "/healthz") {
        return HttpResponse{.body = "alive\n"};
    }
    // What checks a service's health may be old: it says HTTP/1.0, and not whom it asks.
    const bool old_check = head.request.path == "/readyz" && head.host.empty();
    if (!pages.token.is_needed() && !old_check && !names_loopback(head.host)) {
        return HttpResponse{.status = 421,
                            .body = "call this server by localhost or by its address\n"};
    }
    if (pages.token.is_needed() && !head.request.with_token && head.request.path != "/readyz") {
        return HttpResponse{.status = 401, .body = "the token is needed\n"};
    }
    return std::nullopt;
}

}  // namespace

HttpAnswers http_answers(HttpPages pages) {
    const auto shared = std::make_shared<const HttpPages>(std::move(pages));
    return {.with_token = [shared](std::string_view said) { return shared->token.is(said); },
            .quick = [shared](const HttpHead& head) { return quick_answer(*shared, head); },
            .slow = [shared](const HttpRequest& request) { return slow_answer(*shared, request); }};
}

}  // namespace dedup::server
