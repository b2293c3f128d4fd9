// Package storetest starts object stores for tests: a real server that speaks
// S3, a stand-in for the Hugging Face hub, and a proxy that makes them fail.
package storetest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"surprisal/internal/store"
)

// Credentials of the server.
const (
	AccessKey = "surprisal-test"
	SecretKey = "not-a-secret-0123456789"
)

// Bucket that each server has.
const Bucket = "corpus"

// Server is a running versitygw on a folder of its own.
type Server struct {
	URL    string // http://127.0.0.1:port
	client *s3.Client
}

// binary finds a server as `make stores` builds it.
func binary(t testing.TB, program string) string {
	t.Helper()
	found := find(t, program)
	if found == "" {
		if os.Getenv("SURPRISAL_REQUIRE_STORES") != "" {
			t.Fatal("SURPRISAL_REQUIRE_STORES is set and there is no " + program + ": make stores")
		}
		t.Skip("NOT TESTED: no " + program + " here: make stores")
	}
	return found
}

// find is binary, empty where there is none.
func find(t testing.TB, program string) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test")
		}
		dir = filepath.Dir(dir)
	}
	found, err := filepath.Glob(filepath.Join(dir, ".build", "bin", program+"-v*"))
	if err != nil || len(found) == 0 {
		return ""
	}
	return found[len(found)-1]
}

// S3 starts a server for the test, sets the AWS environment to reach it, and
// makes Bucket.
func S3(t testing.TB) *Server {
	t.Helper()
	root, side := t.TempDir(), t.TempDir()
	s := &Server{}
	args := func(host, port string) []string {
		return []string{"--port", net.JoinHostPort(host, port), "--quiet", "posix", "--sidecar", side, root}
	}
	launch(t, binary(t, "versitygw"), []string{"ROOT_ACCESS_KEY=" + AccessKey, "ROOT_SECRET_KEY=" + SecretKey}, args,
		func(ctx context.Context, addr string) error {
			s.URL = "http://" + addr
			s.client = s3.New(s3.Options{
				BaseEndpoint: aws.String(s.URL), Region: "us-east-1", UsePathStyle: true,
				Credentials:                credentials.NewStaticCredentialsProvider(AccessKey, SecretKey, ""),
				RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
			})
			_, err := s.client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(Bucket)})
			return err
		})
	Setenv(t, s.Env())
	return s
}

// Setenv sets the environment for the test, also for clients that are open.
func Setenv(t testing.TB, env map[string]string) {
	for k, v := range env {
		t.Setenv(k, v)
	}
	store.Forget()
	t.Cleanup(store.Forget)
}

// Env is what reaches the server.
func (s *Server) Env() map[string]string {
	return map[string]string{
		"AWS_ACCESS_KEY_ID": AccessKey, "AWS_SECRET_ACCESS_KEY": SecretKey, "AWS_REGION": "us-east-1",
		"AWS_ENDPOINT_URL": s.URL,
		"AWS_CONFIG_FILE":  os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_PROFILE": "", "AWS_SESSION_TOKEN": "",
	}
}

// Put puts a file into Bucket.
func (s *Server) Put(t testing.TB, key string, body []byte) {
	t.Helper()
	_, err := s.client.PutObject(context.Background(), &s3.PutObjectInput{Bucket: aws.String(Bucket),
		Key: aws.String(key), Body: bytes.NewReader(body)})
	if err != nil {
		t.Fatal(err)
	}
}

// Get gives a file of Bucket; nil when there is none.
func (s *Server) Get(t testing.TB, key string) []byte {
	t.Helper()
	out, err := s.client.GetObject(context.Background(), &s3.GetObjectInput{Bucket: aws.String(Bucket),
		Key: aws.String(key)})
	if err != nil {
		if strings.Contains(err.Error(), "NoSuchKey") {
			return nil
		}
		t.Fatal(err)
	}
	defer out.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(out.Body); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Keys are the keys in Bucket that begin with prefix.
func (s *Server) Keys(t testing.TB, prefix string) (keys []string) {
	t.Helper()
	pages := s3.NewListObjectsV2Paginator(s.client, &s3.ListObjectsV2Input{Bucket: aws.String(Bucket),
		Prefix: aws.String(prefix)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page.Contents {
			keys = append(keys, aws.ToString(o.Key))
		}
	}
	return keys
}

// Uploads are the multipart uploads that were begun and not ended.
func (s *Server) Uploads(t testing.TB) int {
	t.Helper()
	out, err := s.client.ListMultipartUploads(context.Background(),
		&s3.ListMultipartUploadsInput{Bucket: aws.String(Bucket)})
	if err != nil {
		t.Fatal(err)
	}
	return len(out.Uploads)
}

// Begin begins a multipart upload, as an attempt that is killed then leaves it.
func (s *Server) Begin(t testing.TB, key string) {
	t.Helper()
	if _, err := s.client.CreateMultipartUpload(context.Background(),
		&s3.CreateMultipartUploadInput{Bucket: aws.String(Bucket), Key: aws.String(key)}); err != nil {
		t.Fatal(err)
	}
}

// URL of a key of Bucket.
func URL(key string) string { return fmt.Sprintf("s3://%s/%s", Bucket, key) }

// via gives the address that a proxy forwards to.
func via(url string) string { return strings.TrimPrefix(url, "http://") }

var _ http.Handler = (*Proxy)(nil)
