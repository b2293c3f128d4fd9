package worker

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"surprisal/internal/model"
	"surprisal/internal/score"
)

// TestOtherModelIsRefused: a model or a tokenizer is loaded while its digest is taken,
// but given to nobody where it is another than the job's.
func TestOtherModelIsRefused(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	demo := filepath.Join("..", "..", "examples", "demo", "model")
	digest, err := model.Digest(t.Context(), demo)
	if err != nil {
		t.Fatal(err)
	}
	tokenizer, err := model.TokenizerDigest(t.Context(), filepath.Join(demo, "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	broken := t.TempDir()
	for _, name := range []string{model.CheckpointName, model.MetadataName} {
		b, err := os.ReadFile(filepath.Join(demo, name))
		if err != nil {
			t.Fatal(err)
		}
		if name == model.CheckpointName {
			b = b[:len(b)/2]
		}
		if err := os.WriteFile(filepath.Join(broken, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	other := "sha256:" + strings.Repeat("0", 64)
	for _, tt := range []struct{ name, dir, digest, tokenizer, want string }{
		{"another model", demo, other, tokenizer, "load model " + demo + ": its digest is " + digest},
		{"another model that can't be loaded", broken, digest, tokenizer, "the files differ"},
		{"another tokenizer", demo, digest, other, "load tokenizer: " + filepath.Join(demo, "tokenizer.json") +
			": its digest is " + tokenizer},
		{"the job's", demo, digest, tokenizer, ""},
	} {
		m := &models{cfg: Config{Threads: 1}, kind: score.EngineCPU, log: zerolog.Nop()}
		m.open = m.openEngine
		j := &score.Job{
			Model: score.Model{Dir: tt.dir, Digest: tt.digest, Tokenizer: filepath.Join(demo, "tokenizer.json"),
				TokenizerDigest: tt.tokenizer},
			Options: score.Options{TextColumn: "text", Special: score.SpecialText, Engine: score.EngineCPU},
		}
		l, err := m.load(context.Background(), j)
		switch {
		case tt.want == "" && (err != nil || !l.serves(j)):
			t.Errorf("%s: %v", tt.name, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v", tt.name, err)
		case tt.want != "" && m.cur != nil && m.cur.serves(j):
			t.Errorf("%s is there to score with", tt.name)
		}
		m.close()
	}
}
