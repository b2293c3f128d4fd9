package model

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// ErrCheckpoint is wrapped by every refusal of a checkpoint's contents: trying
// again won't help.
var ErrCheckpoint = errors.New("unusable checkpoint")

// Checkpoint is an opened, mapped checkpoint whose tensors all have the names
// and shapes that its Config asks for. Its methods may be used from several
// goroutines.
type Checkpoint struct {
	path    string
	tensors map[string]*Tensor

	// mu keeps the mapping while a conversion reads it.
	mu     sync.RWMutex
	m      mapping
	closed bool
}

// Open maps a checkpoint, given as its folder or as the .pth itself, and checks
// that it holds exactly cfg.Shapes(), each a floating tensor within its storage.
// Values are not read: NaN and infinity are found by the conversions. Every
// refusal is one line, names the file and the tensor, and wraps ErrCheckpoint.
func Open(path string, cfg Config) (*Checkpoint, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open checkpoint: %w", err)
	}
	if st.IsDir() {
		path = filepath.Join(path, CheckpointName)
	}
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("open checkpoint %s: %w", path, err)
	}
	m, err := mapFile(path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("open checkpoint: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("open checkpoint %s: %w: %w", path, ErrCheckpoint, err)
	}
	return openMapping(path, m, cfg)
}

func openMapping(path string, m mapping, cfg Config) (*Checkpoint, error) {
	c := &Checkpoint{path: path, m: m}
	// A file cut short under the mapping faults; that is an error, not the end.
	err := guardFaults(func() error { return c.load(cfg) })
	if err != nil {
		_ = m.unmap()
		return nil, fmt.Errorf("open checkpoint %s: %w: %w", path, ErrCheckpoint, err)
	}
	return c, nil
}

func (c *Checkpoint) load(cfg Config) error {
	box, err := openContainer(c.m.data)
	if err != nil {
		return err
	}
	refs, err := stateDict(box.root)
	if err != nil {
		return err
	}
	shapes := cfg.Shapes()
	c.tensors = make(map[string]*Tensor, len(shapes))
	missing, first := 0, ""
	for _, s := range shapes {
		v, ok := refs[s.Name]
		if !ok {
			if missing++; missing == 1 {
				first = s.Name
			}
			continue
		}
		delete(refs, s.Name)
		ref, ok := v.(*tensorRef)
		if !ok {
			return fmt.Errorf("tensor %s: entry is not a tensor", s.Name)
		}
		t, err := c.newTensor(s, ref, box.storage)
		if err != nil {
			return fmt.Errorf("tensor %s: %w", s.Name, err)
		}
		c.tensors[s.Name] = t
	}
	if missing > 0 {
		return fmt.Errorf("tensor %s is missing (%d of %d missing)", first, missing, len(shapes))
	}
	var extra []string
	for name, v := range refs {
		if _, ok := v.(*tensorRef); ok {
			extra = append(extra, name)
		}
	}
	if len(extra) > 0 {
		return fmt.Errorf("unexpected tensor %s (%d unexpected): the config belongs to another model",
			clip(slices.Min(extra), 120), len(extra))
	}
	return nil
}

// Prefixes that training wrappers put in front of a tensor's name, in any run.
var prefixes = []string{"_forward_module.", "module.", "_orig_mod.", "model."}

func canonical(name string) string {
	for again := true; again; {
		again = false
		for _, p := range prefixes {
			if rest, ok := strings.CutPrefix(name, p); ok {
				name, again = rest, true
			}
		}
	}
	return name
}

// stateDict finds the state dict: the object under "model", or the object itself.
// What lies beside it is the training's and is ignored.
func stateDict(root any) (map[string]any, error) {
	top, ok := items(root)
	if !ok {
		return nil, errors.New("the top-level object is not a dict")
	}
	for _, e := range top {
		if e.name == "model" {
			if top, ok = items(e.value); !ok {
				return nil, errors.New(`"model" is not a dict`)
			}
			break
		}
	}
	refs := make(map[string]any, len(top))
	for _, e := range top {
		name := canonical(e.name)
		if _, twice := refs[name]; twice {
			return nil, fmt.Errorf("duplicate tensor %s", clip(name, 120))
		}
		refs[name] = e.value
	}
	return refs, nil
}

// Tensor looks a tensor up by its canonical name.
func (c *Checkpoint) Tensor(name string) (*Tensor, error) {
	t := c.tensors[name]
	if t == nil {
		return nil, fmt.Errorf("checkpoint %s: %w: unexpected tensor %s", c.path, ErrCheckpoint, clip(name, 120))
	}
	return t, nil
}

// Path is the checkpoint's file.
func (c *Checkpoint) Path() string { return c.path }

// Close unmaps the file, after conversions in progress. Views given out by
// Float32View must not be touched after.
func (c *Checkpoint) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if err := c.m.unmap(); err != nil {
		return fmt.Errorf("close checkpoint %s: %w", c.path, err)
	}
	return nil
}
