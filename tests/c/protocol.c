/* The life of keys, one and many, and sweeps. */
#include "check.h"

static void test_names(void) {
    CHECK(strcmp(dedup_code_name(DEDUP_OK), "ok") == 0);
    CHECK(strcmp(dedup_code_name(DEDUP_STALE_CLAIM), "stale_claim") == 0);
    CHECK(strcmp(dedup_code_name(DEDUP_UNAVAILABLE), "unavailable") == 0);
    CHECK(strcmp(dedup_code_name(16), "unknown") == 0);
    CHECK(strcmp(dedup_code_name(-1), "unknown") == 0);
    CHECK(strchr(dedup_version(), '.') != NULL);
}

static void test_life_of_a_key(void) {
    const dedup_claim_options options = {.size = sizeof options,
                                         .lease_ms = 60000,
                                         .owner = {"me", 2},
                                         .event_id = {"event", 5},
                                         .metadata = {"m\0m", 3}};
    dedup_outcome* outcome = NULL;
    OK(dedup_claim(cache, "life", 4, &options, &outcome, &error));
    CHECK(dedup_outcome_count(outcome) == 1);
    CHECK(dedup_outcome_at(outcome, 1) == NULL);
    const dedup_answer* answer = dedup_outcome_at(outcome, 0);
    CHECK(answer->kind == DEDUP_CLAIMED && answer->attempt == 1 && answer->previous == NULL);
    CHECK(answer->deadline_ms > 0 && answer->claim_sequence > 0);
    const uint64_t fence = answer->claim_sequence;
    dedup_outcome_free(outcome);

    OK(dedup_claim(cache, "life", 4, NULL, &outcome, &error));
    answer = dedup_outcome_at(outcome, 0);
    CHECK(answer->kind == DEDUP_IN_FLIGHT && answer->claim_sequence == fence && !answer->held);
    CHECK(is(answer->owner, "me") && is(answer->event_id, "event") && is(answer->receipt, ""));
    CHECK(answer->metadata.size == 3 && memcmp(answer->metadata.data, "m\0m", 4) == 0);
    CHECK(answer->unanswered == DEDUP_RERUN && answer->lease_until_ms > answer->since_ms);
    dedup_outcome_free(outcome);

    int64_t deadline = 0;
    OK(dedup_renew(cache, "life", 4, fence, 120000, &deadline, &error));
    CHECK(deadline > 0);
    OK(dedup_note(cache, "life", 4, fence, "going", 5, &error));
    OK(dedup_wait(cache, "life", 4, 1, &outcome, &error));
    CHECK(dedup_outcome_at(outcome, 0)->kind == DEDUP_IN_FLIGHT);
    CHECK(is(dedup_outcome_at(outcome, 0)->metadata, "going"));
    dedup_outcome_free(outcome);

    OK(dedup_complete(cache, "life", 4, fence, "\0paid\0", 6, NULL, &error));
    OK(dedup_complete(cache, "life", 4, fence, "\0paid\0", 6, NULL, &error));
    FAILS(DEDUP_RECEIPT_MISMATCH, "life",
          dedup_complete(cache, "life", 4, fence, "other", 5, NULL, &error));
    OK(dedup_claim(cache, "life", 4, NULL, &outcome, &error));
    answer = dedup_outcome_at(outcome, 0);
    CHECK(answer->kind == DEDUP_COMPLETED && answer->receipt.size == 6);
    CHECK(memcmp(answer->receipt.data, "\0paid\0", 7) == 0 && answer->expires_at_ms > 0);
    CHECK(is(answer->metadata, "going") && is(answer->event_id, "event"));
    dedup_outcome_free(outcome);

    int done = 0;
    FAILS(DEDUP_STALE_CLAIM, "life",
          dedup_forget(cache, "life", 4, fence + 1000, text("why"), text("who"), &done, &error));
    OK(dedup_forget(cache, "life", 4, fence, text("why"), text("who"), &done, &error));
    CHECK(done == 1);
    OK(dedup_forget(cache, "life", 4, 0, text("why"), text(""), &done, &error));
    CHECK(done == 0);
    OK(dedup_claim(cache, "life", 4, NULL, &outcome, &error));
    answer = dedup_outcome_at(outcome, 0);
    CHECK(answer->kind == DEDUP_CLAIMED && answer->attempt == 2 && answer->previous != NULL);
    CHECK(answer->previous->end == DEDUP_END_FORGOTTEN && is(answer->previous->by, "who"));
    CHECK(is(answer->previous->reason, "why") && answer->previous->claim_sequence == fence);
    dedup_outcome_free(outcome);
}

static void test_release_and_current(void) {
    int done = 1;
    OK(dedup_release_current(cache, "free", 4, &done, &error));
    CHECK(done == 0);
    const uint64_t fence = fence_of("free", NULL);
    OK(dedup_release(cache, "free", 4, fence, &done, &error));
    CHECK(done == 1);
    fence_of("free", NULL);
    FAILS(DEDUP_STALE_CLAIM, "free", dedup_release(cache, "free", 4, fence, &done, &error));
    CHECK(done == 0);
    FAILS(DEDUP_STALE_CLAIM, "free", dedup_complete(cache, "free", 4, fence, "", 0, NULL, &error));
    OK(dedup_release_current(cache, "free", 4, NULL, &error));
    FAILS(DEDUP_NOT_CLAIMED, "free",
          dedup_complete_current(cache, "free", 4, "r", 1, NULL, &error));
    fence_of("free", NULL);
    const dedup_complete_options options = {
        .size = sizeof options, .ttl_ms = 1000, .set_metadata = 1, .metadata = {"new", 3}};
    OK(dedup_complete_current(cache, "free", 4, NULL, 0, &options, &error));
    dedup_outcome* outcome = NULL;
    OK(dedup_lookup(cache, "free", 4, &outcome, &error));
    const dedup_answer* answer = dedup_outcome_at(outcome, 0);
    CHECK(answer->kind == DEDUP_COMPLETED && is(answer->receipt, ""));
    CHECK(is(answer->metadata, "new") && answer->expires_at_ms == answer->since_ms + 1000);
    dedup_outcome_free(outcome);
}

static void test_hold_and_resolve(void) {
    const dedup_claim_options hold = {
        .size = sizeof hold, .lease_ms = 60000, .unanswered = DEDUP_HOLD, .attempts_max = 9};
    uint64_t fence = fence_of("held", &hold);
    const dedup_resolution not_done = {.size = sizeof not_done,
                                       .decision = DEDUP_WAS_NOT_DONE,
                                       .reason = {"looked", 6},
                                       .by = {"ann", 3}};
    FAILS(DEDUP_BUSY, "lease", dedup_resolve(cache, "held", 4, fence, &not_done, &error));
    OK(dedup_hold(cache, "held", 4, fence, "cannot say", 10, &error));
    dedup_outcome* outcome = NULL;
    OK(dedup_claim(cache, "held", 4, NULL, &outcome, &error));
    const dedup_answer* answer = dedup_outcome_at(outcome, 0);
    CHECK(answer->kind == DEDUP_HELD && answer->claim_sequence == fence);
    CHECK(answer->previous != NULL && is(answer->previous->reason, "cannot say"));
    CHECK(answer->previous->end == DEDUP_END_HELD);
    dedup_outcome_free(outcome);
    OK(dedup_lookup(cache, "held", 4, &outcome, &error));
    answer = dedup_outcome_at(outcome, 0);
    CHECK(answer->kind == DEDUP_IN_FLIGHT && answer->held && answer->unanswered == DEDUP_HOLD);
    dedup_outcome_free(outcome);
    OK(dedup_resolve(cache, "held", 4, fence, &not_done, &error));

    fence = fence_of("held", &hold);
    OK(dedup_hold(cache, "held", 4, fence, "", 0, &error));
    dedup_resolution done = {.size = sizeof done, .reason = {"looked", 6}};
    FAILS(DEDUP_INVALID_ARGUMENT, "decision",
          dedup_resolve(cache, "held", 4, fence, &done, &error));
    done.decision = DEDUP_WAS_DONE;
    done.receipt = text("paid");
    OK(dedup_resolve(cache, "held", 4, fence, &done, &error));
    CHECK(kind_of("held") == DEDUP_COMPLETED);
    done.decision = DEDUP_WAS_NOT_DONE;
    FAILS(DEDUP_INVALID_ARGUMENT, "receipt", dedup_resolve(cache, "held", 4, fence, &done, &error));
}

static void test_fingerprints_and_remember(void) {
    const dedup_claim_options one = {.size = sizeof one, .fingerprint = {"one", 3}};
    const dedup_claim_options two = {.size = sizeof two, .fingerprint = {"two", 3}};
    dedup_outcome* outcome = NULL;
    OK(dedup_remember(cache, "print", 5, "r", 1, &one, &outcome, &error));
    CHECK(dedup_outcome_at(outcome, 0)->kind == DEDUP_NEW);
    CHECK(dedup_outcome_at(outcome, 0)->claim_sequence > 0);
    CHECK(dedup_outcome_at(outcome, 0)->previous == NULL);
    dedup_outcome_free(outcome);
    OK(dedup_remember(cache, "print", 5, "r", 1, &one, &outcome, &error));
    CHECK(is(dedup_outcome_at(outcome, 0)->receipt, "r"));
    dedup_outcome_free(outcome);
    OK(dedup_remember(cache, "print", 5, "r", 1, &two, &outcome, &error));
    const dedup_answer* answer = dedup_outcome_at(outcome, 0);
    CHECK(answer->kind == DEDUP_MISMATCH && answer->completed && is(answer->fingerprint, "one"));
    dedup_outcome_free(outcome);
}

static void test_many(void) {
    const dedup_bytes keys[] = {text("many-1"), text("many-2"), text("many-1"), {NULL, 0}};
    const dedup_bytes receipts[] = {text("r1"), text("r2"), text("r3"), text("r4")};
    uint64_t fences[4] = {0};
    dedup_claim_options options[4];
    memset(options, 0, sizeof options);
    for (size_t i = 0; i < 4; ++i) {
        options[i].size = sizeof options[i];
        options[i].owner = text(i == 0 ? "zero" : "other");
    }
    dedup_outcome* outcome = NULL;
    OK(dedup_claim_many(cache, keys, 4, options, 4, &outcome, &error));
    CHECK(dedup_outcome_count(outcome) == 4);
    CHECK(dedup_outcome_at(outcome, 0)->kind == DEDUP_CLAIMED);
    CHECK(dedup_outcome_at(outcome, 1)->kind == DEDUP_CLAIMED);
    CHECK(dedup_outcome_at(outcome, 2)->kind == DEDUP_IN_FLIGHT);
    CHECK(is(dedup_outcome_at(outcome, 2)->owner, "zero"));
    CHECK(dedup_outcome_at(outcome, 3)->kind == DEDUP_ERROR);
    CHECK(dedup_outcome_at(outcome, 3)->code == DEDUP_INVALID_ARGUMENT);
    CHECK(strstr(dedup_outcome_at(outcome, 3)->message.data, "key") != NULL);
    fences[0] = dedup_outcome_at(outcome, 0)->claim_sequence;
    fences[1] = dedup_outcome_at(outcome, 1)->claim_sequence;

    dedup_view view = {.size = sizeof view};
    OK(dedup_outcome_view(outcome, &view, &error));
    CHECK(view.count == 4 && view.answer_bytes >= sizeof(dedup_answer));
    CHECK(view.answers == dedup_outcome_at(outcome, 0));
    const char* owner = dedup_outcome_at(outcome, 2)->owner.data;
    CHECK(owner > (const char*)view.texts && owner < (const char*)view.texts + view.texts_bytes);
    dedup_outcome_free(outcome);

    OK(dedup_claim_many(cache, keys, 4, options, 1, &outcome, &error));
    CHECK(dedup_outcome_at(outcome, 0)->kind == DEDUP_IN_FLIGHT);
    dedup_outcome_free(outcome);
    FAILS(DEDUP_INVALID_ARGUMENT, "for 4 items",
          dedup_claim_many(cache, keys, 4, options, 3, &outcome, &error));
    CHECK(outcome == NULL);

    OK(dedup_renew_many(cache, keys, fences, 2, 60000, &outcome, &error));
    CHECK(dedup_outcome_at(outcome, 1)->kind == DEDUP_DONE);
    CHECK(dedup_outcome_at(outcome, 1)->deadline_ms > 0);
    dedup_outcome_free(outcome);
    /* The third note is of a claim that is not that key's. */
    const uint64_t noted[] = {fences[0], fences[1], fences[1]};
    const dedup_bytes notes[] = {text("note 1"), text("note 2"), text("note 3")};
    OK(dedup_note_many(cache, keys, noted, notes, 3, &outcome, &error));
    CHECK(dedup_outcome_at(outcome, 0)->kind == DEDUP_DONE);
    CHECK(dedup_outcome_at(outcome, 1)->kind == DEDUP_DONE);
    CHECK(dedup_outcome_at(outcome, 2)->code == DEDUP_STALE_CLAIM);
    dedup_outcome_free(outcome);
    OK(dedup_lookup_many(cache, keys, 2, &outcome, &error));
    CHECK(is(dedup_outcome_at(outcome, 0)->metadata, "note 1"));
    CHECK(is(dedup_outcome_at(outcome, 1)->metadata, "note 2"));
    dedup_outcome_free(outcome);
    OK(dedup_complete_many(cache, keys, fences, receipts, 1, NULL, 0, &outcome, &error));
    CHECK(dedup_outcome_at(outcome, 0)->kind == DEDUP_DONE);
    dedup_outcome_free(outcome);
    OK(dedup_release_many(cache, keys, fences, 2, &outcome, &error));
    CHECK(dedup_outcome_at(outcome, 0)->kind == DEDUP_NOTHING);
    CHECK(dedup_outcome_at(outcome, 1)->kind == DEDUP_DONE);
    dedup_outcome_free(outcome);
    OK(dedup_lookup_many(cache, keys, 3, &outcome, &error));
    CHECK(is(dedup_outcome_at(outcome, 0)->receipt, "r1"));
    CHECK(dedup_outcome_at(outcome, 1)->kind == DEDUP_ABSENT);
    CHECK(is(dedup_outcome_at(outcome, 2)->receipt, "r1"));
    dedup_outcome_free(outcome);
    OK(dedup_remember_many(cache, keys, receipts, 2, NULL, 0, &outcome, &error));
    CHECK(dedup_outcome_at(outcome, 0)->kind == DEDUP_COMPLETED);
    const dedup_answer* fresh = dedup_outcome_at(outcome, 1);
    CHECK(fresh->kind == DEDUP_NEW && fresh->previous != NULL);
    CHECK(fresh->previous->end == DEDUP_END_RELEASED && is(fresh->previous->note, "note 2"));
    dedup_outcome_free(outcome);
    OK(dedup_lookup_many(cache, NULL, 0, &outcome, &error));
    CHECK(dedup_outcome_count(outcome) == 0);
    dedup_outcome_free(outcome);
    FAILS(DEDUP_INVALID_ARGUMENT, "keys",
          dedup_lookup_many(cache, keys, SIZE_MAX, &outcome, &error));
}

static int stop_at_once(void* context, uint64_t done, uint64_t total) {
    CHECK(done <= total);
    ++*(int*)context;
    return 1;
}

static void test_sweep_and_stats(void) {
    const dedup_claim_options short_lived = {
        .size = sizeof short_lived, .ttl_ms = 1, .owner = {"o", 1}};
    const uint64_t fence = fence_of("swept", &short_lived);
    int64_t now = 0;
    OK(dedup_now(store, &now, &error));
    CHECK(now > 0);
    int calls = 0;
    dedup_sweep_options options = {.size = sizeof options,
                                   .dry_run = 1,
                                   .now_ms = now + 5000,
                                   .progress = stop_at_once,
                                   .context = &calls};
    dedup_sweep_report* report = NULL;
    OK(dedup_sweep(store, &options, &report, &error));
    CHECK(report->dry_run == 1);
    dedup_sweep_report_free(report);
    options.dry_run = 0;
    options.progress = NULL;
    OK(dedup_sweep(store, &options, &report, &error));
    CHECK(!report->withheld && report->removed.in_flight == 1);
    CHECK(report->namespaces_count >= 1 && is(report->namespaces[0]->ns, "default"));
    CHECK(report->unanswered_count == 1);
    CHECK(is(report->unanswered[0]->key, "swept") && is(report->unanswered[0]->owner, "o"));
    CHECK(report->unanswered[0]->claim_sequence == fence);
    dedup_sweep_report_free(report);
    OK(dedup_sweep(store, NULL, NULL, &error));

    dedup_stats* stats = NULL;
    OK(dedup_get_stats(store, &stats, &error));
    CHECK(stats->store_id.size == 32 && stats->streams.completed > 0 && stats->records > 0);
    CHECK(stats->last_sweep_ms >= now && is(stats->sweep_error, ""));
    dedup_stats_free(stats);
    OK(dedup_flush(store, &error));
}

void test_protocol(void) {
    RUN(test_names);
    RUN(test_life_of_a_key);
    RUN(test_release_and_current);
    RUN(test_hold_and_resolve);
    RUN(test_fingerprints_and_remember);
    RUN(test_many);
    RUN(test_sweep_and_stats);
}
