#include "log/stream_id.hpp"

#include <xxhash.h>

#include <algorithm>
#include <cstring>

namespace dedup {

StreamId stream_id(StreamKey stream, const HashSecret& secret) {
    // A namespace has no NUL byte, so one separates it from the key without doubt.
    std::array<char, kNamespaceBytesMax + 1 + kKeyBytesMax> input;
    const std::size_t ns_bytes = std::min(stream.ns.size(), kNamespaceBytesMax);
    const std::size_t key_bytes = std::min(stream.key.size(), kKeyBytesMax);
    std::memcpy(input.data(), stream.ns.data(), ns_bytes);
    input[ns_bytes] = '\0';
    std::memcpy(input.data() + ns_bytes + 1, stream.key.data(), key_bytes);
    return {XXH3_64bits_withSecret(input.data(), ns_bytes + 1 + key_bytes, secret.data(),
                                   secret.size()),
            fnv1a_64(stream.key)};
}

}  // namespace dedup
