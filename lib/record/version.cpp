#include "dedup/version.hpp"

#define DEDUP_TEXT_OF(number) #number
#define DEDUP_TEXT(number) DEDUP_TEXT_OF(number)

namespace dedup {
namespace {

constexpr std::string_view kVersion = DEDUP_TEXT(DEDUP_VERSION_MAJOR) "." DEDUP_TEXT(
    DEDUP_VERSION_MINOR) "." DEDUP_TEXT(DEDUP_VERSION_PATCH);

// The build knows one version, and the headers another: they are changed together.
static_assert(kVersion == DEDUP_PROJECT_VERSION);

}  // namespace

std::string_view version() {
    return kVersion;
}

}  // namespace dedup
