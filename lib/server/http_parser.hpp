// The head of an HTTP/1.1 request, as RFC 9112 has it, of those that this server answers: GET and
// HEAD, without a body.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "dedup/server.hpp"

namespace dedup::server {

inline constexpr std::size_t kHttpTargetBytesMax = 4096;
inline constexpr std::size_t kHttpHeadBytesMax = 16 * 1024;

struct HttpHead {
    HttpRequest request;
    bool head = false;         // HEAD, not GET
    bool keeps_alive = false;  // the connection
    std::string host;          // as the client said it; empty: it did not
    std::string credentials;   // the secret in Authorization; empty: none
};

struct HttpFound {
    int status = 0;        // 0: more bytes are needed; 200: a request; else what is wrong with it
    std::size_t size = 0;  // of the request, if it is one
};

// Looks at the beginning of `bytes`. What is wrong is told as soon as it can be.
[[nodiscard]] HttpFound parse_http(std::string_view bytes, HttpHead& head);

}  // namespace dedup::server
