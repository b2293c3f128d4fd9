package curate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"runtime"
	"time"

	"surprisal/internal/place"
	"surprisal/internal/score"
	"surprisal/internal/shard/jsonl"
	"surprisal/internal/shard/outdir"
	"surprisal/internal/usage"
)

// madeByName records the request of a DEST.
const madeByName = "_made_by.json"

// digestKey is the key-value metadata by which a file of an earlier attempt is
// known to be of the same request.
const digestKey = "surprisal.made_by"

// Request is what a DEST was made from; it decides every byte in it.
type Request struct {
	Command string   `json:"command"` // filter, bucket or export
	Run     string   `json:"run"`
	Out     string   `json:"out"`
	Config  string   `json:"config_digest"`
	Scores  string   `json:"scores_digest"` // of the jobs that are committed
	Where   string   `json:"where,omitempty"`
	By      []string `json:"by,omitempty"`
	As      string   `json:"as,omitempty"`
	Scored  bool     `json:"with_scores,omitempty"`
}

func (c *Corpus) request(command string) Request {
	h := sha256.New()
	for i := range c.Files {
		for _, r := range c.Files[i].Scores {
			fmt.Fprintln(h, r.Job)
		}
	}
	return Request{
		Command: command, Run: c.Manifest.Run, Out: c.Dir, Config: c.Manifest.ConfigDigest,
		Scores: "sha256:" + hex.EncodeToString(h.Sum(nil)),
	}
}

// digest is of all but where OUT lies.
func (r Request) digest() string {
	r.Out = ""
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings always marshal
	}
	h := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(h[:])
}

// destination is a DEST that is being written.
type destination struct {
	*outdir.Dest
	req    Request
	digest string
	slots  chan struct{}
}

func cores() int { return runtime.GOMAXPROCS(0) }

// staleAfter is how old a hidden temporary of a dead process must be to go.
const staleAfter = time.Hour

// checkDest refuses places that cannot be a DEST.
func (c *Corpus) checkDest(dest string) error {
	if dest == "" {
		return usage.Errorf("--to DEST is required")
	}
	if err := place.ValidOut(dest); err != nil {
		return usage.Errorf("--to: %w", err) // dest may hold a secret
	}
	switch {
	case under(dest, c.Dir):
		return usage.Errorf("--to %s lies inside the scores' folder %s: name a folder elsewhere", dest, c.Dir)
	case under(c.Dir, dest):
		return usage.Errorf("--to %s holds the scores' folder %s: name a folder elsewhere", dest, c.Dir)
	}
	for i := range c.Files {
		if from, _ := place.Split(c.Files[i].Input.Path); under(from, dest) {
			return usage.Errorf("--to %s holds the input %s: name a folder elsewhere", dest, c.Files[i].Input.Path)
		}
	}
	return nil
}

// under tells whether a place is dir or below it, however either is reached:
// links are followed, and the queries of URLs are not looked at.
func under(name, dir string) bool {
	a, err := place.Parse(name)
	b, err2 := place.Parse(dir)
	if err != nil || err2 != nil {
		return false
	}
	if a.Scheme == "" && b.Scheme == "" {
		a.Key, b.Key = resolved(a.Key), resolved(b.Key)
	}
	a.Query, b.Query, a.Rev, b.Rev = "", "", "", ""
	return a.Within(b)
}

// resolved follows links as far as the path exists.
func resolved(path string) string {
	for at, rest := path, ""; ; {
		if real, err := filepath.EvalSymlinks(at); err == nil {
			return filepath.Join(real, rest)
		}
		up := filepath.Dir(at)
		if up == at {
			return path
		}
		at, rest = up, filepath.Join(filepath.Base(at), rest)
	}
}

// openDest takes DEST for a request: a new or empty folder, or one that the same
// request has begun.
func (c *Corpus) openDest(ctx context.Context, dest string, req Request) (*destination, error) {
	if err := c.checkDest(dest); err != nil {
		return nil, err
	}
	d, err := outdir.OpenDest(ctx, dest)
	if err != nil {
		return nil, usage.Errorf("--to %s: %w", dest, err)
	}
	to := &destination{Dest: d, req: req, digest: req.digest(), slots: make(chan struct{}, cores()+1)}
	if err := to.claim(ctx, dest); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if _, err := outdir.RemoveTemporaries(ctx, dest, "copy", staleAfter); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return to, nil
}

// claim reserves DEST for the request.
func (d *destination) claim(ctx context.Context, dest string) error {
	look := func(err error) error {
		if ctx.Err() != nil {
			return err
		}
		return usage.Errorf("--to %s: %w", dest, err)
	}
	for {
		b, err := d.ReadFile(ctx, madeByName)
		if err == nil {
			return d.made(b, dest)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return look(err)
		}
		empty, err := d.Empty(ctx)
		if err != nil {
			return look(err)
		}
		if !empty {
			return usage.Errorf("--to %s is not empty: name a new or empty folder", dest)
		}
		if b, err = indented(d.req); err != nil {
			return err
		}
		if err := d.WriteNew(ctx, madeByName, b); err == nil {
			return nil
		} else if !errors.Is(err, fs.ErrExist) {
			return look(err)
		} // else another command was faster: see which
	}
}

// made refuses a DEST that another request has made.
func (d *destination) made(b []byte, dest string) error {
	var there Request
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&there); err != nil {
		return usage.Errorf("--to %s: its %s cannot be read (%w): name another folder", dest, madeByName, err)
	}
	if there.digest() != d.digest {
		return usage.Errorf("--to %s holds the output of another command (see its %s): "+
			"name another folder, or remove that one", dest, madeByName)
	}
	return nil
}

func indented(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	return append(b, '\n'), err
}

// finish writes _SUCCESS.
func (d *destination) finish(ctx context.Context, v any) error {
	b, err := indented(v)
	if err != nil {
		return err
	}
	return d.WriteFile(ctx, score.SuccessName, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

// has tells whether an earlier attempt of the same request wrote a copy of a file.
func (d *destination) has(ctx context.Context, f *File, name string) bool {
	if jsonl.Is(f.Input.Rel) {
		return d.hasLines(ctx, name)
	}
	return d.hasParquet(ctx, name)
}

func (d *destination) hasParquet(ctx context.Context, name string) bool {
	t, err := d.Parquet(ctx, name)
	if err != nil {
		return false // it is written again
	}
	defer t.Close()
	v, ok := t.Metadata(digestKey)
	return ok && v == d.digest
}

// hasLines tells it of a file that does not say itself what made it: what is in
// DEST is whole and of this request.
func (d *destination) hasLines(ctx context.Context, name string) bool {
	ok, err := d.Exists(ctx, name)
	return ok && err == nil // else it is written again
}

// metadata says in each file what it was made from.
func (d *destination) metadata() [][2]string {
	return [][2]string{
		{digestKey, d.digest}, {"surprisal.from_run", d.req.Run}, {"surprisal.command", d.req.Command},
		{"surprisal.where",
			d.req.Where},
	}
}
