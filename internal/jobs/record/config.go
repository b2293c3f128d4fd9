package record

import (
	"fmt"
	"time"
)

// RunConfig is how a run's jobs are delivered. A zero field was not asked for.
type RunConfig struct {
	AckWait     time.Duration `json:"ack_wait_ns,omitzero"`  // 60 s; workers heartbeat every third of it
	MaxAttempts int           `json:"max_attempts,omitzero"` // 5; failed attempts until a job is dead
	// 5; attempts whose worker vanished until a job is dead
	MaxLost int `json:"max_lost,omitzero"`
	// 1000; limit of all deliveries, also drained and declined ones
	MaxDeliver int `json:"max_deliver,omitzero"`
	// 65536; jobs in hand or delayed, all workers together
	MaxAckPending int `json:"max_ack_pending,omitzero"`
}

// Or is t with its zero fields taken from d.
func (t RunConfig) Or(d RunConfig) RunConfig {
	set := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	set(&t.MaxAttempts, d.MaxAttempts)
	set(&t.MaxLost, d.MaxLost)
	set(&t.MaxDeliver, d.MaxDeliver)
	set(&t.MaxAckPending, d.MaxAckPending)
	if t.AckWait == 0 {
		t.AckWait = d.AckWait
	}
	return t
}

// WithDefaults is t with its zero fields set to the defaults.
func (t RunConfig) WithDefaults() RunConfig {
	return t.Or(RunConfig{AckWait: time.Minute, MaxAttempts: 5, MaxLost: 5, MaxDeliver: 1000, MaxAckPending: 65536})
}

// Validate checks a configuration without zero fields.
func (t RunConfig) Validate() error {
	switch {
	case t.AckWait < 100*time.Millisecond:
		return fmt.Errorf("AckWait %s is less than 100ms", t.AckWait)
	case t.MaxAttempts < 1 || t.MaxLost < 1:
		return fmt.Errorf("max attempts %d, max lost %d: must be at least 1", t.MaxAttempts, t.MaxLost)
	case t.MaxDeliver < 1:
		return fmt.Errorf("MaxDeliver %d: must be at least 1", t.MaxDeliver)
	case t.MaxAckPending < 1:
		return fmt.Errorf("MaxAckPending %d: must be at least 1", t.MaxAckPending)
	}
	return nil
}
