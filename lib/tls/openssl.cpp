#include "tls/openssl.hpp"

#include <dlfcn.h>
#include <fmt/format.h>

#include <expected>
#include <string>

namespace dedup::tls {
namespace {

constexpr const char* kName = "libssl.so.3";  // which brings libcrypto.so.3

std::expected<OpenSsl, std::string> load() {
    void* const library = ::dlopen(kName, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        return std::unexpected(::dlerror());
    }
    OpenSsl loaded{};
    const char* missing = nullptr;
    const auto find = [&](const char* name, auto& function) {
        void* const found = ::dlsym(library, name);
        missing = found == nullptr ? name : missing;
        function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(found);
    };
#define DEDUP_FIND(name) find(#name, loaded.name);
    DEDUP_OPENSSL_FUNCTIONS(DEDUP_FIND)
#undef DEDUP_FIND
    if (missing != nullptr) {
        return std::unexpected(fmt::format("{} has no {}", kName, missing));
    }
    return loaded;
}

}  // namespace

Result<const OpenSsl*> load_openssl() {
    static const std::expected<OpenSsl, std::string> loaded = load();
    if (!loaded) {
        return std::unexpected(
            Error{.code = Code::invalid_argument,
                  .message = fmt::format("TLS needs OpenSSL 3, which cannot be loaded; Debian's "
                                         "package is libssl3: {}",
                                         loaded.error())});
    }
    return &*loaded;
}

}  // namespace dedup::tls
