#include "dedup/error.hpp"

namespace dedup {

std::string_view name(Code code) {
    switch (code) {
        case Code::invalid_argument:
            return "invalid_argument";
        case Code::io:
            return "io";
        case Code::out_of_space:
            return "out_of_space";
        case Code::corruption:
            return "corruption";
        case Code::unsupported_version:
            return "unsupported_version";
        case Code::busy:
            return "busy";
        case Code::read_only:
            return "read_only";
        case Code::closed:
            return "closed";
        case Code::failed:
            return "failed";
        case Code::sequence_conflict:
            return "sequence_conflict";
        case Code::stale_claim:
            return "stale_claim";
        case Code::not_claimed:
            return "not_claimed";
        case Code::receipt_mismatch:
            return "receipt_mismatch";
        case Code::outcome_unknown:
            return "outcome_unknown";
        case Code::unavailable:
            return "unavailable";
    }
    return "unknown";
}

}  // namespace dedup
