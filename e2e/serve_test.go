package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// served is a running dispatcher serve.
type served struct {
	t     *testing.T
	url   string
	token string
	cmd   *exec.Cmd
}

const serveToken = "a-token-of-more-than-16" //nolint:gosec // a test's

// serve starts dispatcher serve, which ends with the test.
func startServe(t *testing.T, env []string, args ...string) *served {
	t.Helper()
	cmd := exec.Command(bin+"/dispatcher", append([]string{"serve", "--addr", "127.0.0.1:0", "--json", "--log-format",
		"json"}, args...)...)
	cmd.Env = environOf(t, env...)
	var log strings.Builder
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &served{t: t, token: serveToken, cmd: cmd}
	t.Cleanup(func() {
		s.stop(os.Interrupt)
		if t.Failed() {
			t.Logf("serve:\n%s", tail(log.String(), 4000))
		}
	})
	var first struct{ URL string }
	if err := json.NewDecoder(bufio.NewReader(out)).Decode(&first); err != nil || first.URL == "" {
		s.stop(os.Kill)
		t.Fatalf("serve did not start: %v\n%s", err, log.String())
	}
	go func() { _, _ = io.Copy(io.Discard, out) }() // ends with the process
	s.url = first.URL
	return s
}

func (s *served) stop(sig os.Signal) {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(sig) // it may have ended
	done := make(chan error, 1)
	go func() { done <- s.cmd.Wait() }()
	select {
	case err := <-done:
		if sig == os.Interrupt && s.cmd.ProcessState.ExitCode() != 0 {
			s.t.Errorf("serve ended with %v", err)
		}
	case <-time.After(2 * time.Minute):
		s.t.Error("serve does not end")
		_ = s.cmd.Process.Kill()
		<-done
	}
	s.cmd = nil
}

// ask sends a request; set changes it before.
func (s *served) ask(method, path, body string, set func(*http.Request)) (int, string, http.Header) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if set != nil {
		set(req)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res.StatusCode, string(b), res.Header
}

// shownView is the part of /api/state that tests look at.
type shownView struct {
	Controls bool
	Link     struct {
		OK  bool
		Why string
	}
	Fleet struct {
		Workers, Jobs, Done, Dead, Queue int
		Rate                             float64
	}
	Runs []struct {
		ID, State string
		Counts    map[string]int
		Counting  bool
		Percent   float64
		Documents int64
	}
	Workers struct {
		Found int
		Cells string
		List  []struct{ ID, State string }
	}
}

func (s *served) state() (v shownView) {
	s.t.Helper()
	code, body, _ := s.ask("GET", "/api/state", "", nil)
	if err := json.Unmarshal([]byte(body), &v); err != nil || code != 200 {
		s.t.Fatalf("%d %v: %s", code, err, body)
	}
	return v
}

// cores is how many processor cores the process takes over d.
func (s *served) cores(d time.Duration) float64 {
	s.t.Helper()
	ticks := func() (n int64) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
		if err != nil {
			s.t.Skip("SKIPPED: needs /proc")
		}
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		for _, v := range f[11:13] { // user and system time, 100 a second
			t, _ := strconv.ParseInt(v, 10, 64) // the kernel's
			n += t
		}
		return n
	}
	began, from := time.Now(), ticks()
	time.Sleep(d)
	return float64(ticks()-from) / 100 / time.Since(began).Seconds()
}

// rss is the process's memory now and at most, bytes.
func (s *served) rss() (now, peak int64) {
	s.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.t.Skip("SKIPPED: needs /proc")
	}
	for line := range strings.Lines(string(b)) {
		var kb int64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kb); err == nil {
			now = kb << 10
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kb); err == nil {
			peak = kb << 10
		}
	}
	return now, peak
}
