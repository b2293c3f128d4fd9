// Package ckptgen writes checkpoint folders with random weights, of any shape,
// in torch.save's zip format: for tests, for benchmarks, and for trying a
// machine out without a trained model. Equal seeds give equal bytes.
package ckptgen

import (
	"archive/zip"
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"

	"surprisal/internal/model"
)

// Options say what is written beside the shape.
type Options struct {
	// DType of the stored weights: Float32 (default), BFloat16, Float16 or Float64.
	DType model.DType
	// Seed decides the weights.
	Seed uint64
}

// Write writes dir/model-ckpt.pth and dir/training_metadata.json, replacing them.
// dir is made if need be. The weights are distributed as a fresh model's: norms
// about 1, decays over their usual range, linears scaled by their width.
func Write(dir string, cfg model.Config, o Options) error {
	if o.DType == model.Invalid {
		o.DType = model.Float32
	}
	if o.DType < model.Float32 || o.DType > model.Float64 {
		return fmt.Errorf("generate checkpoint: type %s is not one of floating point", o.DType)
	}
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("generate checkpoint: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("generate checkpoint: %w", err)
	}
	meta, err := json.MarshalIndent(metadata(cfg, o), "", " ")
	if err != nil {
		return fmt.Errorf("generate checkpoint: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, model.MetadataName), append(meta, '\n'), 0o644); err != nil {
		return fmt.Errorf("generate checkpoint: %w", err)
	}
	path := filepath.Join(dir, model.CheckpointName)
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("generate checkpoint: %w", err)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	if err = Encode(w, cfg, o); err == nil {
		err = w.Flush()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("generate checkpoint %s: %w", path, err)
	}
	return nil
}

// Encode writes the .pth alone: a zip of stored entries whose data start at
// multiples of 64 bytes, as torch.save lays them out.
func Encode(w io.Writer, cfg model.Config, o Options) error {
	shapes := cfg.Shapes()
	out := &counter{w: w}
	z := zip.NewWriter(out)
	e := &entries{z: z, out: out}
	small := []struct {
		name string
		data []byte
	}{
		{"data.pkl", statePickle(shapes, o.DType)}, {".format_version", []byte("1")}, {".storage_alignment",
			[]byte("64")}, {"byteorder", []byte("little")},
	}
	for _, s := range small {
		ew, err := e.create(s.name)
		if err != nil {
			return err
		}
		if _, err := ew.Write(s.data); err != nil {
			return err
		}
	}
	for i, s := range shapes {
		ew, err := e.create(fmt.Sprintf("data/%d", i))
		if err != nil {
			return err
		}
		if err := writeWeights(ew, s, o, uint64(i)); err != nil {
			return err
		}
	}
	ew, err := e.create("version")
	if err != nil {
		return err
	}
	if _, err := io.WriteString(ew, "3\n"); err != nil {
		return err
	}
	return z.Close()
}

// entries makes aligned zip entries below one folder.
type entries struct {
	z    *zip.Writer
	out  *counter
	last *counter // of the entry in progress; nil before the first
}

const folder = "model-ckpt/"

func (e *entries) create(name string) (io.Writer, error) {
	const align, header = 64, 30
	if err := e.z.Flush(); err != nil {
		return nil, err
	}
	at := e.out.n
	// zip writes the last entry's descriptor only when the next one starts.
	if e.last != nil {
		if at += 16; e.last.n >= math.MaxUint32 {
			at += 8
		}
	}
	h := &zip.FileHeader{Name: folder + name, Method: zip.Store}
	at += header + int64(len(h.Name)) + 4
	pad := (align - at%align) % align
	h.Extra = binary.LittleEndian.AppendUint16([]byte("FB"), uint16(pad))
	h.Extra = append(h.Extra, bytes.Repeat([]byte("Z"), int(pad))...)
	w, err := e.z.CreateHeader(h)
	if err != nil {
		return nil, err
	}
	e.last = &counter{w: w}
	return e.last, nil
}

// counter counts the bytes that pass.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
