package sift

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
	"strings"
	"time"

	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/store"
)

// madeByName pins what a DEST is.
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

// destination is a DEST at work.
type destination struct {
	*shard.Dest
	dir    string
	req    Request
	digest string
	slots  chan struct{}
}

func cores() int { return runtime.GOMAXPROCS(0) }

// staleAfter is how old a hidden temporary of a dead process must be to go.
const staleAfter = time.Hour

// checkDest refuses a DEST that can't be one.
func (c *Corpus) checkDest(dest string) (string, error) {
	if dest == "" {
		return "", usage("no destination is named: give --to DEST")
	}
	if score.IsURL(dest) && !strings.HasPrefix(dest, "file://") {
		return "", usage("--to %s: only a local folder can be written to", dest)
	}
	dir, err := store.Resolve(dest)
	if err != nil {
		return "", usage("--to %s: %w", dest, err)
	}
	real := resolved(dir)
	switch {
	case under(real, resolved(c.Dir)):
		return "", usage("--to %s lies inside the scores' folder %s: name a folder elsewhere", dest, c.Dir)
	case under(resolved(c.Dir), real):
		return "", usage("--to %s holds the scores' folder %s: name a folder elsewhere", dest, c.Dir)
	}
	for i := range c.Files {
		if under(resolved(filepath.Dir(c.Files[i].Input.Path)), real) {
			return "", usage("--to %s holds the input %s: name a folder elsewhere", dest, c.Files[i].Input.Path)
		}
	}
	return dir, nil
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
	dir, err := c.checkDest(dest)
	if err != nil {
		return nil, err
	}
	d, err := shard.OpenDest(ctx, dir)
	if err != nil {
		return nil, usage("--to %s: %w", dest, err)
	}
	to := &destination{Dest: d, dir: dir, req: req, digest: req.digest(), slots: make(chan struct{}, cores()+1)}
	if err := to.claim(dest); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if _, err := shard.RemoveTemporaries(ctx, dir, "copy", staleAfter); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return to, nil
}

func (d *destination) claim(dest string) error {
	b, err := d.ReadFile(madeByName)
	if errors.Is(err, fs.ErrNotExist) {
		empty, err := d.Empty()
		if err != nil {
			return fmt.Errorf("look into %s: %w", dest, err)
		}
		if !empty {
			return usage("--to %s holds other things: name a new or empty folder", dest)
		}
		return d.writeJSON(madeByName, d.req)
	}
	if err != nil {
		return fmt.Errorf("look into %s: %w", dest, err)
	}
	var there Request
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&there); err != nil {
		return usage("--to %s: its %s can't be read (%w): name another folder", dest, madeByName, err)
	}
	if there.digest() != d.digest {
		return usage("--to %s holds what another command made (see its %s): name another folder, or remove that one", dest, madeByName)
	}
	return nil
}

func (d *destination) writeJSON(name string, v any) error {
	return d.WriteFile(name, func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	})
}

// finish says that all is there.
func (d *destination) finish(v any) error { return d.writeJSON(score.SuccessName, v) }

// has tells whether an earlier attempt of the same request wrote the file.
func (d *destination) has(ctx context.Context, name string) bool {
	t, err := d.Parquet(ctx, name)
	if err != nil {
		return false // it is written anew
	}
	defer t.Close()
	v, ok := t.Metadata(digestKey)
	return ok && v == d.digest
}

// metadata says in each file what it was made from.
func (d *destination) metadata() [][2]string {
	return [][2]string{
		{digestKey, d.digest}, {"surprisal.from_run", d.req.Run}, {"surprisal.command", d.req.Command}, {"surprisal.where", d.req.Where},
	}
}
