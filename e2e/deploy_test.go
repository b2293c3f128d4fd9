package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"surprisal/internal/jobs"
)

// deployment is the shipped server configuration, running.
type deployment struct {
	t     *testing.T
	ca    string
	nodes []*natsServer
}

// deploy starts the shipped configuration files, one node each.
func deploy(t *testing.T, confs ...string) *deployment {
	t.Helper()
	a := newAuthority(t, "deploy")
	cert, key := a.leaf("server", time.Now().Add(time.Hour))
	d := &deployment{t: t, ca: a.ca}
	clusterPorts := make([]string, len(confs))
	routes := make([]string, len(confs))
	for i := range confs {
		clusterPorts[i] = fmt.Sprintf("nats://127.0.0.1:%d", freePort(t))
		routes[i] = clusterPorts[i]
	}
	for i, conf := range confs {
		env := []string{
			"NATS_STORE=" + filepath.Join(t.TempDir(), "js"), "NATS_CERT=" + cert, "NATS_KEY=" + key, "NATS_CA=" + a.ca,
		}
		for _, user := range []string{"ADMIN", "DISPATCHER", "WORKER", "READER"} {
			env = append(env, "SURPRISAL_"+user+"_PASSWORD="+password(strings.ToLower(user)))
		}
		args := []string{}
		if len(confs) > 1 {
			args = append(args, "--cluster", clusterPorts[i], "--routes", strings.Join(routes, ","))
		}
		d.nodes = append(d.nodes, startNATS(t, conf, env, args...))
	}
	return d
}

func password(user string) string { return "p123e4-of-the-" + user }

func (d *deployment) urls() string {
	var urls []string
	for _, n := range d.nodes {
		urls = append(urls, "tls://"+n.addr())
	}
	return strings.Join(urls, ",")
}

// as is the environment of a program that runs under an account.
func (d *deployment) as(user string) []string {
	return []string{
		"SURPRISAL_NATS_URL=" + d.urls(), "SURPRISAL_NATS_CA=" + d.ca,
		"SURPRISAL_NATS_USER=" + user, "SURPRISAL_NATS_PASSWORD=" + password(user),
	}
}

// run runs the dispatcher under an account.
func (d *deployment) run(user string, args ...string) *result {
	d.t.Helper()
	cmd, r := start(d.t, d.as(user), "dispatcher", args...)
	return wait(d.t, cmd, r)
}

// TestDeployedR1 and TestDeployedR3 run a job under the shipped accounts.
func TestDeployedR1(t *testing.T) {
	t.Parallel()
	testDeployed(t, deploy(t, "../deploy/nats/r1.conf"))
}

func TestDeployedR3(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short: three servers have to find each other")
	}
	d := deploy(t, "../deploy/nats/r3/n1.conf", "../deploy/nats/r3/n2.conf", "../deploy/nats/r3/n3.conf")
	d.quorum()
	testDeployed(t, d, "--replicas", "3")
}

// quorum waits until the cluster has a leader.
func (d *deployment) quorum() {
	d.t.Helper()
	waitFor(d.t, "the cluster's leader", func() bool {
		nc, err := d.connect("dispatcher")
		if err != nil {
			return false
		}
		defer nc.Close()
		m, err := nc.Request("$JS.API.STREAM.NAMES", nil, 2*time.Second)
		return err == nil && strings.Contains(string(m.Data), `"total"`)
	})
}

func (d *deployment) connect(user string, o ...nats.Option) (*nats.Conn, error) {
	o = append(o, nats.UserInfo(user, password(user)), nats.RootCAs(d.ca), nats.NoReconnect(),
		nats.Timeout(time.Minute))
	return nats.Connect(d.urls(), o...)
}

func testDeployed(t *testing.T, d *deployment, flags ...string) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	writeParquet(t, filepath.Join(in, "a.parquet"), manyTexts(20), 10)
	writeFile(t, filepath.Join(in, "bad.parquet"), "PAR1 no parquet PAR1")
	submit := append([]string{"submit", "--model", demoModel, "--out", out, "--job-tokens", "2000", in}, flags...)
	// Nobody but the dispatcher sets a queue up; a worker waits for it.
	elsewhere := append([]string{"submit", "--model", demoModel, "--out", out + "2", filepath.Join(in, "a.parquet")},
		flags...)
	for _, user := range []string{"worker", "reader"} {
		d.run(user, elsewhere...).oneLine(t, 2, "lacks a permission", "SURPRISAL_JOBS",
			"use an account with this permission")
	}
	worker, wr := start(t, d.as("worker"), "worker", "--log-format", "json")
	run := strings.TrimSpace(d.run("dispatcher", submit...).want(t, 0).stdout)
	sum := parseSummary(t, d.run("dispatcher", "wait", "--json", run).want(t, 1))
	if sum.Documents != 20 || len(sum.FailedFiles) != 1 || len(scores(t, out)) != 20 {
		t.Errorf("%+v", sum)
	}
	// A dead job's letter is a worker's to write.
	deadIn := filepath.Join(dir, "deadin")
	writeParquet(t, filepath.Join(deadIn, "b.parquet"), manyTexts(4), 10)
	victim := filepath.Join(deadIn, "b.parquet")
	if err := worker.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	wait(t, worker, wr).want(t, 0)
	deadRun := strings.TrimSpace(d.run("dispatcher", append([]string{"submit", "--model", demoModel, "--out", out + "3",
		deadIn}, flags...)...).want(t, 0).stdout)
	whole, err := os.ReadFile(victim)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, victim, string(whole)+"x")
	worker, wr = start(t, d.as("worker"), "worker", "--log-format", "json")
	if sum := parseSummary(t, d.run("dispatcher", "wait", "--json", deadRun).want(t, 1)); len(sum.DeadJobs) != 1 {
		t.Errorf("%+v", sum)
	}
	// A reader sees it all.
	waitFor(t, "a reader sees the worker", func() bool {
		said := d.run("reader", "status").want(t, 0).stdout
		return strings.Contains(said, "workers") && strings.Contains(said, "cpu on")
	})
	says(t, d.run("reader", "status", run).want(t, 0).stdout, run, "20 of 20")
	says(t, d.run("reader", "status", deadRun).want(t, 0).stdout, "dead", "changed")
	says(t, d.run("reader", "list", "--json").want(t, 0).stdout, run)
	d.checkServe(run, deadRun)
	if err := worker.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	wait(t, worker, wr).want(t, 0)
	if strings.Contains(wr.stderr, "permission") || strings.Contains(wr.stderr, password("worker")) {
		t.Errorf("the worker says:\n%s", wr.stderr)
	}
	d.checkDenied(deadRun)
}

// checkServe has a reader's page tell all, and bear that it may not control.
func (d *deployment) checkServe(run, deadRun string) {
	d.t.Helper()
	s := startServe(d.t, append(d.as("reader"), "SURPRISAL_SERVE_TOKEN="+serveToken))
	waitFor(d.t, "the page has it all", func() bool {
		v := s.state()
		return v.Link.OK && len(v.Runs) == 2 && v.Fleet.Dead == 1 && v.Fleet.Workers == 1
	})
	for _, path := range []string{"/api/jobs?run=" + run, "/api/jobs?run=" + deadRun + "&state=dead", "/api/dead",
		"/api/dead?run=" + deadRun} {
		if code, body, _ := s.ask("GET", path, "", nil); code != 200 {
			d.t.Errorf("%s: %d %s", path, code, body)
		}
	}
	order := fmt.Sprintf(`{"do":"cancel","name":%q,"confirm":%[1]q}`, deadRun)
	code, body, _ := s.ask("POST", "/api/control", order, func(r *http.Request) {
		r.Header.Set("Authorization",
			"Bearer "+serveToken)
	})
	if code != 403 || !strings.Contains(body, "lacks a permission") {
		d.t.Errorf("a reader cancels: %d %s", code, body)
	}
	if v := s.state(); !v.Link.OK || v.Fleet.Dead != 1 {
		d.t.Errorf("after that: %+v", v)
	}
}

// checkDenied tries what each account may not do, past our own programs.
func (d *deployment) checkDenied(deadRun string) {
	t := d.t
	t.Helper()
	const api = "$JS.API."
	common := []string{
		api + "STREAM.CREATE.OTHER", api + "STREAM.CREATE." + jobStream, api + "STREAM.UPDATE." + jobStream,
		api + "STREAM.DELETE." + jobStream, api + "STREAM.PURGE." + jobStream, api + "STREAM.PURGE." + deadStream,
		api + "STREAM.MSG.DELETE." + jobStream, api + "STREAM.DELETE.KV_" + jobs.JobBucket,
		api + "CONSUMER.CREATE." + jobStream + ".mine", api + "CONSUMER.DURABLE.CREATE." + jobStream + ".mine",
		api + "CONSUMER.CREATE." + jobStream + ".mine.surprisal.job.run.*",
		api + "CONSUMER.DELETE." + jobStream + ".run-" + deadRun, api + "CONSUMER.PAUSE." + jobStream + ".run-" +
			deadRun,
		api + "CONSUMER.DELETE." + eventStream + "." + reapDurable,
		"surprisal.job.run.job", "$KV." + runBucket + ".run", api + "ACCOUNT.PURGE.SURPRISAL", "$SYS.REQ.SERVER.PING",
		"other",
	}
	for user, subjects := range map[string][]string{
		"worker": append([]string{api + "CONSUMER.CREATE.KV_" + jobs.JobBucket + ".mine",
			api + "CONSUMER.CREATE.OTHER.mine"}, common...),
		"reader": append([]string{
			"surprisal.dead.run.job", "$KV." + jobs.JobBucket + ".run.job", "$KV." + workerBucket + ".w",
			"$JS.ACK." + jobStream + ".run-" + deadRun + ".1.1.1.1.0", api + "CONSUMER.MSG.NEXT." + jobStream +
				".run-" + deadRun,
		}, common...),
		"dispatcher": {
			api + "STREAM.DELETE." + jobStream, api + "STREAM.UPDATE." + jobStream, api + "ACCOUNT.PURGE.SURPRISAL",
			"$SYS.REQ.SERVER.PING", "other",
		},
	} {
		denied := make(chan string, 2*len(subjects))
		nc, err := d.connect(user, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription,
			err error) {
			denied <- err.Error()
		}))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range subjects {
			if err := nc.Publish(s, []byte("{}")); err != nil {
				t.Fatal(err)
			}
		}
		for _, s := range []string{"surprisal.>", "$KV.>", "$JS.API.>", ">"} {
			if _, err := nc.SubscribeSync(s); err != nil {
				t.Fatal(err)
			}
			subjects = append(subjects, s)
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		said := ""
		for deadline := time.After(2 * time.Minute); strings.Count(said, "\n") < len(subjects); {
			select {
			case s := <-denied:
				said += s + "\n"
				continue
			case <-deadline:
			}
			break
		}
		for _, s := range subjects {
			if !strings.Contains(said, `"`+s+`"`) {
				t.Errorf("%s may use %s", user, s)
			}
		}
		nc.Close()
	}
	nc, err := d.connect("admin")
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
}

// TestDeployNeedsPasswords: a server does not start without the passwords.
func TestDeployNeedsPasswords(t *testing.T) {
	path, err := buildServer()
	if err != nil {
		t.Fatal(err)
	}
	for _, conf := range []string{"r1.conf", "r3/n1.conf", "r3/n2.conf", "r3/n3.conf"} {
		r := runProgram(t, nil, path, "-t", "-c", filepath.Join("../deploy/nats", conf))
		if r.code == 0 || !strings.Contains(r.stderr+r.stdout, "variable reference") {
			t.Errorf("%s: code %d: %s%s", conf, r.code, r.stdout, r.stderr)
		}
	}
}
