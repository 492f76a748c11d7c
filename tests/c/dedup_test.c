/* Every call of dedup.h, as a C program uses it. Usage: dedup_test DIRECTORY */
#include "check.h"

int failures = 0;
const char* running = "";
dedup_error error = {.size = sizeof(dedup_error)};
dedup_store* store;
dedup_cache* cache;

dedup_bytes text(const char* string) {
    const dedup_bytes bytes = {string, strlen(string)};
    return bytes;
}

int is(dedup_bytes bytes, const char* string) {
    return bytes.size == strlen(string) && memcmp(bytes.data, string, bytes.size) == 0 &&
           ((const char*)bytes.data)[bytes.size] == '\0';
}

/* Claims a key that must be free, and gives its fence. */
uint64_t fence_of(const char* key, const dedup_claim_options* options) {
    dedup_outcome* outcome = NULL;
    uint64_t fence = 0;
    OK(dedup_claim(cache, key, strlen(key), options, &outcome, &error));
    if (outcome != NULL) {
        CHECK(dedup_outcome_at(outcome, 0)->kind == DEDUP_CLAIMED);
        fence = dedup_outcome_at(outcome, 0)->claim_sequence;
    }
    dedup_outcome_free(outcome);
    return fence;
}

uint32_t kind_of(const char* key) {
    dedup_outcome* outcome = NULL;
    OK(dedup_lookup(cache, key, strlen(key), &outcome, &error));
    const uint32_t kind = outcome == NULL ? DEDUP_ERROR : dedup_outcome_at(outcome, 0)->kind;
    dedup_outcome_free(outcome);
    return kind;
}

int main(int argc, char** argv) {
    if (argc != 2) {
        return 2;
    }
    OK(dedup_open(argv[1], NULL, &store, &error));
    OK(dedup_cache_new(store, NULL, &cache, &error));
    if (failures == 0) {
        test_protocol();
        test_border();
        test_process(argv[1]);
    }
    return failures == 0 ? 0 : 1;
}
