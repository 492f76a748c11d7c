#include "c/border.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "dedup/version.hpp"
#include "record/invalid.hpp"

namespace dedup {
namespace {

constexpr std::size_t kStructBytesMax = 4096;
constexpr std::size_t kItemsMax = std::size_t{1} << 31U;  // what no array has
constexpr std::size_t kErrorBytesMin = offsetof(dedup_error, message) + 8;

bool plausible(std::size_t size) {
    return size >= sizeof(std::size_t) && size <= kStructBytesMax && size % 8 == 0;
}

}  // namespace

// Sizes of structs are multiples of 8, which those of a 32-bit machine are not.
static_assert(sizeof(void*) == 8, "dedup is for 64-bit machines");
static_assert(sizeof(dedup_error) % 8 == 0);
static_assert(DEDUP_UNAVAILABLE == static_cast<int>(Code::unavailable));
static_assert(DEDUP_OUTCOME_UNKNOWN == static_cast<int>(Code::outcome_unknown));
static_assert(DEDUP_RECEIPT_BYTES_MAX == kReceiptBytesMax);
static_assert(DEDUP_METADATA_BYTES_MAX == kMetadataBytesMax);
static_assert(DEDUP_KEY_BYTES_MAX == kKeyBytesMax);
static_assert(DEDUP_NAMESPACE_BYTES_MAX == kNamespaceBytesMax);
static_assert(DEDUP_LABEL_BYTES_MAX == kLabelBytesMax);
static_assert(DEDUP_REASON_BYTES_MAX == kReasonBytesMax);
static_assert(DEDUP_FOREVER == kForever.count());

bool can_tell(const dedup_error* error) {
    return error == nullptr || (plausible(error->size) && error->size >= kErrorBytesMin);
}

int tell(dedup_error* error, const Error& what) {
    const int code = static_cast<int>(what.code);
    if (error != nullptr) {
        error->code = code;
        error->os_error = what.os_error;
        error->head_sequence = what.head_sequence;
        const std::size_t room =
            std::min(error->size, sizeof(dedup_error)) - offsetof(dedup_error, message);
        const std::size_t size = std::min(what.message.size(), room - 1);
        std::memcpy(error->message, what.message.data(), size);
        error->message[size] = '\0';
    }
    return code;
}

int tell_success(dedup_error* error) {
    if (error != nullptr) {
        error->code = DEDUP_OK;
        error->os_error = 0;
        error->head_sequence = 0;
        error->message[0] = '\0';
    }
    return DEDUP_OK;
}

// Short enough for a string without memory of its own, as there is none.
Error out_of_memory(Effect effect) {
    return {.code = effect == Effect::none ? Code::out_of_space : Code::outcome_unknown,
            .message = "out of memory"};
}

Error unforeseen(Effect effect, const char* what) {
    Error error{.code = effect == Effect::none ? Code::io : Code::outcome_unknown, .message = {}};
    try {
        error.message = what;
    } catch (const std::bad_alloc&) {
        error.message = "out of memory";
    }
    return error;
}

Result<std::size_t> size_of_struct(const void* given, std::size_t known, std::string_view name) {
    std::size_t size = 0;
    std::memcpy(&size, given, sizeof size);
    if (!plausible(size)) {
        return invalid(fmt::format("{0}.size is {1}; set it to sizeof({0})", name, size));
    }
    const auto* from = static_cast<const unsigned char*>(given);
    if (size > known &&
        std::any_of(from + known, from + size, [](auto byte) { return byte != 0; })) {
        return invalid(fmt::format(
            "{} has a field set that version {} of the library does not know", name, version()));
    }
    return size;
}

Error is_null(std::string_view name) {
    return {.code = Code::invalid_argument, .message = fmt::format("{} is NULL", name)};
}

Result<bool> flag(std::uint32_t value, std::string_view name) {
    if (value > 1) {
        return invalid(fmt::format("{} is {}; it must be 0 or 1", name, value));
    }
    return value == 1;
}

Result<std::string_view> bytes(const void* data, std::size_t size, std::string_view name) {
    if (data == nullptr && size > 0) {
        return invalid(fmt::format("{} is NULL and has {} bytes", name, size));
    }
    if (size > PTRDIFF_MAX) {
        return invalid(fmt::format("{} has {} bytes", name, size));
    }
    return std::string_view(static_cast<const char*>(data), size);
}

Result<void> check_array(const void* array, std::size_t count, std::string_view name) {
    if (array == nullptr && count > 0) {
        return invalid(fmt::format("{} is NULL and has {} elements", name, count));
    }
    if (count > kItemsMax) {
        return invalid(
            fmt::format("{} has {} elements; at most {} are allowed", name, count, kItemsMax));
    }
    return {};
}

Error wrong_stride(std::string_view name) {
    return {.code = Code::invalid_argument,
            .message = fmt::format("{} have different sizes", name)};
}

Error wrong_count(std::string_view name, std::size_t count, std::size_t items) {
    return {.code = Code::invalid_argument,
            .message = fmt::format("there are {} of {} for {} items; there may be none, one for "
                                   "all, or one for each",
                                   count, name, items)};
}

Result<StreamStore*> use(const dedup_store* store) {
    DEDUP_TRY(needs(store, "store"));
    if (store->open->mark.inherited()) {
        return std::unexpected(store->open->mark.inherited_error("the store"));
    }
    return store->open->store.get();
}

Result<void> check_process(const OpenCache& cache) {
    if (cache.store->mark.inherited()) {
        return std::unexpected(cache.store->mark.inherited_error("the store"));
    }
    return {};
}

Result<Cache*> use(const dedup_cache* cache) {
    DEDUP_TRY(needs(cache, "cache"));
    DEDUP_TRY(check_process(*cache->open));
    return &cache->open->cache;
}

}  // namespace dedup

const char* dedup_code_name(int code) {
    if (code == DEDUP_OK) {
        return "ok";
    }
    // Names are literals, and end with a zero.
    const bool known = code >= DEDUP_INVALID_ARGUMENT && code <= DEDUP_UNAVAILABLE;
    return known ? name(static_cast<dedup::Code>(code)).data() : "unknown";
}

const char* dedup_version(void) {
    return dedup::version().data();
}
