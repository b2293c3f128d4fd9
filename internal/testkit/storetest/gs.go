package storetest

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
)

// GS starts fake-gcs-server for the test, with Bucket in it, and sets the
// environment to reach it.
func GS(t testing.TB) {
	t.Helper()
	args := func(host, port string) []string {
		return []string{"-scheme", "http", "-host", host, "-port", port, "-backend", "memory", "-public-host",
			net.JoinHostPort(host, port)}
	}
	addr := launch(t, binary(t, "fake-gcs-server"), nil, args, func(ctx context.Context, addr string) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/storage/v1/b?project=test", strings.NewReader(`{"name":"`+Bucket+`"}`))
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
	Setenv(t, map[string]string{"STORAGE_EMULATOR_HOST": addr, "GOOGLE_APPLICATION_CREDENTIALS": ""})
}
