package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"surprisal/internal/cli"
	"surprisal/internal/monitor"
)

// meter shows progress: a bar at a terminal, log lines elsewhere. Log lines go
// through it, so that they do not overwrite the bar.
type meter struct {
	mu   sync.Mutex
	out  *os.File
	bar  bool
	pb   *progressbar.ProgressBar
	last time.Time // of the last log line
}

func newMeter(out *os.File) *meter {
	return &meter{out: out, bar: term.IsTerminal(int(out.Fd())), last: time.Now()}
}

// level is that of the log by default: a bar takes the place of most lines.
func (m *meter) level() zerolog.Level {
	if m.bar {
		return zerolog.WarnLevel
	}
	return zerolog.InfoLevel
}

// lineEvery is how often progress is logged where there is no terminal.
const lineEvery = 10 * time.Second

// Show draws p.
func (m *meter) Show(p monitor.Progress, log zerolog.Logger) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.bar {
		if time.Since(m.last) < lineEvery {
			return
		}
		m.last = time.Now()
		m.mu.Unlock() // the log comes back through Write
		e := log.Info().Int("jobs", p.Jobs).Int("done", p.Done).Int("dead", p.Dead).Int("workers", p.Workers).
			Int64("documents", p.Documents).Int64("rows", p.Rows).Int64("tokens", p.Tokens).
			Float64("tokens_per_s", p.Rate)
		if p.Left >= 0 {
			e = e.Dur("left", p.Left.Round(time.Second))
		}
		if p.Paused {
			e = e.Bool("paused", true)
		}
		if p.Waiting != "" {
			e = e.Str("waiting", p.Waiting)
		}
		e.Msg("progress")
		m.mu.Lock()
		return
	}
	if m.pb == nil {
		m.pb = progressbar.NewOptions64(max(p.Rows, 1), progressbar.OptionSetWriter(m.out),
			progressbar.OptionSetWidth(24),
			progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(false),
			progressbar.OptionFullWidth(),
			progressbar.OptionSetTheme(progressbar.ThemeUnicode), progressbar.OptionUseANSICodes(true))
	}
	left := "starting"
	if p.Left >= 0 {
		left = p.Left.Round(time.Second).String() + " left"
	}
	if p.Paused {
		left = "paused"
	}
	line := fmt.Sprintf("jobs %d/%d  documents %s/%s  %s tokens/s  %s",
		p.Done, p.Jobs, cli.Count(p.Documents), cli.Count(p.Rows), cli.Count(int64(p.Rate)), left)
	if p.Dead > 0 {
		line += fmt.Sprintf("  %d dead", p.Dead)
	}
	m.pb.Describe(line)
	_ = m.pb.Set64(min(p.Documents, max(p.Rows, 1))) // the run continues without a bar
}

// Write passes a log line on, above the bar.
func (m *meter) Write(b []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pb != nil {
		_ = m.pb.Clear()
	}
	return m.out.Write(b)
}

// Close ends the bar's line.
func (m *meter) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pb != nil {
		_ = m.pb.Clear()
		m.pb = nil
	}
}

var _ io.Writer = (*meter)(nil)
