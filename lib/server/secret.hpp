// Comparing what somebody says with what is secret.
#pragma once

#include <cstddef>
#include <string_view>

namespace dedup::server {

// Takes as long whatever they have in common.
[[nodiscard]] inline bool same_secret(std::string_view given, std::string_view secret) {
    unsigned char differs = given.size() == secret.size() ? 0 : 1;
    for (std::size_t i = 0; i < given.size(); ++i) {
        const char expected = secret.empty() ? '\0' : secret[i % secret.size()];
        differs =
            static_cast<unsigned char>(differs | static_cast<unsigned char>(given[i] ^ expected));
    }
    return differs == 0;
}

}  // namespace dedup::server
