package record

import (
	"encoding/json"
	"fmt"
	"time"
)

// Dispatcher is the lease of the dispatcher that has a run: bucket surprisal_leases,
// key <run>. It expires jobs.LeaseTTL after the last renewal.
type Dispatcher struct {
	Version int       `json:"v"`
	Owner   string    `json:"owner"` // random, different for each lease
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Machine string    `json:"machine,omitempty"` // where PID is valid; see jobs.Machine
	Command string    `json:"command"`           // "submit", "wait", …
	Since   time.Time `json:"since"`
	// Yields: this dispatcher only watches the run; one that has something to do may take
	// the lease over.
	Yields bool `json:"yields,omitempty"`
}

// String names the dispatcher for people.
func (d Dispatcher) String() string {
	return fmt.Sprintf("dispatcher %s on %s, pid %d, since %s", d.Command, Clean(d.Host, 64), d.PID,
		d.Since.Format(time.RFC3339))
}

// Encode gives the record's bytes.
func (d Dispatcher) Encode() ([]byte, error) {
	d.Version = recordVersion
	return json.Marshal(d)
}

// Decode reads a record, which may be anything.
func (d *Dispatcher) Decode(b []byte) error {
	return decodeRecord(b, d, func() int { return d.Version })
}
