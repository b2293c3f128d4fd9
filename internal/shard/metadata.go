package shard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"surprisal/internal/score"
	"surprisal/internal/shard/pq"
	"surprisal/internal/store"
)

// keyPrefix is of the key-value metadata that we write.
const keyPrefix = "surprisal."

// ErrNotParquet: a file that has no readable footer at all: torn, not ours.
var ErrNotParquet = errors.New("not readable as parquet")

// Committed is what a score file's footer says of it.
type Committed struct {
	Path            string // absolute, or a URL
	Job             string
	Run             string
	ConfigDigest    string
	ModelDigest     string
	TokenizerDigest string
	// Input has no Rel: that is the file's own place under OUT.
	Input       score.Input
	First, Last int64
	Digest      string // of the scores, in row order
	Totals      Totals
	Metadata    Metadata
	// Existed: Commit found the same scores published already, and dropped its own.
	Existed bool
}

// field is one key of the metadata: how it is written and read.
type field struct {
	key string
	get func(*Committed) string
	set func(*Committed, string) error
}

func textField(key string, at func(*Committed) *string) field {
	return field{key, func(c *Committed) string { return *at(c) }, func(c *Committed, s string) error {
		*at(c) = s
		return nil
	}}
}

func intField(key string, at func(*Committed) *int64) field {
	return field{
		key, func(c *Committed) string { return strconv.FormatInt(*at(c), 10) }, func(c *Committed,
			s string) (err error) {
			*at(c), err = strconv.ParseInt(s, 10, 64)
			return err
		},
	}
}

// fields are the keys that every score file has, in the order they are written.
var fields = []field{
	textField("run", func(c *Committed) *string { return &c.Run }),
	textField("job", func(c *Committed) *string { return &c.Job }),
	textField("input.path", func(c *Committed) *string { return &c.Input.Path }),
	textField("input.rel", func(c *Committed) *string { return &c.Input.Rel }),
	intField("input.size", func(c *Committed) *int64 { return &c.Input.Size }),
	textField("input.version", func(c *Committed) *string { return &c.Input.Version }),
	intField("rows.first", func(c *Committed) *int64 { return &c.First }),
	intField("rows.last", func(c *Committed) *int64 { return &c.Last }),
	textField("model.digest", func(c *Committed) *string { return &c.ModelDigest }),
	textField("tokenizer.digest", func(c *Committed) *string { return &c.TokenizerDigest }),
	textField("config.digest", func(c *Committed) *string { return &c.ConfigDigest }),
	textField("precision", func(c *Committed) *string { return &c.Metadata.Precision }),
	textField("engine", func(c *Committed) *string { return &c.Metadata.Engine }),
	textField("device", func(c *Committed) *string { return &c.Metadata.Device }),
	textField("program", func(c *Committed) *string { return &c.Metadata.Program }),
	intField("total.documents", func(c *Committed) *int64 { return &c.Totals.Documents }),
	intField("total.failed", func(c *Committed) *int64 { return &c.Totals.Failed }),
	intField("total.truncated", func(c *Committed) *int64 { return &c.Totals.Truncated }),
	intField("total.tokens", func(c *Committed) *int64 { return &c.Totals.Tokens }),
	intField("total.bytes", func(c *Committed) *int64 { return &c.Totals.Bytes }),
	{
		"total.sum_nll", func(c *Committed) string { return strconv.FormatFloat(c.Totals.SumNLL, 'g', -1, 64) },
		func(c *Committed, s string) (err error) {
			c.Totals.SumNLL, err = strconv.ParseFloat(s, 64)
			return err
		},
	},
	intField("total.top1", func(c *Committed) *int64 { return &c.Totals.Top1 }),
	textField("digest", func(c *Committed) *string { return &c.Digest }),
}

// setKey names the CPU engine's instruction set, in the files that it wrote.
const setKey = keyPrefix + "set"

func (c *Committed) keyValues() [][2]string {
	kv := make([][2]string, 0, len(fields)+1)
	for _, f := range fields {
		kv = append(kv, [2]string{keyPrefix + f.key, f.get(c)})
		if f.key == "engine" && c.Metadata.Set != "" {
			kv = append(kv, [2]string{setKey, c.Metadata.Set})
		}
	}
	return kv
}

// Inspect reads a score file's footer and holds what it says against itself.
func Inspect(ctx context.Context, path string) (Committed, error) {
	c, err := inspectPath(ctx, path)
	if err != nil {
		return Committed{}, fmt.Errorf("inspect %s: %w", path, err)
	}
	return c, nil
}

func inspectPath(ctx context.Context, path string) (Committed, error) {
	f, err := store.OpenFile(ctx, path)
	if err != nil {
		return Committed{}, err
	}
	defer f.Close()
	c, err := InspectFile(f, f.Size)
	c.Path = path
	return c, err
}

// InspectFile is Inspect of a file that is open; its Path is not set.
func InspectFile(r io.ReaderAt, size int64) (Committed, error) {
	var c Committed
	var foot *pq.Footer
	err := pq.Recovered(func() (err error) {
		foot, err = pq.ReadFooter(r, size)
		return err
	})
	if errors.Is(err, pq.ErrCorrupt) {
		return c, fmt.Errorf("%w: %w", ErrNotParquet, err)
	}
	if err != nil {
		return c, err
	}
	for _, f := range fields {
		v, ok := foot.Lookup(keyPrefix + f.key)
		if !ok {
			return c, fmt.Errorf("not a score file: its metadata has no %s%s", keyPrefix, f.key)
		}
		if err := f.set(&c, v); err != nil {
			return c, pq.Corruptf("metadata %s%s: %w", keyPrefix, f.key, err)
		}
	}
	c.Metadata.Set, _ = foot.Lookup(setKey)
	if c.First < 0 || c.Last < c.First || c.Last > score.MaxRow || foot.Rows != c.Last-c.First+1 ||
		c.Totals.Documents != foot.Rows {
		return c, pq.Corruptf("%d rows, %d documents, for rows %d to %d", foot.Rows, c.Totals.Documents, c.First,
			c.Last)
	}
	return c, nil
}
