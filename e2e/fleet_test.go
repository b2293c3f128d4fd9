package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"surprisal/internal/jobs"
	"surprisal/internal/jobs/conn"
	"surprisal/internal/jobs/embedded"
	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
	"surprisal/internal/shard/outdir"
)

// fleet is a queue with runs and workers that are records only, written to a real
// server as dispatchers and workers write them.
type fleet struct {
	t      *testing.T
	cfg    embedded.Config
	server *embedded.Server
	client *jobs.Client
	js     jetstream.JetStream
	nc     *nats.Conn
	dir    string
	wg     sync.WaitGroup
	began  time.Time
	bad    string // said wherever something is said
	// What workers have in hand, oldest first, and where they take more from.
	taken []jetstream.Msg
	from  jetstream.Consumer

	// Of each worker; the goroutine of work has them.
	hand [][]record.Progress
	done []int64 // tokens
	jobs []int64
}

// newFleet starts a server, in memory where there is room for it, and sets it up.
func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{t: t, dir: t.TempDir(), began: time.Now()}
	if shm, err := os.MkdirTemp("/dev/shm", "surprisal-e2e-"); err == nil {
		t.Cleanup(func() { _ = os.RemoveAll(shm) })
		f.cfg.StoreDir = filepath.Join(shm, "js")
	} else {
		f.cfg.StoreDir = filepath.Join(f.dir, "js")
	}
	f.cfg.Log, f.cfg.Port = zerolog.Nop(), freePort(t) // it is there again after a restart
	f.start()
	t.Cleanup(func() { f.server.Shutdown() })
	var err error
	f.client, err = jobs.Connect(t.Context(), conn.Config{URLs: []string{f.server.URL()}, Token: f.cfg.Token,
		Name: "fleet", Timeout: time.Minute, Log: zerolog.Nop()})
	f.ok(err)
	t.Cleanup(f.client.Close)
	f.nc, err = nats.Connect(f.server.URL(), nats.Token(f.cfg.Token), nats.Timeout(time.Minute), nats.MaxReconnects(-1),
		nats.ReconnectWait(100*time.Millisecond))
	f.ok(err)
	t.Cleanup(f.nc.Close)
	f.js, err = jetstream.New(f.nc, jetstream.WithPublishAsyncMaxPending(4096))
	f.ok(err)
	f.ok(f.client.Setup(t.Context(), jobs.Topology{}))
	setenv(t, "SURPRISAL_NATS_URL", f.server.URL())
	setenv(t, "SURPRISAL_NATS_TOKEN", f.cfg.Token)
	t.Cleanup(f.wg.Wait) // first of all: the test's context has ended by then
	return f
}

func (f *fleet) ok(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// start starts the server, at the same port and with the same token as before.
func (f *fleet) start() {
	f.t.Helper()
	s, err := embedded.Start(f.t.Context(), f.cfg)
	f.ok(err)
	f.server, f.cfg.Port, f.cfg.Token = s, s.Port(), s.Token()
}

// run plans a run of files × perFile jobs, puts its manifest into an OUT, its
// record and what is queued of it onto the queue, and records what became of jobs.
func (f *fleet) run(id string, created time.Time, files, perFile int, state record.RunState,
	became map[record.State]int) *score.Manifest {
	f.t.Helper()
	ctx := f.t.Context()
	m := &score.Manifest{
		Version: score.FormatVersion, Run: id, Created: created.UTC().Format(time.RFC3339), Program: "v0.1.0",
		Out:    filepath.Join(f.dir, id),
		Inputs: []string{"/data/fineweb-edu/" + id[:8]},
		Options: score.Options{TextColumn: "text", Long: score.LongCarry, MaxLength: 2048, Special: score.SpecialText,
			Engine: score.EngineAuto},
		Model: score.Model{Dir: "/models/gdn2_kla_1.3B", Name: "gdn2_kla_1.3B" + f.bad, Digest: "sha256:aa",
			Tokenizer: "/models/tokenizer.json", TokenizerDigest: "sha256:bb"},
		JobTokens: 2_000_000,
	}
	m.ConfigDigest = score.ConfigDigest(m.Options, m.Model)
	for i := range files {
		plan := score.FilePlan{Rows: int64(perFile) * 2000, Tokens: int64(perFile) * 2_000_000, RowGroups: 1}
		rel := fmt.Sprintf("%03d_%05d.parquet", i/100, i%100)
		plan.Input = score.Input{Path: m.Inputs[0] + "/" + rel, Rel: rel, Size: 2_145_000_000, Version: "1-1"}
		for c := range perFile {
			plan.Cuts = append(plan.Cuts, int64(c)*2000)
		}
		m.Files = append(m.Files, plan)
	}
	f.ok(outdir.WriteManifest(ctx, m.Out, m))
	f.ok(f.client.PutRun(ctx, record.NewRun(m)))
	all := m.Jobs()
	next := 0
	for _, s := range []record.State{record.StateDead, record.StateDone, record.StateFailed, record.StateWaiting,
		record.StateRunning} {
		for range became[s] {
			f.ok(f.record(all[next], s, created.Add(time.Duration(next)*time.Second/10)))
			next++
		}
	}
	f.flush()
	if state == record.RunRunning || state == record.RunPaused {
		f.ok(f.client.OpenRun(ctx, id, 0, record.RunConfig{AckWait: time.Hour}, record.RunConfig{}))
		next -= became[record.StateRunning]
		_, _, err := f.client.Submit(ctx, func(yield func(score.Job) bool) {
			for _, j := range all[next:] {
				if !yield(j) {
					return
				}
			}
		}, 1)
		f.ok(err)
		k, err := f.js.Consumer(ctx, jobStream, "run-"+id)
		f.ok(err)
		for range became[record.StateRunning] {
			msg, err := k.Next()
			f.ok(err)
			f.taken, f.from = append(f.taken, msg), k
		}
	}
	_, err := f.client.UpdateRun(ctx, id, func(r *record.Run) error {
		if r.State = state; state == record.RunFailed {
			r.Error = fmt.Sprintf("%d jobs are dead", became[record.StateDead])
		}
		return nil
	})
	f.ok(err)
	if state == record.RunPaused {
		f.ok(f.client.PauseRun(ctx, id))
	}
	return m
}

var reasons = []string{
	"read rows 4000 to 5999 of 003_00017.parquet: row group 2: column text: page at 91,226,113: " +
		"corrupt parquet file: checksum mismatch",
	"open rows 0 to 1999 of 011_00004.parquet: the file has changed since the run was planned: " +
		"it was 2145000000-1795439977986 (size-mtime) and is 2145000000-1795440080789",
	"5 workers were lost with it",
}

// record writes a job's record as its worker would, and a dead one's letter.
func (f *fleet) record(j score.Job, s record.State, at time.Time) error {
	n := int(j.First/2000) % 200
	st := record.Job{
		Run: j.Run, Job: j.ID, State: s, Attempt: 1, Worker: workerID(n), Engine: "cuda", Device: "NVIDIA H200",
		Started: at.UTC(), Updated: at.Add(41 * time.Second).UTC(), Seq: uint64(j.First + 1), Delivery: 1, Lease: "l",
	}
	switch s {
	case record.StateDone:
		st.Totals = &record.Totals{Documents: 2000, Failed: j.First / 2000 % 3, Tokens: 1_990_000 + j.First%20_000,
			Bytes: 8_300_000, SumNLL: 4.1e6, Top1: 900_000, Seconds: 41}
	case record.StateFailed, record.StateDead:
		st.Error, st.Attempt = reasons[n%3]+f.bad, 2
		st.History = []record.Attempt{{Number: 1, Worker: workerID(n), Started: st.Started, Ended: st.Updated,
			Outcome: record.OutcomeFailed, Error: st.Error}}
	case record.StateWaiting:
		st.Error = "the worker drained"
	}
	if s == record.StateDead {
		st.Attempt = 5
		for a := 2; a <= 5; a++ {
			at := st.Updated.Add(time.Duration(a) * time.Minute)
			st.History = append(st.History, record.Attempt{Number: a, Worker: workerID(n + a),
				Started: at.Add(-9 * time.Second), Ended: at, Outcome: record.OutcomeFailed, Error: st.Error})
		}
		letter, err := json.Marshal(record.DeadLetter{
			Version: 1, Run: j.Run, ID: j.ID, Job: &j, Reason: st.Error, Attempts: 5, Deliveries: 6, Seq: 3,
			Worker: st.Worker, Time: st.Updated, History: st.History,
		})
		if err != nil {
			return err
		}
		if _, err := f.js.PublishAsync("surprisal.dead."+j.Run+"."+j.ID, letter,
			jetstream.WithStallWait(time.Minute)); err != nil {
			return err
		}
	}
	b, err := st.Encode()
	if err != nil {
		return err
	}
	_, err = f.js.PublishAsync("$KV."+jobs.JobBucket+"."+j.Run+"."+j.ID, b, jetstream.WithStallWait(time.Minute))
	return err
}

func (f *fleet) flush() {
	f.t.Helper()
	select {
	case <-f.js.PublishAsyncComplete():
	case <-time.After(2 * time.Minute):
		f.t.Fatal("records are not taken")
	}
}

func workerID(n int) string { return fmt.Sprintf("gpu%02d-%d", n%200/8+1, n%200%8) }

// work has n workers sign every second, with the first of all in hand, two each,
// until the test ends. Every so often a job is done and another one is taken.
func (f *fleet) work(n int, all []score.Job, every time.Duration) {
	f.hand, f.done, f.jobs = make([][]record.Progress, n), make([]int64, n), make([]int64, n)
	for i := range n {
		for k := range 2 {
			if j := 2*i + k; j < len(all) {
				f.hand[i] = append(f.hand[i], record.Progress{Run: all[j].Run, Job: all[j].ID,
					Documents: int64(1900 * (1 - k)), Tokens: int64(1_800_000 * (1 - k))})
			}
		}
		f.done[i], f.jobs[i] = 6_000_000_000+int64(i)*7_000_000, 3000+int64(i)
	}
	r := rand.New(rand.NewPCG(1, 2))
	sign := func(ctx context.Context) {
		for i := range n {
			up := time.Since(f.began).Seconds()
			rate := 46_000 * (1 + 0.03*math.Sin(up/23) + 0.02*r.NormFloat64())
			if i/8 == 2 && math.Mod(up, 240) > 200 {
				rate *= 0.45 // a node whose inputs are slow at times
			}
			hand := f.hand[i]
			if i%67 == 40 {
				rate, hand = 0, nil // idle
			}
			f.done[i] += int64(rate)
			w := record.Worker{
				ID: workerID(i), Host: fmt.Sprintf("gpu%02d.cluster", i/8+1), PID: 4100 + i, Engine: "cuda",
				Device: "NVIDIA H200" + f.bad, Version: "v0.1.0" + f.bad,
				Started: f.began.Add(-37 * time.Hour), Progress: hand, JobsDone: f.jobs[i], TokensDone: f.done[i],
				TokensPerSec: rate, Draining: i == 12,
			}
			f.gpu(&w, i, r)
			if err := f.client.PutWorker(ctx, w); err != nil && ctx.Err() == nil {
				return // the server is away: again in a second
			}
		}
	}
	sign(f.t.Context())
	f.wg.Go(func() {
		tick, commit := time.NewTicker(time.Second), time.NewTicker(every)
		defer tick.Stop()
		defer commit.Stop()
		next := 0
		for {
			select {
			case <-f.t.Context().Done():
				return
			case <-tick.C:
				sign(f.t.Context())
			case <-commit.C:
				if len(f.taken) == 0 || next+len(f.taken) >= len(all) || f.commit(all[next],
					all[next+len(f.taken)]) != nil {
					continue
				}
				at := next % (2 * n)
				if hand := f.hand[at/2]; at%2 < len(hand) {
					j := all[next+len(f.taken)]
					hand[at%2] = record.Progress{Run: j.Run, Job: j.ID, Documents: 900, Tokens: 850_000}
					f.jobs[at/2]++
				}
				next++
			}
		}
	})
}

// commit records that a job is done, and that its worker has taken another.
func (f *fleet) commit(done, taken score.Job) error {
	if err := f.taken[0].Ack(); err != nil && !errors.Is(err, jetstream.ErrMsgAlreadyAckd) {
		return err
	}
	msg, err := f.from.Next(jetstream.FetchMaxWait(time.Second))
	if err != nil {
		return err
	}
	f.taken = append(f.taken[1:], msg)
	now := time.Now()
	return errors.Join(f.record(done, record.StateDone, now.Add(-41*time.Second)),
		f.record(taken, record.StateRunning, now.Add(-41*time.Second)))
}

// gpu adds how the worker's GPU fares.
func (f *fleet) gpu(w *record.Worker, i int, r *rand.Rand) {
	busy := w.TokensPerSec / 46_000
	use, power, limit, heat := 0.96*min(1, busy)+0.015*r.NormFloat64(), 190+460*busy+14*r.NormFloat64(), 700.0,
		61+float64(i%7)
	if len(w.Progress) == 0 {
		use, power, heat = 0, 118+2*r.NormFloat64(), 34
	} else if i%23 == 7 {
		use, power = 0.62+0.06*r.NormFloat64(), 470+20*r.NormFloat64() // its input is slow
	}
	used, total := uint64(21<<30), uint64(139<<30)
	w.GPU = &record.GPU{
		UUID: fmt.Sprintf("GPU-%08x", i), Name: w.Device, Index: i % 8, Utilization: ptr(min(1, use)), Power: &power,
		PowerLimit: &limit,
		MemoryUsed: &used, MemoryTotal: &total, Temperature: &heat,
	}
}
