package jobs

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/rs/zerolog"

	"surprisal/internal/score"
)

var errStub = errors.New("not written yet")

// ServerConfig sets the embedded server up.
type ServerConfig struct {
	StoreDir string         // where JetStream keeps its files; made if missing, 0700
	Port     int            // 0: any free one
	Token    string         // empty: 32 random bytes
	Log      zerolog.Logger // the zero Logger is silent
}

// Server is an embedded NATS server on the loopback interface.
type Server struct{}

// StartServer starts it and waits until it takes connections.
func StartServer(ctx context.Context, cfg ServerConfig) (*Server, error) { return nil, errStub }

// URL to connect to; it holds no secret.
func (s *Server) URL() string { return "" }

// Token that clients need. Hand it over by environment or stdin, never argv.
func (s *Server) Token() string { return "" }

// Shutdown stops the server and waits until its files are closed.
func (s *Server) Shutdown() {}

// Config is how to reach NATS.
type Config struct {
	URLs      []string // "nats://host:4222"; user info in them is used and never shown
	Name      string   // shown by the server's monitoring
	Token     string
	User      string
	Password  string
	CredsFile string
	CAFile    string
	CertFile  string
	KeyFile   string
	// Wait makes Connect try until ctx ends (workers). Otherwise it reports
	// ErrUnreachable after Timeout a server. Wrong credentials end both.
	Wait    bool
	Timeout time.Duration // of one try; 3 s
	Log     zerolog.Logger
}

// ConfigFromEnv reads SURPRISAL_NATS_URL (comma-separated), _TOKEN, _USER,
// _PASSWORD, _CREDS, _CA, _CERT and _KEY.
func ConfigFromEnv(getenv func(string) string) Config { return Config{} }

// Environ is what ConfigFromEnv reads back, as os/exec's Cmd.Env wants it.
func (c Config) Environ() []string { return nil }

// Client is a connection and what is done over it. Its methods may be called
// from any goroutine.
type Client struct{}

// Connect connects.
func Connect(ctx context.Context, cfg Config) (*Client, error) { return nil, errStub }

// Close closes the connection and waits for what it was doing.
func (c *Client) Close() {}

// Closed is closed when the connection is closed for good; Err says why.
func (c *Client) Closed() <-chan struct{} { return nil }

// Err is nil while the connection lives or after Close; ErrAuth when a server
// came back with other credentials.
func (c *Client) Err() error { return nil }

// Connected reports whether a server answers now.
func (c *Client) Connected() bool { return false }

// Topology is how the queue is set up. In Setup a zero field means: as it is, or
// the default where it does not exist yet.
type Topology struct {
	Replicas      int           // 1; 3 or 5 on a cluster
	AckWait       time.Duration // 60 s; workers heartbeat every third of it
	MaxAttempts   int           // 5; failed attempts until a job is dead
	MaxLost       int           // 5; attempts whose worker vanished until a job is dead
	MaxDeliver    int           // 1000; backstop over all deliveries
	MaxAckPending int           // 65536; jobs in hand or delayed, all workers together
	Duplicates    time.Duration // 2 min; how long message ids are remembered
}

// Setup makes the streams, buckets and consumers that are missing and checks
// the others; it never changes one. Only dispatchers call it.
func (c *Client) Setup(ctx context.Context, t Topology) error { return errStub }

// Check reports how the queue is set up, or ErrNotSetUp, or ErrDrift.
func (c *Client) Check(ctx context.Context) (Topology, error) { return Topology{}, errStub }

// Submit queues jobs. epoch is of NextEpoch.
func (c *Client) Submit(ctx context.Context, jobs iter.Seq[score.Job], epoch uint64) (queued, already int, err error) {
	return 0, 0, errStub
}

// PurgeRun removes a run's jobs from the queue, those in workers' hands included
// (they finish, and their acks mean nothing).
func (c *Client) PurgeRun(ctx context.Context, run string) error { return errStub }

// ConsumerConfig is a worker's side of the queue.
type ConsumerConfig struct {
	Worker     string        // id, as in WorkerRecord
	Engine     string        // for the job's record
	Device     string        //
	StallAfter time.Duration // 10 min; a lease without Progress for so long is given up
	Heartbeat  time.Duration // AckWait/3; at most that
	FetchWait  time.Duration // 15 s; how long one request for a job waits
	IdleAfter  time.Duration // 1 min; idle this long with jobs pending is a stall of the queue
	RetryDelay time.Duration // 2 s; after the first failed attempt, doubled after each
	RetryMax   time.Duration // 2 min
	Log        zerolog.Logger
}

// Consumer takes jobs.
type Consumer struct{}

// NewConsumer checks the queue and makes a consumer of its jobs.
func (c *Client) NewConsumer(ctx context.Context, cfg ConsumerConfig) (*Consumer, error) {
	return nil, errStub
}

// Next waits for a job. When fetch ends it returns fetch's error and takes no
// more; work is the parent of the lease's context, so that a job in hand
// outlives fetch.
func (c *Consumer) Next(fetch, work context.Context) (*Lease, error) { return nil, errStub }

// Lease is one delivery of one job to this worker, heartbeaten from receipt until
// it is settled, by exactly one of Done, Retry, Fail, Abandon and Decline.
type Lease struct {
	Job     score.Job
	Attempt int      // 1 for the first
	Prior   JobState // what the record said before; zero State when there was none
}

// Context ends with its parent, when the lease is settled, or with ErrStalled as
// its cause when progress stopped.
func (l *Lease) Context() context.Context { return nil }

// Progress says that the job moves: call it at each batch.
func (l *Lease) Progress() {}

// Done: the output is committed. It records totals, then acks.
func (l *Lease) Done(ctx context.Context, t Totals) error { return errStub }

// Retry: the attempt failed and another may do better. The last attempt allowed
// makes the job dead.
func (l *Lease) Retry(ctx context.Context, cause error) error { return errStub }

// Fail: no attempt can do better. The job is dead.
func (l *Lease) Fail(ctx context.Context, cause error) error { return errStub }

// Abandon gives the job back at once and uncounted, on drain.
func (l *Lease) Abandon(ctx context.Context) error { return errStub }

// Decline gives back, later and uncounted, a job that this worker can't do.
func (l *Lease) Decline(ctx context.Context, reason string) error { return errStub }

// WatchRun calls state for the newest record of each of the run's jobs, current
// once they are all told, then state for each change, until ctx ends.
func (c *Client) WatchRun(ctx context.Context, run string, state func(JobState), current func()) error {
	return errStub
}

// Reap turns jobs that hit MaxDeliver into dead letters, until ctx ends. Each
// dispatcher runs it.
func (c *Client) Reap(ctx context.Context) error { return errStub }

// Dead lists a run's dead letters, or all with run "".
func (c *Client) Dead(ctx context.Context, run string) ([]DeadLetter, error) { return nil, errStub }

// NewRunRecord is the record of a run just planned.
func NewRunRecord(m *score.Manifest) RunRecord { return RunRecord{} }

// PutRun records a new run; ErrRunExists if there is a record.
func (c *Client) PutRun(ctx context.Context, r RunRecord) error { return errStub }

// Run is a run's record; ErrNoRun if there is none.
func (c *Client) Run(ctx context.Context, id string) (RunRecord, error) { return RunRecord{}, errStub }

// Runs lists the runs' records, oldest first.
func (c *Client) Runs(ctx context.Context) ([]RunRecord, error) { return nil, errStub }

// UpdateRun changes a run's record by compare and swap: change may be called more
// than once, each time with the newest record.
func (c *Client) UpdateRun(ctx context.Context, id string, change func(*RunRecord) error) (RunRecord, error) {
	return RunRecord{}, errStub
}

// NextEpoch numbers a new submission of a run.
func (c *Client) NextEpoch(ctx context.Context, run string) (uint64, error) { return 0, errStub }

// Queue says how the queue stands.
func (c *Client) Queue(ctx context.Context) (QueueInfo, error) { return QueueInfo{}, errStub }

// PutWorker records a worker's sign of life.
func (c *Client) PutWorker(ctx context.Context, w WorkerRecord) error { return errStub }

// RemoveWorker removes the record, on a clean stop.
func (c *Client) RemoveWorker(ctx context.Context, id string) error { return errStub }

// Workers lists the workers alive, by id.
func (c *Client) Workers(ctx context.Context) ([]WorkerRecord, error) { return nil, errStub }
