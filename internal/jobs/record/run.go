package record

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"surprisal/internal/score"
)

// RunState is where a run is.
type RunState string

// The states of a run.
const (
	RunPlanned   RunState = "planned"   // manifest written, jobs not all queued
	RunRunning   RunState = "running"   // jobs queued
	RunPaused    RunState = "paused"    // workers take no jobs of it
	RunComplete  RunState = "complete"  // every output is there and checked
	RunFailed    RunState = "failed"    // jobs are dead, or the check failed
	RunCancelled RunState = "cancelled" // by a person
)

// Final reports whether a run in this state has ended.
func (s RunState) Final() bool {
	return s == RunComplete || s == RunFailed || s == RunCancelled
}

// Run is a manifest's header without its files, and the run's state: bucket
// surprisal_runs, key <run>. The manifest itself is in OUT.
type Run struct {
	Version int      `json:"v"`
	ID      string   `json:"id"`
	Created string   `json:"created"` // RFC 3339, UTC, as in the manifest
	Program string   `json:"program"`
	Out     string   `json:"out"`
	Inputs  []string `json:"inputs"` // the first maxRunInputs of them
	// InputCount is how many there were.
	InputCount   int           `json:"input_count"`
	Options      score.Options `json:"options"`
	Model        score.Model   `json:"model"`
	ConfigDigest string        `json:"config_digest"`
	Files        int           `json:"files"`
	Jobs         int           `json:"jobs"`
	Rows         int64         `json:"rows"`
	Tokens       int64         `json:"estimated_tokens"`
	State        RunState      `json:"state"`
	// Drop: the run was cancelled, and workers drop the jobs in hand.
	Drop bool `json:"drop,omitempty"`
	// Priority: workers take jobs of runs with a higher priority first.
	Priority int `json:"priority,omitempty"`
	// Config is what was asked for when the run was queued.
	Config RunConfig `json:"config,omitzero"`
	// Epoch is the last one that NextEpoch gave.
	Epoch   uint64    `json:"epoch"`
	Updated time.Time `json:"updated"`
	// Error is why a run failed.
	Error string `json:"error,omitempty"`
}

// maxRunInputs bounds the inputs kept in a run's record.
const maxRunInputs = 16

// NewRun is the record of a run that was just planned.
func NewRun(m *score.Manifest) Run {
	r := Run{
		Version: recordVersion, ID: m.Run, Created: m.Created, Program: m.Program, Out: m.Out,
		Inputs: slices.Clone(m.Inputs[:min(len(m.Inputs), maxRunInputs)]), InputCount: len(m.Inputs),
		Options: m.Options, Model: m.Model, ConfigDigest: m.ConfigDigest, Files: len(m.Files), State: RunPlanned,
	}
	for i := range m.Files {
		f := &m.Files[i]
		r.Jobs, r.Rows, r.Tokens = r.Jobs+len(f.Cuts), r.Rows+f.Rows, r.Tokens+f.Tokens
	}
	return r
}

// Encode gives the record's bytes.
func (r Run) Encode() ([]byte, error) {
	r.Version, r.Updated, r.Error = recordVersion, time.Now().UTC(), Clean(r.Error, MaxError)
	if !score.ValidRunID(r.ID) {
		return nil, fmt.Errorf("%q is not a run ID", r.ID)
	}
	return json.Marshal(r)
}

// DecodeRun reads a record, which may be anything.
func DecodeRun(b []byte) (Run, error) {
	var r Run
	if err := decodeRecord(b, &r, func() int { return r.Version }); err != nil {
		return Run{}, fmt.Errorf("run record: %w", err)
	}
	if !score.ValidRunID(r.ID) {
		return Run{}, fmt.Errorf("run record: %w: id %q", ErrBad, Clean(r.ID, 64))
	}
	return r, nil
}
