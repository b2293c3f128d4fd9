package outdir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"surprisal/internal/place"
	"surprisal/internal/store"
)

// EntryKind says what a file in OUT is, by its name.
type EntryKind string

// The kinds of entries that List gives; other files are not ours and harmless.
const (
	EntryScores      EntryKind = "scores"      // named as a score file
	EntryParquet     EntryKind = "parquet"     // readers of OUT would take it for scores
	EntryTemporary   EntryKind = "temporary"   // what a worker was writing
	EntryQuarantined EntryKind = "quarantined" // moved aside by Quarantine
)

// Entry is one file in OUT.
type Entry struct {
	Kind     EntryKind
	Path     string // absolute
	Rel      string // below OUT, with slashes
	Run      string // of a temporary
	Size     int64
	Modified time.Time
}

// quarantine is the folder in OUT for what is moved aside. Readers pass over
// hidden folders, and the files in it have quarantineSuffix.
const (
	quarantine       = ".surprisal-quarantine"
	quarantineSuffix = ".damaged"
)

// List calls do for each of our files below out, and for other parquet files, in
// order of path.
func List(ctx context.Context, out string, do func(Entry) error) error {
	if place.IsURL(out) {
		for info, err := range store.List(ctx, out) {
			if err != nil {
				return fmt.Errorf("list %s: %w", out, err)
			}
			e := Entry{Path: info.Name, Rel: place.Rel(out, info.Name), Size: info.Size, Modified: info.Modified}
			switch name := path.Base(e.Rel); {
			case strings.HasPrefix(e.Rel, quarantine+"/"):
				e.Kind = EntryQuarantined
			case outputName.MatchString(name):
				e.Kind = EntryScores
			case strings.HasSuffix(strings.ToLower(name), ".parquet") && !strings.HasPrefix(name, "."):
				e.Kind = EntryParquet
			default:
				continue
			}
			if err := do(e); err != nil {
				return err
			}
		}
		return nil
	}
	abs, err := filepath.Abs(out)
	if err != nil {
		return fmt.Errorf("list %s: %w", out, err)
	}
	err = filepath.WalkDir(abs, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if p != abs && errors.Is(err, fs.ErrNotExist) { // gone meanwhile
				return nil
			}
			return err
		}
		if d.IsDir() {
			return nil
		}
		rel, err := filepath.Rel(abs, p)
		if err != nil {
			return err
		}
		e := Entry{Path: p, Rel: filepath.ToSlash(rel)}
		name := d.Name()
		switch {
		case strings.HasPrefix(e.Rel, quarantine+"/"):
			e.Kind = EntryQuarantined
		case strings.HasPrefix(name, tempPrefix) && strings.HasSuffix(name, tempSuffix):
			e.Kind = EntryTemporary
			e.Run, _, _ = strings.Cut(strings.TrimPrefix(name, tempPrefix), ".")
		case outputName.MatchString(name):
			e.Kind = EntryScores
		case strings.HasSuffix(strings.ToLower(name), ".parquet") && !strings.HasPrefix(name, "."):
			e.Kind = EntryParquet
		default:
			return nil
		}
		st, err := d.Info()
		if err != nil {
			return nil // gone meanwhile
		}
		e.Size, e.Modified = st.Size(), st.ModTime()
		return do(e)
	})
	if err != nil {
		return fmt.Errorf("list %s: %w", out, err)
	}
	return nil
}

// Quarantine moves a file of out aside, where no reader takes it for scores, and
// gives its new place. The file's job can be scored again then.
func Quarantine(ctx context.Context, out, rel string) (string, error) {
	to := path.Join(quarantine, rel+"."+time.Now().UTC().Format("20060102T150405.000000000")+quarantineSuffix)
	if place.IsURL(out) {
		if err := moveObject(ctx, place.Join(out, rel), place.Join(out, to)); err != nil {
			return "", fmt.Errorf("quarantine %s: %w", rel, err)
		}
		return place.Join(out, to), nil
	}
	o, err := openOut(ctx, out)
	if err != nil {
		return "", fmt.Errorf("quarantine %s: %w", rel, err)
	}
	defer o.Close()
	if err := o.mkdirAll(path.Dir(to)); err != nil {
		return "", fmt.Errorf("quarantine %s: %w", rel, err)
	}
	if err := o.root.Rename(rel, to); err != nil {
		return "", fmt.Errorf("quarantine %s: %w", rel, err)
	}
	if err := errors.Join(o.syncDir(path.Dir(to)), o.syncDir(path.Dir(rel))); err != nil {
		return "", fmt.Errorf("quarantine %s: %w", rel, err)
	}
	return o.Path(to), nil
}

// moveObject copies within a bucket, then removes: cut off in between, both are
// there.
func moveObject(ctx context.Context, from, to string) error {
	f, err := store.OpenFile(ctx, from)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := store.Put(ctx, to, io.NewSectionReader(f, 0, f.Size), f.Size,
		store.Condition{Absent: true}); err != nil {
		return err
	}
	return store.Remove(ctx, from)
}

// Remove removes an entry that List gave: a temporary or what is quarantined,
// never a score file. That it is gone already is no error.
func Remove(ctx context.Context, out string, e Entry) error {
	if e.Kind != EntryTemporary && e.Kind != EntryQuarantined {
		return fmt.Errorf("remove %s: it is of kind %s", e.Path, e.Kind)
	}
	if place.IsURL(out) {
		return store.Remove(ctx, place.Join(out, e.Rel))
	}
	o, err := openOut(ctx, out)
	if err != nil {
		return fmt.Errorf("remove %s: %w", e.Path, err)
	}
	defer o.Close()
	if err := o.Remove(e.Rel); err != nil {
		return fmt.Errorf("remove %s: %w", e.Path, err)
	}
	if e.Kind == EntryQuarantined { // folders that are empty now go too
		for d := path.Dir(e.Rel); d != "."; d = path.Dir(d) {
			if os.Remove(o.Path(d)) != nil {
				break
			}
		}
	}
	return nil
}
