#include "c/queue.hpp"

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <new>
#include <string>
#include <system_error>

#include "c/options.hpp"
#include "env/process.hpp"
#include "record/invalid.hpp"

namespace dedup {

RequestQueue::RequestQueue(std::shared_ptr<OpenCache> cache, int descriptor, std::size_t threads,
                           std::size_t requests_max)
    : cache_(std::move(cache)), descriptor_(descriptor), requests_max_(requests_max) {
    close_in_children({descriptor_});
    try {
        threads_ = std::make_unique<RequestThreads>(cache_->cache, threads, requests_max,
                                                    [this] { announce(); });
    } catch (...) {
        forget_in_children(descriptor_);
        throw;
    }
}

RequestQueue::~RequestQueue() {
    threads_.reset();
    forget_in_children(descriptor_);
    ::close(descriptor_);
}

Result<void> RequestQueue::claim(std::uint64_t tag, ClaimRequest request) {
    return give<AskedClaim, ClaimOutcome>(tag, std::move(request));
}

Result<void> RequestQueue::complete(std::uint64_t tag, Completion completion) {
    return give<AskedCompletion, void>(tag, std::move(completion));
}

Result<void> RequestQueue::release(std::uint64_t tag, Claim claim) {
    return give<AskedRelease, bool>(tag, std::move(claim));
}

template <class A, class T, class What>
Result<void> RequestQueue::give(std::uint64_t tag, What what) {
    A asked{std::move(what), [this, tag](const Result<T>& result) { answered(tag, result); }};
    {
        const MutexLock lock(mutex_);
        if (requests_ >= requests_max_) {
            return std::unexpected(Error{
                .code = Code::busy,
                .message = fmt::format("the queue has {} requests; take the answers that are there",
                                       requests_)});
        }
        done_.reserve(requests_ + 1);
        ++requests_;
    }
    const auto take_back = [this] {
        const MutexLock lock(mutex_);
        --requests_;
    };
    try {
        Result<void> given = threads_->give(std::move(asked));
        if (!given) {
            take_back();
        }
        return given;
    } catch (...) {
        take_back();
        throw;
    }
}

template <class T>
void RequestQueue::answered(std::uint64_t tag, const Result<T>& result) {
    const MutexLock lock(mutex_);
    try {
        if (result || result.error().code != Code::outcome_unknown ||
            !result.error().message.empty()) {
            done_.add(result, tag);
            return;
        }
    } catch (const std::bad_alloc&) {  // for its text
    }
    done_.add_unknown(tag);
}

// Once for the answers of a batch, so that whoever polls takes them together.
void RequestQueue::announce() {
    const MutexLock lock(mutex_);
    if (!announced_ && !done_.all().empty()) {
        announced_ = true;
        ::eventfd_write(descriptor_, 1);
    }
}

Answers RequestQueue::take() {
    Answers taken;
    const MutexLock lock(mutex_);
    const std::size_t count = done_.all().size();
    taken.reserve(requests_ - count);
    std::swap(taken, done_);
    requests_ -= count;
    announced_ = false;
    eventfd_t ignored = 0;
    ::eventfd_read(descriptor_, &ignored);  // does not wait
    return taken;
}

namespace {

Result<std::uint32_t> in_range(std::uint32_t given, std::uint32_t otherwise, std::uint32_t most,
                               std::string_view name) {
    if (given > most) {
        return invalid(fmt::format("{} is {}; it must be at most {}", name, given, most));
    }
    return given == 0 ? otherwise : given;
}

Result<void> check_queue(const dedup_queue* queue) {
    DEDUP_TRY(needs(queue, "queue"));
    return check_process(queue->requests->cache());
}

Error no_queue(std::string_view what, int os_error) {
    return {.code = Code::io,
            .message = fmt::format("cannot make the queue's {}", what),
            .os_error = os_error};
}

Result<std::unique_ptr<RequestQueue>> start_queue(const dedup_cache& cache,
                                                  const dedup_queue_options& options) {
    const auto threads = DEDUP_TRY(in_range(options.threads, 2, 16, "threads"));
    const auto requests_max =
        DEDUP_TRY(in_range(options.requests_max, 65'536, 1'000'000, "requests_max"));
    fill_standard_descriptors();
    const int descriptor = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (descriptor < 0) {
        return std::unexpected(no_queue("descriptor", errno));
    }
    try {
        return std::make_unique<RequestQueue>(cache.open, descriptor, threads, requests_max);
    } catch (const std::system_error& error) {
        ::close(descriptor);
        return std::unexpected(no_queue("threads", error.code().value()));
    } catch (...) {
        ::close(descriptor);
        throw;
    }
}

}  // namespace
}  // namespace dedup

using namespace dedup;

int dedup_queue_new(dedup_cache* cache, const dedup_queue_options* options, dedup_queue** queue,
                    dedup_error* error) {
    return across(
        error, Effect::none,
        [&]() -> Result<void> {
            static_cast<void>(DEDUP_TRY(use(cache)));
            DEDUP_TRY(needs(queue, "queue"));
            auto made = std::make_unique<dedup_queue>();
            made->requests = DEDUP_TRY(
                start_queue(*cache, DEDUP_TRY(take_struct(options, "dedup_queue_options"))));
            *queue = made.release();
            return {};
        },
        queue);
}

void dedup_queue_free(dedup_queue* queue) {
    if (queue == nullptr) {
        return;
    }
    if (!check_process(queue->requests->cache())) {
        leave_to_parent(queue);
        return;
    }
    delete queue;
}

int dedup_queue_descriptor(const dedup_queue* queue) {
    return queue != nullptr && check_process(queue->requests->cache())
               ? queue->requests->descriptor()
               : -1;
}

int dedup_queue_claim(dedup_queue* queue, uint64_t tag, const void* key, size_t key_bytes,
                      const dedup_claim_options* options, dedup_error* error) {
    return across(error, Effect::none, [&]() -> Result<void> {
        DEDUP_TRY(check_queue(queue));
        std::string name(DEDUP_TRY(bytes(key, key_bytes, "key")));
        return queue->requests->claim(
            tag, ClaimRequest{std::move(name), DEDUP_TRY(claim_options(options))});
    });
}

int dedup_queue_complete(dedup_queue* queue, uint64_t tag, const void* key, size_t key_bytes,
                         uint64_t claim_sequence, const void* receipt, size_t receipt_bytes,
                         const dedup_complete_options* options, dedup_error* error) {
    return across(error, Effect::none, [&]() -> Result<void> {
        DEDUP_TRY(check_queue(queue));
        Claim claim =
            DEDUP_TRY(claim_of(queue->requests->cache().ns, {key, key_bytes}, claim_sequence));
        std::string kept(DEDUP_TRY(bytes(receipt, receipt_bytes, "receipt")));
        return queue->requests->complete(tag, Completion{std::move(claim), std::move(kept),
                                                         DEDUP_TRY(complete_options(options))});
    });
}

int dedup_queue_release(dedup_queue* queue, uint64_t tag, const void* key, size_t key_bytes,
                        uint64_t claim_sequence, dedup_error* error) {
    return across(error, Effect::none, [&]() -> Result<void> {
        DEDUP_TRY(check_queue(queue));
        return queue->requests->release(tag, DEDUP_TRY(claim_of(queue->requests->cache().ns,
                                                                {key, key_bytes}, claim_sequence)));
    });
}

int dedup_queue_take(dedup_queue* queue, dedup_outcome** outcome, dedup_error* error) {
    return across(
        error, Effect::none,
        [&]() -> Result<void> {
            DEDUP_TRY(check_queue(queue));
            DEDUP_TRY(needs(outcome, "outcome"));
            auto taken = std::make_unique<dedup_outcome>();
            taken->answers = queue->requests->take();
            taken->answers.finish();
            *outcome = taken.release();
            return {};
        },
        outcome);
}
