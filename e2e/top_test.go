package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"surprisal/internal/jobs/record"
)

// pane is a real terminal with a program in it.
type pane struct {
	t      *testing.T
	socket string
}

// newPane starts a program in tmux; the test is skipped where there is none.
func newPane(t *testing.T, width, height string, args ...string) *pane {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("SKIPPED: needs tmux")
	}
	dir, err := os.MkdirTemp("", "tmux-") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &pane{t, filepath.Join(dir, "s")}
	t.Cleanup(func() { _ = p.command("kill-server").Run() }) // it may have ended
	p.tmux("-f", "/dev/null", "new-session", "-d", "-x", width, "-y", height,
		strings.Join(args, " ")+"; echo ended with $?; exec sleep 300")
	return p
}

func (p *pane) command(args ...string) *exec.Cmd {
	cmd := exec.Command("tmux", append([]string{"-u", "-S", p.socket}, args...)...)
	cmd.Env = environOf(p.t, "TERM=xterm-256color", "LC_ALL=C.UTF-8")
	return cmd
}

func (p *pane) tmux(args ...string) string {
	p.t.Helper()
	out, err := p.command(args...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("tmux %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// shows waits until the terminal has all of the words, and gives what is on it. It
// takes no picture of a page half drawn.
func (p *pane) shows(words ...string) string {
	p.t.Helper()
	var text string
	defer func() {
		if p.t.Failed() {
			p.t.Logf("on the terminal:\n%s", text)
		}
	}()
	waitFor(p.t, "the terminal shows "+strings.Join(words, ", "), func() bool {
		text = p.tmux("capture-pane", "-p")
		for _, w := range words {
			if !strings.Contains(text, w) {
				return false
			}
		}
		time.Sleep(100 * time.Millisecond)
		return p.tmux("capture-pane", "-p") == text
	})
	return text
}

// order is how the words follow each other in a text.
func order(text string, words ...string) bool {
	at := -1
	for _, w := range words {
		i := strings.Index(text, w)
		if i <= at {
			return false
		}
		at = i
	}
	return true
}

// TestTop: a person follows 16 workers in a real terminal, sorts, pauses, makes it
// small, and is told that NATS is away and back.
func TestTop(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.run("20261123-084512-k3f9ab", time.Now().Add(-time.Hour), 4, 100, record.RunRunning,
		map[record.State]int{record.StateDead: 3, record.StateDone: 200, record.StateRunning: 32})
	f.run("20261122-201500-w7c2mn", time.Now().Add(-19*time.Hour), 1, 40, record.RunComplete,
		map[record.State]int{record.StateDone: 40})
	f.work(16, m.Jobs()[203:], 300*time.Millisecond)
	p := newPane(t, "150", "42", bin+"/dispatcher", "top")
	text := p.shows("20261123-084512-k3f9ab", "connected", "workers 16", "gpu01-0", "gpu02-7", "700 W", "/139 GiB",
		"°C", "dead 3", "DEAD BECAUSE",
		"GPUs 16", "tokens/s", "20261122-201500-w7c2mn", "/400", "left", "sort: trouble", "██")
	if testShots != "" {
		if err := os.WriteFile(filepath.Join(testShots, "top.txt"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Only one that a busy machine makes silent for a while comes before it.
	waitFor(t, "the worker that drains comes first", func() bool {
		return order(p.tmux("capture-pane", "-p"), "gpu02-4",
			"gpu01-0")
	})
	p.tmux("send-keys", "s")
	if text := p.shows("sort: name"); !order(text, "gpu01-0", "gpu01-7", "gpu02-4") {
		t.Errorf("not by name:\n%s", text)
	}

	// Nothing moves while it is paused.
	p.tmux("send-keys", "p")
	still := p.shows("PAUSED")
	time.Sleep(2500 * time.Millisecond)
	if now := p.tmux("capture-pane", "-p"); now != still {
		t.Errorf("paused, and it changed:\n%s\n%s", still, now)
	}
	p.tmux("send-keys", "p")
	waitFor(t, "it goes on", func() bool { return !strings.Contains(p.tmux("capture-pane", "-p"), "PAUSED") })

	// 60 columns keep what matters, each row on a line.
	p.tmux("resize-window", "-x", "60", "-y", "30")
	waitFor(t, "it is drawn for 60 columns", func() bool {
		now := p.tmux("capture-pane", "-p")
		return strings.Contains(now, "1 to ") && !strings.Contains(now, "DEVICE")
	})
	text = p.shows("k3f9ab", "gpu01-0", "TOKENS/S", "DEAD BECAUSE", "dead 3", "1 to ")
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 60 {
			t.Errorf("%d columns: %s", n, line)
		}
		if strings.HasPrefix(line, "gpu01-0") && (!strings.Contains(line, "in hand") || !strings.Contains(line, ",")) {
			t.Errorf("a worker without state or rate: %s", line)
		}
	}
	if strings.Contains(text, "DEVICE") || !strings.Contains(text, "q quit") {
		t.Errorf("60 columns:\n%s", text)
	}
	p.tmux("send-keys", "Down")
	p.shows("gpu02-7", "16 of 16")
	p.tmux("resize-window", "-x", "150", "-y", "42")
	p.shows("DEVICE", "HEAT")

	f.server.Shutdown()
	p.shows("NATS UNREACHABLE since", "k3f9ab", "gpu01-0")
	f.start()
	p.shows("connected", "workers 16")
	p.tmux("send-keys", "q")
	p.shows("ended with 0")
}

// TestTopPiped: without a terminal it is plain text, and JSON as serve has it.
func TestTopPiped(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.bad = "\x1b[2J\u202e"
	f.run("20261123-084512-k3f9ab", time.Now().Add(-time.Hour), 1, 40, record.RunRunning,
		map[record.State]int{record.StateDead: 2, record.StateDone: 20, record.StateRunning: 4})
	f.hand, f.done, f.jobs = make([][]record.Progress, 1), make([]int64, 1), make([]int64, 1)
	// A worker that just began: its rate is the one that it tells. It is silent if it
	// does not sign again.
	sign := func() {
		t.Helper()
		f.ok(f.client.PutWorker(t.Context(), record.Worker{ID: "w1", Host: "h" + f.bad, Engine: "cpu",
			Device: "EPYC" + f.bad, Started: time.Now(), TokensPerSec: 1234,
			Progress: []record.Progress{{Run: "20261123-084512-k3f9ab", Job: "j", Tokens: 1}}}))
	}
	sign()
	text := dispatcher(t, "top", "--once").want(t, 0).stdout
	says(t, text, "20261123-084512-k3f9ab", "20/40", "dead 2", "w1", "1,234", "checksum mismatch")
	if strings.ContainsAny(text, "\x1b\u202e") {
		t.Errorf("a terminal would obey: %q", text)
	}
	once := func() shownView {
		t.Helper()
		sign()
		var one struct {
			shownView
			Letters []record.DeadLetter
		}
		got := dispatcher(t, "top", "--once", "--json").want(t, 0).stdout
		if err := json.Unmarshal([]byte(got), &one); err != nil || strings.Count(got, "\n") != 1 ||
			len(one.Letters) != 2 {
			t.Fatalf("%v: %s", err, got)
		}
		return one.shownView
	}
	s := startServe(t, nil)
	waitFor(t, "serve has counted", func() bool {
		v := s.state()
		return len(v.Runs) == 1 && !v.Runs[0].Counting &&
			v.Fleet.Dead == 2
	})
	differ := ""
	defer func() {
		if t.Failed() && differ != "" {
			t.Log(differ)
		}
	}()
	waitFor(t, "top and serve tell the same", func() bool {
		differ = ""
		if a, b := once(), s.state(); a.Fleet != b.Fleet || a.Runs[0].Counts["done"] != b.Runs[0].Counts["done"] ||
			a.Workers.Cells != b.Workers.Cells {
			differ = fmt.Sprintf("top and serve differ:\n%+v\n%+v", a, b)
		}
		return differ == ""
	})

	// It goes on by itself over an outage, an object each refresh.
	cmd := exec.CommandContext(t.Context(), bin+"/dispatcher", "top", "--json")
	cmd.Env = environOf(t)
	out, err := cmd.StdoutPipe()
	f.ok(err)
	f.ok(cmd.Start())
	refreshes := json.NewDecoder(out)
	until := func(ok bool) {
		t.Helper()
		for deadline := time.Now().Add(3 * time.Minute); ; {
			var v shownView
			f.ok(refreshes.Decode(&v))
			if v.Link.OK == ok && len(v.Runs) == 1 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("the link is never %v: %+v", ok, v)
			}
		}
	}
	until(true)
	f.server.Shutdown()
	until(false)
	f.start()
	until(true)
	f.ok(cmd.Process.Signal(os.Interrupt))
	_, _ = io.Copy(io.Discard, out) // to its end
	f.ok(cmd.Wait())

	if r := dispatcher(t, "top", "--once", "--nats", "nats://127.0.0.1:1").want(t, 2); strings.Count(r.stderr, "\n") != 1 {
		t.Errorf("not one line: %s", r.stderr)
	}
	if r := dispatcher(t, "top", "--every", "1ms").want(t, 2); !strings.Contains(r.stderr, "--every") {
		t.Error(r.stderr)
	}
}
