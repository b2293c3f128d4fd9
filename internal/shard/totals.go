package shard

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"math"

	"surprisal/internal/score"
)

// Totals are sums over rows.
type Totals struct {
	Documents int64   `json:"documents"` // rows, failed ones among them
	Failed    int64   `json:"failed"`    // rows with an error
	Truncated int64   `json:"truncated"`
	Tokens    int64   `json:"tokens"`
	Bytes     int64   `json:"bytes"` // of the rows that have a score and whose bytes are known
	SumNLL    float64 `json:"sum_nll"`
	Top1      int64   `json:"top1"`
}

// Add adds o to t. Floating-point sums depend on their order, so add files in
// the order of their paths.
func (t *Totals) Add(o Totals) {
	t.Documents += o.Documents
	t.Failed += o.Failed
	t.Truncated += o.Truncated
	t.Tokens += o.Tokens
	t.Bytes += o.Bytes
	t.SumNLL += o.SumNLL
	t.Top1 += o.Top1
}

func (t *Totals) addScore(s *score.Score) {
	t.Documents++
	if s.Error != "" {
		t.Failed++
		return
	}
	if s.Truncated {
		t.Truncated++
	}
	t.Tokens += s.Tokens
	t.Bytes += max(s.Bytes, 0)
	t.SumNLL += s.SumNLL
	t.Top1 += s.Top1
}

// digester makes the digest of scores in row order. Every field has its length
// or a fixed one, so that no two lists of scores give the same bytes.
type digester struct {
	h           hash.Hash
	buf         []byte
	conditional bool
}

func newDigester(o score.Options) *digester {
	return &digester{h: sha256.New(), conditional: o.Conditional()}
}

func (d *digester) add(s *score.Score) {
	le := binary.LittleEndian
	b := d.buf[:0]
	for _, v := range []int64{s.Row, s.Tokens, s.Bytes, s.Top1, int64(len(s.Error))} {
		b = le.AppendUint64(b, uint64(v))
	}
	b = le.AppendUint64(b, math.Float64bits(s.SumNLL))
	b = append(b, s.Error...)
	if s.Truncated {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = le.AppendUint64(b, uint64(len(s.TokenIDs)))
	for _, id := range s.TokenIDs {
		b = le.AppendUint32(b, uint32(id))
	}
	b = le.AppendUint64(b, uint64(len(s.TokenNLL)))
	for _, x := range s.TokenNLL {
		b = le.AppendUint32(b, math.Float32bits(x))
	}
	if d.conditional {
		b = le.AppendUint64(b, uint64(s.ContextTokens))
	}
	d.h.Write(b)
	d.buf = b
}

func (d *digester) sum() string { return "sha256:" + hex.EncodeToString(d.h.Sum(nil)) }
