package serve

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"surprisal/internal/jobs"
	"surprisal/internal/jobs/conn"
	"surprisal/internal/jobs/embedded"
	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
)

// TestManyLookOn: browsers read and stream while runs and workers change, on a real
// server. What it is for shows under the race detector.
func TestManyLookOn(t *testing.T) {
	server, err := embedded.Start(t.Context(), embedded.Config{StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Shutdown()
	connect := func(ctx context.Context) (*jobs.Client, error) {
		return jobs.Connect(ctx, conn.Config{URLs: []string{server.URL()}, Token: server.Token(),
			Timeout: 20 * time.Second})
	}
	client, err := connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Setup(t.Context(), jobs.Topology{}); err != nil {
		t.Fatal(err)
	}
	const token = "a-token-of-more-than-16"
	s := newServer(t, Config{Token: token, Dial: connect})
	mux := http.NewServeMux()
	s.Register(mux)
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = HTTP(mux)
	srv.Start()
	defer srv.Close()
	ctx, end := context.WithCancel(t.Context())
	defer end()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.Run(ctx, connect) })
	put := func(i int) error {
		id := fmt.Sprintf("run-%d", i%3)
		m := &score.Manifest{Version: score.FormatVersion, Run: id, Created: "2026-01-02T03:04:05Z", Out: t.TempDir(),
			Files: []score.FilePlan{{Rows: 70, Cuts: []int64{0, 10, 20}}}}
		if i < 3 {
			return client.PutRun(ctx, record.NewRun(m))
		}
		_, err := client.UpdateRun(ctx, id, func(r *record.Run) error {
			r.State = []record.RunState{record.RunRunning, record.RunPaused, record.RunFailed, record.RunComplete}[i%4]
			return nil
		})
		return err
	}
	began := time.Now()
	var most atomic.Int64 // runs and workers shown at once
	const all = 33
	g.Go(func() error {
		// On a busy machine it takes longer until all have signed and are shown.
		for i := 0; ctx.Err() == nil && (time.Since(began) < 6*time.Second || most.Load() < all &&
			time.Since(began) < 2*time.Minute); i++ {
			use := float64(i%100) / 100
			err := client.PutWorker(ctx, record.Worker{
				ID: fmt.Sprintf("w%d", i%30), Started: began, Progress: []record.Progress{{Run: "run-0", Job: "j",
					Documents: 1,
					Tokens:    9}},
				TokensDone: int64(i) * 100, GPU: &record.GPU{Utilization: &use},
			})
			if err == nil {
				err = put(i)
			}
			if err != nil {
				return err
			}
			time.Sleep(5 * time.Millisecond)
		}
		end()
		return nil
	})
	ask := func(path string) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, "GET", srv.URL+path, nil)
		if err != nil {
			return nil, err
		}
		return http.DefaultClient.Do(req)
	}
	for k := range 6 {
		g.Go(func() error {
			for ctx.Err() == nil {
				res, err := ask([]string{"/", "/api/state?find=w1&sort=fast", "/api/jobs?run=run-1", "/api/dead",
					"/api/events",
					"/api/events?page=1"}[k])
				if err != nil {
					break // the end
				}
				lines := bufio.NewScanner(res.Body)
				lines.Buffer(nil, 1<<20)
				for n := 0; lines.Scan() && n < 8; n++ {
					data, is := strings.CutPrefix(lines.Text(), "data: ")
					var v view
					if !is {
						continue
					}
					if err := json.Unmarshal([]byte(data), &v); err != nil {
						if ctx.Err() != nil {
							break // the end cut the line short
						}
						return err
					}
					if k == 4 {
						most.Store(max(most.Load(), int64(len(v.Runs)+v.Fleet.Workers)))
					}
				}
				_ = res.Body.Close() // read as far as it was wanted
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil && t.Context().Err() == nil && !strings.Contains(err.Error(), "context canceled") {
		t.Fatal(err)
	}
	if n := most.Load(); n != all {
		t.Errorf("at most %d runs and workers were shown, want 3 and 30", n)
	}
}
