package model

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Bounds of a pickle. The 1.3B checkpoint with its optimiser takes about 60,000
// opcodes; memory taken by the machine is below 300 bytes an opcode.
const (
	maxPickle      = 64 << 20 // bytes
	maxPickleOps   = 1 << 18
	maxPickleStr   = 128     // bytes kept of a string; a name with its prefixes takes about 80
	maxPickleBuild = 1 << 26 // BUILD opcodes times opcodes: each may walk a whole dict
)

// Opcodes without an argument that torch.save's pickles use: containers, None,
// booleans, REDUCE, BUILD, BINPERSID, STACK_GLOBAL and MEMOIZE. The machine knows more; the rest is refused.
const plainOps = "(Na}e]t)suQRb\x85\x86\x87\x88\x89\x93\x94"

// Lengths of the arguments of fixed size: integers, floats, memo indices.
var fixedOps = map[byte]int{'K': 1, 'M': 2, 'J': 4, 'G': 8, 'h': 1, 'j': 4, 'q': 1, 'r': 4, 0x80: 1}

// Widths of the length that precedes a counted argument; strings, then bytes.
var (
	stringOps = map[byte]int{'X': 4, 'T': 4, 'U': 1, 0x8c: 1, 0x8d: 8}
	bytesOps  = map[byte]int{'B': 4, 'C': 1, 0x8e: 8, 0x96: 8}
)

var errPickleEnd = errors.New("pickle: truncated")

// scanPickle checks the pickle at the start of b, opcode by opcode, and returns
// an equal one that the machine can run within bounded memory, and the bytes it
// took of b. In the copy frames are gone, byte strings are empty, and strings
// are cut and printable: gopickle takes memory by lengths it has not checked,
// and prints whole values into errors. A global outside of the closed list is
// refused here already.
func scanPickle(b []byte) (clean []byte, n int, err error) {
	if len(b) > maxPickle {
		b = b[:maxPickle]
	}
	s := pickleScan{b: b}
	ops, builds := 0, 0
	for {
		if ops++; ops > maxPickleOps {
			return nil, 0, fmt.Errorf("pickle: more than %d opcodes", maxPickleOps)
		}
		arg, err := s.take(1)
		if err != nil {
			return nil, 0, err
		}
		op := arg[0]
		switch op {
		case '.':
			if builds*ops > maxPickleBuild {
				return nil, 0, fmt.Errorf("pickle: %d objects with attributes", builds)
			}
			return append(s.out, op), s.at, nil
		case 'b':
			builds++
		case 0x95: // FRAME
			if _, err := s.take(8); err != nil {
				return nil, 0, err
			}
			continue
		}
		if err := s.copyOp(op); err != nil {
			return nil, 0, err
		}
	}
}

type pickleScan struct {
	b   []byte
	at  int
	out []byte
}

func (s *pickleScan) take(n int) ([]byte, error) {
	if n > len(s.b)-s.at {
		return nil, errPickleEnd
	}
	s.at += n
	return s.b[s.at-n : s.at], nil
}

// counted takes an argument that a little-endian length of the given width precedes.
func (s *pickleScan) counted(width int) ([]byte, error) {
	l, err := s.take(width)
	if err != nil {
		return nil, err
	}
	var wide [8]byte
	copy(wide[:], l)
	n := binary.LittleEndian.Uint64(wide[:])
	if n > uint64(len(s.b)-s.at) {
		return nil, errPickleEnd
	}
	return s.take(int(n))
}

func (s *pickleScan) copyOp(op byte) error {
	if bytes.IndexByte([]byte(plainOps), op) >= 0 {
		s.out = append(s.out, op)
		return nil
	}
	if n, ok := fixedOps[op]; ok {
		arg, err := s.take(n)
		s.out = append(append(s.out, op), arg...)
		return err
	}
	if w, ok := stringOps[op]; ok {
		str, err := s.counted(w)
		s.emitString(str)
		return err
	}
	if w, ok := bytesOps[op]; ok {
		_, err := s.counted(w)
		s.out = append(s.out, 'C', 0)
		return err
	}
	switch op {
	case 0x8a: // LONG1
		arg, err := s.counted(1)
		if len(arg) == 0 {
			s.out = append(s.out, 'K', 0)
			return err
		}
		s.out = append(append(s.out, op, byte(len(arg))), arg...)
		return err
	case 'c':
		return s.copyGlobal()
	}
	return fmt.Errorf("pickle: opcode 0x%02x is not one that torch.save writes", op)
}

func (s *pickleScan) emitString(str []byte) {
	cut := len(str) > maxPickleStr
	if cut {
		str = str[:maxPickleStr]
	}
	s.out = binary.LittleEndian.AppendUint32(append(s.out, 'X'), uint32(len(str)))
	for _, c := range str {
		// '?' is in no tensor's name, so that an altered name matches none.
		if c < ' ' || c > '~' || c == '"' || c == '\\' || c == '`' {
			c = '?'
		}
		s.out = append(s.out, c)
	}
	if cut {
		s.out[len(s.out)-1] = '?'
	}
}

func (s *pickleScan) copyGlobal() error {
	var part [2][]byte
	for i := range part {
		rest := s.b[s.at:min(len(s.b), s.at+maxPickleStr)]
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			return errors.New("pickle: unterminated name of a global")
		}
		part[i] = rest[:end]
		s.at += end + 1
	}
	module, name := string(part[0]), string(part[1])
	if _, err := findClass(module, name); err != nil {
		return err
	}
	s.out = append(s.out, 'c')
	s.out = append(append(s.out, module...), '\n')
	s.out = append(append(s.out, name...), '\n')
	return nil
}
