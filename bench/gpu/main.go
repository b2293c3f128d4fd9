//go:build cuda

// Command gpubench measures the CUDA engine alone, in one process: the matrix
// products of a forward pass, forward + NLL on documents packed as a worker packs them
// (all of 4,096 tokens, and a mix of lengths), the recurrence's kernels, and every
// other family of kernels. It prints JSON; bench/run puts it beside the peer's figures
// of the same run.
//
//	gpubench --model DIR [--lengths FILE] [--gpu N] [--budget 32768]
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"surprisal/internal/gpu"
	"surprisal/internal/model"
	"surprisal/internal/score"
	"surprisal/internal/worker"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "gpubench:", err)
		os.Exit(1)
	}
}

// result is what is printed.
type result struct {
	Device    string        `json:"device"`
	Precision string        `json:"precision"`
	Model     string        `json:"model"`
	Budget    int           `json:"batch_tokens"`
	LoadS     float64       `json:"load_seconds"`  // from open to a ready engine
	FirstS    float64       `json:"first_seconds"` // from open to the first batch's scores
	MemoryGiB float64       `json:"memory_gib"`
	Products  []gpu.Product `json:"products"`
	LimitTPS  float64       `json:"products_tokens_per_second"`
	Runs      []measured    `json:"runs"`
}

type measured struct {
	Name      string  `json:"name"`
	Documents int     `json:"documents"`
	Longest   int     `json:"longest"`
	Tokens    int     `json:"tokens"`
	Batches   int     `json:"batches"`
	MS        float64 `json:"ms"` // median of a batch
	Worst     float64 `json:"worst_ms"`
	TPS       float64 `json:"tokens_per_second"`
	// prepare, walk, gated norm, of q, k, v, g, b, w in memory
	Recurrence float64 `json:"recurrence_ms_per_layer"`
	// with short convolutions and gates, as in a forward pass
	Projected float64      `json:"recurrence_from_projections_ms_per_layer"`
	Families  []gpu.Family `json:"families"`
}

func run() error {
	dir := flag.String("model", "", "checkpoint folder")
	lengths := flag.String("lengths", "",
		"JSON: lists of document lengths, a batch each; default a FineWeb-Edu-like mix")
	device := flag.Int("gpu", 0, "GPU")
	budget := flag.Int("budget", 32768, "tokens of a batch")
	precision := flag.String("precision", "fp16", "fp16 or int8: of the layers' large products")
	batches := flag.Int("batches", 12, "batches of the mix")
	scores := flag.String("score", "", "score 8 random documents into a file, for reference.py, and end")
	write := flag.String("write-lengths", "", "write the mix's lengths to a file and end")
	flag.Parse()
	mix := Mix(*budget, *batches, 1)
	if *write != "" {
		b, err := json.Marshal(mix)
		if err != nil {
			return err
		}
		return os.WriteFile(*write, b, 0o666)
	}
	if *lengths != "" {
		b, err := os.ReadFile(*lengths)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(b, &mix); err != nil {
			return fmt.Errorf("%s: %w", *lengths, err)
		}
	}
	start := time.Now()
	cfg, err := model.LoadConfig(*dir)
	if err != nil {
		return err
	}
	ckpt, err := model.Open(*dir, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = ckpt.Close() }()
	e, err := gpu.New(ckpt, cfg, gpu.Config{Device: *device, Precision: *precision, MaxTokens: *budget})
	if err != nil {
		return err
	}
	defer func() { _ = e.Close() }()
	if *scores != "" {
		return scoreDocuments(e, cfg, *scores)
	}
	r := result{Device: e.Info().Device, Precision: e.Info().Precision, Model: cfg.Name, Budget: *budget,
		LoadS: time.Since(start).Seconds()}
	dense := slices.Repeat([]int{4096}, max(1, *budget/4096))
	if err := e.Forward(context.Background(), fill(cfg, dense, 1)); err != nil {
		return err
	}
	r.FirstS = time.Since(start).Seconds()
	r.MemoryGiB = float64(e.Bytes()) / (1 << 30)
	if r.Products, err = e.Products(); err != nil {
		return err
	}
	ms := 0.0
	for _, p := range r.Products {
		ms += p.MS * float64(p.Times)
	}
	r.LimitTPS = float64(*budget) / ms * 1e3
	all := map[string][]int{"dense": dense, "mix": slices.Concat(mix...)}
	for _, name := range []string{"dense", "mix"} {
		m, err := measure(e, cfg, name, all[name])
		if err != nil {
			return err
		}
		m.Families, m.Projected, err = profile(e, cfg, all[name])
		if err != nil {
			return err
		}
		r.Runs = append(r.Runs, m)
	}
	if err := e.Close(); err != nil {
		return err
	}
	stored, err := gpu.NewStored(ckpt, cfg, gpu.Config{Device: *device, Precision: *precision, MaxTokens: *budget})
	if err != nil {
		return err
	}
	defer func() { _ = stored.Close() }()
	for i := range r.Runs {
		if _, r.Runs[i].Recurrence, err = profile(stored, cfg, all[r.Runs[i].Name]); err != nil {
			return err
		}
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", " ")
	return enc.Encode(r)
}

const warm, least = 6, 48 // batches: before times count, and to be had in all

func total(lens []int) (n int) {
	for _, l := range lens {
		n += l
	}
	return n
}

// rounds is how often documents are repeated, for enough batches.
func rounds(e *gpu.Engine, lens []int) int { return max(1, least*e.Info().MaxTokens/total(lens)) }

// measure packs the documents as a worker does, a few times over, and times the
// batches from warm to the last, waits for the packer included.
func measure(e *gpu.Engine, cfg model.Config, name string, lens []int) (measured, error) {
	m := measured{Name: name, Documents: len(lens), Longest: slices.Max(lens), Tokens: total(lens)}
	var times []float64
	var start, last time.Time
	tokens := 0
	err := worker.Pack(context.Background(), e, documents(cfg, lens, rounds(e, lens)), func(b *score.Batch) error {
		began := time.Now()
		if len(times) == warm {
			start = began
		}
		if err := e.Forward(context.Background(), b); err != nil {
			return err
		}
		last = time.Now()
		times = append(times, float64(last.Sub(began).Microseconds())/1e3)
		if len(times) > warm {
			tokens += len(b.IDs)
		}
		for _, v := range b.NLL {
			if f := float64(v); math.IsNaN(f) || math.IsInf(f, 0) {
				return fmt.Errorf("%s: a score is not finite", name)
			}
		}
		return nil
	})
	if err != nil {
		return m, err
	}
	m.Batches = len(times) - warm
	m.TPS = float64(tokens) / last.Sub(start).Seconds()
	times = times[warm:]
	slices.Sort(times)
	m.MS, m.Worst = times[len(times)/2], times[len(times)-1]
	return m, nil
}

// profile packs the documents alike and times each kernel of some full batches: a
// batch's families, and the recurrence's milliseconds a layer.
func profile(e *gpu.Engine, cfg model.Config, lens []int) (families []gpu.Family, recurrence float64, err error) {
	n, profiled := 0, 0
	err = worker.Pack(context.Background(), e, documents(cfg, lens, rounds(e, lens)), func(b *score.Batch) error {
		if n++; n <= warm || n > warm+12 || len(b.IDs) <= e.Info().MaxTokens-score.SplitMultiple {
			return e.Forward(context.Background(), b)
		}
		profiled++
		f, err := e.Profile(context.Background(), b)
		for _, x := range f {
			i := slices.IndexFunc(families, func(o gpu.Family) bool { return o.Name == x.Name })
			if i < 0 {
				i, families = len(families), append(families, gpu.Family{Name: x.Name})
			}
			families[i].MS += x.MS
		}
		return err
	})
	for i := range families {
		f := &families[i]
		if f.MS /= float64(profiled); f.Name == "gdn2 prepare" || f.Name == "gdn2 walk" || f.Name == "gdn2" ||
			f.Name == "gdn2 gate" {
			recurrence += f.MS / float64(cfg.Layers)
		}
	}
	return families, recurrence, err
}

// documents gives random documents of these lengths, so many times over.
func documents(cfg model.Config, lens []int, rounds int) iter.Seq[[]int32] {
	return func(yield func([]int32) bool) {
		r := rand.New(rand.NewPCG(2, 0))
		for range rounds {
			for _, n := range lens {
				if !yield(random(r, cfg, n+1)) {
					return
				}
			}
		}
	}
}

func random(r *rand.Rand, cfg model.Config, n int) []int32 {
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(r.IntN(cfg.VocabSize))
	}
	return ids
}

// scoreDocuments writes ids and scores of 8 documents, packed in one batch.
func scoreDocuments(e *gpu.Engine, cfg model.Config, path string) error {
	lens := []int{1, 17, 64, 65, 300, 511, 1025, 2000}
	b := fill(cfg, lens, 99)
	if err := e.Forward(context.Background(), b); err != nil {
		return err
	}
	type doc struct {
		IDs []int32   `json:"ids"`
		NLL []float32 `json:"nll"`
	}
	var docs []doc
	for i := range lens {
		lo, hi := b.CuSeqlens[i], b.CuSeqlens[i+1]
		docs = append(docs, doc{append(slices.Clone(b.IDs[lo:hi]), b.Targets[hi-1]), b.NLL[lo:hi]})
	}
	out, err := json.Marshal(docs)
	if err != nil {
		return err
	}
	return os.WriteFile(path, out, 0o666)
}

// fill makes a batch of random documents, every position scored.
func fill(cfg model.Config, lens []int, seed uint64) *score.Batch {
	r := rand.New(rand.NewPCG(seed, 0))
	b := &score.Batch{}
	for _, n := range lens {
		ids := random(r, cfg, n+1)
		b.Append(ids[:n], ids[1:], nil)
	}
	b.Alloc()
	return b
}

// Mix is batches of documents with lengths like FineWeb-Edu's: log-normal, median
// 600, mean about 1,050 tokens, and one of 30,000 in every fourth batch. The last
// of a batch is cut to fill it.
func Mix(budget, batches int, seed uint64) [][]int {
	r := rand.New(rand.NewPCG(seed, 7))
	out := make([][]int, batches)
	for i := range out {
		left := budget
		if i%4 == 3 && left > 30000 {
			out[i] = append(out[i], 30000)
			left -= 30000
		}
		for left > 0 {
			n := min(left, max(1, int(600*math.Exp(1.058*r.NormFloat64()))))
			out[i] = append(out[i], n)
			left -= n
		}
		r.Shuffle(len(out[i]), func(a, b int) { out[i][a], out[i][b] = out[i][b], out[i][a] })
	}
	return out
}
