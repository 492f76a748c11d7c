// Memory in large pages, which cost fewer page faults and fewer walks to find a page.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <memory>

namespace dedup {

inline constexpr std::size_t kLargePageBytes = std::size_t{2} * 1024 * 1024;

// Asks for them, if there is enough memory for one. Without them all works as well.
inline void use_large_pages(void* memory, std::size_t bytes) {
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    if (bytes >= kLargePageBytes && std::align(page, page, memory, bytes) != nullptr) {
        (void)::madvise(memory, bytes / page * page, MADV_HUGEPAGE);
    }
}

}  // namespace dedup
