package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"math"
	"os"
	"strings"

	"github.com/parquet-go/parquet-go"
)

// scored is a row of a score file.
type scored struct {
	row, tokens, bytes, top1 int64
	sum, perplexity, bpb     float64
	hasPerplexity, hasBPB    bool
	truncated                bool
	problem                  string
	context                  int64 // of a conditional run, as the two below
	greedy, hasGreedy        bool
	conditional              bool
	ids                      []int32
	nll                      []float32
}

func readRow(values []parquet.Value, at map[string]int, conditional bool) scored {
	s := scored{bytes: -1, conditional: conditional}
	ids, nll := -1, -1
	context, greedy := -1, -1
	if conditional {
		context, greedy = at["n_context_tokens"], at["greedy"]
	}
	for name, i := range at { // lists have inner names that depend on who wrote
		switch top, _, _ := strings.Cut(name, "."); top {
		case "token_ids":
			ids = i
		case "token_nll":
			nll = i
		}
	}
	for _, v := range values {
		if v.IsNull() {
			continue
		}
		switch v.Column() {
		case at["row"]:
			s.row = v.Int64()
		case at["n_tokens"]:
			s.tokens = v.Int64()
		case at["n_bytes"]:
			s.bytes = v.Int64()
		case at["sum_nll"]:
			s.sum = v.Double()
		case at["perplexity"]:
			s.perplexity, s.hasPerplexity = v.Double(), true
		case at["bits_per_byte"]:
			s.bpb, s.hasBPB = v.Double(), true
		case at["n_top1"]:
			s.top1 = v.Int64()
		case at["truncated"]:
			s.truncated = v.Boolean()
		case at["error"]:
			s.problem = string(v.ByteArray())
		case context:
			s.context = v.Int64()
		case greedy:
			s.greedy, s.hasGreedy = v.Boolean(), true
		case ids:
			s.ids = append(s.ids, v.Int32())
		case nll:
			s.nll = append(s.nll, v.Float())
		}
	}
	return s
}

// check says what does not fit together, or nothing.
func (s *scored) check(perToken bool) string {
	near := func(a, b float64) bool { return a == b || math.Abs(a-b) <= 1e-12*math.Abs(b) }
	switch {
	case s.tokens < 0 || s.top1 < 0 || s.top1 > s.tokens:
		return fmt.Sprintf("%d tokens, %d of them first choice", s.tokens, s.top1)
	case math.IsNaN(s.sum) || math.IsInf(s.sum, 0):
		return fmt.Sprintf("sum_nll is %v", s.sum)
	case s.problem != "" && (s.tokens != 0 || s.sum != 0 || s.top1 != 0 || s.hasPerplexity || s.hasBPB):
		return "it has an error and a score"
	case s.tokens == 0 && s.sum != 0:
		return "it has a sum_nll of no tokens"
	case s.hasPerplexity != (s.tokens > 0):
		return "perplexity is there without tokens, or tokens without it"
	case s.hasPerplexity && !near(s.perplexity, math.Exp(s.sum/float64(s.tokens))):
		return fmt.Sprintf("perplexity %v is not exp(%v/%d)", s.perplexity, s.sum, s.tokens)
	case s.hasBPB != (s.bytes > 0 && s.problem == ""):
		return "bits_per_byte is there without bytes, or bytes without it"
	case s.hasBPB && !near(s.bpb, s.sum/math.Ln2/float64(s.bytes)):
		return fmt.Sprintf("bits_per_byte %v is not %v/ln 2/%d", s.bpb, s.sum, s.bytes)
	case s.conditional && (s.hasGreedy != (s.tokens > 0) || s.hasGreedy && s.greedy != (s.top1 == s.tokens)):
		return fmt.Sprintf("greedy is %t of %d tokens, %d of them first choice", s.greedy, s.tokens, s.top1)
	case s.conditional && (s.context > 0) != (s.problem == ""):
		return fmt.Sprintf("%d context tokens", s.context)
	case perToken && s.problem == "" && int64(len(s.nll)) != s.tokens:
		return fmt.Sprintf("%d token_nll for %d tokens", len(s.nll), s.tokens)
	}
	return ""
}

func (t *totals) add(s *scored) {
	t.documents++
	if s.problem != "" {
		t.failed++
		return
	}
	if s.truncated {
		t.truncated++
	}
	t.tokens, t.bytes, t.top1, t.sum = t.tokens+s.tokens, t.bytes+max(s.bytes, 0), t.top1+s.top1, t.sum+s.sum
}

// digest is surprisal.digest: sha256 of the scores in row order, little endian.
type digest struct {
	h           hash.Hash
	buf         []byte
	conditional bool
}

func newDigest(conditional bool) *digest { return &digest{h: sha256.New(), conditional: conditional} }

func (d *digest) add(s *scored) {
	le := binary.LittleEndian
	b := d.buf[:0]
	for _, v := range []int64{s.row, s.tokens, s.bytes, s.top1, int64(len(s.problem))} {
		b = le.AppendUint64(b, uint64(v))
	}
	b = le.AppendUint64(b, math.Float64bits(s.sum))
	b = append(b, s.problem...)
	if s.truncated {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = le.AppendUint64(b, uint64(len(s.ids)))
	for _, id := range s.ids {
		b = le.AppendUint32(b, uint32(id))
	}
	b = le.AppendUint64(b, uint64(len(s.nll)))
	for _, x := range s.nll {
		b = le.AppendUint32(b, math.Float32bits(x))
	}
	if d.conditional {
		b = le.AppendUint64(b, uint64(s.context))
	}
	d.h.Write(b)
	d.buf = b
}

func (d *digest) String() string { return "sha256:" + hex.EncodeToString(d.h.Sum(nil)) }

// wholeDigest holds surprisal.file to the file: the sha256 of all of its bytes
// with zeros for the digest itself.
func wholeDigest(path, want string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	hexed, ok := strings.CutPrefix(want, "sha256:")
	if !ok || bytes.Count(b, []byte(hexed)) != 1 {
		return "its metadata has no digest of the file"
	}
	h := sha256.Sum256(bytes.Replace(b, []byte(hexed), bytes.Repeat([]byte{'0'}, len(hexed)), 1))
	if got := hex.EncodeToString(h[:]); got != hexed {
		return fmt.Sprintf("the file's digest is sha256:%s, its metadata says %s", got, want)
	}
	return ""
}
