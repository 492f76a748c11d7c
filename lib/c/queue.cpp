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
    threads_.reserve(threads);
    close_in_children({descriptor_});
    try {
        for (std::size_t i = 0; i < threads; ++i) {
            threads_.push_back(start_thread("dedup-queue", [this] { run(); }));
        }
    } catch (...) {
        end_threads();
        forget_in_children(descriptor_);
        throw;
    }
}

RequestQueue::~RequestQueue() {
    end_threads();
    forget_in_children(descriptor_);
    ::close(descriptor_);
}

void RequestQueue::end_threads() {
    const NoCancel no_cancel;
    {
        const MutexLock lock(mutex_);
        stop_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) {
        thread.join();
    }
}

Result<void> RequestQueue::give(QueuedRequest request) {
    {
        const MutexLock lock(mutex_);
        if (requests_ >= requests_max_) {
            return std::unexpected(Error{
                .code = Code::busy,
                .message = fmt::format("the queue has {} requests; take the answers that are there",
                                       requests_)});
        }
        done_.reserve(requests_ + 1);
        waiting_.push_back(std::move(request));
        ++requests_;
    }
    changed_.notify_one();
    return {};
}

Answers RequestQueue::take() {
    Answers taken;
    const MutexLock lock(mutex_);
    const std::size_t count = done_.all().size();
    taken.reserve(requests_ - count);
    std::swap(taken, done_);
    requests_ -= count;
    eventfd_t ignored = 0;
    ::eventfd_read(descriptor_, &ignored);  // does not wait
    return taken;
}

void RequestQueue::run() {
    std::vector<QueuedRequest> batch;
    for (;;) {
        batch.clear();
        {
            MutexLock lock(mutex_);
            while (waiting_.empty() && !stop_) {
                changed_.wait(lock);
            }
            if (waiting_.empty()) {
                return;
            }
            batch.swap(waiting_);
        }
        Cache& cache = cache_->cache;
        carry_out<ClaimRequest>(batch, [&](const auto& all) { return cache.claim_many(all); });
        carry_out<Completion>(batch, [&](const auto& all) { return cache.complete_many(all); });
        carry_out<Claim>(batch, [&](const auto& all) { return cache.release_many(all); });
    }
}

// Carries out those of `batch` that are a Request.
template <class Request, class Call>
void RequestQueue::carry_out(std::vector<QueuedRequest>& batch, const Call& call) {
    const auto is_one = [](const QueuedRequest& request) {
        return std::holds_alternative<Request>(request.what);
    };
    decltype(call(std::vector<Request>())) results;
    try {
        std::vector<Request> all;
        for (QueuedRequest& request : batch) {
            if (is_one(request)) {
                all.push_back(std::move(std::get<Request>(request.what)));
            }
        }
        if (all.empty()) {
            return;
        }
        results = call(all);
    } catch (...) {
        results.clear();  // out of memory: nobody knows how far it went
    }
    const MutexLock lock(mutex_);
    const bool was_empty = done_.all().empty();
    std::size_t next = 0;
    for (const QueuedRequest& request : batch) {
        if (!is_one(request)) {
            continue;
        }
        try {
            if (next < results.size()) {
                done_.add(results[next++], request.tag);
                continue;
            }
        } catch (const std::bad_alloc&) {  // for its text
        }
        done_.add_unknown(request.tag);
    }
    if (was_empty && !done_.all().empty()) {
        ::eventfd_write(descriptor_, 1);
    }
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
        return queue->requests->give(
            {tag, ClaimRequest{std::move(name), DEDUP_TRY(claim_options(options))}});
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
        return queue->requests->give({tag, Completion{std::move(claim), std::move(kept),
                                                      DEDUP_TRY(complete_options(options))}});
    });
}

int dedup_queue_release(dedup_queue* queue, uint64_t tag, const void* key, size_t key_bytes,
                        uint64_t claim_sequence, dedup_error* error) {
    return across(error, Effect::none, [&]() -> Result<void> {
        DEDUP_TRY(check_queue(queue));
        return queue->requests->give({tag, DEDUP_TRY(claim_of(queue->requests->cache().ns,
                                                              {key, key_bytes}, claim_sequence))});
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
