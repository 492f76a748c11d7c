#include "writer_turns.hpp"

#include "common/text.hpp"
#include "line_reader.hpp"

namespace dedupctl {
namespace {

using std::chrono::steady_clock;

// An input that rests for this long is idle. Shorter, and a writer of many small pieces would cost
// an opening each.
constexpr milliseconds kIdle{100};
// How long one holds the store while others wait.
constexpr std::chrono::seconds kTurn{2};
// How long to wait before saying what for.
constexpr milliseconds kSaysAfter{2000};

}  // namespace

WriterTurns::WriterTurns(const Context& context, std::function<bool()> stopped)
    : context_(context), stopped_(std::move(stopped)) {}

dedup::StreamStore* WriterTurns::store() {
    if (!store_) {
        open();
    }
    return store_.get();
}

void WriterTurns::open() {
    const auto goes_on = [this] { return !stopped_(); };
    if (store_id_.empty()) {
        store_ = context_.open_writer(goes_on);
        store_id_ = take(store_->stats()).store_id;
    } else {
        auto opened = context_.try_open_writer(kSaysAfter, goes_on);
        if (!opened && opened.error().code == dedup::Code::busy && !stopped_()) {
            if (!context_.quiet) {
                note("waiting: " + opened.error().message);
            }
            opened = context_.try_open_writer(milliseconds::max(), goes_on);
        }
        if (!opened && opened.error().code == dedup::Code::busy && stopped_()) {
            return;
        }
        store_ = take(std::move(opened));
        check_same();
    }
    opened_at_ = steady_clock::now();
}

void WriterTurns::check_same() {
    if (take(store_->stats()).store_id == store_id_) {
        return;
    }
    store_.reset();
    throw Failure{.exit_code = kExitError,
                  .code = "failed",
                  .message = "the store at " + escape(context_.absolute_store()) +
                             " was replaced by another one meanwhile\n  nothing was written to "
                             "that one; if it is the right one, start again"};
}

void WriterTurns::rest(int fd) {
    if (!store_ || store_->reads_are_remote()) {  // any number may write to such a store
        return;
    }
    if (steady_clock::now() - opened_at_ > kTurn || !readable_within(fd, kIdle)) {
        close();
    }
}

void WriterTurns::close() {
    if (const auto store = std::exchange(store_, nullptr)) {
        take(store->close());
    }
}

}  // namespace dedupctl
