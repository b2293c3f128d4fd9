package store

import (
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/aws/smithy-go"
)

// httpClient creates a client for many concurrent requests to few hosts. Bodies have no
// deadline; readOnce detects one that stalls.
func httpClient() *http.Client {
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true}
	tune(t)
	return &http.Client{Transport: t}
}

func tune(t *http.Transport) {
	t.DialContext = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	t.MaxIdleConnsPerHost = 64
	t.IdleConnTimeout = time.Minute
	t.TLSHandshakeTimeout = 10 * time.Second
	t.ResponseHeaderTimeout = time.Minute
	t.ExpectContinueTimeout = time.Second
	t.DisableCompression = true // ranges refer to the file's own bytes
}

// oneLine is the text of an SDK's error in one line.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// isNoCredentials reports whether the SDK found no credentials to sign with.
func isNoCredentials(err error) bool {
	var op *smithy.OperationError
	if !errors.As(err, &op) {
		return false
	}
	s := op.Err.Error()
	return strings.Contains(s, "get identity") || strings.Contains(s, "refresh cached credentials") ||
		strings.Contains(s, "get credentials")
}
