#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "record/codec.hpp"
#include "samples.hpp"
#include "support/hex.hpp"

namespace {

std::atomic<std::size_t> allocations = 0;
std::atomic<std::size_t> allocated_bytes = 0;

}  // namespace

// Counts what this program allocates.
void* operator new(std::size_t size) {
    ++allocations;
    allocated_bytes += size;
    if (void* const memory = std::malloc(size)) {
        return memory;
    }
    throw std::bad_alloc();
}

// Not inlined, or GCC sees a free() of what operator new gave, and warns.
[[gnu::noinline]] void operator delete(void* memory) noexcept {
    std::free(memory);
}

[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
    std::free(memory);
}

namespace dedup::test {

// Guards against a length from the file deciding how much memory is asked for.
TEST_CASE("a length that claims 4 GiB allocates nothing of the kind") {
    const std::string claims_4_gib = "80 80 80 80 10";
    for (const std::string tag : {"0a", "0d", "0e", "0f", "81"}) {
        CAPTURE(tag);
        const auto bytes = from_hex("01 01 01 01 6e 02 01 6b " + tag + " " + claims_4_gib + " 00");
        REQUIRE(bytes.has_value());
        const std::size_t before = allocated_bytes;
        const auto decoded = decode(*bytes);
        CHECK(allocated_bytes - before < 4096);
        REQUIRE_FALSE(decoded.has_value());
        CHECK(decoded.error().message.ends_with(
            " at byte 8 is 4,294,967,296 bytes long, but only 1 are left"));
    }
    // The same within a conflict record, whose payload is whole.
    const auto conflict = from_hex("01 01 01 01 6e 02 01 6b 0f 07 01 " + claims_4_gib + " 00");
    const std::size_t before = allocated_bytes;
    CHECK_FALSE(decode(*conflict).has_value());
    CHECK(allocated_bytes - before < 4096);
}

// Guards against a decoded record that takes far more memory than its bytes justify.
TEST_CASE("decoding allocates no more than a small multiple of the input") {
    for (const Sample& sample : samples()) {
        CAPTURE(sample.name);
        const std::string bytes = encoded(sample.record);
        const std::size_t before = allocated_bytes;
        CHECK(decode(bytes).has_value());
        CHECK(allocated_bytes - before <= 4 * bytes.size() + sizeof(Record));
    }
}

// Guards against an allocation, such as an error message built too early, on the paths that every
// append, lookup and recovery takes.
TEST_CASE("checking, encoding into room and viewing allocate nothing") {
    for (const Sample& sample : samples()) {
        CAPTURE(sample.name);
        const std::string bytes = encoded(sample.record);
        std::string out;
        out.reserve(bytes.size() + 1024);
        const std::size_t before = allocations;
        const bool checked = check_record(sample.record).has_value();
        encode_as(sample.record, sample.record.sequence, out);
        const bool viewed = decode_view(bytes).has_value();
        const std::size_t after = allocations;
        CHECK(checked);
        CHECK(viewed);
        CHECK(out == bytes);
        CHECK(after == before);
    }
}

}  // namespace dedup::test
