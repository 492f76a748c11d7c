#include "log/stream_id.hpp"

// Compiled in: what is hashed here is mostly so short that the call would count.
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>

namespace dedup {

StreamId stream_id(const StreamKey& stream, const HashSecret& secret) {
    // A namespace has no NUL byte, so one separates it from the key without doubt.
    std::array<char, kNamespaceBytesMax + 1 + kKeyBytesMax> input;
    char* end =
        std::copy_n(stream.ns.data(), std::min(stream.ns.size(), kNamespaceBytesMax), input.data());
    *end++ = '\0';
    end = std::copy_n(stream.key.data(), std::min(stream.key.size(), kKeyBytesMax), end);
    return {XXH3_64bits_withSecret(input.data(), static_cast<std::size_t>(end - input.data()),
                                   secret.data(), secret.size())};
}

}  // namespace dedup
