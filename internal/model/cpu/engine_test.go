package cpu

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"surprisal/internal/score"
	"surprisal/internal/testkit/modeltest"
)

func TestBadBatches(t *testing.T) {
	c := awkward()["kla"]
	w := randomWeights(c, 1, false)
	e := engineOf(t, w, c, Config{MaxTokens: 128})
	other := engineOf(t, w, c, Config{MaxTokens: 128})
	vocab := int32(c.VocabSize)
	released := modeltest.NewState(t, e)
	released.Release()
	st := modeltest.NewState(t, e)
	good := func() *score.Batch {
		b := &score.Batch{}
		b.Append([]int32{1, 2, 3}, []int32{2, 3, score.NoTarget}, nil)
		b.Append([]int32{4, 5}, []int32{5, 6}, nil)
		b.Alloc()
		return b
	}
	for _, f := range []struct {
		name, want string
		change     func(b *score.Batch)
	}{
		{"negative id", "id -1 at 1", func(b *score.Batch) { b.IDs[1] = -1 }},
		{"id past the vocabulary", "id 61 at 4", func(b *score.Batch) { b.IDs[4] = vocab }},
		{"largest id", "outside the vocabulary", func(b *score.Batch) { b.IDs[4] = math.MaxInt32 }},
		{"target past the vocabulary", "target 61 at 0", func(b *score.Batch) { b.Targets[0] = vocab }},
		{"negative target", "target -2 at 0", func(b *score.Batch) { b.Targets[0] = -2 }},
		{"too few targets", "4 targets", func(b *score.Batch) { b.Targets = b.Targets[:4] }},
		{"no room", "Alloc", func(b *score.Batch) { b.NLL = nil }},
		{"no room for flags", "Alloc", func(b *score.Batch) { b.Top1 = b.Top1[:1] }},
		{"no bounds", "sequence bounds", func(b *score.Batch) { b.CuSeqlens = nil }},
		{"late start", "sequences from 1", func(b *score.Batch) { b.CuSeqlens[0] = 1 }},
		{"bounds past the ids", "sequences from 0 to 6", func(b *score.Batch) { b.CuSeqlens[2] = 6 }},
		{"empty sequence", "sequence 1", func(b *score.Batch) { b.CuSeqlens[1] = 5 }},
		{"bounds that go back", "sequence 1", func(b *score.Batch) { b.CuSeqlens[1] = 9 }},
		{"negative bound", "sequence 0", func(b *score.Batch) { b.CuSeqlens[1] = -4 }},
		{"too few states", "1 states", func(b *score.Batch) { b.States = b.States[:1] }},
		{"released state", "released", func(b *score.Batch) { b.States[0] = released }},
		{"state of another engine", "another engine", func(b *score.Batch) {
			b.States[1] = modeltest.NewState(t,
				other)
		}},
		{"foreign state", "another engine", func(b *score.Batch) { b.States[1] = foreign{} }},
		{"nil pointer", "another engine", func(b *score.Batch) { b.States[1] = (*state)(nil) }},
		{"one state twice", "twice", func(b *score.Batch) { b.States[0], b.States[1] = st, st }},
		{"too many tokens", "budget", func(b *score.Batch) {
			b.Append(make([]int32, 128), make([]int32, 128), nil)
			b.Alloc()
		}},
	} {
		t.Run(f.name, func(t *testing.T) {
			b := good()
			f.change(b)
			err := e.Forward(context.Background(), b)
			if err == nil || !strings.HasPrefix(err.Error(), "forward: ") || !strings.Contains(err.Error(), f.want) {
				t.Errorf("error %v, want one of %q", err, f.want)
			}
		})
	}
	b := good() // and the engine still works, with the state that was refused
	b.States[0] = st
	for range 2 {
		if err := e.Forward(context.Background(), b); err != nil {
			t.Error(err)
		}
	}
	if err := e.Forward(context.Background(), &score.Batch{}); err != nil {
		t.Errorf("empty batch: %v", err)
	}
}

type foreign struct{}

func (foreign) Release() {}

func TestCancelled(t *testing.T) {
	c := awkward()["kla"]
	e := engineOf(t, randomWeights(c, 1, false), c, Config{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	b := &score.Batch{}
	b.Append([]int32{1}, []int32{1}, nil)
	b.Alloc()
	if err := e.Forward(ctx, b); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
}

func TestClose(t *testing.T) {
	c := awkward()["kla"]
	e := engineOf(t, randomWeights(c, 1, false), c, Config{})
	for range 2 {
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Forward(context.Background(), &score.Batch{}); !errors.Is(err, ErrClosed) {
		t.Errorf("error %v, want %v", err, ErrClosed)
	}
}

func TestInfo(t *testing.T) {
	c := awkward()["kla"]
	e := engineOf(t, randomWeights(c, 1, false), c, Config{})
	i := e.Info()
	if i.Kind != score.EngineCPU || i.Precision != "fp32" || i.VocabSize != c.VocabSize || i.Device == "" ||
		i.MaxTokens < 1 || i.MaxTokens%score.SplitMultiple != 0 {
		t.Errorf("info is %+v", i)
	}
}

func TestBadConfigs(t *testing.T) {
	c := awkward()["kla"]
	w := randomWeights(c, 1, false)
	for _, cfg := range []Config{
		{QueryScale: math.NaN()}, {QueryScale: math.Inf(1)}, {QueryScale: -1}, {Threads: -1}, {Threads: 1 << 20},
		{MaxTokens: 65}, {MaxTokens: -64}, {MaxTokens: 1 << 30},
	} {
		if e, err := newEngine(w, c, cfg); err == nil {
			e.Close()
			t.Errorf("config %+v was taken", cfg)
		}
	}
	for name := range w {
		short := make(fake, len(w))
		for n, v := range w {
			if n != name {
				short[n] = v
			}
		}
		if e, err := newEngine(short, c, Config{}); err == nil {
			e.Close()
			t.Errorf("a checkpoint without %s was taken", name)
		} else if !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

// TestStatesReused: a released state's memory starts the next document from zero,
// and the released one is refused from then on.
func TestStatesReused(t *testing.T) {
	c := awkward()["kla"]
	e := engineOf(t, randomWeights(c, 1, false), c, Config{})
	d := randomDoc(rand.New(rand.NewPCG(1, 1)), c.VocabSize, 64)
	run := func(st score.State) []float32 {
		var b score.Batch
		b.Append(d.IDs[:64], d.IDs[1:], st)
		modeltest.Forward(t, e, &b)
		return b.NLL
	}
	want := run(nil)
	for range 2 * freeStates {
		st := modeltest.NewState(t, e)
		if got := run(st); !slices.Equal(got, want) {
			t.Fatalf("a fresh state gives %v, none gives %v", got, want)
		}
		if got := run(st); slices.Equal(got, want) {
			t.Fatal("the state was not carried")
		}
		st.Release()
		st.Release()
	}
}

// TestConcurrentUse is for the race detector: states come and go, and callers
// meet, while Forward runs.
func TestConcurrentUse(t *testing.T) {
	c := awkward()["kla"]
	e := engineOf(t, randomWeights(c, 1, false), c, Config{Threads: 3})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 0))
			for range 5 {
				docs := []modeltest.Document{randomDoc(r, c.VocabSize, 100), randomDoc(r, c.VocabSize, 200)}
				modeltest.Score(t, e, docs, nil, 128)
			}
		})
	}
	wg.Wait()
}
