package cpu

import (
	"sync"
	"sync/atomic"
	"time"
)

// The stages of Forward; finish is followed by the next layer's project.
const (
	project = iota
	prepare
	walk
	finish
	loss
	stages
)

var stageNames = [stages]string{"project", "prepare", "walk", "finish", "loss"}

// stageClock is the time spent in each stage, for benchmarks.
type stageClock [stages]time.Duration

// stage runs one stage and adds its time to the clock.
func (e *Engine) stage(s int, run func()) {
	start := time.Now()
	run()
	e.clock[s] += time.Since(start)
}

// parallel runs do for tasks 0..n-1 on the engine's workers and waits for all.
// Tasks are taken in order, by whoever is free; the worker's number picks its
// scratch.
func (e *Engine) parallel(n int, do func(w *worker, task int)) {
	var next atomic.Int64
	run := func(w *worker) {
		for {
			i := int(next.Add(1)) - 1
			if i >= n {
				return
			}
			do(w, i)
		}
	}
	var wg sync.WaitGroup
	for i := 1; i < min(n, len(e.workers)); i++ {
		wg.Go(func() { run(&e.workers[i]) })
	}
	run(&e.workers[0])
	wg.Wait()
}

// tiles cuts n rows into equal tiles, as many for every worker, and runs do over
// them. How rows are cut shows in no result.
func (e *Engine) tiles(n int, do func(w *worker, first, last int)) {
	if n == 0 {
		return
	}
	count := roundUp((n+maxTile-1)/maxTile, len(e.workers))
	rows := max(roundUp((n+count-1)/count, tileStep), minTile)
	rows = min(rows, maxTile)
	e.parallel((n+rows-1)/rows, func(w *worker, i int) { do(w, i*rows, min((i+1)*rows, n)) })
}
