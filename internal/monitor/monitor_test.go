package monitor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"surprisal/internal/jobs/conn"
	"surprisal/internal/jobs/record"
	"surprisal/internal/testkit/queuetest"
)

// TestMonitorEndsWithItsConnection: one that is closed for good ends it, with why.
func TestMonitorEndsWithItsConnection(t *testing.T) {
	b := queuetest.New(t, 1, 1)
	c := b.Connect()
	m := New(c, Config{})
	done := make(chan error, 1)
	go func() { done <- m.Run(b.Ctx) }()
	c.Close()
	if err := <-done; !errors.Is(err, conn.ErrClosed) {
		t.Errorf("%v", err)
	}
}

// TestNewestFirst: pages of jobs and letters, the newest first, have each once.
func TestNewestFirst(t *testing.T) {
	b := queuetest.New(t, 1, 12)
	b.Queue(record.RunConfig{})
	k := b.Consumer("a")
	order := b.Work(k, 5)
	for range 4 {
		l, err := k.Next(b.Ctx, b.Ctx)
		if err == nil {
			err = l.Fail(b.Ctx, fmt.Errorf("job %s is bad", l.Job.ID))
		}
		if err != nil {
			t.Fatal(err)
		}
		order = append(order, l.Job.ID)
	}
	slices.Reverse(order)
	m := New(b.Connect(), Config{})
	ctx, cancel := context.WithCancel(b.Ctx)
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the monitor ended: %v", err)
		}
	}()
	settled := []record.State{record.StateDone, record.StateDead}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if ids, _, ok := m.Newest(b.M.Run, settled, 0, 10); ok && len(ids) == 9 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the monitor never has all jobs that were worked on")
		}
	}
	var newer func(string, []record.State, int, int) ([]string, bool, bool)
	page := func(skip, limit int, states ...record.State) (ids []string, more bool) {
		t.Helper()
		req := ListRequest{Out: b.M.Out, Run: b.M.Run, Client: b.Client, States: states, Skip: skip, Limit: limit,
			Newest: true, Newer: newer}
		more, err := ListJobs(b.Ctx, req, func(j JobLine) error { ids = append(ids, j.Job); return nil })
		if err != nil {
			t.Fatal(err)
		}
		return ids, more
	}
	for _, x := range []struct {
		skip, limit int
		states      []record.State
		want        []string
		more        bool
	}{
		{0, 0, []record.State{record.StateDead, record.StateDone}, order, false},
		{0, 3, []record.State{record.StateDead, record.StateDone}, order[:3], true},
		{3, 3, []record.State{record.StateDead, record.StateDone}, order[3:6], true},
		{6, 3, []record.State{record.StateDead, record.StateDone}, order[6:], false},
		{9, 3, []record.State{record.StateDead, record.StateDone}, nil, false},
		{2, 2, []record.State{record.StateDead}, order[2:4], false},
		{4, 9, []record.State{record.StateDone}, order[8:], false},
	} {
		if got, more := page(x.skip, x.limit, x.states...); !slices.Equal(got, x.want) || more != x.more {
			t.Errorf("%+v: %v, more %t", x, got, more)
		}
		if x.limit > 0 {
			if got, more, ok := m.Newest(b.M.Run, x.states, x.skip, x.limit); !ok || !slices.Equal(got, x.want) ||
				more != x.more {
				t.Errorf("%+v: the monitor has %v, more %t", x, got, more)
			}
			newer = m.Newest
			if got, more := page(x.skip, x.limit, x.states...); !slices.Equal(got, x.want) || more != x.more {
				t.Errorf("%+v, by the monitor: %v, more %t", x, got, more)
			}
			newer = nil
		}
	}
	var all []string
	for skip := 0; ; skip += 5 {
		ids, more := page(skip, 5)
		if all = append(all, ids...); !more {
			break
		}
	}
	if slices.Sort(all); len(all) != 12 || len(slices.Compact(all)) != 12 {
		t.Errorf("pages have %d jobs: %v", len(all), all)
	}
	for _, x := range []struct {
		skip, limit int
		want        []string
	}{{0, 3, order[:3]}, {3, 3, order[3:4]}, {9, 3, nil}} {
		letters, total, err := NewestDead(b.Ctx, b.Client, b.M.Run, x.skip, x.limit)
		var ids []string
		for _, l := range letters {
			ids = append(ids, l.ID)
		}
		if err != nil || total != 4 || !slices.Equal(ids, x.want) {
			t.Errorf("%+v: %v of %d, %v", x, ids, total, err)
		}
	}
}

func TestStatusOfAServerNotSetUp(t *testing.T) {
	b := queuetest.New(t, 1, 1)
	st, err := GetStatus(b.Ctx, b.Client, "")
	if err != nil || len(st.Runs) != 0 || len(st.Workers) != 0 {
		t.Fatalf("%+v %v", st, err)
	}
}
