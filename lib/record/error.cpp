#include "dedup/error.hpp"

#include <ostream>

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

std::string to_string(Code code) {
    return std::string(name(code));
}

std::string to_string(const Error& error) {
    std::string text = to_string(error.code);
    if (!error.message.empty()) {
        text.append(": ").append(error.message);
    }
    return text;
}

std::ostream& operator<<(std::ostream& out, Code code) {
    return out << name(code);
}

std::ostream& operator<<(std::ostream& out, const Error& error) {
    return out << to_string(error);
}

}  // namespace dedup
