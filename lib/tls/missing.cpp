// What there is instead of TLS in a library that was built without OpenSSL.
#include "tls/tls.hpp"

namespace dedup::tls {
namespace {

std::unexpected<Error> built_without() {
    return std::unexpected(Error{Code::invalid_argument,
                                 "this library was built without TLS: build it with -Dtls=enabled, "
                                 "where OpenSSL 3 is installed (Debian's package is libssl-dev)"});
}

}  // namespace

Result<std::shared_ptr<const Context>> Context::for_server(const Files&) {
    return built_without();
}

Result<std::shared_ptr<const Context>> Context::for_client(const Files&) {
    return built_without();
}

}  // namespace dedup::tls
