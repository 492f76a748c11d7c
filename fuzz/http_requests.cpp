// Attacks what the server makes of the head of an HTTP request: however it is cut, what it comes to
// is the same, is told in time, and takes no more than has come.
#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

#include "input.hpp"
#include "server/http_parser.hpp"

namespace dedup::fuzz {
namespace {

using server::HttpFound;
using server::HttpHead;

void attack(std::string_view bytes, std::size_t piece) {
    HttpHead head;
    HttpFound found;
    std::size_t size = 0;
    while (found.status == 0 && size < bytes.size()) {
        require(size <= server::kHttpHeadBytesMax, "too much is awaited");
        size = std::min(size + piece, bytes.size());
        found = server::parse_http(bytes.substr(0, size), head);
    }
    if (found.status == 0) {
        return;
    }
    HttpHead whole_head;
    const HttpFound whole = server::parse_http(bytes, whole_head);
    require(whole.status == found.status && whole.size == found.size, "bytes behind it count");
    if (found.status != 200) {
        require(found.status >= 400 && found.size == 0);
        return;
    }
    require(found.size > 0 && found.size <= size);
    require(head.request.path.starts_with('/'));
    require(head.request.path == whole_head.request.path &&
            head.request.query == whole_head.request.query && head.host == whole_head.host &&
            head.credentials == whole_head.credentials && head.head == whole_head.head &&
            head.keeps_alive == whole_head.keeps_alive);
    require(!head.request.with_token, "who may do what is not for the parser to say");
}

}  // namespace
}  // namespace dedup::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace dedup::fuzz;
    Input input(data, size);
    const std::size_t piece = 1 + input.byte();
    attack(as_text(data, size).substr(std::min<std::size_t>(size, 1)), piece);
    return 0;
}
