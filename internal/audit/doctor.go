package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"surprisal/internal/dispatch"
	"surprisal/internal/jobs"
	"surprisal/internal/jobs/conn"
	"surprisal/internal/model"
	"surprisal/internal/place"
	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/shard/outdir"
)

// CheckState is the result of a check.
type CheckState string

// The states of a check.
const (
	CheckOK   CheckState = "ok"
	CheckWarn CheckState = "warn" // runs work; something could be better
	CheckFail CheckState = "FAIL" // runs will fail
)

// Check is one thing that was checked.
type Check struct {
	Name   string     `json:"check"`
	State  CheckState `json:"state"`
	What   string     `json:"what"`
	Remedy string     `json:"remedy,omitempty"`
}

// DoctorRequest is what to check; empty fields are skipped.
type DoctorRequest struct {
	NATS    *conn.Config
	Monitor string // URL of the NATS server's monitoring port: http://host:8222
	Out     string
	// ModelDir and Tokenizer are checked by scoring a line with Local's worker.
	ModelDir  string
	Tokenizer string
	Local     *dispatch.Local
	Program   string // version
}

// Limits beyond which there is a warning or a failure.
const (
	lowDisk    = 10 << 30
	noDisk     = 64 << 20
	slowServer = 100 * time.Millisecond // to store one message
	clockApart = 2 * time.Second
)

type doctor struct {
	req DoctorRequest
	do  func(Check)
}

// Diagnose checks all that a run needs, one thing after another, and calls do for each.
// An error means that the checks themselves were interrupted.
func Diagnose(ctx context.Context, req DoctorRequest, do func(Check)) error {
	d := &doctor{req, do}
	if req.NATS != nil {
		d.nats(ctx)
	}
	if req.Monitor != "" {
		d.monitor(ctx)
	}
	d.worker(ctx)
	if req.Out != "" {
		d.out(ctx)
	}
	return ctx.Err()
}

func (d *doctor) ok(name, format string, a ...any) {
	d.do(Check{Name: name, State: CheckOK, What: fmt.Sprintf(format, a...)})
}

func (d *doctor) warn(name, remedy, format string, a ...any) {
	d.do(Check{Name: name, State: CheckWarn, What: fmt.Sprintf(format, a...), Remedy: remedy})
}

func (d *doctor) fail(name, remedy string, err error) {
	d.do(Check{Name: name, State: CheckFail, What: err.Error(), Remedy: remedy})
}

func (d *doctor) nats(ctx context.Context) {
	client, err := jobs.Connect(ctx, *d.req.NATS)
	switch {
	case errors.Is(err, conn.ErrAuth):
		d.fail("nats", "set SURPRISAL_NATS_TOKEN, or _USER and _PASSWORD, or give --nats-creds FILE", err)
		return
	case errors.Is(err, conn.ErrUnreachable):
		d.fail("nats", "start nats-server --jetstream there, or correct the URL, the port or the firewall", err)
		return
	case err != nil:
		d.fail("nats", "correct the URL, or the files given with --nats-ca, --nats-cert, --nats-key and --nats-creds",
			err)
		return
	}
	defer client.Close()
	h, err := client.Probe(ctx)
	at := fmt.Sprintf("%s (nats-server %s), round trip %s, credentials accepted", h.URL, h.Version,
		h.RoundTrip.Round(10*time.Microsecond))
	if h.Cluster != "" {
		at += ", cluster " + h.Cluster
	}
	d.ok("nats", "%s", at)
	switch {
	case errors.Is(err, jobs.ErrNoJetStream):
		d.fail("jetstream", "start the server with --jetstream --store_dir DIR, and enable it for the account", err)
		return
	case err != nil:
		d.fail("jetstream", "give the account storage and the permission to create file streams", err)
		return
	case h.StoreLimit >= 0 && h.StoreLimit-h.StoreUsed < noDisk:
		d.fail("jetstream", "raise max_file_store of the account, or run dispatcher gc --nats URL",
			fmt.Errorf("%s of %s bytes of storage used", group(h.StoreUsed), group(h.StoreLimit)))
	case h.StoreLimit >= 0:
		d.ok("jetstream", "streams in files; %s of %s bytes of storage used", group(h.StoreUsed), group(h.StoreLimit))
	default:
		d.ok("jetstream", "streams in files; %s bytes of storage used, no account limit", group(h.StoreUsed))
	}
	if h.Publish > slowServer {
		d.warn("publish", "put the server's store_dir on a local SSD", "storing a message takes %s",
			h.Publish.Round(time.Millisecond))
	} else {
		d.ok("publish", "storing a message takes %s", h.Publish.Round(10*time.Microsecond))
	}
	if d.req.Monitor == "" {
		d.warn("sync_interval", "make sure that nats.conf has jetstream { sync_interval: always }, or give "+
			"--monitor http://HOST:8222",
			"not checked: only the server's monitoring port shows it")
	}
	d.queue(ctx, client)
	if off := h.ClockAhead; off.Abs() > clockApart {
		d.warn("clock", "run an NTP client on both machines: ages and times are wrong until then",
			"the server's clock is %s ahead", off.Round(time.Millisecond))
	} else {
		d.ok("clock", "%s apart from the server's", off.Abs().Round(time.Millisecond))
	}
	d.workers(ctx, client)
}

func (d *doctor) queue(ctx context.Context, client *jobs.Client) {
	switch t, err := client.Check(ctx); {
	case errors.Is(err, jobs.ErrNotSetUp):
		d.warn("queue", "the first dispatcher submit sets it up", "not set up yet")
	case errors.Is(err, jobs.ErrDrift):
		d.fail("queue", "workers depend on these settings: undo the change, or delete what differs while no run is "+
			"active and submit again", err)
	case err != nil:
		d.fail("queue", "see the server's log", err)
	case t.Replicas == 1:
		d.ok("queue", "set up as expected, 1 replica")
	case t.Replicas > 1:
		d.ok("queue", "set up as expected, %d replicas", t.Replicas)
	default:
		d.ok("queue", "set up as expected")
	}
}

func (d *doctor) workers(ctx context.Context, client *jobs.Client) {
	list, err := client.Workers(ctx)
	if errors.Is(err, jobs.ErrNotSetUp) {
		return
	}
	if err != nil {
		d.fail("workers", "see the server's log", err)
		return
	}
	others := map[string]int{}
	for _, w := range list {
		if w.Version != d.req.Program {
			others[w.Version]++
		}
	}
	switch {
	case len(list) == 0:
		d.warn("workers", "start worker --nats URL on a machine that can read model and inputs and write OUT",
			"none running")
	case len(others) > 0:
		d.warn("workers", "use one version everywhere", "%d running; versions other than %s: %v", len(list),
			d.req.Program, others)
	default:
		d.ok("workers", "%d running, all of this version", len(list))
	}
}

// monitor reads settings from the server's monitoring port that clients cannot see.
func (d *doctor) monitor(ctx context.Context) {
	const remedy = "start the server with --http_port 8222, and give that port with --monitor"
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(d.req.Monitor, "/")+"/jsz?config=1",
		nil)
	if err != nil {
		d.fail("sync_interval", remedy, err)
		return
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		d.fail("sync_interval", remedy, err)
		return
	}
	defer resp.Body.Close()
	var js struct {
		Disabled bool  `json:"disabled"`
		Store    int64 `json:"storage"`
		Config   *struct {
			MaxStore     int64         `json:"max_storage"`
			StoreDir     string        `json:"store_dir"`
			SyncInterval time.Duration `json:"sync_interval"`
			SyncAlways   bool          `json:"sync_always"`
		} `json:"config"`
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&js)
	switch {
	case err != nil || resp.StatusCode != http.StatusOK || js.Config == nil || js.Disabled:
		d.fail("sync_interval", remedy, fmt.Errorf("%s: %s: no JetStream configuration", d.req.Monitor, resp.Status))
		return
	case js.Config.SyncAlways:
		d.ok("sync_interval", "always: each message is on disk when it is acked")
	default:
		d.warn("sync_interval", "a power failure loses the newest messages, and the same submit requeues their "+
			"jobs; set jetstream { sync_interval: always }",
			"%s: messages are on disk that long after they are acked", js.Config.SyncInterval)
	}
	free := js.Config.MaxStore - js.Store
	if free < noDisk {
		d.fail("store", "raise max_file_store, or free space on the disk of "+js.Config.StoreDir,
			fmt.Errorf("%s bytes free for streams", group(free)))
	} else {
		d.ok("store", "%s: %s bytes free for streams", js.Config.StoreDir, group(free))
	}
}

// worker checks the worker program and has it score a line.
func (d *doctor) worker(ctx context.Context) {
	bin, err := dispatch.FindWorker(d.req.Local.WorkerBin)
	if err != nil {
		d.fail("worker", "run make build, or give --worker-bin", err)
		return
	}
	have, err := dispatch.AskEngines(ctx, bin)
	if err != nil {
		d.fail("worker", "run it by hand: "+bin+" engines", err)
		return
	}
	what := fmt.Sprintf("%s, engines %v", bin, have.Engines)
	gpus, _ := filepath.Glob("/dev/nvidia[0-9]*") // the pattern is valid
	if len(gpus) > 0 && !have.Has(score.EngineCUDA) {
		d.warn("engines", "use a worker built for GPUs, and make sure that the driver is installed",
			"%s; this machine has %d NVIDIA GPUs, which this worker cannot use", what, len(gpus))
	} else {
		d.ok("engines", "%s", what)
	}
	if d.req.ModelDir != "" {
		d.model(ctx)
	}
}

func (d *doctor) model(ctx context.Context) {
	const remedy = "MODEL is a folder with model-ckpt.pth, training_metadata.json and tokenizer.json (or give " +
		"--tokenizer)"
	cfg, err := model.LoadConfig(d.req.ModelDir)
	if err != nil {
		d.fail("model", remedy, err)
		return
	}
	dir, err := os.MkdirTemp("", "surprisal-doctor-")
	if err != nil {
		d.fail("model", "free space in the folder for temporary files", err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	in := filepath.Join(dir, "line.parquet")
	o := score.Options{TextColumn: "text", Long: score.LongCarry, Special: score.SpecialText, Engine: score.EngineAuto}
	line := shard.Row{Text: "One line to check that model and tokenizer load."}
	if err := shard.WriteRows(in, o, []shard.Row{line}); err != nil {
		d.fail("model", "free space in the folder for temporary files", err)
		return
	}
	began := time.Now()
	sum, err := d.req.Local.Run(ctx, ctx, dispatch.Request{
		Inputs: []string{in}, Out: filepath.Join(dir, "out"), ModelDir: d.req.ModelDir, Tokenizer: d.req.Tokenizer,
		Options: o, Program: d.req.Program,
	})
	switch {
	case err != nil:
		d.fail("model", remedy, err)
	case len(sum.DeadJobs) > 0:
		d.fail("model", remedy, errors.New(sum.DeadJobs[0].Reason))
	case sum.FailedRows > 0 || sum.Tokens == 0:
		d.fail("model", remedy, fmt.Errorf("scoring a line failed: %+v", sum.RowErrors))
	default:
		d.ok("model", "%s and its tokenizer load: a line of %d tokens scored in %s, loading included", cfg.Name,
			sum.Tokens, time.Since(began).Round(10*time.Millisecond))
	}
}

func (d *doctor) out(ctx context.Context) {
	const remedy = "choose a folder that this user may write, on every worker's machine"
	out := d.req.Out
	switch m, err := outdir.VerifyManifest(ctx, out); {
	case err == nil:
		d.ok("out", "%s holds run %s", out, m.Run)
	case errors.Is(err, outdir.ErrManifestChanged), errors.Is(err, outdir.ErrNoCopy):
		d.warn("out", "dispatcher verify --repair "+out, "%s", err)
	case !errors.Is(err, fs.ErrNotExist):
		d.fail("out", "restore the manifest from a backup, or choose another --out", err)
	}
	h, err := outdir.Probe(ctx, out)
	if err != nil {
		d.fail("out", remedy, err)
		return
	}
	switch {
	case place.IsURL(out):
		d.ok("publish files", "put a file in %s; a second one of the same name was refused", out)
		return
	case !h.Links:
		d.warn("publish files", "no data is lost; a file system with hard links would also rule out overwriting",
			"written, synced, renamed: %s has no hard links", h.At)
	case !h.SyncedFolders:
		d.warn("publish files", "make sure that the file system keeps names over a crash by itself",
			"written, synced, linked; folders cannot be synced in %s", h.At)
	default:
		d.ok("publish files", "written, synced, linked and the folder synced in %s", h.At)
	}
	free := int64(min(h.Free, 1<<62))
	switch {
	case free < noDisk:
		d.fail("disk", "free space on the disk of "+out, fmt.Errorf("%s bytes free", group(free)))
	case free < lowDisk:
		d.warn("disk", "make sure that this is enough for the scores, or choose another --out", "%s bytes free",
			group(free))
	default:
		d.ok("disk", "%s bytes free", group(free))
	}
}

// group writes n with thousands separated.
func group(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
