#include "memory/allocations.hpp"

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace dedup::test {
namespace {

std::atomic<bool> armed{false};
std::atomic<Whose> whose_{Whose::all};
std::atomic<std::uint64_t> first_{0};
std::atomic<std::uint64_t> last_{0};
std::atomic<std::uint64_t> counted_{0};
std::atomic<std::uint64_t> failed_{0};
thread_local bool arming = false;  // the thread that has armed it
thread_local int unfailing = 0;

bool fails() {
    if (!armed.load(std::memory_order_relaxed) || unfailing != 0) {
        return false;
    }
    const Whose whose = whose_.load(std::memory_order_relaxed);
    if ((whose == Whose::mine && !arming) || (whose == Whose::others && arming)) {
        return false;
    }
    const std::uint64_t number = counted_.fetch_add(1) + 1;
    if (number < first_ || number > last_) {
        return false;
    }
    failed_.fetch_add(1);
    return true;
}

}  // namespace

FailingAllocations::FailingAllocations(Whose whose, std::uint64_t first, std::uint64_t last) {
    whose_ = whose;
    first_ = first;
    last_ = last;
    counted_ = 0;
    failed_ = 0;
    arming = true;
    armed = true;
}

FailingAllocations::~FailingAllocations() {
    armed = false;
    arming = false;
}

std::uint64_t FailingAllocations::counted() {
    return counted_;
}

std::uint64_t FailingAllocations::failed() {
    return failed_;
}

UnfailingScope::UnfailingScope() {
    ++unfailing;
}

UnfailingScope::~UnfailingScope() {
    --unfailing;
}

}  // namespace dedup::test

#ifdef DEDUP_FAIL_MALLOC
// The C library's own, under the names that it keeps for those who replace malloc.
extern "C" {
void* __libc_malloc(std::size_t bytes);                     // NOLINT
void* __libc_calloc(std::size_t count, std::size_t bytes);  // NOLINT
void* __libc_realloc(void* memory, std::size_t bytes);      // NOLINT
void* malloc(std::size_t bytes) {                           // NOLINT
    if (dedup::test::fails()) {
        errno = ENOMEM;
        return nullptr;
    }
    return __libc_malloc(bytes);
}
void* calloc(std::size_t count, std::size_t bytes) {  // NOLINT
    if (dedup::test::fails()) {
        errno = ENOMEM;
        return nullptr;
    }
    return __libc_calloc(count, bytes);
}
void* realloc(void* memory, std::size_t bytes) {  // NOLINT
    if (dedup::test::fails()) {
        errno = ENOMEM;
        return nullptr;
    }
    return __libc_realloc(memory, bytes);
}
}
#endif

namespace {

void* allocate(std::size_t bytes, std::size_t alignment) {
#ifndef DEDUP_FAIL_MALLOC
    if (dedup::test::fails()) {
        return nullptr;
    }
#endif
    if (alignment <= alignof(std::max_align_t)) {
        return std::malloc(bytes == 0 ? 1 : bytes);
    }
#ifdef DEDUP_FAIL_MALLOC
    if (dedup::test::fails()) {
        return nullptr;
    }
#endif
    return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

void* allocate_or_throw(std::size_t bytes, std::size_t alignment) {
    void* memory = allocate(bytes, alignment);
    if (memory == nullptr) {
        throw std::bad_alloc();
    }
    return memory;
}

}  // namespace

void* operator new(std::size_t bytes) {
    return allocate_or_throw(bytes, 1);
}
void* operator new[](std::size_t bytes) {
    return allocate_or_throw(bytes, 1);
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
    return allocate_or_throw(bytes, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t bytes, std::align_val_t alignment) {
    return allocate_or_throw(bytes, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
    return allocate(bytes, 1);
}
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
    return allocate(bytes, 1);
}
void operator delete(void* memory) noexcept {
    std::free(memory);
}
void operator delete[](void* memory) noexcept {
    std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
    std::free(memory);
}
void operator delete[](void* memory, std::size_t) noexcept {
    std::free(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
    std::free(memory);
}
void operator delete[](void* memory, std::align_val_t) noexcept {
    std::free(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
    std::free(memory);
}
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept {
    std::free(memory);
}
