/* Sends an invoice once, however often and from however many processes it is asked to; in C.
 *
 *     cc -std=c11 claim.c -ldedup -o claim && ./claim STORE INVOICE
 *
 * The first run claims the invoice, does the work and completes the claim with a receipt. Every
 * later run gets that receipt back and does no work. Exit status: 0 sent, now or earlier; 1 an
 * error; 2 a usage error; 10 somebody else is at it; 17 somebody has to decide what became of it.
 */
#include <dedup/dedup.h>
#include <stdio.h>
#include <string.h>

static dedup_error error = {.size = sizeof error};

static int fail(void) {
    fprintf(stderr, "claim: %s (%s)\n", error.message, dedup_code_name(error.code));
    return 1;
}

/* The work: in a real program a payment, a mail, a row in another database. */
static int send_invoice(const char* invoice, char* receipt, size_t receipt_bytes) {
    printf("sending %s\n", invoice);
    if (fflush(stdout) != 0) {
        return 0;
    }
    snprintf(receipt, receipt_bytes, "sent %s", invoice);
    return 1;
}

static int work_and_answer(dedup_cache* cache, const char* invoice, uint64_t claim_sequence) {
    char receipt[256];
    if (!send_invoice(invoice, receipt, sizeof receipt)) {
        /* Nothing happened, so let the next caller try at once, and not when the lease is over. */
        if (dedup_release(cache, invoice, strlen(invoice), claim_sequence, NULL, &error) !=
            DEDUP_OK) {
            return fail();
        }
        return 1;
    }
    /* Fails with DEDUP_STALE_CLAIM if the lease ran out meanwhile and somebody else took over. */
    if (dedup_complete(cache, invoice, strlen(invoice), claim_sequence, receipt, strlen(receipt),
                       NULL, &error) != DEDUP_OK) {
        return fail();
    }
    printf("completed: %s\n", receipt);
    return 0;
}

static int send_once(dedup_cache* cache, const char* invoice) {
    /* The lease should outlast the work; work of unknown length calls dedup_renew as it goes on. */
    const dedup_claim_options options = {
        .size = sizeof options, .lease_ms = 30000, .owner = {"mailer", 6}};
    dedup_outcome* outcome = NULL;
    if (dedup_claim(cache, invoice, strlen(invoice), &options, &outcome, &error) != DEDUP_OK) {
        return fail();
    }
    const dedup_answer* answer = dedup_outcome_at(outcome, 0);
    int status = 0;
    if (answer->kind == DEDUP_COMPLETED) {
        printf("replayed: %.*s\n", (int)answer->receipt.size, (const char*)answer->receipt.data);
    } else if (answer->kind == DEDUP_CLAIMED) {
        status = work_and_answer(cache, invoice, answer->claim_sequence);
    } else if (answer->kind == DEDUP_HELD) {
        fprintf(stderr, "claim: %s waits for a decision; see `dedupctl held`\n", invoice);
        status = 17;
    } else {
        fprintf(stderr, "claim: %s is in flight elsewhere; try again later\n", invoice);
        status = 10;
    }
    dedup_outcome_free(outcome);
    return status;
}

int main(int argc, char** argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: claim STORE INVOICE\n");
        return 2;
    }
    /* One process at a time has a store open for writing; the others wait for it. */
    const dedup_open_options options = {.size = sizeof options, .lock_timeout_ms = 10000};
    dedup_store* store = NULL;
    dedup_cache* cache = NULL;
    if (dedup_open(argv[1], &options, &store, &error) != DEDUP_OK ||
        dedup_cache_new(store, NULL, &cache, &error) != DEDUP_OK) {
        return fail();
    }
    int status = send_once(cache, argv[2]);
    dedup_cache_free(cache);
    if (dedup_close(store, &error) != DEDUP_OK) {
        status = fail();
    }
    dedup_store_free(store);
    return status;
}
