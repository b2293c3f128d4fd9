package record

import (
	"encoding/json"
	"time"
)

// Worker is a worker that is alive: bucket surprisal_workers, key <id>. The record expires
// jobs.WorkerTTL after the last PutWorker.
type Worker struct {
	Format       int        `json:"v"`  // of the record; set by PutWorker
	ID           string     `json:"id"` // 1 to 64 of a-z, A-Z, 0-9, - and _
	Host         string     `json:"host"`
	PID          int        `json:"pid"`
	Engine       string     `json:"engine"`
	Device       string     `json:"device"`
	Version      string     `json:"version"`
	Started      time.Time  `json:"started"`
	Updated      time.Time  `json:"updated"`
	Progress     []Progress `json:"progress,omitempty"` // of the jobs in hand
	JobsDone     int64      `json:"jobs_done"`
	TokensDone   int64      `json:"tokens_done"`
	TokensPerSec float64    `json:"tokens_per_second"`
	Draining     bool       `json:"draining,omitempty"`
	GPU          *GPU       `json:"gpu,omitempty"` // nil: it scores on the CPU, or the GPU is unknown
	// Stalled is why the worker, whose engine makes no progress, is about to exit.
	Stalled string `json:"stalled,omitempty"`
}

// GPU is a worker's GPU as last sampled. Values that the board does not report are nil.
type GPU struct {
	UUID        string   `json:"uuid"` // as nvidia-smi -L has it; a MIG device's starts with MIG-
	Name        string   `json:"name"`
	Index       int      `json:"index"`                         // NVML's index on the machine
	Utilization *float64 `json:"utilization_ratio,omitempty"`   // 0 to 1, of the time that a kernel ran
	Power       *float64 `json:"power_watts,omitempty"`         // drawn
	PowerLimit  *float64 `json:"power_limit_watts,omitempty"`   // enforced
	MemoryUsed  *uint64  `json:"memory_used_bytes,omitempty"`   // by all processes
	MemoryTotal *uint64  `json:"memory_total_bytes,omitempty"`  // of the board
	Temperature *float64 `json:"temperature_celsius,omitempty"` // of the core
}

// Progress is how far a worker is with a job in hand.
type Progress struct {
	Run       string `json:"run"`
	Job       string `json:"job"`
	Documents int64  `json:"documents"`
	Tokens    int64  `json:"tokens"`
}

// Encode gives the record's bytes.
func (w Worker) Encode() ([]byte, error) {
	w.Format, w.Updated, w.Stalled = recordVersion, time.Now().UTC(), Clean(w.Stalled, maxAttemptError)
	return json.Marshal(w)
}

// DecodeWorker reads a record, which may be anything.
func DecodeWorker(b []byte) (w Worker, err error) {
	err = decodeRecord(b, &w, func() int { return w.Format })
	return w, err
}
