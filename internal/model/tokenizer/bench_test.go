package tokenizer

import (
	"testing"

	"surprisal/internal/score"
)

// BenchmarkEncode encodes the demo texts, one a call.
func BenchmarkEncode(b *testing.B) {
	texts := demoTexts(b)
	size := 0
	for _, s := range texts {
		size += len(s)
	}
	for _, name := range []string{"demo", "llama"} {
		tok := open(b, name, score.SpecialText)
		encode := func(tb testing.TB) (n int) {
			for _, s := range texts {
				ids, err := tok.Encode([]byte(s))
				if err != nil {
					tb.Error(err)
				}
				n += len(ids)
			}
			return n
		}
		n := encode(b)
		b.Run(name+"/one", func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				encode(b)
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
		b.Run(name+"/parallel", func(b *testing.B) {
			b.SetBytes(int64(size))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					encode(b)
				}
			})
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}
