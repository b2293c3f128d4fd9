package storetest

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"
)

// launch starts a server at an address of this machine that nobody uses, waits until
// it is ready, and ends it with the test. Somebody else may be quicker to take the
// address: then the server ends, and another address is tried.
func launch(t testing.TB, bin string, env []string, args func(host, port string) []string,
	ready func(ctx context.Context, addr string) error) (addr string) {
	t.Helper()
	for try := 1; ; try++ {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr = l.Addr().String()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		host, port, _ := net.SplitHostPort(addr)
		ctx, cancel := context.WithCancel(context.Background())
		cmd := exec.CommandContext(ctx, bin, args(host, port)...)
		cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, env...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			cancel()
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = cmd.Wait() // it is killed, or says why below
		}()
		stop := func() { cancel(); <-ended }
		err = waitReady(ctx, addr, ended, ready)
		if err == nil {
			t.Cleanup(func() {
				stop()
				if t.Failed() {
					t.Logf("%s: %s", bin, out.String())
				}
			})
			return addr
		}
		stop()
		if try == 3 {
			t.Fatalf("%s does not start: %v\n%s", bin, err, out.String())
		}
	}
}

// waitReady asks until the server is ready, has ended, or a minute is over.
func waitReady(ctx context.Context, addr string, ended <-chan struct{}, ready func(ctx context.Context,
	addr string) error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := func() error {
			ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
			defer cancel()
			return ready(ctx, addr)
		}()
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return err
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}
