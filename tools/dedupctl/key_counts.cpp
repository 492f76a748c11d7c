#include "key_counts.hpp"

namespace dedupctl {

void KeyCounts::add(const dedup::Record& record, const Moment& moment) {
    if (moment.expired(record)) {
        ++expired;
        return;
    }
    switch (record.state()) {
        case dedup::State::in_flight:
            ++in_flight;
            stuck += moment.past_lease(record) ? 1U : 0U;
            held += moment.held(record) ? 1U : 0U;
            break;
        case dedup::State::completed:
            ++completed;
            break;
        case dedup::State::released:
            ++released;
            break;
    }
}

}  // namespace dedupctl
