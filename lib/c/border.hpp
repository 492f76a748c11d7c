// The border between C and C++: what every call of dedup.h goes through.
#pragma once

#include <cxxabi.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "dedup/cache.hpp"
#include "dedup/dedup.h"
#include "dedup/store.hpp"
#include "env/process.hpp"
#include "record/try.hpp"

namespace dedup {

// A store, and whoever made it: in a forked child each call stops here, before any lock. (Stores on
// disk see to that themselves; one in memory, and the queues' threads, do not.)
struct OpenStore {
    std::unique_ptr<StreamStore> store;
    ProcessMark mark;
};

struct OpenCache {
    OpenCache(std::shared_ptr<OpenStore> in, const CacheOptions& options)
        : store(std::move(in)), ns(options.ns), cache(*store->store, options) {}

    const std::shared_ptr<OpenStore> store;
    const std::string ns;
    Cache cache;
};

}  // namespace dedup

struct dedup_store {
    std::shared_ptr<dedup::OpenStore> open;
};

struct dedup_cache {
    std::shared_ptr<dedup::OpenCache> open;
};

namespace dedup {

// Whether a call may have changed its store before something was thrown.
enum class Effect : std::uint8_t { none, possible };

// Writes the outcome of a call down, and returns its code.
int tell(dedup_error* error, const Error& what);
int tell_success(dedup_error* error);
// Whether `error` can be written to.
bool can_tell(const dedup_error* error);

Error out_of_memory(Effect effect);
// Of anything else that was thrown: by a callback of the program's, as the library throws nothing.
Error unforeseen(Effect effect, const char* what);

template <class T>
void clear_output(T* output) {
    if (output != nullptr) {
        *output = T{};
    }
}

// Runs `body`, which gives a Result<void>. Clears `outputs` before. Nothing it throws gets out, but
// for the cancellation of the thread, which is no exception and must go on.
template <class Body, class... Outputs>
int across(dedup_error* error, Effect effect, const Body& body, Outputs*... outputs) {
    (clear_output(outputs), ...);
    if (!can_tell(error)) {
        return DEDUP_INVALID_ARGUMENT;
    }
    try {
        const Result<void> done = body();
        return done ? tell_success(error) : tell(error, done.error());
    } catch (const abi::__forced_unwind&) {
        throw;
    } catch (const std::bad_alloc&) {
        return tell(error, out_of_memory(effect));
    } catch (const std::exception& thrown) {
        return tell(error, unforeseen(effect, thrown.what()));
    } catch (...) {
        return tell(error, unforeseen(effect, "an exception that is no std::exception"));
    }
}

// The size of a struct that a caller has filled. `given` is not null. Errors: invalid_argument.
Result<std::size_t> size_of_struct(const void* given, std::size_t known, std::string_view name);

// The struct at `given` as this library knows it: what its size leaves out is zero. Null: zeros.
template <class T>
[[nodiscard]] Result<T> take_struct(const T* given, std::string_view name) {
    static_assert(std::is_trivially_copyable_v<T>);
    T taken{};
    if (given != nullptr) {
        const std::size_t size = DEDUP_TRY(size_of_struct(given, sizeof(T), name));
        std::memcpy(static_cast<void*>(&taken), given, size < sizeof(T) ? size : sizeof(T));
    }
    return taken;
}

// The same for an array of `count` of them: none, one, or one for each of `items`.
template <class T>
[[nodiscard]] Result<std::vector<T>> take_structs(const T* given, std::size_t count,
                                                  std::size_t items, std::string_view name);

[[nodiscard]] Error is_null(std::string_view name);
template <class T>
[[nodiscard]] Result<void> needs(const T* pointer, std::string_view name) {
    return pointer != nullptr ? Result<void>() : std::unexpected(is_null(name));
}
[[nodiscard]] Result<bool> flag(std::uint32_t value, std::string_view name);
[[nodiscard]] Result<std::string_view> bytes(const void* data, std::size_t size,
                                             std::string_view name);
[[nodiscard]] inline Result<std::string_view> bytes(dedup_bytes given, std::string_view name) {
    return bytes(given.data, given.size, name);
}
// Whether a span of `count` elements can be read at `array`.
[[nodiscard]] Result<void> check_array(const void* array, std::size_t count, std::string_view name);

[[nodiscard]] Error wrong_stride(std::string_view name);
[[nodiscard]] Error wrong_count(std::string_view name, std::size_t count, std::size_t items);

// The handles: invalid_argument for null, closed in a forked child.
[[nodiscard]] Result<StreamStore*> use(const dedup_store* store);
[[nodiscard]] Result<Cache*> use(const dedup_cache* cache);
[[nodiscard]] Result<void> check_process(const OpenCache& cache);

template <class T>
Result<std::vector<T>> take_structs(const T* given, std::size_t count, std::size_t items,
                                    std::string_view name) {
    std::vector<T> taken;
    if (count == 0) {
        return taken;
    }
    DEDUP_TRY(needs(given, name));
    if (count != 1 && count != items) {
        return std::unexpected(wrong_count(name, count, items));
    }
    const T first = DEDUP_TRY(take_struct(given, name));
    taken.reserve(count);
    const auto* at = reinterpret_cast<const std::byte*>(given);
    for (std::size_t i = 0; i < count; ++i, at += first.size) {
        // Its size may be that of another header, so it need not lie as a T does.
        std::size_t size = 0;
        std::memcpy(&size, at, sizeof size);
        if (size != first.size) {
            return std::unexpected(wrong_stride(name));
        }
        taken.push_back(DEDUP_TRY(take_struct(reinterpret_cast<const T*>(at), name)));
    }
    return taken;
}

}  // namespace dedup
