//go:build cuda

package gpu

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"gorgonia.org/cu"
)

// fatbins are the compiled kernels/*.cu, one file each.
//
//go:embed fatbin/*.fatbin
var fatbins embed.FS

// modules are the kernels, loaded into the current context.
type modules struct {
	all []cu.Module
	fns map[string]cu.Function
}

func loadModules() (*modules, error) {
	m := &modules{fns: map[string]cu.Function{}}
	files, err := fs.Glob(fatbins, "fatbin/*.fatbin")
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		image, err := fatbins.ReadFile(name)
		if err != nil {
			return nil, err
		}
		mod, err := cu.LoadData(string(image))
		if err == cu.NoBinaryForGpu {
			continue // for another kind of GPU; fn reports a kernel that is missing
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("load kernels %s: %w", name, err), m.unload())
		}
		m.all = append(m.all, mod)
	}
	return m, nil
}

func (m *modules) has(name string) bool {
	_, err := m.fn(name)
	return err == nil
}

func (m *modules) fn(name string) (cu.Function, error) {
	if f, ok := m.fns[name]; ok {
		return f, nil
	}
	for _, mod := range m.all {
		f, err := mod.Function(name)
		if err == nil {
			m.fns[name] = f
			return f, nil
		}
		if err != cu.NotFound {
			return f, fmt.Errorf("kernel %s: %w", name, err)
		}
	}
	return cu.Function{}, fmt.Errorf("kernel %s is not in this program", name)
}

// withShared returns a kernel that is allowed this much dynamic shared memory.
func (m *modules) withShared(name string, bytes int) (cu.Function, error) {
	f, err := m.fn(name)
	if err == nil && bytes > 48<<10 {
		if err = allowShared(f, bytes); err != nil {
			err = fmt.Errorf("kernel %s: %w", name, err)
		}
	}
	return f, err
}

func (m *modules) unload() error {
	if m == nil {
		return nil
	}
	var errs []error
	for _, mod := range m.all {
		if err := mod.Unload(); err != nil {
			errs = append(errs, err)
		}
	}
	m.all, m.fns = nil, nil
	return errors.Join(errs...)
}
