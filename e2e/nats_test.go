package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// buildServer builds the nats-server of go.mod's version, once;
// SURPRISAL_NATS_SERVER names one that is built already.
var buildServer = sync.OnceValues(func() (string, error) {
	if path := natsServerBin; path != "" {
		return path, nil
	}
	path := filepath.Join(bin, "nats-server")
	cmd := exec.Command("go", "build", "-o", path, "github.com/nats-io/nats-server/v2")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build nats-server: %w\n%s", err, out)
	}
	return path, nil
})

var natsServerBin = os.Getenv("SURPRISAL_NATS_SERVER") // before TestMain clears it

// natsServer is a nats-server process on a port of its own, which it keeps through
// restarts.
type natsServer struct {
	t    *testing.T
	port int
	args []string
	env  []string
	cmd  *exec.Cmd
	log  bytes.Buffer
}

// startNATS starts a server with a configuration file; args win over it.
func startNATS(t *testing.T, conf string, env []string, args ...string) *natsServer {
	t.Helper()
	port := freePort(t)
	s := &natsServer{
		t: t, port: port, env: env,
		args: append([]string{"-c", conf, "-a", "127.0.0.1", "-p", fmt.Sprint(port), "-m", fmt.Sprint(freePort(t))},
			args...),
	}
	s.start()
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Logf("nats-server:\n%s", tail(s.log.String(), 4000))
		}
	})
	return s
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// start starts it and waits until it takes connections.
func (s *natsServer) start() {
	s.t.Helper()
	s.launch()
	s.ready()
}

func (s *natsServer) launch() {
	s.t.Helper()
	path, err := buildServer()
	if err != nil {
		s.t.Fatal(err)
	}
	s.cmd = exec.Command(path, s.args...)
	s.cmd.Env = append(os.Environ(), s.env...)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	// It ends with the test program, however that ends.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *natsServer) ready() {
	s.t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.DialTimeout("tcp", s.addr(), time.Second)
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(deadline) {
			s.kill()
			s.t.Fatalf("nats-server takes no connections: %v\n%s", err, s.log.String())
		}
	}
}

// kill kills it.
func (s *natsServer) kill() {
	if s.cmd != nil && s.cmd.Process != nil {
		_ = s.cmd.Process.Kill() // it may have ended
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

func (s *natsServer) addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// taken are the ports that freePort gave.
var taken sync.Map

// freePort is a port that nobody listens on, and that was not given before. It is
// below those that systems give to connections and to whoever listens on any (from
// 16000 or 32768 on), so that none of these has it before the program that is to
// listen there, or while that one is away to come back.
func freePort(t *testing.T) int {
	t.Helper()
	var last error
	for range 1000 {
		port := 10_100 + mathrand.IntN(5900) // browsers refuse 10080
		if _, given := taken.LoadOrStore(port, true); given {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			last = err
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return port
	}
	t.Fatalf("no port is free: %v", last)
	return 0
}

// authority is a CA of the test's own.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	ca   string // its certificate's file
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: filepath.Join(t.TempDir(), name)}
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.ca, _ = a.issue(name, template)
	return a
}

// leaf issues a certificate for 127.0.0.1, valid until then.
func (a *authority) leaf(name string, until time.Time) (cert, key string) {
	a.t.Helper()
	return a.issue(name, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	})
}

func (a *authority) issue(name string, template *x509.Certificate) (certFile, keyFile string) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if a.cert == nil {
		a.cert, a.key = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+"-key.pem")
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: private},
	} {
		writeFile(a.t, file, string(pem.EncodeToMemory(block)))
	}
	return certFile, keyFile
}

func writeFile(t *testing.T, path, body string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// oneLine fails unless a program refused with one line that says each of words.
func (r *result) oneLine(t *testing.T, code int, words ...string) {
	t.Helper()
	r.want(t, code)
	said := bytes.TrimSpace([]byte(r.stderr))
	if bytes.Count(said, []byte("\n")) > 0 {
		t.Errorf("more than one line:\n%s", said)
	}
	says(t, r.stderr, words...)
}

// workerEnds runs a worker that is expected to end by itself.
func workerEnds(t *testing.T, env []string, args ...string) *result {
	t.Helper()
	cmd, r := start(t, env, "worker", append([]string{"--log-level", "error", "--log-format", "json"}, args...)...)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
	return wait(t, cmd, r)
}
