//go:build cuda

package gpu

import "gorgonia.org/cu"

// trace measures the time of each family of kernels in a forward pass.
type trace struct {
	events []cu.Event
	names  []string
	used   int
	err    error
}

// mark assigns the launches from here on to a family.
func (e *Engine) mark(family string) {
	t := e.trace
	if t == nil || t.err != nil {
		return
	}
	if t.used == len(t.events) {
		ev, err := cu.MakeEvent(cu.DefaultEvent)
		if err != nil {
			t.err = err
			return
		}
		t.events, t.names = append(t.events, ev), append(t.names, "")
	}
	t.names[t.used] = family
	t.err = t.events[t.used].Record(e.dev.stream)
	t.used++
}

// sum returns the milliseconds of each family since the trace began, in order of
// appearance. The stream must be idle.
func (t *trace) sum() (names []string, ms map[string]float64, err error) {
	if t.err != nil {
		return nil, nil, t.err
	}
	ms = map[string]float64{}
	for i := 0; i+1 < t.used; i++ {
		d, err := t.events[i].Elapsed(t.events[i+1])
		if err != nil {
			return nil, nil, err
		}
		if _, ok := ms[t.names[i]]; !ok {
			names = append(names, t.names[i])
		}
		ms[t.names[i]] += d
	}
	t.used = 0
	return names, ms, nil
}

func (t *trace) free() {
	for i := range t.events {
		_ = cu.DestroyEvent(&t.events[i])
	}
	t.events, t.names, t.used = nil, nil, 0
}
