//go:build failpoints

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"surprisal/internal/failpoint"
	"surprisal/internal/shard/outdir"
)

// These tests kill and freeze real processes at named places, take their server,
// network and disk away, and hold what comes of it to the bytes of an undisturbed
// run. SURPRISAL_CHAOS=long runs them at length.
//
//	go test -tags failpoints ./e2e -run Chaos -v

var long = os.Getenv("SURPRISAL_CHAOS") == "long" // before TestMain clears it

// chaosAckWait is short, so that a dead worker's jobs come again soon.
const chaosAckWait = 2 * time.Second

// figures are added up over all tests, and printed by the last.
var figures struct {
	kills, freezes, runs, identical int
	rowsChecked, rowsBroken         int64
}

// workerPoints are the places in the order that a job meets them.
var workerPoints = []string{
	failpoint.AfterFetch, failpoint.MidForward, failpoint.MidWrite, failpoint.BeforeRename,
	failpoint.AfterRename, failpoint.BeforeRecord, failpoint.BeforeAck, failpoint.AfterAck,
}

// field is a corpus, its undisturbed scores, and a server.
type field struct {
	t       *testing.T
	dir, in string
	calm    string
	server  *natsServer
	store   string
	outs    int
}

func newField(t *testing.T) *field {
	t.Helper()
	f := &field{t: t, dir: t.TempDir()}
	f.in, f.calm, f.store = f.at("in"), f.at("calm"), f.at("js")
	for _, name := range []string{"a", "b/c"} {
		writeParquet(t, filepath.Join(f.in, name+".parquet"), someTexts(30), 5)
	}
	dispatcher(t, append([]string{"run", "--out", f.calm}, f.flags()...)...).want(t, 0)
	f.server = startNATS(t,
		writeFile(t, f.at("nats.conf"), fmt.Sprintf("jetstream { store_dir: %q, sync_interval: always }", f.store)),
		nil)
	setenv(t, "SURPRISAL_NATS_URL", f.server.addr())
	return f
}

func (f *field) at(name string) string { return filepath.Join(f.dir, name) }

func (f *field) flags() []string {
	return []string{"--model", demoModel, "--engine", "cpu", "--job-tokens", "200", f.in}
}

func (f *field) newOut() string {
	f.outs++
	return f.at(fmt.Sprintf("out%d", f.outs))
}

func (f *field) submitArgs(out string) []string {
	return append([]string{"submit", "--ack-wait", chaosAckWait.String(), "--out", out}, f.flags()...)
}

func (f *field) submit(out string) (run string) {
	f.t.Helper()
	return strings.TrimSpace(dispatcher(f.t, f.submitArgs(out)...).want(f.t, 0).stdout)
}

// hand is a worker process.
type hand struct {
	t   *testing.T
	cmd *exec.Cmd
	r   *result
	end chan struct{} // closed when it has ended
	// state is how it ended.
	state *os.ProcessState
}

// worker starts a worker that fails at a point; none: a good one.
func (f *field) worker(point string, args ...string) *hand {
	f.t.Helper()
	var env []string
	if point != "" {
		env = append(env, "SURPRISAL_FAILPOINT="+point)
	}
	cmd, r := start(f.t, env, "worker", append([]string{"--log-format", "json", "--log-level", "debug", "--threads",
		"1", "--in-flight", "2"}, args...)...)
	h := &hand{t: f.t, cmd: cmd, r: r, end: make(chan struct{})}
	go func() {
		defer close(h.end)
		_ = cmd.Wait() // state says how it ended
		h.state = cmd.ProcessState
	}()
	return h
}

// ended waits for its end.
func (h *hand) ended(within time.Duration) bool {
	select {
	case <-h.end:
		return true
	case <-time.After(within):
		return false
	}
}

func (h *hand) signal(s syscall.Signal) {
	h.t.Helper()
	if err := h.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		h.t.Fatal(err)
	}
}

// code is its exit code, once it has ended.
func (h *hand) code() int {
	<-h.end
	return h.state.ExitCode()
}

// log is what it has said so far.
func (h *hand) log() string { return h.r.err.String() }

// stop drains it.
func (h *hand) stop() {
	h.t.Helper()
	h.signal(syscall.SIGTERM)
	if !h.ended(25 * time.Second) {
		h.t.Error("a worker did not end within 25 s of SIGTERM")
		h.signal(syscall.SIGKILL)
		<-h.end
	}
}

// frozen waits until the process has stopped itself.
func (h *hand) frozen() {
	h.t.Helper()
	waitFor(h.t, "the process frozen", func() bool {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(h.cmd.Process.Pid) + "/stat")
		return err != nil || strings.Contains(string(b), ") T ")
	})
}

// wait waits for a run's end.
func (f *field) wait(run string) {
	f.t.Helper()
	if sum := parseSummary(f.t, dispatcher(f.t, "wait", "--json", run).want(f.t, 0)); !sum.Complete {
		f.t.Errorf("%+v", sum)
	}
}

// sweep removes the hidden temporaries of killed workers, as a dispatcher does once
// they are old.
func (f *field) sweep(out string) {
	f.t.Helper()
	_, err := outdir.RemoveTemporaries(f.t.Context(), out, "", 0)
	must(f.t, err)
}

// check holds an output folder to its promises, with a checker that shares no
// code, and to the bytes of the undisturbed run.
func (f *field) check(out string) {
	f.t.Helper()
	r := runProgram(f.t, nil, "checkrun", "--json", "--same-as", f.calm, out)
	var table struct {
		Promises []struct {
			Promise, Unit string
			Checked       int64
			Broken        []string
		}
	}
	if err := json.Unmarshal([]byte(r.stdout), &table); err != nil {
		f.t.Fatalf("checkrun: %v\n%s%s", err, r.stdout, r.stderr)
	}
	figures.runs++
	same := false
	for _, p := range table.Promises {
		for _, b := range p.Broken {
			f.t.Errorf("%s: %s", p.Promise, b)
		}
		if strings.HasPrefix(p.Promise, "every row once") {
			figures.rowsChecked += p.Checked
			figures.rowsBroken += int64(len(p.Broken))
		}
		if strings.HasPrefix(p.Promise, "score files are the same") {
			same = p.Checked > 0 && len(p.Broken) == 0
		}
	}
	if same {
		figures.identical++
	} else {
		f.t.Errorf("the outputs are not those of the undisturbed run:\n%s", r.stdout)
	}
}

// TestChaosKills kills workers at every point, one after the other, each while it
// has jobs in hand; then a good one finishes.
func TestChaosKills(t *testing.T) {
	f := newField(t)
	var rounds [][]string
	if long {
		for pass := range 4 {
			for _, p := range workerPoints {
				var kills []string
				for k := range 4 {
					kills = append(kills, fmt.Sprintf("%s=kill@%d", p, 1+(k+pass)%3))
				}
				rounds = append(rounds, kills)
			}
		}
	} else {
		for half := range 2 {
			var kills []string
			for _, p := range workerPoints[4*half : 4*half+4] {
				kills = append(kills, p+"=kill")
			}
			rounds = append(rounds, kills)
		}
	}
	for _, kills := range rounds {
		out := f.newOut()
		run := f.submit(out)
		var last time.Time
		for _, point := range kills {
			h := f.worker(point)
			if !h.ended(3 * time.Minute) {
				t.Fatalf("%s: it was not killed:\n%s", point, h.log())
			}
			last = time.Now()
			if strings.Contains(h.log(), "engine hangs") {
				t.Errorf("%s: %s", point, h.log())
			}
			figures.kills++
		}
		good := f.worker("")
		f.wait(run)
		took := time.Since(last)
		f.sweep(out)
		f.check(out)
		if took > chaosAckWait+15*time.Second {
			t.Errorf("%v: the run was over %s after the last kill; the jobs were to be taken within AckWait+15 s",
				kills, took)
		}
		good.stop()
	}
}

// TestChaosFreezes freezes workers at every point for twice AckWait and wakes them
// after others have done their jobs: nothing changes, and they say so.
func TestChaosFreezes(t *testing.T) {
	f := newField(t)
	points, passes := workerPoints, 4
	if !long {
		points, passes = []string{failpoint.MidForward, failpoint.BeforeRename, failpoint.BeforeAck}, 1
	}
	if long {
		for range passes {
			for _, p := range points {
				f.freeze(p+"=stop@1", p+"=stop@2")
			}
		}
		return
	}
	var all []string
	for _, p := range points {
		all = append(all, p+"=stop")
	}
	f.freeze(all...)
}

// finished lists OUT's files with their times, but for temporaries, which a frozen
// worker has yet.
func finished(t *testing.T, out string) string {
	t.Helper()
	list := ""
	for line := range strings.SplitSeq(tree(t, out), "\n") {
		if !strings.Contains(line, ".tmp ") {
			list += line + "\n"
		}
	}
	return list
}

func (f *field) freeze(points ...string) {
	t := f.t
	t.Helper()
	out := f.newOut()
	run := f.submit(out)
	var cold []*hand
	for _, p := range points {
		h := f.worker(p)
		h.frozen()
		if h.ended(0) {
			t.Fatalf("%s: it ended instead:\n%s", p, h.log())
		}
		cold = append(cold, h)
		figures.freezes++
	}
	since := time.Now()
	good := f.worker("")
	f.wait(run)
	t.Logf("%v: the others were done after %s", points, time.Since(since).Round(time.Millisecond))
	before := finished(t, out)
	time.Sleep(max(0, 2*chaosAckWait-time.Since(since)))
	for _, h := range cold {
		h.signal(syscall.SIGCONT)
	}
	time.Sleep(500 * time.Millisecond) // to do what it still wants to
	for i, h := range cold {
		h.stop()
		if log := h.log(); !strings.Contains(log, "was frozen") && !strings.Contains(log, "delivered again") &&
			!strings.Contains(log, "giving") && !strings.HasPrefix(points[i], failpoint.AfterAck) {
			t.Errorf("%s: a frozen worker says nothing of it:\n%s", points[i], tail(log, 2000))
		}
	}
	good.stop()
	if after := finished(t, out); after != before {
		t.Errorf("%v: what woke up has changed the output:\n%s\nwas\n%s", points, after, before)
	}
	f.check(out)
}

// TestChaosDispatcher kills the dispatcher at its points; the same command again
// goes on.
func TestChaosDispatcher(t *testing.T) {
	f := newField(t)
	for _, point := range []string{failpoint.AfterManifest + "=kill", failpoint.MidSubmit + "=kill@1",
		failpoint.MidSubmit + "=kill@7"} {
		out := f.newOut()
		killed(t, point, f.submitArgs(out)...)
		run := f.submit(out)
		good := f.worker("")
		f.wait(run)
		f.check(out)
		good.stop()
		out = f.newOut()
		args := append([]string{"run", "--out", out}, f.flags()...)
		killed(t, point, args...)
		dispatcher(t, args...).want(t, 0)
		f.check(out)
	}
	out := f.newOut()
	run := f.submit(out)
	good := f.worker("")
	killed(t, failpoint.BeforeSuccess+"=kill", "wait", run)
	f.wait(run)
	f.check(out)
	good.stop()
}

// killed runs the dispatcher into a point that kills it.
func killed(t *testing.T, point string, args ...string) {
	t.Helper()
	cmd, r := start(t, []string{"SURPRISAL_FAILPOINT=" + point}, "dispatcher", args...)
	wait(t, cmd, r)
	if st, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || st.Signal() != syscall.SIGKILL {
		t.Fatalf("%s: it was not killed: code %d\n%s%s", point, r.code, r.stdout, r.stderr)
	}
	figures.kills++
}
