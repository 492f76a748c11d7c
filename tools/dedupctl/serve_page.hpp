// The pages of `dedupctl serve` on its HTTP port.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "dedup/server.hpp"
#include "serve_watch.hpp"

namespace dedupctl {

// Answers "/", "/key", "/stats.json" and "/style.css". `store` is its name for people.
[[nodiscard]] std::function<std::optional<dedup::HttpResponse>(const dedup::HttpRequest&)>
serve_pages(ServeWatch& watch, std::string store);

// Lines for /metrics: the claims that are open, as counted last.
[[nodiscard]] std::string open_claims_text(ServeWatch& watch);

}  // namespace dedupctl
