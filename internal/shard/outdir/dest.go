package outdir

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"surprisal/internal/place"
	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/shard/jsonl"
	"surprisal/internal/shard/pq"
	"surprisal/internal/store"
)

// Dest is a folder or a prefix in a bucket that files are published into, each
// whole or not at all. No name and no link inside a folder leads out of it.
type Dest struct{ out destPlace }

// destPlace is where a Dest's files are.
type destPlace interface {
	Path(name string) string
	// write publishes a file. One that is there already is replaced; unless
	// replace is set it stays, and the error wraps fs.ErrExist.
	write(ctx context.Context, name string, replace bool, content func(io.Writer) error) error
	// read opens a file; fs.ErrNotExist when there is none.
	read(ctx context.Context, name string) (store.File, error)
	// empty reports whether there is nothing but hidden files.
	empty(ctx context.Context) (bool, error)
	// scratch makes a file without a name, on a disk that has room for name's.
	scratch(name string) (*os.File, error)
	Close() error
}

// OpenDest opens a folder, making it if need be, or a prefix in a bucket.
func OpenDest(ctx context.Context, dir string) (*Dest, error) {
	if place.IsURL(dir) {
		return &Dest{outBucket(dir)}, place.ValidOut(dir)
	}
	o, err := openOut(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	return &Dest{o}, nil
}

// Close closes the folder.
func (d *Dest) Close() error { return d.out.Close() }

// destPrefix is of the hidden temporaries, which RemoveTemporaries removes.
const destPrefix = tempPrefix + "copy"

// WriteFile writes a file of any size whole or not at all; one that has its name
// already is replaced.
func (d *Dest) WriteFile(ctx context.Context, name string, content func(io.Writer) error) error {
	return d.write(ctx, name, true, content)
}

// WriteNew is WriteFile of a name that is not taken: fs.ErrExist where it is.
func (d *Dest) WriteNew(ctx context.Context, name string, b []byte) error {
	return d.write(ctx, name, false, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

func (d *Dest) write(ctx context.Context, name string, replace bool, content func(io.Writer) error) error {
	err := score.ValidRel(name)
	if err == nil {
		err = d.out.write(ctx, name, replace, content)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", d.out.Path(name), err)
	}
	return nil
}

// ReadFile reads a small file of it; the error wraps fs.ErrNotExist when there
// is none.
func (d *Dest) ReadFile(ctx context.Context, name string) ([]byte, error) {
	const most = 64 << 20
	f, err := d.out.read(ctx, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if f.Size > most {
		return nil, fmt.Errorf("%s has more than %d bytes", d.out.Path(name), most)
	}
	return io.ReadAll(io.NewSectionReader(f, 0, f.Size))
}

// Empty reports whether there is nothing in it but hidden files.
func (d *Dest) Empty(ctx context.Context) (bool, error) { return d.out.empty(ctx) }

// Exists reports whether there is a file of that name.
func (d *Dest) Exists(ctx context.Context, name string) (bool, error) {
	f, err := d.out.read(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, f.Close()
}

// Parquet opens a parquet file in it; fs.ErrNotExist when there is none.
func (d *Dest) Parquet(ctx context.Context, name string) (*pq.Table, error) {
	f, err := d.out.read(ctx, name)
	if err != nil {
		return nil, err
	}
	return pq.OpenTable(d.out.Path(name), f, f.Size)
}

// CopyRows writes the rows that c names to a file of d.
func (d *Dest) CopyRows(ctx context.Context, name string, c pq.Copy) error {
	return d.WriteFile(ctx, name, func(w io.Writer) error {
		return c.WriteTo(ctx, w, func() (*os.File, error) { return d.out.scratch(name) })
	})
}

// WriteTexts writes a parquet file of one column text.
func (d *Dest) WriteTexts(ctx context.Context, name string, texts []string) error {
	return d.WriteFile(ctx, name, func(w io.Writer) error { return shard.WriteTexts(w, texts) })
}

// CopyLines writes the lines of rows [0, rows) that c names to a file of d, which
// is compressed as its name says.
func (d *Dest) CopyLines(ctx context.Context, name string, rows int64, c jsonl.Copy) error {
	return d.WriteLines(ctx, name, func(w io.Writer) error { return c.WriteTo(ctx, w, rows) })
}

// WriteLines is WriteFile, compressed as the name says.
func (d *Dest) WriteLines(ctx context.Context, name string, content func(io.Writer) error) error {
	return d.WriteFile(ctx, name, func(w io.Writer) error {
		z, err := jsonl.Compress(w, name)
		if err != nil {
			return err
		}
		b := bufio.NewWriterSize(z, 1<<16)
		if err := content(b); err != nil {
			return err
		}
		if err := b.Flush(); err != nil {
			return err
		}
		return z.Close()
	})
}

// write writes a hidden temporary, syncs it and gives it its name.
func (o *outDir) write(_ context.Context, name string, replace bool, content func(io.Writer) error) (err error) {
	dir := path.Dir(name)
	if err := o.mkdirAll(dir); err != nil {
		return err
	}
	return o.putFile(dir, destPrefix, name, replace, content)
}

func (o *outDir) read(ctx context.Context, name string) (store.File, error) {
	st, err := o.root.Stat(name) // first: opening a named pipe would wait forever
	if err != nil {
		return store.File{}, err
	}
	if !st.Mode().IsRegular() {
		return store.File{}, fmt.Errorf("%s is not a regular file", o.Path(name))
	}
	f, err := o.root.Open(name)
	if err != nil {
		return store.File{}, err
	}
	there, err := store.OfFile(o.Path(name), f)
	if err != nil {
		return store.File{}, errors.Join(err, f.Close())
	}
	return there.File(ctx), nil
}

func (o *outDir) empty(context.Context) (bool, error) {
	entries, err := fs.ReadDir(o.root.FS(), ".")
	return !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name()[0] != '.' }), err
}

func (o *outDir) scratch(name string) (*os.File, error) {
	f, temp, err := o.create(path.Dir(name), destPrefix)
	if err != nil {
		return nil, err
	}
	return f, o.Remove(temp)
}

// write writes a local file without a name and puts it on the condition that the
// name is free. Where it is taken by other bytes, those are replaced on the
// condition that they are still what was looked at.
func (o outBucket) write(ctx context.Context, name string, replace bool, content func(io.Writer) error) (err error) {
	f, err := o.scratch(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := content(f); err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	for range 3 {
		_, err := store.Put(ctx, o.Path(name), f, st.Size(), store.Condition{Absent: true})
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		version, same, err := o.compare(ctx, name, f, st.Size())
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // it went away
		case err != nil:
			return err
		case same: // this attempt's, whose answer was lost, or another's
			return nil
		case !replace:
			return fs.ErrExist
		}
		_, err = store.Put(ctx, o.Path(name), f, st.Size(), store.Condition{Version: version})
		if !errors.Is(err, store.ErrChanged) {
			return err
		}
	}
	return errors.New("another program is writing to it")
}

// compare tells the version of a file, and whether its bytes are f's.
func (o outBucket) compare(ctx context.Context, name string, f io.ReaderAt, size int64) (version string, same bool,
	err error) {
	there, err := o.read(ctx, name)
	if err != nil {
		return "", false, err
	}
	defer there.Close()
	if there.Size != size {
		return there.Version, false, nil
	}
	a, b := make([]byte, min(size, 8<<20)), make([]byte, min(size, 8<<20))
	for off := int64(0); off < size; off += int64(len(a)) {
		a, b = a[:min(int64(len(a)), size-off)], b[:min(int64(len(b)), size-off)]
		if _, err := f.ReadAt(a, off); err != nil {
			return "", false, err
		}
		if _, err := there.ReadAt(b, off); err != nil {
			return "", false, err
		}
		if !bytes.Equal(a, b) {
			return there.Version, false, nil
		}
	}
	return there.Version, true, nil
}

func (o outBucket) read(ctx context.Context, name string) (store.File, error) {
	return store.OpenFile(ctx, o.Path(name))
}

func (o outBucket) empty(ctx context.Context) (bool, error) {
	for info, err := range store.List(ctx, string(o)) {
		if err != nil {
			return false, err
		}
		if !strings.HasPrefix(place.Rel(string(o), info.Name), ".") {
			return false, nil
		}
	}
	return true, nil
}

func (o outBucket) scratch(string) (*os.File, error) { return unnamed(destPrefix) }

// unnamed makes a temporary file and takes its name away.
func unnamed(prefix string) (*os.File, error) {
	f, err := os.CreateTemp("", prefix+".*"+tempSuffix)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
