package cpu

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"surprisal/internal/score"
	"surprisal/internal/testkit/modeltest"
)

// TestSetsAgree: instruction sets with a fused multiply-add give the same bits, and
// all of them the same scores within the bound of docs/scores.md.
func TestSetsAgree(t *testing.T) {
	for name, c := range awkward() {
		t.Run(name, func(t *testing.T) {
			w := randomWeights(c, 3, false)
			r := rand.New(rand.NewPCG(4, 4))
			var docs []modeltest.Document
			for _, n := range []int{1, 17, 64, 130} {
				docs = append(docs, randomDoc(r, c.VocabSize, n))
			}
			var want []modeltest.Document
			for i, set := range Sets() {
				got := slices.Clone(docs)
				modeltest.Score(t, engineOf(t, w, c, Config{Set: set}), got, nil, 256)
				if i == 0 {
					want = got
					continue
				}
				if score.SameBits(set, Sets()[0]) {
					sameBits(t, set+" and "+Sets()[0], got, want)
				}
				for d := range want {
					off := math.Abs(modeltest.Sum(got[d].NLL)-modeltest.Sum(want[d].NLL)) / float64(len(want[d].NLL))
					if !(off < 2e-5) {
						t.Errorf("%s and %s: document %d differs by %.1e nats a token", set, Sets()[0], d, off)
					}
				}
			}
		})
	}
}

// TestBitsOnRecord holds the bits of a golden's scores to those of the machines where
// they were first computed.
func TestBitsOnRecord(t *testing.T) {
	const fused, unfused = "1b8cffe9d887a5fc", "c293c906ce9ce0cc"
	inEverySet(t, "kla", func(t *testing.T, set string) {
		docs := modeltest.ReadGolden(t, filepath.Join(goldens, "kla")).Documents()
		modeltest.Score(t, open(t, filepath.Join(goldens, "kla"), Config{Set: set}), docs, nil, 2048)
		sum := sha256.New()
		for _, d := range docs {
			if err := binary.Write(sum, binary.LittleEndian, d.NLL); err != nil {
				t.Fatal(err)
			}
		}
		want := fused
		if !score.SameBits(set, "avx2") {
			want = unfused
		}
		if got := fmt.Sprintf("%x", sum.Sum(nil)[:8]); got != want {
			t.Errorf("scores have the digest %s, want %s", got, want)
		}
	})
}

func TestSetFromEnvironment(t *testing.T) {
	c := awkward()["kla"]
	w := randomWeights(c, 1, false)
	for _, set := range Sets() {
		t.Setenv(EnvSet, set)
		if got := engineOf(t, w, c, Config{}).Info().Set; got != set {
			t.Errorf("%s=%s gives %s", EnvSet, set, got)
		}
	}
	t.Setenv(EnvSet, "")
	if got := engineOf(t, w, c, Config{}).Info().Set; got != Sets()[0] {
		t.Errorf("without %s: %s, want %s", EnvSet, got, Sets()[0])
	}
	t.Setenv(EnvSet, "altivec")
	_, err := newEngine(w, c, Config{})
	const want = `SURPRISAL_CPU_SET: instruction set "altivec" not available; this machine has `
	if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v", err)
	}
}
