/* What a wrong call gets. */
#include "check.h"

static void test_nulls(void) {
    dedup_store* opened = NULL;
    dedup_outcome* outcome = NULL;
    FAILS(DEDUP_INVALID_ARGUMENT, "cache is NULL",
          dedup_claim(NULL, "k", 1, NULL, &outcome, &error));
    FAILS(DEDUP_INVALID_ARGUMENT, "outcome is NULL",
          dedup_claim(cache, "k", 1, NULL, NULL, &error));
    FAILS(DEDUP_INVALID_ARGUMENT, "key is NULL",
          dedup_claim(cache, NULL, 1, NULL, &outcome, &error));
    FAILS(DEDUP_INVALID_ARGUMENT, "key", dedup_claim(cache, NULL, 0, NULL, &outcome, &error));
    FAILS(DEDUP_INVALID_ARGUMENT, "receipt is NULL",
          dedup_complete(cache, "k", 1, 1, NULL, 1, NULL, &error));
    FAILS(DEDUP_INVALID_ARGUMENT, "claim_sequence is 0",
          dedup_complete(cache, "k", 1, 0, "", 0, NULL, &error));
    FAILS(DEDUP_INVALID_ARGUMENT, "claim_sequence is 0",
          dedup_release(cache, "k", 1, 0, NULL, &error));
    FAILS(DEDUP_INVALID_ARGUMENT, "resolution is NULL",
          dedup_resolve(cache, "k", 1, 1, NULL, &error));
    FAILS(DEDUP_INVALID_ARGUMENT, "keys", dedup_lookup_many(cache, NULL, 1, &outcome, &error));
    FAILS(DEDUP_INVALID_ARGUMENT, "claim_sequences",
          dedup_release_many(cache, (const dedup_bytes[]){{"k", 1}}, NULL, 1, &outcome, &error));
    FAILS(DEDUP_INVALID_ARGUMENT, "metadata",
          dedup_note_many(cache, (const dedup_bytes[]){{"k", 1}}, (const uint64_t[]){1}, NULL, 1,
                          &outcome, &error));
    FAILS(DEDUP_INVALID_ARGUMENT, "path is NULL", dedup_open(NULL, NULL, &opened, &error));
    FAILS(DEDUP_INVALID_ARGUMENT, "store is NULL", dedup_open("x", NULL, NULL, &error));
    FAILS(DEDUP_INVALID_ARGUMENT, "store is NULL", dedup_close(NULL, &error));
    FAILS(DEDUP_INVALID_ARGUMENT, "store is NULL", dedup_flush(NULL, &error));
    FAILS(DEDUP_INVALID_ARGUMENT, "store is NULL", dedup_sweep(NULL, NULL, NULL, &error));
    FAILS(DEDUP_INVALID_ARGUMENT, "queue is NULL", dedup_queue_take(NULL, &outcome, &error));
    FAILS(DEDUP_INVALID_ARGUMENT, "url is NULL", dedup_init_postgres(NULL, NULL, &error));
    FAILS(DEDUP_INVALID_ARGUMENT, "outcome is NULL", dedup_outcome_view(NULL, NULL, &error));
    CHECK(dedup_queue_descriptor(NULL) == -1);
    CHECK(dedup_outcome_count(NULL) == 0 && dedup_outcome_at(NULL, 0) == NULL);
    dedup_outcome_free(NULL);
    dedup_cache_free(NULL);
    dedup_store_free(NULL);
    dedup_queue_free(NULL);
    dedup_stats_free(NULL);
    dedup_sweep_report_free(NULL);
    CHECK(dedup_claim(NULL, "k", 1, NULL, &outcome, NULL) == DEDUP_INVALID_ARGUMENT);
}

static void test_sizes(void) {
    dedup_outcome* outcome = NULL;
    dedup_claim_options options = {.lease_ms = 1000};
    FAILS(DEDUP_INVALID_ARGUMENT, "sizeof(dedup_claim_options)",
          dedup_claim(cache, "size", 4, &options, &outcome, &error));
    options.size = sizeof options - 1;
    FAILS(DEDUP_INVALID_ARGUMENT, "size is",
          dedup_claim(cache, "size", 4, &options, &outcome, &error));
    options.size = (size_t)1 << 40;
    FAILS(DEDUP_INVALID_ARGUMENT, "size is",
          dedup_claim(cache, "size", 4, &options, &outcome, &error));

    /* An older caller: it knows of the lease, and not of what comes behind it. */
    options.size = 16;
    options.ttl_ms = -5;
    const uint64_t fence = fence_of("size", &options);
    OK(dedup_release(cache, "size", 4, fence, NULL, &error));
    options.size = sizeof options;
    FAILS(DEDUP_INVALID_ARGUMENT, "ttl", dedup_claim(cache, "size", 4, &options, &outcome, &error));

    /* A newer one: fine, until it uses what this library does not know. */
    struct {
        dedup_claim_options known;
        uint64_t later;
    } newer;
    memset(&newer, 0, sizeof newer);
    newer.known.size = sizeof newer;
    newer.known.lease_ms = 1000;
    OK(dedup_release(cache, "size", 4, fence_of("size", &newer.known), NULL, &error));
    newer.later = 1;
    FAILS(DEDUP_INVALID_ARGUMENT, "does not know",
          dedup_claim(cache, "size", 4, &newer.known, &outcome, &error));

    const dedup_bytes keys[] = {text("size-1"), text("size-2")};
    dedup_claim_options two[2];
    memset(two, 0, sizeof two);
    two[0].size = sizeof two[0];
    two[1].size = 16;
    FAILS(DEDUP_INVALID_ARGUMENT, "different sizes",
          dedup_claim_many(cache, keys, 2, two, 2, &outcome, &error));
    /* A count that no memory has room for. */
    FAILS(DEDUP_INVALID_ARGUMENT,
          "there are 18446744073709551615 of dedup_claim_options for 1 items",
          dedup_claim_many(cache, keys, 1, two, SIZE_MAX, &outcome, &error));
    FAILS(DEDUP_INVALID_ARGUMENT, "for 1 items",
          dedup_complete_many(cache, keys, (const uint64_t[]){1}, keys, 1,
                              &(dedup_complete_options){.size = sizeof(dedup_complete_options)},
                              SIZE_MAX, &outcome, &error));

    dedup_error small = {.size = offsetof(dedup_error, message) + 8, .message = "12345678!"};
    CHECK(dedup_claim(cache, "", 0, NULL, &outcome, &small) == DEDUP_INVALID_ARGUMENT);
    CHECK(strlen(small.message) == 7 && small.message[8] == '!');
    dedup_error wrong = {.size = 0, .code = 77};
    CHECK(dedup_claim(cache, "size", 4, NULL, &outcome, &wrong) == DEDUP_INVALID_ARGUMENT);
    CHECK(wrong.code == 77 && outcome == NULL);
    CHECK(kind_of("size") == DEDUP_ABSENT);
}

static void test_ranges(void) {
    static char large[DEDUP_METADATA_BYTES_MAX + 1];
    memset(large, 'x', sizeof large);
    dedup_outcome* outcome = NULL;
    FAILS(DEDUP_INVALID_ARGUMENT, "1,024",
          dedup_claim(cache, large, DEDUP_KEY_BYTES_MAX + 1, NULL, &outcome, &error));
    OK(dedup_claim(cache, large, DEDUP_KEY_BYTES_MAX, NULL, &outcome, &error));
    dedup_outcome_free(outcome);
    dedup_claim_options options = {.size = sizeof options, .unanswered = 3};
    FAILS(DEDUP_INVALID_ARGUMENT, "unanswered is 3",
          dedup_claim(cache, "r", 1, &options, &outcome, &error));
    options.unanswered = 0;
    options.lease_ms = -1;
    FAILS(DEDUP_INVALID_ARGUMENT, "lease is -1",
          dedup_claim(cache, "r", 1, &options, &outcome, &error));
    options.lease_ms = 0;
    options.metadata.data = large;
    options.metadata.size = sizeof large;
    FAILS(DEDUP_INVALID_ARGUMENT, "metadata",
          dedup_claim(cache, "r", 1, &options, &outcome, &error));
    options.metadata.size = 0;
    options.owner.size = 1;
    FAILS(DEDUP_INVALID_ARGUMENT, "owner is NULL",
          dedup_claim(cache, "r", 1, &options, &outcome, &error));
    options.owner.size = 0;
    options.lease_ms = 1000;
    FAILS(DEDUP_INVALID_ARGUMENT, "lease",
          dedup_remember(cache, "r", 1, "", 0, &options, &outcome, &error));
    dedup_complete_options complete = {.size = sizeof complete, .set_metadata = 2};
    FAILS(DEDUP_INVALID_ARGUMENT, "set_metadata is 2",
          dedup_complete(cache, "r", 1, 1, "", 0, &complete, &error));
    complete.set_metadata = 0;
    complete.reserved = 1;
    FAILS(DEDUP_INVALID_ARGUMENT, "reserved",
          dedup_complete(cache, "r", 1, 1, "", 0, &complete, &error));

    dedup_cache* made = NULL;
    dedup_cache_options in = {.size = sizeof in, .ns = {"n\0", 2}};
    FAILS(DEDUP_INVALID_ARGUMENT, "namespace", dedup_cache_new(store, &in, &made, &error));
    in.ns.size = 0;
    in.ttl_ms = -1;
    FAILS(DEDUP_INVALID_ARGUMENT, "ttl", dedup_cache_new(store, &in, &made, &error));
    in.ttl_ms = DEDUP_FOREVER;
    in.ns = text("another");
    in.unanswered = DEDUP_HOLD;
    OK(dedup_cache_new(store, &in, &made, &error));
    OK(dedup_claim(made, "life", 4, NULL, &outcome, &error));
    CHECK(dedup_outcome_at(outcome, 0)->kind == DEDUP_CLAIMED);
    CHECK(dedup_outcome_at(outcome, 0)->deadline_ms == 0);
    dedup_outcome_free(outcome);
    dedup_cache_free(made);

    dedup_store* opened = NULL;
    dedup_open_options open = {.size = sizeof open, .durability = 2};
    FAILS(DEDUP_INVALID_ARGUMENT, "durability is 2", dedup_open_memory(&open, &opened, &error));
    open.durability = DEDUP_ASYNC;
    open.mode = 01000;
    FAILS(DEDUP_INVALID_ARGUMENT, "mode", dedup_open_memory(&open, &opened, &error));
    open.mode = 0;
    open.read_only = 7;
    FAILS(DEDUP_INVALID_ARGUMENT, "read_only is 7", dedup_open_memory(&open, &opened, &error));
    open.read_only = 0;
    open.lock_timeout_ms = -1;
    FAILS(DEDUP_INVALID_ARGUMENT, "lock_timeout_ms", dedup_open_memory(&open, &opened, &error));
    dedup_sweep_options sweep = {.size = sizeof sweep, .dry_run = 2};
    FAILS(DEDUP_INVALID_ARGUMENT, "dry_run", dedup_sweep(store, &sweep, NULL, &error));
    dedup_queue_options queue = {.size = sizeof queue, .threads = 17};
    dedup_queue* queued = NULL;
    FAILS(DEDUP_INVALID_ARGUMENT, "threads is 17", dedup_queue_new(cache, &queue, &queued, &error));
    FAILS(DEDUP_INVALID_ARGUMENT, "ostgre", dedup_init_postgres("x://y", NULL, &error));
}

void test_border(void) {
    RUN(test_nulls);
    RUN(test_sizes);
    RUN(test_ranges);
}
