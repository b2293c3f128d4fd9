package model

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/nlpodyssey/gopickle/pickle"
	"github.com/nlpodyssey/gopickle/types"
)

const maxDims = 8 // of any tensor in a pickle

// unpickle checks and runs the pickle at the start of b; n is the bytes it took.
// Nothing that the pickle names is run: its globals are looked up in a closed
// list. seen is told of every reference to a storage. Panics of the machine come
// back as errors.
func unpickle(b []byte, seen func(*storageRef)) (v any, n int, err error) {
	clean, n, err := scanPickle(b)
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if p := recover(); p != nil {
			v, n, err = nil, 0, fmt.Errorf("pickle: malformed: %s", clip(fmt.Sprint(p), 100))
		}
	}()
	u := pickle.NewUnpickler(bytes.NewReader(clean))
	u.FindClass = findClass
	u.PersistentLoad = func(pid any) (any, error) {
		s, err := readPersistentID(pid)
		if err != nil {
			return nil, err
		}
		seen(s)
		return s, nil
	}
	v, err = u.Load()
	if err != nil {
		var r refusal
		if errors.As(err, &r) {
			return nil, 0, r
		}
		return nil, 0, fmt.Errorf("pickle: malformed: %s", clip(err.Error(), 100))
	}
	return v, n, nil
}

// refusal is an error of our own hooks, whose text is fit for people.
type refusal string

func (r refusal) Error() string { return string(r) }

// storageDTypes are the storage classes of torch and torch.cuda by element type.
var storageDTypes = map[string]DType{
	"FloatStorage": Float32, "BFloat16Storage": BFloat16, "HalfStorage": Float16, "DoubleStorage": Float64,
	"CharStorage": Int8, "ByteStorage": UInt8, "ShortStorage": Int16, "IntStorage": Int32, "LongStorage": Int64,
	"BoolStorage":         Bool,
	"ComplexFloatStorage": Complex64, "ComplexDoubleStorage": Complex128, "UntypedStorage": UInt8,
}

// findClass is the closed list of globals.
func findClass(module, name string) (any, error) {
	switch module + "." + name {
	case "collections.OrderedDict":
		return &types.OrderedDictClass{}, nil
	case "torch.Size":
		return callable(rebuildSize), nil
	case "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2":
		return callable(rebuildTensor), nil
	case "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state":
		return callable(rebuildParameter), nil
	}
	if module == "torch" || module == "torch.cuda" || module == "torch.storage" {
		if d, ok := storageDTypes[name]; ok {
			return storageClass(d), nil
		}
	}
	return nil, refusal(fmt.Sprintf("pickle: names %s.%s, which weights do not need: refused", clip(module, 80),
		clip(name, 80)))
}

// callable is a global that REDUCE may call.
type callable func(args []any) (any, error)

// Call implements types.Callable.
func (c callable) Call(args ...any) (any, error) { return c(args) }

// storageClass is a storage's class; it can't be called.
type storageClass DType

// storageRef is a storage as a persistent id names it, not yet looked for.
type storageRef struct {
	key   string
	dtype DType
	numel int // elements
	base  int // first element of key's storage; not 0 in views of the older stream only
}

// tensorRef is a tensor as the pickle describes it, not yet checked.
type tensorRef struct {
	storage     *storageRef
	offset      int // elements from the storage's start
	size, steps []int
}

// readPersistentID reads ("storage", class, key, location, numel[, view]).
func readPersistentID(pid any) (*storageRef, error) {
	bad := refusal("pickle: a storage's id is malformed")
	t, ok := pid.(*types.Tuple)
	if !ok || t.Len() < 5 || t.Len() > 6 || t.Get(0) != "storage" {
		return nil, bad
	}
	class, ok1 := t.Get(1).(storageClass)
	key, ok2 := t.Get(2).(string)
	numel, ok3 := t.Get(4).(int)
	if !ok1 || !ok2 || !ok3 || numel < 0 {
		return nil, bad
	}
	s := &storageRef{key: key, dtype: DType(class), numel: numel}
	if t.Len() == 6 && t.Get(5) != nil {
		// (view's key, first element, elements)
		view, ok := t.Get(5).(*types.Tuple)
		if !ok || view.Len() != 3 {
			return nil, bad
		}
		base, ok1 := view.Get(1).(int)
		n, ok2 := view.Get(2).(int)
		if !ok1 || !ok2 || base < 0 || n < 0 || base > numel || n > numel-base {
			return nil, bad
		}
		s.base, s.numel = base, n
	}
	return s, nil
}

// rebuildTensor takes (storage, offset, size, stride, ...): what follows is of training.
func rebuildTensor(args []any) (any, error) {
	bad := refusal("pickle: a tensor's description is malformed")
	if len(args) < 4 || len(args) > 7 {
		return nil, bad
	}
	s, ok1 := args[0].(*storageRef)
	offset, ok2 := args[1].(int)
	size, ok3 := intTuple(args[2])
	steps, ok4 := intTuple(args[3])
	if !ok1 || !ok2 || !ok3 || !ok4 || offset < 0 || len(size) != len(steps) {
		return nil, bad
	}
	return &tensorRef{storage: s, offset: offset, size: size, steps: steps}, nil
}

// rebuildParameter takes (data, requires_grad, hooks[, state]) and is its data.
func rebuildParameter(args []any) (any, error) {
	if len(args) < 1 || len(args) > 4 {
		return nil, refusal("pickle: a parameter's description is malformed")
	}
	if t, ok := args[0].(*tensorRef); ok {
		return t, nil
	}
	return nil, refusal("pickle: a parameter holds no tensor")
}

func rebuildSize(args []any) (any, error) {
	if len(args) == 1 {
		if t, ok := args[0].(*types.Tuple); ok {
			return t, nil
		}
	}
	return nil, refusal("pickle: a torch.Size is malformed")
}

func intTuple(v any) ([]int, bool) {
	t, ok := v.(*types.Tuple)
	if !ok || t.Len() > maxDims {
		return nil, false
	}
	out := make([]int, t.Len())
	for i := range out {
		if out[i], ok = t.Get(i).(int); !ok || out[i] < 0 {
			return nil, false
		}
	}
	return out, true
}

// entry is one item of a state dict.
type entry struct {
	name  string
	value any
}

// items lists a dict's entries with string keys, in order; ok is false when v
// is not a dict.
func items(v any) (out []entry, ok bool) {
	switch d := v.(type) {
	case *types.Dict:
		for _, e := range *d {
			if k, ok := e.Key.(string); ok {
				out = append(out, entry{k, e.Value})
			}
		}
		return out, true
	case *types.OrderedDict:
		for el := d.List.Front(); el != nil; el = el.Next() {
			e := el.Value.(*types.OrderedDictEntry)
			if k, ok := e.Key.(string); ok {
				out = append(out, entry{k, e.Value})
			}
		}
		return out, true
	}
	return nil, false
}
