package ckptgen

import (
	"encoding/binary"
	"strconv"

	"surprisal/internal/model"
)

// pickler writes protocol 2, with the opcodes that torch.save uses.
type pickler struct{ b []byte }

// statePickle is {"model": {name: tensor, ...}, "iter_num": 0}; tensor i is all
// of storage i.
func statePickle(shapes []model.TensorShape, d model.DType) []byte {
	p := &pickler{b: []byte{0x80, 2, '}', '('}}
	p.str("model")
	p.op("}(")
	for i, s := range shapes {
		p.str(s.Name)
		p.tensor(i, s, d)
	}
	p.op("u")
	p.str("iter_num")
	p.int(0)
	p.op("u.")
	return p.b
}

func (p *pickler) op(s string) { p.b = append(p.b, s...) }

func (p *pickler) global(module, name string) { p.op("c" + module + "\n" + name + "\n") }

func (p *pickler) str(s string) {
	p.b = binary.LittleEndian.AppendUint32(append(p.b, 'X'), uint32(len(s)))
	p.b = append(p.b, s...)
}

func (p *pickler) int(n int) {
	if n < 1<<31 {
		p.b = binary.LittleEndian.AppendUint32(append(p.b, 'J'), uint32(n))
		return
	}
	p.b = binary.LittleEndian.AppendUint64(append(p.b, 0x8a, 8), uint64(n))
}

func (p *pickler) ints(ns ...int) {
	p.op("(")
	for _, n := range ns {
		p.int(n)
	}
	p.op("t")
}

// tensor is _rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict()).
func (p *pickler) tensor(key int, s model.TensorShape, d model.DType) {
	class := map[model.DType]string{
		model.Float32: "FloatStorage", model.BFloat16: "BFloat16Storage", model.Float16: "HalfStorage",
		model.Float64: "DoubleStorage",
	}[d]
	p.global("torch._utils", "_rebuild_tensor_v2")
	p.op("((")
	p.str("storage")
	p.global("torch", class)
	p.str(strconv.Itoa(key))
	p.str("cpu")
	p.int(s.Len())
	p.op("tQ")
	p.int(0)
	p.ints(s.Shape...)
	strides, n := make([]int, len(s.Shape)), 1
	for i := len(s.Shape) - 1; i >= 0; i-- {
		strides[i] = n
		n *= s.Shape[i]
	}
	p.ints(strides...)
	p.op("\x89")
	p.global("collections", "OrderedDict")
	p.op(")RtR")
}
