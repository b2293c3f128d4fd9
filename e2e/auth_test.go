package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
)

// way is one way to be let in by a server.
type way struct {
	name  string
	conf  string            // of the server, beside JetStream
	flags []string          // the right ones
	env   map[string]string // the same, by environment
	wrong map[string]refusal
}

// refusal is a wrong way and what is said of it.
type refusal struct {
	flags []string
	env   map[string]string
	says  string
}

func ways(t *testing.T) []way {
	t.Helper()
	dir := t.TempDir()
	file := func(name, body string) string { return writeFile(t, filepath.Join(dir, name), body) }
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	hour := time.Now().Add(time.Hour)
	cert, key := ours.leaf("server", hour)
	client, clientKey := ours.leaf("client", hour)
	late, lateKey := ours.leaf("late", time.Now().Add(-time.Hour))
	alien, alienKey := theirs.leaf("alien", hour)
	seed, public := newNKey(t)
	otherSeed, _ := newNKey(t)
	jwtConf, creds, expired := newJWTs(t, file)
	tls := fmt.Sprintf("cert_file: %q, key_file: %q", cert, key)
	const token = "a-token-of-the-test"
	return []way{
		{
			name: "user and password", conf: `authorization { user: me, password: "the-secret" }`,
			flags: []string{"--nats-user", "me", "--nats-password-file", file("password", "the-secret\n")},
			env:   map[string]string{"USER": "me", "PASSWORD": "the-secret"},
			wrong: map[string]refusal{
				"wrong password": {env: map[string]string{"USER": "me", "PASSWORD": "guess-secret"},
					says: "user me and the password"},
				"no password": {flags: []string{"--nats-user", "me"}, says: "--nats-password-file"},
				"nothing":     {says: "no token, user, NKey or credentials"},
				"empty file": {flags: []string{"--nats-user", "me", "--nats-password-file", file("empty", "\n")},
					says: "empty"},
				"missing file": {flags: []string{"--nats-user", "me", "--nats-password-file", "/gone"},
					says: "/gone"},
			},
		}, {
			name: "token", conf: `authorization { token: "` + token + `" }`,
			flags: []string{"--nats-token-file", file("token", token)}, env: map[string]string{"TOKEN": token},
			wrong: map[string]refusal{
				"wrong token": {env: map[string]string{"TOKEN": "guess-secret"}, says: "check the token"},
				"both": {
					flags: []string{"--nats-nkey", file("k", seed)}, env: map[string]string{"TOKEN": token},
					says: "exclude each other",
				},
			},
		}, {
			name: "nkey", conf: `authorization { users: [ { nkey: ` + public + ` } ] }`,
			flags: []string{"--nats-nkey", file("seed", seed)}, env: map[string]string{"NKEY": file("seed2",
				seed+"\n")},
			wrong: map[string]refusal{
				"other key": {flags: []string{"--nats-nkey", file("other", otherSeed)}, says: "NKey of"},
				"no seed":   {flags: []string{"--nats-nkey", file("noseed", "hello")}, says: "not a user NKey seed"},
			},
		}, {
			name: "jwt", conf: jwtConf,
			flags: []string{"--nats-creds", creds}, env: map[string]string{"CREDS": creds},
			wrong: map[string]refusal{
				"expired":     {flags: []string{"--nats-creds", expired}, says: "credentials of"},
				"no creds":    {flags: []string{"--nats-creds", file("nocreds", "hello")}, says: "nocreds"},
				"not a token": {env: map[string]string{"TOKEN": "guess-secret"}, says: "check the token"},
			},
		}, {
			name: "tls", conf: `authorization { token: "` + token + `" }, tls { ` + tls + ` }`,
			flags: []string{"--nats-token-file", file("tlstoken", token), "--nats-ca", ours.ca},
			env:   map[string]string{"TOKEN": token, "CA": ours.ca},
			wrong: map[string]refusal{
				"wrong CA": {flags: []string{"--nats-ca", theirs.ca}, env: map[string]string{"TOKEN": token},
					says: "check --nats-ca"},
				"no CA": {env: map[string]string{"TOKEN": token}, says: "check --nats-ca"},
				"a CA that is none": {
					flags: []string{"--nats-ca", file("noca", "hello")}, env: map[string]string{"TOKEN": token},
					says: "noca",
				},
				"wrong token": {flags: []string{"--nats-ca", ours.ca}, env: map[string]string{"TOKEN": "guess-secret"},
					says: "check the token"},
			},
		}, {
			name:  "mutual tls",
			conf:  fmt.Sprintf(`tls { %s, ca_file: %q, verify: true }`, tls, ours.ca),
			flags: []string{"--nats-ca", ours.ca, "--nats-cert", client, "--nats-key", clientKey},
			env:   map[string]string{"CA": ours.ca, "CERT": client, "KEY": clientKey},
			wrong: map[string]refusal{
				"no certificate": {flags: []string{"--nats-ca", ours.ca}, says: "--nats-cert"},
				"unknown certificate": {flags: []string{"--nats-ca", ours.ca, "--nats-cert", alien, "--nats-key",
					alienKey}, says: "--nats-cert"},
				"expired certificate": {flags: []string{"--nats-ca", ours.ca, "--nats-cert", late, "--nats-key",
					lateKey}, says: "--nats-cert"},
				"no key": {flags: []string{"--nats-ca", ours.ca, "--nats-cert", client}, says: "key file"},
				"another's key": {flags: []string{"--nats-ca", ours.ca, "--nats-cert", client, "--nats-key",
					lateKey}, says: "key"},
			},
		},
	}
}

func newNKey(t *testing.T) (seed, public string) {
	t.Helper()
	k, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	s, err := k.Seed()
	if err != nil {
		t.Fatal(err)
	}
	if public, err = k.PublicKey(); err != nil {
		t.Fatal(err)
	}
	return string(s), public
}

// newJWTs makes an operator with an account for us, a user's credentials, and
// credentials that have expired.
func newJWTs(t *testing.T, file func(name, body string) string) (conf, creds, expired string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	pair := func(k nkeys.KeyPair, err error) (nkeys.KeyPair, string) {
		t.Helper()
		must(err)
		pub, err := k.PublicKey()
		must(err)
		return k, pub
	}
	operator, operatorPub := pair(nkeys.CreateOperator())
	system, systemPub := pair(nkeys.CreateAccount())
	account, accountPub := pair(nkeys.CreateAccount())
	oc := jwt.NewOperatorClaims(operatorPub)
	oc.SystemAccount = systemPub
	oj, err := oc.Encode(operator)
	must(err)
	sj, err := jwt.NewAccountClaims(systemPub).Encode(operator)
	must(err)
	ac := jwt.NewAccountClaims(accountPub)
	ac.Limits.JetStreamLimits = jwt.JetStreamLimits{DiskStorage: -1, MemoryStorage: -1, Streams: -1, Consumer: -1}
	aj, err := ac.Encode(operator)
	must(err)
	user := func(name string, expires time.Time) string {
		u, pub := pair(nkeys.CreateUser())
		uc := jwt.NewUserClaims(pub)
		uc.Expires = expires.Unix()
		uj, err := uc.Encode(account)
		must(err)
		seed, err := u.Seed()
		must(err)
		body, err := jwt.FormatUserConfig(uj, seed)
		must(err)
		return file(name, string(body))
	}
	_ = system
	conf = fmt.Sprintf("operator: %q\nresolver: MEMORY\nresolver_preload: { %s: %q, %s: %q }", oj, systemPub, sj,
		accountPub, aj)
	return conf, user("user.creds", time.Now().Add(time.Hour)), user("late.creds", time.Now().Add(-time.Hour))
}

// TestEveryWayIn: each way to be let in by a real server, by flag and by
// environment, for both programs; and each wrong one costs one line and code 2.
func TestEveryWayIn(t *testing.T) {
	t.Parallel()
	for _, w := range ways(t) {
		t.Run(w.name, func(t *testing.T) {
			dir := t.TempDir()
			conf := writeFile(t, filepath.Join(dir, "nats.conf"),
				fmt.Sprintf("jetstream { store_dir: %q }\n%s\n", filepath.Join(dir, "js"), w.conf))
			s := startNATS(t, conf, nil)
			at := []string{"--nats", s.addr()}
			for name, bad := range w.wrong {
				t.Run(name, func(t *testing.T) {
					setNATS(t, bad.env)
					dispatcher(t, append(append([]string{"list"}, at...), bad.flags...)...).oneLine(t, 2, bad.says)
					r := workerEnds(t, nil, append(at, bad.flags...)...)
					r.oneLine(t, 2, bad.says)
					if strings.Contains(r.stderr, "secret") {
						t.Errorf("a secret is shown: %s", r.stderr)
					}
				})
			}
			in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
			writeParquet(t, filepath.Join(in, "a.parquet"), manyTexts(3), 10)
			flags := append(at, w.flags...)
			run := strings.TrimSpace(dispatcher(t, append([]string{"submit", "--model", demoModel, "--out", out, in},
				flags...)...).want(t, 0).stdout)
			worker, wr := start(t, nil, "worker", append(flags, "--log-format", "json")...)
			if sum := parseSummary(t, dispatcher(t, append([]string{"wait", "--json", run}, flags...)...).want(t,
				0)); !sum.Complete {
				t.Errorf("%+v", sum)
			}
			if err := worker.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			wait(t, worker, wr).want(t, 0)
			// And again by environment alone.
			setNATS(t, w.env)
			setenv(t, "SURPRISAL_NATS_URL", s.addr())
			for _, args := range [][]string{
				{"list"}, {"status"}, {"status", run}, {"wait", run}, {"submit", "--model", demoModel, "--out", out,
					in},
			} {
				dispatcher(t, args...).want(t, 0)
			}
			worker, wr = start(t, nil, "worker", "--log-format", "json")
			waitFor(t, "the worker in the status", func() bool {
				return strings.Contains(dispatcher(t, "status").want(t, 0).stdout, "cpu on")
			})
			if err := worker.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			wait(t, worker, wr).want(t, 0)
		})
	}
}

func setNATS(t *testing.T, env map[string]string) {
	t.Helper()
	for name, value := range env {
		setenv(t, "SURPRISAL_NATS_"+name, value)
	}
}

// waitFor waits until it is so.
func waitFor(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !so(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within three minutes: %s", what)
		}
	}
}

// comesToSay waits until the dispatcher, asked again and again, prints each of words:
// who waits for a run may be told of its end by OUT, before the last record is written.
func comesToSay(t *testing.T, args []string, words ...string) {
	t.Helper()
	said := ""
	defer func() {
		if t.Failed() {
			t.Logf("%v says:\n%s", args, said)
		}
	}()
	waitFor(t, fmt.Sprintf("%v says %q", args, words), func() bool {
		said = dispatcher(t, args...).want(t, 0).stdout
		return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(said, w) })
	})
}
