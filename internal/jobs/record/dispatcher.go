package record

import (
	"encoding/json"
	"fmt"
	"time"
)

// DispatcherRecord says which dispatcher works on a run: bucket surprisal_leases,
// key <run>. It vanishes LeaseTTL after the last renewal.
type Dispatcher struct {
	Version int       `json:"v"`
	Owner   string    `json:"owner"` // random, one a lease
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Machine string    `json:"machine,omitempty"` // where PID means something; see Machine
	Command string    `json:"command"`           // "submit", "wait", …
	Since   time.Time `json:"since"`
	// Yields: a dispatcher that has something to do takes the run over; this one
	// only watches it.
	Yields bool `json:"yields,omitempty"`
}

// String names the dispatcher for people.
func (d Dispatcher) String() string {
	return fmt.Sprintf("dispatcher %s on %s, pid %d, since %s", d.Command, Clean(d.Host, 64), d.PID, d.Since.Format(time.RFC3339))
}

func (d Dispatcher) Encode() ([]byte, error) {
	d.Version = recordVersion
	return json.Marshal(d)
}

// decode reads a record, which may be anything.
func (d *Dispatcher) Decode(b []byte) error {
	return decodeRecord(b, d, func() int { return d.Version })
}
