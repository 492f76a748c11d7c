// Sends an invoice once, however often and from however many processes it is asked to; in Go, by cgo.
//
//	go run claim.go STORE INVOICE
//
// The first run claims the invoice, does the work and completes the claim with a receipt. Every
// later run gets that receipt back and does no work. Exit status: 0 sent, now or earlier; 1 an
// error; 2 a usage error; 10 somebody else is at it; 17 somebody has to decide what became of it.
package main

// #cgo LDFLAGS: -ldedup
// #include <dedup/dedup.h>
// #include <stdlib.h>
import "C"

import (
	"errors"
	"fmt"
	"os"
	"unsafe"
)

var (
	errInFlight = errors.New("is in flight elsewhere; try again later")
	errHeld     = errors.New("waits for a decision; see `dedupctl held`")
)

// The exit statuses of what is no error.
var statuses = map[error]int{errInFlight: 10, errHeld: 17}

// Does what C does with a text: bytes that Go does not move, for as long as the call takes. The
// library keeps none of them.
func with(text string, call func(data unsafe.Pointer, size C.size_t) error) error {
	data := unsafe.Pointer(C.CString(text))
	defer C.free(data)
	return call(data, C.size_t(len(text)))
}

// Makes the library's answer an error of Go.
func check(code C.int, failure *C.dedup_error) error {
	if code == C.DEDUP_OK {
		return nil
	}
	return fmt.Errorf("%s (%s)", C.GoString(&failure.message[0]),
		C.GoString(C.dedup_code_name(code)))
}

func newError() *C.dedup_error {
	return &C.dedup_error{size: C.sizeof_dedup_error}
}

// The work: in a real program a payment, a mail, a row in another database.
func sendInvoice(invoice string) (string, error) {
	if _, err := fmt.Println("sending", invoice); err != nil {
		return "", err
	}
	return "sent " + invoice, nil
}

func complete(cache *C.dedup_cache, key unsafe.Pointer, size C.size_t, claim C.uint64_t,
	receipt string) error {
	return with(receipt, func(data unsafe.Pointer, bytes C.size_t) error {
		failure := newError()
		return check(C.dedup_complete(cache, key, size, claim, data, bytes, nil, failure), failure)
	})
}

func workAndAnswer(cache *C.dedup_cache, invoice string, key unsafe.Pointer, size C.size_t,
	claim C.uint64_t) error {
	receipt, failed := sendInvoice(invoice)
	if failed != nil {
		// Nothing happened, so let the next caller try at once, and not when the lease is over.
		failure := newError()
		code := C.dedup_release(cache, key, size, claim, nil, failure)
		if err := check(code, failure); err != nil {
			return err
		}
		return failed
	}
	// Fails with stale_claim if the lease ran out meanwhile and somebody else took over.
	if err := complete(cache, key, size, claim, receipt); err != nil {
		return err
	}
	fmt.Println("completed:", receipt)
	return nil
}

func sendOnce(cache *C.dedup_cache, invoice string) error {
	return with(invoice, func(key unsafe.Pointer, size C.size_t) error {
		// The lease should outlast the work; work of unknown length calls dedup_renew as it goes on.
		options := C.dedup_claim_options{size: C.sizeof_dedup_claim_options, lease_ms: 30000}
		var outcome *C.dedup_outcome
		failure := newError()
		code := C.dedup_claim(cache, key, size, &options, &outcome, failure)
		if err := check(code, failure); err != nil {
			return err
		}
		defer C.dedup_outcome_free(outcome)
		answer := C.dedup_outcome_at(outcome, 0)
		switch answer.kind {
		case C.DEDUP_COMPLETED:
			receipt := C.GoBytes(answer.receipt.data, C.int(answer.receipt.size))
			fmt.Println("replayed:", string(receipt))
			return nil
		case C.DEDUP_CLAIMED:
			return workAndAnswer(cache, invoice, key, size, answer.claim_sequence)
		case C.DEDUP_HELD:
			return errHeld
		default:
			return errInFlight
		}
	})
}

func run(path, invoice string) (result error) {
	failure := newError()
	var store *C.dedup_store
	// One process at a time has a store open for writing; the others wait for it.
	options := C.dedup_open_options{size: C.sizeof_dedup_open_options, lock_timeout_ms: 10000}
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	if err := check(C.dedup_open(name, &options, &store, failure), failure); err != nil {
		return err
	}
	defer C.dedup_store_free(store)
	var cache *C.dedup_cache
	if err := check(C.dedup_cache_new(store, nil, &cache, failure), failure); err != nil {
		return err
	}
	result = sendOnce(cache, invoice)
	C.dedup_cache_free(cache)
	if err := check(C.dedup_close(store, failure), failure); err != nil && result == nil {
		result = err
	}
	return result
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: claim STORE INVOICE")
		os.Exit(2)
	}
	err := run(os.Args[1], os.Args[2])
	if err == nil {
		return
	}
	if status, planned := statuses[err]; planned {
		fmt.Fprintf(os.Stderr, "claim: %s %v\n", os.Args[2], err)
		os.Exit(status)
	}
	fmt.Fprintf(os.Stderr, "claim: %v\n", err)
	os.Exit(1)
}
