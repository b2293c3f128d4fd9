package score

import (
	"fmt"
	"time"
)

// SplitMultiple is the grid, in tokens from a document's start, on which a
// document may be split between batches. Engines that work in chunks lay them
// on the same grid, so that a split never moves a chunk.
const SplitMultiple = 64

// NoTarget marks a position whose next token is not scored.
const NoTarget int32 = -1

// State is a document's recurrent state between batches: per layer S [H, K, V]
// and the last conv_size-1 inputs of each short conv. An engine makes it, reads
// and writes it in Forward, and only that engine understands it.
type State interface {
	// Release gives its memory back. The state must not be used after.
	Release()
}

// Batch is what one forward pass takes: N sequences packed without padding.
type Batch struct {
	// IDs [T] are the input tokens; all are within 0 .. vocab_size-1.
	IDs []int32
	// Targets [T]: Targets[i] is the token whose NLL is wanted after IDs[i], or NoTarget.
	Targets []int32
	// CuSeqlens [N+1]: sequence n is IDs[CuSeqlens[n]:CuSeqlens[n+1]], never empty.
	CuSeqlens []int32
	// States [N]: nil for a sequence that starts and ends in this batch. Otherwise
	// its state before its first token here, replaced by the state after its last.
	States []State
	// NLL [T], nats, and Top1 [T] (whether the target is the arg-max; the lowest
	// index wins a tie) are written by Forward; 0 and false where there is no target.
	NLL  []float32
	Top1 []bool
	// Copied is how much of Forward's time went into laying the batch out for the
	// device and taking its scores; an engine that does neither leaves it 0.
	Copied time.Duration
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	b.IDs, b.Targets, b.NLL, b.Top1 = b.IDs[:0], b.Targets[:0], b.NLL[:0], b.Top1[:0]
	b.CuSeqlens = append(b.CuSeqlens[:0], 0)
	clear(b.States)
	b.States = b.States[:0]
	b.Copied = 0
}

// Append adds one sequence. targets may be shorter than ids only by being
// wholly absent for positions that are not scored: len(targets) == len(ids).
func (b *Batch) Append(ids, targets []int32, st State) {
	if len(b.CuSeqlens) == 0 {
		b.CuSeqlens = append(b.CuSeqlens, 0)
	}
	b.IDs = append(b.IDs, ids...)
	b.Targets = append(b.Targets, targets...)
	b.CuSeqlens = append(b.CuSeqlens, int32(len(b.IDs)))
	b.States = append(b.States, st)
}

// Alloc sizes NLL and Top1 for the tokens appended; packers call it once the
// batch is full.
func (b *Batch) Alloc() {
	t := len(b.IDs)
	if cap(b.NLL) < t {
		b.NLL, b.Top1 = make([]float32, t), make([]bool, t)
	}
	b.NLL, b.Top1 = b.NLL[:t], b.Top1[:t]
}

// Check refuses a batch that a forward pass of maxTokens tokens, over a vocabulary
// of so many, could not run safely. States are for the engine to check.
func (b *Batch) Check(maxTokens, vocab int) error {
	t, n := len(b.IDs), len(b.States)
	switch {
	case t > maxTokens:
		return fmt.Errorf("batch has %d tokens, more than the budget of %d", t, maxTokens)
	case len(b.Targets) != t:
		return fmt.Errorf("batch has %d ids and %d targets", t, len(b.Targets))
	case len(b.NLL) != t || len(b.Top1) != t:
		return fmt.Errorf("batch has %d ids and room for %d scores: Alloc was not called", t,
			min(len(b.NLL), len(b.Top1)))
	case t == 0 && n == 0 && len(b.CuSeqlens) <= 1:
		return nil
	case len(b.CuSeqlens) != n+1:
		return fmt.Errorf("batch has %d states and %d sequence bounds", n, len(b.CuSeqlens))
	case b.CuSeqlens[0] != 0 || int(b.CuSeqlens[n]) != t:
		return fmt.Errorf("batch has sequences from %d to %d, but %d ids", b.CuSeqlens[0], b.CuSeqlens[n], t)
	}
	for i := range n {
		if b.CuSeqlens[i+1] <= b.CuSeqlens[i] {
			return fmt.Errorf("sequence %d spans %d to %d", i, b.CuSeqlens[i], b.CuSeqlens[i+1])
		}
	}
	for i, id := range b.IDs {
		if id < 0 || int(id) >= vocab {
			return fmt.Errorf("id %d at %d is outside the vocabulary of %d", id, i, vocab)
		}
		if g := b.Targets[i]; g != NoTarget && (g < 0 || int(g) >= vocab) {
			return fmt.Errorf("target %d at %d is outside the vocabulary of %d", g, i, vocab)
		}
	}
	return nil
}

// EngineInfo says what an engine is, for outputs' metadata and for packers.
type EngineInfo struct {
	Kind      EngineKind // cpu or cuda
	Precision string     // fp32, bf16
	Device    string     // for people: the GPU's name, or the CPU's
	Set       string     // the CPU's instruction set: avx512, avx2, sse2 or neon; empty on a GPU
	MaxTokens int        // token budget of a batch, a multiple of SplitMultiple
	VocabSize int
	// MinDocuments: a full batch of fewer leaves part of the engine idle, since the
	// recurrence of one runs in order. 0: any number will do.
	MinDocuments int
	// StateBytes is about the memory of one State; 0 when that is not known.
	StateBytes int64
	// Flops of a token with a target: its matrix products; 0 when not known.
	Flops float64
}

// SameBits says whether the CPU engine gives the same bits on two instruction sets: all
// that have a fused multiply-add do. Files of older versions name no set.
func SameBits(a, b string) bool {
	fused := func(set string) bool { return set == "avx512" || set == "avx2" || set == "neon" }
	return a == b || fused(a) && fused(b)
}
