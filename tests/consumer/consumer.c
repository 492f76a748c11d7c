/* A program in C outside this project: it knows dedup.h and the library, and nothing else. */
#include <dedup/dedup.h>

#include <stdio.h>
#include <string.h>

int main(int argc, char** argv) {
    dedup_error error = {.size = sizeof error};
    dedup_store* store = NULL;
    dedup_cache* cache = NULL;
    dedup_outcome* outcome = NULL;
    if (argc != 2) {
        return 2;
    }
    if (dedup_open(argv[1], NULL, &store, &error) != DEDUP_OK ||
        dedup_cache_new(store, NULL, &cache, &error) != DEDUP_OK ||
        dedup_remember(cache, "order-1", 7, "paid", 4, NULL, &outcome, &error) != DEDUP_OK) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    const int is_new = dedup_outcome_at(outcome, 0)->kind == DEDUP_NEW;
    dedup_outcome_free(outcome);
    dedup_cache_free(cache);
    dedup_store_free(store);
    printf("%s\n", dedup_version());
    return is_new ? 0 : 1;
}
