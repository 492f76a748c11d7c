// The least that a program does, for each way to build against the library.

#include <dedup/cache.hpp>
#include <dedup/log_store.hpp>
#include <dedup/version.hpp>

#include <cstdio>

int main(int argc, char** argv) {
    const auto store = dedup::open(argc == 2 ? argv[1] : "");
    if (!store) {
        std::fprintf(stderr, "%s\n", store.error().message.c_str());
        return 1;
    }
    dedup::Cache cache(**store);
    const auto outcome = cache.claim("order-1");
    std::printf("%s\n", dedup::version().data());
    return outcome && std::holds_alternative<dedup::Claimed>(*outcome) ? 0 : 1;
}
