/* What the tests of dedup.h share: checks, and a store that is open. */
#ifndef DEDUP_TESTS_C_CHECK_H
#define DEDUP_TESTS_C_CHECK_H

#include <dedup/dedup.h>

#include <stdio.h>
#include <string.h>

extern int failures;
extern const char* running;

#define CHECK(condition)                                                         \
    do {                                                                         \
        if (!(condition)) {                                                      \
            fprintf(stderr, "%s: line %d: %s\n", running, __LINE__, #condition); \
            ++failures;                                                          \
        }                                                                        \
    } while (0)

/* A call that must succeed. */
#define OK(call)                                                                   \
    do {                                                                           \
        const int code_ = (call);                                                  \
        if (code_ != DEDUP_OK) {                                                   \
            fprintf(stderr, "%s: line %d: %s: %s: %s\n", running, __LINE__, #call, \
                    dedup_code_name(code_), error.message);                        \
            ++failures;                                                            \
        }                                                                          \
        CHECK(error.code == code_);                                                \
    } while (0)

/* A call that must fail with a code and a message that has this in it. */
#define FAILS(expected, part, call)                                                              \
    do {                                                                                         \
        const int code_ = (call);                                                                \
        if (code_ != (expected) || error.code != code_ || strstr(error.message, part) == NULL) { \
            fprintf(stderr, "%s: line %d: %s: %s: \"%s\" without \"%s\"\n", running, __LINE__,   \
                    #call, dedup_code_name(code_), error.message, part);                         \
            ++failures;                                                                          \
        }                                                                                        \
    } while (0)

extern dedup_error error;
extern dedup_store* store;
extern dedup_cache* cache;

dedup_bytes text(const char* string);
/* Whether these are the bytes, with a zero behind them. */
int is(dedup_bytes bytes, const char* string);
/* Claims a key that must be free, and gives its fence. */
uint64_t fence_of(const char* key, const dedup_claim_options* options);
/* What a lookup says. */
uint32_t kind_of(const char* key);

void test_protocol(void);
void test_border(void);
void test_process(const char* directory);

/* Runs one test and prints its name. */
#define RUN(test)                \
    do {                         \
        running = #test;         \
        test();                  \
        printf("%s\n", running); \
        fflush(stdout);          \
    } while (0)

#endif
