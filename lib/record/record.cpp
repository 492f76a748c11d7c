#include "dedup/record.hpp"

#include <fmt/format.h>

namespace dedup {

std::string_view name(State state) {
    switch (state) {
        case State::in_flight:
            return "in-flight";
        case State::completed:
            return "completed";
        case State::released:
            return "released";
    }
    return "unknown";
}

std::string_view name(Verdict::Kind kind) {
    switch (kind) {
        case Verdict::Kind::none:
            return "none";
        case Verdict::Kind::held:
            return "held";
        case Verdict::Kind::resolved:
            return "resolved";
        case Verdict::Kind::forgotten:
            return "forgotten";
    }
    return "unknown";
}

std::string stream_name(std::string_view ns, std::string_view key) {
    return fmt::format("{}:{:016x}", ns, fnv1a_64(key));
}

}  // namespace dedup
