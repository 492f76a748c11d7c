// The library for C, and for every language that can call C: stores, the claim protocol, sweeps.
//
//     dedup_store* store;
//     dedup_cache* cache;
//     dedup_outcome* outcome;
//     dedup_error error = {.size = sizeof error};
//     if (dedup_open("/var/lib/payments", NULL, &store, &error) != DEDUP_OK ||
//         dedup_cache_new(store, NULL, &cache, &error) != DEDUP_OK ||
//         dedup_claim(cache, "order-17", 8, NULL, &outcome, &error) != DEDUP_OK) {
//         fprintf(stderr, "%s\n", error.message);
//         ...
//     }
//     const dedup_answer* answer = dedup_outcome_at(outcome, 0);
//     if (answer->kind == DEDUP_CLAIMED) {
//         ... do the work ...
//         dedup_complete(cache, "order-17", 8, answer->claim_sequence, "paid", 4, NULL, &error);
//     }
//     dedup_outcome_free(outcome);
//
// What holds for every call:
//
// - **Result.** A call that can fail returns DEDUP_OK or a code above 0, and says more in the
//   dedup_error it was given, which may be NULL. Outcomes that a caller plans for (a duplicate, a
//   key in flight) are no failures: dedup_answer.kind tells them apart. No exception leaves a call,
//   and none ends the process. When memory runs out, a call that only reads or opens gives
//   DEDUP_OUT_OF_SPACE, and one that may have changed the store DEDUP_OUTCOME_UNKNOWN.
// - **Structs.** Each struct that the caller fills begins with its size: set it to sizeof, all else
//   to zero, and then what is wanted; 0 always means the default. A program that was built with an
//   older header has a smaller size, and what it does not know of takes its default. A larger one
//   may have nothing but zeros where this library knows no field, or the call is
//   DEDUP_INVALID_ARGUMENT. A size is a multiple of 8, from 8 to 4,096.
//   Structs that the library fills grow at their end. They come by pointer: use
//   dedup_outcome_at(), never sizeof, to go from one to the next.
// - **Bytes.** Keys, receipts and texts are pointer and size, may contain zeros, and need to live
//   for the call only. A NULL pointer is fine with size 0 alone. What the library gives is followed
//   by a zero byte, which does not count. Only paths, and names that the library gives, are C
//   strings.
// - **Lifetime.** What a call gives belongs to the caller until the one call that frees it, which
//   takes NULL, too. A cache keeps its store open, and a queue its cache: the order in which they
//   are freed does not matter. Nothing may be freed while another thread uses it.
// - **Output pointers.** If a call fails, what they point to is set to NULL or 0.
// - **Threads.** Any thread may call anything, on the same handle too. A thread may be cancelled
//   (pthread_cancel) in calls that append, which then do nothing, and in dedup_wait.
// - **Forks.** Handles belong to the process that made them. In a forked child every call gives
//   DEDUP_CLOSED; freeing them there touches nothing of the parent's.
// - **Times** are milliseconds; points in time count from 1970-01-01 UTC.
//
// The C++ headers of the same names say the rest: dedup/cache.hpp on the protocol,
// dedup/log_store.hpp, remote_store.hpp and postgres_store.hpp on the stores.
#ifndef DEDUP_DEDUP_H
#define DEDUP_DEDUP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DEDUP_C_API __attribute__((visibility("default")))

// ---- Errors -------------------------------------------------------------------------------------

// The numbers are pinned: they never change their meaning.
enum {
    DEDUP_OK = 0,
    DEDUP_INVALID_ARGUMENT = 1,     // the call itself is wrong; nothing was done
    DEDUP_IO = 2,                   // the operating system failed a call; see os_error
    DEDUP_OUT_OF_SPACE = 3,         // no room, on disk or in memory; nothing was written
    DEDUP_CORRUPTION = 4,           // stored bytes are not what was written
    DEDUP_UNSUPPORTED_VERSION = 5,  // written by a newer version of this library
    DEDUP_BUSY = 6,                 // another process holds the store, or a queue is full
    DEDUP_READ_ONLY = 7,            // the store was opened without the right to write
    DEDUP_CLOSED = 8,               // the store was closed, or another process opened it and forked
    DEDUP_FAILED = 9,               // an earlier write or flush failed; reopen the store to go on
    DEDUP_SEQUENCE_CONFLICT = 10,   // the stream's head is not the expected one
    DEDUP_STALE_CLAIM = 11,         // the claim was taken over, released or has expired
    DEDUP_NOT_CLAIMED = 12,         // there is no claim on this key to complete
    DEDUP_RECEIPT_MISMATCH = 13,    // the key is completed with other bytes
    DEDUP_OUTCOME_UNKNOWN = 14,     // it may or may not have been done; look the key up
    DEDUP_UNAVAILABLE = 15          // a service that the store depends on cannot be reached now
};

#define DEDUP_MESSAGE_BYTES 2000

// Filled by each call that is given one; a call that succeeds sets `code` to DEDUP_OK and the
// message to "".
typedef struct dedup_error {
    size_t size;             // sizeof(dedup_error), set by the caller before its first use
    int32_t code;            // what the call returned
    int32_t os_error;        // errno of the call that failed, or 0
    uint64_t head_sequence;  // with DEDUP_SEQUENCE_CONFLICT: the head that was found
    // For people: names the file, key or field, and the way out. Ends with a zero byte; a longer
    // text is cut.
    char message[DEDUP_MESSAGE_BYTES];
} dedup_error;

// "invalid_argument" and so on; "ok" for DEDUP_OK, "unknown" for any other number. Never NULL.
DEDUP_C_API const char* dedup_code_name(int code);

// The version of the library, such as "0.2.0".
DEDUP_C_API const char* dedup_version(void);

// ---- Bytes and limits ---------------------------------------------------------------------------

typedef struct dedup_bytes {
    const void* data;  // may be NULL if `size` is 0
    size_t size;
} dedup_bytes;

#define DEDUP_KEY_BYTES_MAX 1024          // at least 1
#define DEDUP_NAMESPACE_BYTES_MAX 255     // at least 1, printable ASCII
#define DEDUP_RECEIPT_BYTES_MAX 16777216  // an empty one is a receipt
#define DEDUP_METADATA_BYTES_MAX 65536
#define DEDUP_LABEL_BYTES_MAX 1024  // owner, fingerprint and event id, each
#define DEDUP_REASON_BYTES_MAX 4096

#define DEDUP_FOREVER INT64_MAX  // as a time to live: never expires
#define DEDUP_NEVER UINT32_MAX   // as attempts_max: no limit, whatever the cache says
#define DEDUP_NONE (-1)          // as grace_ms: none

// ---- Stores -------------------------------------------------------------------------------------

typedef struct dedup_store dedup_store;

enum {
    DEDUP_SYNC = 0,  // what was acknowledged survives kill -9, a crash of the system and power loss
    DEDUP_ASYNC = 1  // kill -9; a crash of the system may cost the last flush interval
};

// As dedup::OpenOptions. NULL: all defaults.
typedef struct dedup_open_options {
    size_t size;
    uint32_t read_only;         // 0 or 1: no lock, writes nothing, works beside a live writer
    uint32_t must_exist;        // 0 or 1: creates no store
    uint32_t durability;        // DEDUP_SYNC or DEDUP_ASYNC
    uint32_t trust_clock;       // 0 or 1: however far the clock jumps forward, it is right
    int64_t flush_interval_ms;  // with DEDUP_ASYNC: 1 to 60,000; 0: 100
    int64_t lock_timeout_ms;    // how long to wait for another writer; 0: not at all
    int64_t grace_ms;           // behind an expiry; 0: 1,000; DEDUP_NONE: none
    uint64_t segment_bytes;     // 64 KiB to 1 GiB; 0: the store chooses
    uint64_t keys_max;          // streams that it may hold; 0: no limit
    uint64_t bytes_max;         // of the log; 0: no limit
    uint32_t evict_oldest;      // 0 or 1: at a limit the oldest completed keys go
    uint32_t mode;              // of a new store's directory, less the umask; 0: 0700
} dedup_open_options;

// Opens the store at `path`: a directory; "unix:PATH", "tcp://[USER:PASSWORD@]HOST:PORT", or with
// TLS "tls://[USER:PASSWORD@]HOST:PORT" (served by dedupctl serve; dedup/remote_store.hpp says what
// may follow a '?'); or "postgresql://..." (made by dedup_init_postgres).
// Errors: DEDUP_INVALID_ARGUMENT (no store there, not a store, or bad options), DEDUP_BUSY (says
// which process has it open for writing), DEDUP_UNSUPPORTED_VERSION, DEDUP_CORRUPTION, DEDUP_IO,
// DEDUP_OUT_OF_SPACE, DEDUP_UNAVAILABLE.
DEDUP_C_API int dedup_open(const char* path, const dedup_open_options* options, dedup_store** store,
                           dedup_error* error);

// A store in memory, for tests: nothing survives it. Of the options it takes trust_clock, grace_ms,
// keys_max, bytes_max and evict_oldest.
DEDUP_C_API int dedup_open_memory(const dedup_open_options* options, dedup_store** store,
                                  dedup_error* error);

// Makes the schema that a store in PostgreSQL needs, or brings an older one up to date. `changed`
// (may be NULL): 1 if it did, 0 if all was there. Errors: those of dedup_open.
DEDUP_C_API int dedup_init_postgres(const char* url, int* changed, dedup_error* error);

// Flushes and gives up all files and locks, and says whether that failed. Later calls on the store
// and on what uses it give DEDUP_CLOSED. Closing again gives the same result again. The handle
// stays valid until dedup_store_free.
// Errors: DEDUP_BUSY (called from within the progress of a sweep), and those of dedup_flush.
DEDUP_C_API int dedup_close(dedup_store* store, dedup_error* error);

// Gives up the handle. The store is closed when its last cache is freed, too; what fails then
// nobody is told.
DEDUP_C_API void dedup_store_free(dedup_store* store);

// Makes durable what was acknowledged before. With DEDUP_SYNC it already is.
DEDUP_C_API int dedup_flush(dedup_store* store, dedup_error* error);

// The store's time: its clock's, but never less than the highest that it has seen.
DEDUP_C_API int dedup_now(dedup_store* store, int64_t* now_ms, dedup_error* error);

// ---- Caches: the claim protocol -----------------------------------------------------------------

typedef struct dedup_cache dedup_cache;

// What becomes of a claim that nobody answers before its lease runs out.
enum {
    DEDUP_RERUN = 1,  // the next claim takes it over and works again
    DEDUP_HOLD = 2    // the key waits for a decision: dedup_resolve
};

typedef struct dedup_cache_options {
    size_t size;
    dedup_bytes ns;         // the namespace; empty: "default"
    int64_t ttl_ms;         // how long receipts live, at least 1; 0: a day; DEDUP_FOREVER
    uint32_t unanswered;    // DEDUP_RERUN or DEDUP_HOLD; 0: DEDUP_RERUN
    uint32_t attempts_max;  // from this attempt on a claim is under DEDUP_HOLD; 0: never
} dedup_cache_options;

// A namespace of a store, with defaults. Costs nothing: the store knows nothing of caches.
// Errors: DEDUP_INVALID_ARGUMENT.
DEDUP_C_API int dedup_cache_new(dedup_store* store, const dedup_cache_options* options,
                                dedup_cache** cache, dedup_error* error);
DEDUP_C_API void dedup_cache_free(dedup_cache* cache);

// What an answer says. A kind is never one that lets somebody work, but for DEDUP_CLAIMED.
enum {
    DEDUP_ERROR = 0,      // of a _many call or a queue: this item failed; see code and message
    DEDUP_CLAIMED = 1,    // the caller works now, and answers with claim_sequence
    DEDUP_COMPLETED = 2,  // the work was done: receipt
    DEDUP_IN_FLIGHT = 3,  // somebody else works
    DEDUP_MISMATCH = 4,   // the key is known with another fingerprint
    DEDUP_HELD = 5,       // nobody answered the last claim: it waits for dedup_resolve
    DEDUP_ABSENT = 6,     // nothing is known of the key
    DEDUP_NEW = 7,        // remembered by this call
    DEDUP_DONE = 8,       // completed, released, renewed or noted by this call
    DEDUP_NOTHING = 9     // there was nothing to release
};

// How the claim before this one came to its end, or why it waits.
enum {
    DEDUP_END_LEASE_RAN_OUT = 1,  // unanswered
    DEDUP_END_EXPIRED = 2,        // unanswered, and without a lease
    DEDUP_END_RELEASED = 3,       // by its holder, or by dedup_release_current
    DEDUP_END_RESOLVED = 4,       // somebody said that the work had not been done
    DEDUP_END_FORGOTTEN = 5,      // it was completed, and somebody took that back
    DEDUP_END_HELD = 6,           // its holder could not say what became of the work
    DEDUP_END_RESTARTED = 7       // unanswered: its owner came again; see reclaim_before_ms
};

// The claim before this one, and what is known of it.
typedef struct dedup_previous {
    uint32_t end;  // DEDUP_END_...
    uint32_t attempt;
    uint64_t claim_sequence;
    int64_t began_ms;  // 0: not known
    int64_t ended_ms;
    dedup_bytes owner;
    dedup_bytes note;  // the last one, or the metadata that it was claimed with
    dedup_bytes event_id;
    dedup_bytes reason;  // of whoever held, resolved or forgot it
    dedup_bytes by;      // who that was
} dedup_previous;

// What is known of one key. Which fields a kind has is said with each; the others are 0.
typedef struct dedup_answer {
    uint32_t kind;            // DEDUP_CLAIMED and so on
    int32_t code;             // ERROR: its code
    uint64_t tag;             // of a queue: the one that was given with the request
    uint64_t claim_sequence;  // the fence. CLAIMED, COMPLETED, IN_FLIGHT, NEW, HELD
    uint64_t head_sequence;   // ERROR
    int64_t deadline_ms;      // CLAIMED, or renewed: when it may be lost; 0: never
    int64_t since_ms;         // IN_FLIGHT, MISMATCH: since; COMPLETED: when
    int64_t lease_until_ms;   // IN_FLIGHT: 0: no lease
    int64_t expires_at_ms;    // IN_FLIGHT, COMPLETED: 0: never
    uint64_t conflicts;       // MISMATCH: how many, while the key was in flight
    uint32_t attempt;         // CLAIMED, COMPLETED, IN_FLIGHT
    int32_t os_error;         // ERROR
    uint32_t unanswered;      // IN_FLIGHT: DEDUP_RERUN or DEDUP_HOLD
    uint32_t held;            // IN_FLIGHT: 1: nobody works, it waits for a decision
    uint32_t completed;       // MISMATCH: 1: the key is completed; 0: it is in flight
    uint32_t reserved;
    dedup_bytes receipt;             // COMPLETED
    dedup_bytes metadata;            // COMPLETED, IN_FLIGHT
    dedup_bytes event_id;            // COMPLETED, IN_FLIGHT
    dedup_bytes owner;               // IN_FLIGHT
    dedup_bytes fingerprint;         // MISMATCH: the one that the key is known with
    dedup_bytes message;             // ERROR
    const dedup_previous* previous;  // HELD; CLAIMED and NEW, if there was one; else NULL
} dedup_answer;

// One answer, or one for each item of a _many call, in their order.
typedef struct dedup_outcome dedup_outcome;

DEDUP_C_API size_t dedup_outcome_count(const dedup_outcome* outcome);
// Lives as long as the outcome. NULL if there is no answer `i`.
DEDUP_C_API const dedup_answer* dedup_outcome_at(const dedup_outcome* outcome, size_t i);
DEDUP_C_API void dedup_outcome_free(dedup_outcome* outcome);

// The same as two blocks of memory, for languages to which each call and pointer is dear: answers
// one behind the other, and the bytes that all of their dedup_bytes (and those of `previous`) point
// into. `previous` points into a third one.
typedef struct dedup_view {
    size_t size;
    size_t count;
    const void* answers;
    size_t answer_bytes;  // from one answer to the next
    const void* texts;
    size_t texts_bytes;
    const void* previous;
    size_t previous_bytes;  // of all of them
} dedup_view;

// Fills as much of `view` as its size has room for. Errors: DEDUP_INVALID_ARGUMENT.
DEDUP_C_API int dedup_outcome_view(const dedup_outcome* outcome, dedup_view* view,
                                   dedup_error* error);

// As dedup::ClaimOptions. NULL: all defaults.
typedef struct dedup_claim_options {
    size_t size;
    int64_t lease_ms;           // at least 1; 0: none, the claim holds until its time to live
    int64_t ttl_ms;             // at least 1; 0: the cache's; DEDUP_FOREVER
    int64_t expires_at_ms;      // an absolute expiry instead; 0: none
    int64_t reclaim_before_ms;  // see dedup/cache.hpp; 0: none
    uint32_t unanswered;        // DEDUP_RERUN or DEDUP_HOLD; 0: the cache's
    uint32_t attempts_max;      // 0: the cache's; DEDUP_NEVER
    dedup_bytes owner;          // for people
    dedup_bytes fingerprint;    // of the request; empty: not compared
    dedup_bytes event_id;
    dedup_bytes metadata;
} dedup_claim_options;

// Claims `key` if nobody holds it. A duplicate costs no append.
// Kinds: CLAIMED, COMPLETED, IN_FLIGHT, MISMATCH, HELD.
// Errors: DEDUP_INVALID_ARGUMENT, DEDUP_OUT_OF_SPACE, DEDUP_READ_ONLY, DEDUP_CLOSED, DEDUP_FAILED,
// DEDUP_OUTCOME_UNKNOWN, DEDUP_UNAVAILABLE, DEDUP_CORRUPTION, DEDUP_IO: "those of an append".
DEDUP_C_API int dedup_claim(dedup_cache* cache, const void* key, size_t key_bytes,
                            const dedup_claim_options* options, dedup_outcome** outcome,
                            dedup_error* error);

// As dedup_claim, for `count` keys at the cost of one flush. Of two equal keys the first wins and
// the second gets what a duplicate gets. `options` has options_count elements: 0, 1 for all keys,
// or one a key, all of one size. An item that fails is an answer of kind ERROR; the call itself
// fails only if it is wrong or cannot answer. (The same holds for the other _many calls.)
DEDUP_C_API int dedup_claim_many(dedup_cache* cache, const dedup_bytes* keys, size_t count,
                                 const dedup_claim_options* options, size_t options_count,
                                 dedup_outcome** outcome, dedup_error* error);

typedef struct dedup_complete_options {
    size_t size;
    int64_t ttl_ms;  // of the receipt, at least 1; 0: what the claim asked for; DEDUP_FOREVER
    uint32_t set_metadata;  // 1: `metadata` takes the place of the claim's; 0: that stays
    uint32_t reserved;
    dedup_bytes metadata;
} dedup_complete_options;

// Stores the receipt that every later claim of the key will get. `claim_sequence` is that of the
// claim's answer. Completing again with equal bytes is a no-op.
// Errors: DEDUP_STALE_CLAIM, DEDUP_RECEIPT_MISMATCH, DEDUP_INVALID_ARGUMENT, those of an append.
DEDUP_C_API int dedup_complete(dedup_cache* cache, const void* key, size_t key_bytes,
                               uint64_t claim_sequence, const void* receipt, size_t receipt_bytes,
                               const dedup_complete_options* options, dedup_error* error);

// Three arrays of `count` elements. Kinds: DONE, ERROR.
DEDUP_C_API int dedup_complete_many(dedup_cache* cache, const dedup_bytes* keys,
                                    const uint64_t* claim_sequences, const dedup_bytes* receipts,
                                    size_t count, const dedup_complete_options* options,
                                    size_t options_count, dedup_outcome** outcome,
                                    dedup_error* error);

// Completes whatever claim is current, for callers that have none.
// Errors: DEDUP_NOT_CLAIMED, DEDUP_STALE_CLAIM (the key is held: see dedup_resolve), and those of
// dedup_complete.
DEDUP_C_API int dedup_complete_current(dedup_cache* cache, const void* key, size_t key_bytes,
                                       const void* receipt, size_t receipt_bytes,
                                       const dedup_complete_options* options, dedup_error* error);

// Gives the claim up so that somebody can try again. `released` (may be NULL): 1 if this call did
// it, 0 if there was nothing to release. Errors: DEDUP_STALE_CLAIM, those of an append.
DEDUP_C_API int dedup_release(dedup_cache* cache, const void* key, size_t key_bytes,
                              uint64_t claim_sequence, int* released, dedup_error* error);
// Kinds: DONE, NOTHING, ERROR.
DEDUP_C_API int dedup_release_many(dedup_cache* cache, const dedup_bytes* keys,
                                   const uint64_t* claim_sequences, size_t count,
                                   dedup_outcome** outcome, dedup_error* error);
// Releases whatever claim is current. Errors: DEDUP_STALE_CLAIM (the key is held), those of an
// append.
DEDUP_C_API int dedup_release_current(dedup_cache* cache, const void* key, size_t key_bytes,
                                      int* released, dedup_error* error);

// Lets the lease run until `lease_ms` from now and keeps the fence. `deadline_ms` (may be NULL):
// until when. Works after the lease ran out as long as nobody has taken the claim over.
// Errors: DEDUP_STALE_CLAIM, DEDUP_INVALID_ARGUMENT, those of an append.
DEDUP_C_API int dedup_renew(dedup_cache* cache, const void* key, size_t key_bytes,
                            uint64_t claim_sequence, int64_t lease_ms, int64_t* deadline_ms,
                            dedup_error* error);
// Kinds: DONE (with deadline_ms), ERROR.
DEDUP_C_API int dedup_renew_many(dedup_cache* cache, const dedup_bytes* keys,
                                 const uint64_t* claim_sequences, size_t count, int64_t lease_ms,
                                 dedup_outcome** outcome, dedup_error* error);

// Writes down what the holder is about to do, in place of the claim's metadata; it stays, also for
// later claims, until another takes its place or somebody decides. Durable before it returns, with
// DEDUP_ASYNC, too. Errors: DEDUP_STALE_CLAIM (also once the key is held), DEDUP_INVALID_ARGUMENT,
// those of an append.
DEDUP_C_API int dedup_note(dedup_cache* cache, const void* key, size_t key_bytes,
                           uint64_t claim_sequence, const void* metadata, size_t metadata_bytes,
                           dedup_error* error);
// Three arrays of `count` elements; one flush. Kinds: DONE, ERROR.
DEDUP_C_API int dedup_note_many(dedup_cache* cache, const dedup_bytes* keys,
                                const uint64_t* claim_sequences, const dedup_bytes* metadata,
                                size_t count, dedup_outcome** outcome, dedup_error* error);

// For a holder who cannot say whether its work was done: nobody works until it is resolved.
// Errors: those of dedup_note.
DEDUP_C_API int dedup_hold(dedup_cache* cache, const void* key, size_t key_bytes,
                           uint64_t claim_sequence, const void* reason, size_t reason_bytes,
                           dedup_error* error);

enum {
    DEDUP_WAS_DONE = 1,     // the work had been done: the receipt counts
    DEDUP_WAS_NOT_DONE = 2  // it had not: the key is free
};

typedef struct dedup_resolution {
    size_t size;
    uint32_t decision;  // DEDUP_WAS_DONE or DEDUP_WAS_NOT_DONE
    uint32_t reserved;
    int64_t ttl_ms;       // of the receipt, as in dedup_complete_options
    dedup_bytes receipt;  // with DEDUP_WAS_DONE
    dedup_bytes reason;   // 1 to DEDUP_REASON_BYTES_MAX bytes
    dedup_bytes by;       // who says so
} dedup_resolution;

// Answers for a claim whose holder did not. `claim_sequence` is the one that was looked at.
// Errors: DEDUP_BUSY (its lease still runs), DEDUP_STALE_CLAIM, DEDUP_RECEIPT_MISMATCH,
// DEDUP_INVALID_ARGUMENT, those of an append.
DEDUP_C_API int dedup_resolve(dedup_cache* cache, const void* key, size_t key_bytes,
                              uint64_t claim_sequence, const dedup_resolution* resolution,
                              dedup_error* error);

// Makes a completed key claimable again; nothing else does. `claim_sequence` 0: whichever was
// completed. `reason`: 1 to DEDUP_REASON_BYTES_MAX bytes. `forgotten` (may be NULL): 0 if the key
// is not completed. Errors: DEDUP_STALE_CLAIM, DEDUP_INVALID_ARGUMENT, those of an append.
DEDUP_C_API int dedup_forget(dedup_cache* cache, const void* key, size_t key_bytes,
                             uint64_t claim_sequence, dedup_bytes reason, dedup_bytes by,
                             int* forgotten, dedup_error* error);

// What is known of the key; appends nothing. Kinds: ABSENT, IN_FLIGHT, COMPLETED.
// Errors: DEDUP_INVALID_ARGUMENT, DEDUP_CLOSED, DEDUP_CORRUPTION, DEDUP_IO, DEDUP_UNAVAILABLE.
DEDUP_C_API int dedup_lookup(dedup_cache* cache, const void* key, size_t key_bytes,
                             dedup_outcome** outcome, dedup_error* error);
DEDUP_C_API int dedup_lookup_many(dedup_cache* cache, const dedup_bytes* keys, size_t count,
                                  dedup_outcome** outcome, dedup_error* error);

// Claims and completes in one append, for work that is done by recording it. A lease has no meaning
// here and is refused. Kinds: NEW, COMPLETED, IN_FLIGHT, MISMATCH, HELD. Errors: as dedup_claim.
DEDUP_C_API int dedup_remember(dedup_cache* cache, const void* key, size_t key_bytes,
                               const void* receipt, size_t receipt_bytes,
                               const dedup_claim_options* options, dedup_outcome** outcome,
                               dedup_error* error);
DEDUP_C_API int dedup_remember_many(dedup_cache* cache, const dedup_bytes* keys,
                                    const dedup_bytes* receipts, size_t count,
                                    const dedup_claim_options* options, size_t options_count,
                                    dedup_outcome** outcome, dedup_error* error);

// Blocks while the key is in flight and its lease, if any, runs; at most timeout_ms, of real time.
// Gives what dedup_lookup gives then. Errors: those of dedup_lookup.
DEDUP_C_API int dedup_wait(dedup_cache* cache, const void* key, size_t key_bytes,
                           int64_t timeout_ms, dedup_outcome** outcome, dedup_error* error);

// ---- Queues: claims and completions that nobody waits for ---------------------------------------

// A few threads that carry out requests, all that wait at once in one append, and a descriptor that
// is readable while there are answers to take. Requests may be carried out in any order, so one
// that depends on another is given when that one has been answered.
typedef struct dedup_queue dedup_queue;

typedef struct dedup_queue_options {
    size_t size;
    uint32_t threads;       // 1 to 16; 0: 2, one collects while the other waits for the disk
    uint32_t requests_max;  // given and not taken yet, 1 to 1,000,000; 0: 65,536
} dedup_queue_options;

// Errors: DEDUP_INVALID_ARGUMENT, DEDUP_IO (no thread or descriptor).
DEDUP_C_API int dedup_queue_new(dedup_cache* cache, const dedup_queue_options* options,
                                dedup_queue** queue, dedup_error* error);

// Carries out what has been given, drops the answers that nobody took, and ends the threads.
DEDUP_C_API void dedup_queue_free(dedup_queue* queue);

// For poll, epoll, select and the like: do not read from it, nor close it. -1 in a forked child.
DEDUP_C_API int dedup_queue_descriptor(const dedup_queue* queue);

// As dedup_claim, dedup_complete and dedup_release, but return at once. What they are given is
// copied. `tag` comes back in the answer. Errors: DEDUP_INVALID_ARGUMENT (an option; what is wrong
// with the key or a value is in the answer), DEDUP_BUSY (requests_max are there: take the answers),
// DEDUP_CLOSED, DEDUP_OUT_OF_SPACE; there will be no answer then.
DEDUP_C_API int dedup_queue_claim(dedup_queue* queue, uint64_t tag, const void* key,
                                  size_t key_bytes, const dedup_claim_options* options,
                                  dedup_error* error);
DEDUP_C_API int dedup_queue_complete(dedup_queue* queue, uint64_t tag, const void* key,
                                     size_t key_bytes, uint64_t claim_sequence, const void* receipt,
                                     size_t receipt_bytes, const dedup_complete_options* options,
                                     dedup_error* error);
DEDUP_C_API int dedup_queue_release(dedup_queue* queue, uint64_t tag, const void* key,
                                    size_t key_bytes, uint64_t claim_sequence, dedup_error* error);

// Takes all answers that are there, in the order in which they came; perhaps none. Never waits.
// If it fails with DEDUP_OUT_OF_SPACE, they stay to be taken.
DEDUP_C_API int dedup_queue_take(dedup_queue* queue, dedup_outcome** outcome, dedup_error* error);

// ---- Sweeps and statistics ----------------------------------------------------------------------

// Called now and then on the sweep's thread, with how much of the work it knows of is done, in
// bytes of the log. Anything but 0 ends the sweep early, as a limit does. It may use the store; it
// must neither throw nor longjmp.
typedef int (*dedup_sweep_progress)(void* context, uint64_t done, uint64_t total);

// As dedup::SweepOptions. NULL: all defaults.
typedef struct dedup_sweep_options {
    size_t size;
    uint32_t dry_run;         // 0 or 1: say what a sweep would do, and change nothing
    uint32_t trust_clock;     // 0 or 1: the time is right, however far it jumped
    uint32_t compact;         // 0 or 1: leave next to no garbage, at the price of writing more
    uint32_t skip_retained;   // 0 or 1: `retained` may be left at 0 where counting costs a scan
    int64_t now_ms;           // as of this time; 0: the store's
    int64_t time_max_ms;      // limits on the space that is given back; 0: none
    uint64_t records_max;     // moved
    uint64_t bytes_max;       // of segments given back
    uint64_t unanswered_max;  // claims that are named in the report; 0: 100
    dedup_sweep_progress progress;  // may be NULL
    void* context;                  // for `progress`
} dedup_sweep_options;

typedef struct dedup_counts {
    uint64_t in_flight;
    uint64_t completed;
    uint64_t released;
} dedup_counts;

typedef struct dedup_swept_namespace {
    dedup_bytes ns;
    dedup_counts removed;
    dedup_counts retained;
} dedup_swept_namespace;

// A claim that expired in flight: nobody said what became of the work.
typedef struct dedup_unanswered {
    dedup_bytes ns;
    dedup_bytes key;
    dedup_bytes owner;
    uint64_t claim_sequence;
    int64_t claimed_at_ms;
    int64_t expired_at_ms;
    uint32_t attempt;  // 0: not known, in the report of an older version
    uint32_t reserved;
    dedup_bytes event_id;
    dedup_bytes note;  // the last one, or the metadata that it was claimed with: 256 bytes of it
} dedup_unanswered;

// As dedup::SweepReport, which says more of each field.
typedef struct dedup_sweep_report {
    int64_t now_ms;
    uint32_t dry_run;
    uint32_t finished;  // 0: a limit or a stop left space that the next sweep gives back
    uint32_t withheld;  // 1: nothing was removed for having expired, as the clock jumped
    uint32_t withheld_by_reset;
    int64_t withheld_jump_from_ms;
    int64_t withheld_since_ms;
    int64_t withheld_until_ms;
    dedup_counts removed;
    dedup_counts retained;
    uint64_t evicted;
    int64_t next_expiry_ms;  // 0: nothing expires
    uint64_t segments_dropped;
    uint64_t segments_compacted;
    uint64_t records_dropped;
    uint64_t records_moved;
    uint64_t bytes_before;  // of the log
    uint64_t bytes_after;
    uint64_t longest_pause_us;
    uint64_t duration_us;
    uint64_t damaged;         // places in the log that could not be read
    dedup_bytes damage;       // the first of them
    size_t namespaces_count;  // those from which streams were removed; by name
    const dedup_swept_namespace* const* namespaces;
    size_t unanswered_count;  // lowest sequence first; removed.in_flight says how many in all
    const dedup_unanswered* const* unanswered;
} dedup_sweep_report;

// Removes what has expired and gives back its space; appends and reads go on meanwhile. `report`
// (may be NULL) is freed with dedup_sweep_report_free.
// Errors: DEDUP_CLOSED, DEDUP_READ_ONLY, DEDUP_FAILED, DEDUP_CORRUPTION, DEDUP_IO,
// DEDUP_OUT_OF_SPACE, DEDUP_BUSY (from within `progress`), DEDUP_INVALID_ARGUMENT. What had been
// counted before the error stays removed.
DEDUP_C_API int dedup_sweep(dedup_store* store, const dedup_sweep_options* options,
                            dedup_sweep_report** report, dedup_error* error);
DEDUP_C_API void dedup_sweep_report_free(dedup_sweep_report* report);

// As dedup::StoreStats, which says more of each field.
typedef struct dedup_stats {
    dedup_bytes store_id;  // 32 hex digits
    dedup_counts streams;  // by the state of their head, expired ones included
    uint64_t records;
    uint64_t last_sequence;
    int64_t time_high_ms;      // the highest time that the store has seen
    int64_t clock_ms;          // what its clock says
    uint32_t withheld;         // 1: a sweep would remove nothing now, as the clock jumped
    uint32_t catalog_rebuilt;  // 1: by the last opening
    int64_t withheld_until_ms;
    uint64_t segments_sealed;
    uint64_t segments_unsealed;
    uint64_t log_bytes;
    uint64_t catalog_bytes;
    uint64_t tail_bytes;
    uint64_t memory_bytes;
    uint64_t torn_bytes_dropped;  // by the last opening
    uint64_t evicted;
    int64_t last_sweep_ms;  // 0: none yet
    uint64_t damaged;
    dedup_bytes damage;
    dedup_bytes background_error;  // empty: none
    dedup_bytes sweep_error;       // empty: none
    dedup_bytes write_error;       // why the store takes no more writes; empty: it takes them
} dedup_stats;

// `stats` is freed with dedup_stats_free. Errors: DEDUP_CLOSED, DEDUP_IO, DEDUP_UNAVAILABLE.
DEDUP_C_API int dedup_get_stats(dedup_store* store, dedup_stats** stats, dedup_error* error);
DEDUP_C_API void dedup_stats_free(dedup_stats* stats);

#ifdef __cplusplus
}
#endif

#endif
