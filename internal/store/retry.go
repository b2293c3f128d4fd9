package store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// How often and how long a request is retried. The queue redelivers a job that fails
// nevertheless, later and perhaps to another worker.
const (
	firstDelay = 100 * time.Millisecond
	maxDelay   = 15 * time.Second
	// retryFor limits the time without progress, dialFor the time without a server.
	retryFor, dialFor = 3 * time.Minute, 20 * time.Second
	// maxRetryAfter limits the delay that a server may ask for.
	maxRetryAfter = 2 * time.Minute
)

// retry calls do until it succeeds, fails permanently, or has made no progress for too
// long. name is the place, for the error.
func retry(ctx context.Context, name string, do func() (progress bool, err error)) error {
	delays := backoff.NewExponentialBackOff()
	delays.InitialInterval, delays.MaxInterval, delays.Multiplier, delays.RandomizationFactor = firstDelay, maxDelay, 2,
		0.5
	since, tries := time.Now(), 0
	for {
		progress, err := do()
		var t *transient
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !errors.As(err, &t):
			return err
		}
		if tries++; progress {
			delays.Reset()
			since, tries = time.Now(), 1
		}
		limit := retryFor
		if t.dial {
			limit = dialFor
		}
		wait := max(delays.NextBackOff(), min(t.after, maxRetryAfter))
		if time.Since(since)+wait > limit {
			return &Error{name, fmt.Sprintf("%s, after %d tries in %s", t.err, tries,
				time.Since(since).Round(time.Second)),
				ErrUnreachable}
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

func isCertificate(err error) bool {
	var verify *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	return errors.As(err, &verify) || errors.As(err, &unknown) || errors.As(err, &host)
}
