/* Queues, threads, forks, opening and closing. */
#define _POSIX_C_SOURCE 200809L
#include <poll.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static const char* directory;

/* While it is above 0, so many allocations of this thread succeed, and then none. */
static _Thread_local long allocations = 0;

/* Whether the threads of the library have no memory; the program's own are marked. */
static volatile int starved = 0;
static _Thread_local int is_mine = 0;

void* __libc_malloc(size_t size);

void* malloc(size_t size) {
    if (allocations == 1 || (starved && !is_mine)) {
        return NULL;
    }
    allocations -= allocations > 0;
    return __libc_malloc(size);
}

static void test_queue(void) {
    const dedup_queue_options options = {.size = sizeof options, .threads = 2, .requests_max = 100};
    dedup_queue* queue = NULL;
    OK(dedup_queue_new(cache, &options, &queue, &error));
    const int descriptor = dedup_queue_descriptor(queue);
    struct pollfd polled = {.fd = descriptor, .events = POLLIN};
    CHECK(descriptor > 2 && poll(&polled, 1, 0) == 0);
    dedup_outcome* outcome = NULL;
    OK(dedup_queue_take(queue, &outcome, &error));
    CHECK(dedup_outcome_count(outcome) == 0);
    dedup_outcome_free(outcome);

    char key[32];
    for (uint64_t i = 0; i < 100; ++i) {
        snprintf(key, sizeof key, "queue-%02u", (unsigned)i);
        OK(dedup_queue_claim(queue, i, key, i == 99 ? 0 : strlen(key), NULL, &error));
    }
    FAILS(DEDUP_BUSY, "100 requests", dedup_queue_claim(queue, 1, "k", 1, NULL, &error));
    int claimed = 0;
    int failed = 0;
    int done = 0;
    int given = 99;
    while (claimed + failed < 100 || done < given) {
        CHECK(poll(&polled, 1, 60000) == 1);
        OK(dedup_queue_take(queue, &outcome, &error));
        CHECK(dedup_outcome_count(outcome) > 0);
        for (size_t i = 0; i < dedup_outcome_count(outcome); ++i) {
            const dedup_answer* answer = dedup_outcome_at(outcome, i);
            snprintf(key, sizeof key, "queue-%02u", (unsigned)answer->tag);
            if (answer->kind == DEDUP_CLAIMED) {
                ++claimed;
                if (answer->tag % 2 == 0) {
                    OK(dedup_queue_complete(queue, 1000 + answer->tag, key, strlen(key),
                                            answer->claim_sequence, key, strlen(key), NULL,
                                            &error));
                } else {
                    OK(dedup_queue_release(queue, 1000 + answer->tag, key, strlen(key),
                                           answer->claim_sequence, &error));
                }
            } else if (answer->kind == DEDUP_ERROR) {
                CHECK(answer->tag == 99 && answer->code == DEDUP_INVALID_ARGUMENT);
                ++failed;
            } else {
                CHECK(answer->kind == DEDUP_DONE && answer->tag >= 1000);
                ++done;
            }
        }
        dedup_outcome_free(outcome);
    }
    CHECK(claimed == 99 && failed == 1 && done == 99);
    CHECK(poll(&polled, 1, 0) == 0);
    CHECK(kind_of("queue-00") == DEDUP_COMPLETED && kind_of("queue-01") == DEDUP_ABSENT);
    /* What was given is carried out, though nobody takes its answer. */
    OK(dedup_queue_claim(queue, 7, "queue-left", 10, NULL, &error));
    dedup_queue_free(queue);
    CHECK(kind_of("queue-left") == DEDUP_IN_FLIGHT);
}

static void* claim_all(void* winner) {
    dedup_error mine = {.size = sizeof mine};
    for (int i = 0; i < 200; ++i) {
        char key[32];
        snprintf(key, sizeof key, "thread-%d", i);
        dedup_outcome* outcome = NULL;
        if (dedup_claim(cache, key, strlen(key), NULL, &outcome, &mine) != DEDUP_OK) {
            fprintf(stderr, "%s\n", mine.message);
            return NULL;
        }
        *(int*)winner += dedup_outcome_at(outcome, 0)->kind == DEDUP_CLAIMED;
        dedup_outcome_free(outcome);
    }
    return NULL;
}

static void test_threads(void) {
    pthread_t threads[2];
    int won[2] = {0, 0};
    for (int i = 0; i < 2; ++i) {
        CHECK(pthread_create(&threads[i], NULL, claim_all, &won[i]) == 0);
    }
    for (int i = 0; i < 2; ++i) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    CHECK(won[0] + won[1] == 200);
}

/* A cancelled thread ends in the call, through the frames of both languages. */
static void* claim_and_be_cancelled(void* unused) {
    dedup_outcome* outcome = NULL;
    (void)unused;
    pthread_cancel(pthread_self());
    dedup_claim(cache, "cancelled", 9, NULL, &outcome, NULL);
    return NULL;
}

static void test_cancellation(void) {
    pthread_t thread;
    void* ended = NULL;
    CHECK(pthread_create(&thread, NULL, claim_and_be_cancelled, NULL) == 0);
    CHECK(pthread_join(thread, &ended) == 0);
    CHECK(ended == PTHREAD_CANCELED);
    CHECK(kind_of("cancelled") == DEDUP_ABSENT);
}

/* What a forked child finds; `of_memory` is what it does not keep for itself either. */
static int in_child(dedup_queue* queue, dedup_store* of_memory) {
    dedup_outcome* outcome = NULL;
    dedup_stats* stats = NULL;
    int64_t now = 0;
    FAILS(DEDUP_CLOSED, "fork", dedup_claim(cache, "fork", 4, NULL, &outcome, &error));
    FAILS(DEDUP_CLOSED, "fork", dedup_lookup_many(cache, NULL, 0, &outcome, &error));
    FAILS(DEDUP_CLOSED, "fork", dedup_complete(cache, "fork", 4, 1, "", 0, NULL, &error));
    FAILS(DEDUP_CLOSED, "fork", dedup_queue_claim(queue, 1, "fork", 4, NULL, &error));
    FAILS(DEDUP_CLOSED, "fork", dedup_queue_take(queue, &outcome, &error));
    FAILS(DEDUP_CLOSED, "fork", dedup_get_stats(store, &stats, &error));
    FAILS(DEDUP_CLOSED, "fork", dedup_now(of_memory, &now, &error));
    FAILS(DEDUP_CLOSED, "fork", dedup_close(store, &error));
    CHECK(dedup_queue_descriptor(queue) == -1);
    dedup_queue_free(queue);
    dedup_cache_free(cache);
    dedup_store_free(store);
    dedup_store_free(of_memory);
    return failures == 0 ? 0 : 1;
}

static void test_fork(void) {
    dedup_queue* queue = NULL;
    dedup_store* of_memory = NULL;
    OK(dedup_queue_new(cache, NULL, &queue, &error));
    OK(dedup_open_memory(NULL, &of_memory, &error));
    const pid_t child = fork();
    if (child == 0) {
        _exit(in_child(queue, of_memory));
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(kind_of("fork") == DEDUP_ABSENT);
    OK(dedup_queue_claim(queue, 1, "fork", 4, NULL, &error));
    dedup_queue_free(queue);
    CHECK(kind_of("fork") == DEDUP_IN_FLIGHT);
    dedup_store_free(of_memory);
}

static void test_opening(void) {
    dedup_store* second = NULL;
    FAILS(DEDUP_BUSY, "this", dedup_open(directory, NULL, &second, &error));
    CHECK(second == NULL);
    const dedup_open_options must_exist = {.size = sizeof must_exist, .must_exist = 1};
    FAILS(DEDUP_INVALID_ARGUMENT, "/no/store",
          dedup_open("/no/store", &must_exist, &second, &error));
    const dedup_open_options read_only = {.size = sizeof read_only, .read_only = 1};
    dedup_cache* reading = NULL;
    dedup_outcome* outcome = NULL;
    OK(dedup_open(directory, &read_only, &second, &error));
    OK(dedup_cache_new(second, NULL, &reading, &error));
    FAILS(DEDUP_READ_ONLY, "", dedup_claim(reading, "new", 3, NULL, &outcome, &error));
    OK(dedup_lookup(reading, "held", 4, &outcome, &error));
    dedup_store_free(second); /* the cache keeps it */
    CHECK(is(dedup_outcome_at(outcome, 0)->receipt, "paid"));
    dedup_outcome_free(outcome);
    OK(dedup_lookup(reading, "held", 4, &outcome, &error));
    dedup_outcome_free(outcome);
    dedup_cache_free(reading);
    FAILS(DEDUP_UNAVAILABLE, "/no/socket", dedup_open("unix:/no/socket", NULL, &second, &error));
}

static void test_close(void) {
    dedup_outcome* outcome = NULL;
    OK(dedup_close(store, &error));
    OK(dedup_close(store, &error));
    FAILS(DEDUP_CLOSED, "", dedup_lookup(cache, "life", 4, &outcome, &error));
    dedup_store_free(store);
    FAILS(DEDUP_CLOSED, "", dedup_lookup(cache, "life", 4, &outcome, &error));
    dedup_cache_free(cache);
}

/* A call for which memory runs out at its allocation number `n`, and at all behind it. */
static int call_with(int which, long n, dedup_cache* in, dedup_queue* queue) {
    const dedup_bytes keys[] = {text("memory-1"), text("a key too long to lie within a string")};
    dedup_outcome* outcome = NULL;
    dedup_stats* stats = NULL;
    int code = DEDUP_OK;
    allocations = n;
    switch (which) {
        case 0:
            code = dedup_claim(in, keys[1].data, keys[1].size, NULL, &outcome, &error);
            break;
        case 1:
            code = dedup_lookup_many(in, keys, 2, &outcome, &error);
            break;
        case 2:
            code = dedup_remember_many(in, keys, keys, 2, NULL, 0, &outcome, &error);
            break;
        case 3:
            code = dedup_get_stats(store, &stats, &error);
            break;
        case 4:
            code = dedup_queue_claim(queue, 1, keys[1].data, keys[1].size, NULL, &error);
            break;
        default:
            code = dedup_queue_take(queue, &outcome, &error);
            break;
    }
    allocations = 0;
    CHECK(code == error.code);
    CHECK(code == DEDUP_OK || (outcome == NULL && stats == NULL));
    dedup_outcome_free(outcome);
    dedup_stats_free(stats);
    return code;
}

static void test_out_of_memory(void) {
    dedup_store* of_memory = NULL;
    dedup_cache* in = NULL;
    dedup_queue* queue = NULL;
    OK(dedup_open_memory(NULL, &of_memory, &error));
    OK(dedup_cache_new(of_memory, NULL, &in, &error));
    OK(dedup_queue_new(in, NULL, &queue, &error));
    for (int which = 0; which < 6; ++which) {
        const int appends = which == 0 || which == 2;
        int failed = 0;
        for (long n = 1; n < 1000; ++n) {
            const int code = call_with(which, n, in, queue);
            if (code == DEDUP_OK) {
                break;
            }
            ++failed;
            /* What the store itself had not begun is not written. */
            CHECK(code == DEDUP_OUT_OF_SPACE || (appends && code == DEDUP_OUTCOME_UNKNOWN));
        }
        CHECK(failed > 0);
        OK(call_with(which, 0, in, queue));
    }
    dedup_queue_free(queue);
    dedup_cache_free(in);
    dedup_store_free(of_memory);
}

/* An answer comes for each request, though there is no memory to say more. */
static void test_queue_out_of_memory(void) {
    dedup_queue* queue = NULL;
    dedup_outcome* outcome = NULL;
    size_t answered = 0;
    is_mine = 1;
    OK(dedup_queue_new(cache, NULL, &queue, &error));
    struct pollfd polled = {.fd = dedup_queue_descriptor(queue), .events = POLLIN};
    starved = 1;
    for (uint64_t tag = 1; tag <= 100; ++tag) {
        OK(dedup_queue_claim(queue, tag, "a key too long to lie within a string", 37, NULL,
                             &error));
    }
    while (answered < 100) {
        CHECK(poll(&polled, 1, 60000) == 1);
        OK(dedup_queue_take(queue, &outcome, &error));
        for (size_t i = 0; i < dedup_outcome_count(outcome); ++i) {
            const dedup_answer* answer = dedup_outcome_at(outcome, i);
            CHECK(answer->kind == DEDUP_ERROR && answer->tag >= 1 && answer->tag <= 100);
            CHECK(answer->code == DEDUP_OUTCOME_UNKNOWN && is(answer->message, ""));
            ++answered;
        }
        dedup_outcome_free(outcome);
    }
    starved = 0;
    dedup_queue_free(queue);
    CHECK(kind_of("a key too long to lie within a string") == DEDUP_ABSENT);
}

void test_process(const char* path) {
    directory = path;
    RUN(test_queue);
    RUN(test_threads);
    RUN(test_cancellation);
    RUN(test_fork);
    RUN(test_out_of_memory);
    RUN(test_queue_out_of_memory);
    RUN(test_opening);
    RUN(test_close);
}
