package record

import (
	"encoding/json"
	"time"

	"surprisal/internal/score"
)

// DeadLetter is kept for a job that is dead: stream SURPRISAL_DEAD, subject
// surprisal.dead.<run>.<job>, the newest of each job.
type DeadLetter struct {
	Version int    `json:"v"`
	Run     string `json:"run"` // as the message's subject has it
	ID      string `json:"job"`
	// Job is nil when the message was not a job; Raw has its first bytes then.
	Job *score.Job `json:"message,omitempty"`
	Raw []byte     `json:"raw,omitempty"`
	// Reason in words for people.
	Reason string `json:"reason"`
	// Attempts that counted, and all deliveries.
	Attempts   int       `json:"attempts"`
	Deliveries uint64    `json:"deliveries"`
	Seq        uint64    `json:"seq"`
	Worker     string    `json:"worker,omitempty"` // empty: written by a dispatcher
	Time       time.Time `json:"time"`
	// History is how the newest attempts ended, oldest first.
	History []Attempt `json:"history,omitempty"`
}

// Encode gives the letter's bytes.
func (d DeadLetter) Encode() ([]byte, error) {
	d.Version, d.Time, d.Reason = recordVersion, time.Now().UTC(), Clean(d.Reason, MaxError)
	d.Raw = d.Raw[:min(len(d.Raw), 4<<10)]
	return json.Marshal(d)
}

// DecodeDeadLetter reads a letter, which may be anything.
func DecodeDeadLetter(b []byte) (d DeadLetter, err error) {
	err = decodeRecord(b, &d, func() int { return d.Version })
	return d, err
}
