// A store behind a C interface, as a program in another language embeds one; for
// multiprocessing_test.py.
#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "dedup/dedup.hpp"

namespace {

// With the threads that a service has.
struct Embedded {
    explicit Embedded(std::unique_ptr<dedup::StreamStore> opened)
        : store(std::move(opened)),
          cache(*store),
          guard(*dedup::Guard::start(*store)),
          sweeper(*dedup::Sweeper::start(*store)) {}

    std::unique_ptr<dedup::StreamStore> store;
    dedup::Cache cache;
    std::unique_ptr<dedup::Guard> guard;
    std::unique_ptr<dedup::Sweeper> sweeper;
};

// "" or "code: message".
template <class T>
std::string text_of(const dedup::Result<T>& result) {
    return result ? std::string()
                  : std::string(name(result.error().code)) + ": " + result.error().message;
}

std::string call(Embedded& embedded, std::string_view what, const char* key) {
    if (what == "claim") {
        return text_of(embedded.cache.claim(key));
    }
    if (what == "remember") {
        const auto outcome = embedded.cache.remember(key, "receipt");
        return outcome && !std::holds_alternative<dedup::New>(*outcome) ? "duplicate"
                                                                        : text_of(outcome);
    }
    if (what == "lookup") {
        const auto outcome = embedded.cache.lookup(key);
        return outcome && !std::holds_alternative<dedup::Completed>(*outcome) ? "absent"
                                                                              : text_of(outcome);
    }
    if (what == "process") {
        return text_of(embedded.guard->process_if_new(
            key, [](const dedup::Attempt&) { return std::string("result"); }));
    }
    if (what == "sweep") {
        return text_of(embedded.sweeper->sweep_once());
    }
    if (what == "stats") {
        return text_of(embedded.store->stats());
    }
    if (what == "flush") {
        return text_of(embedded.store->flush());
    }
    if (what == "close") {
        return text_of(embedded.store->close());
    }
    return "no such call";
}

void give(const std::string& text, char* into, std::size_t bytes) {
    const std::size_t length = std::min(text.size(), bytes - 1);
    std::memcpy(into, text.data(), length);
    into[length] = '\0';
}

}  // namespace

extern "C" {

// Null, and the error in `text`, if the store cannot be opened.
__attribute__((visibility("default"))) Embedded* embedded_open(const char* path, bool read_only,
                                                               char* text, std::size_t bytes) {
    dedup::OpenOptions options;
    options.read_only = read_only;
    auto store = dedup::open(path, options);
    give(text_of(store), text, bytes);
    return store ? new Embedded(*std::move(store)) : nullptr;
}

__attribute__((visibility("default"))) void embedded_call(Embedded* embedded, const char* what,
                                                          const char* key, char* text,
                                                          std::size_t bytes) {
    give(call(*embedded, what, key), text, bytes);
}

__attribute__((visibility("default"))) void embedded_destroy(Embedded* embedded) {
    delete embedded;
}
}
