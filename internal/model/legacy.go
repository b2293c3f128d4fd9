package model

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"

	"github.com/nlpodyssey/gopickle/types"
)

// The older stream's first two pickles.
const (
	legacyMagic    = "119547037146038801333356" // 0x1950a86a20f9469cfc6c
	legacyProtocol = 1001
)

// openLegacy reads the stream that torch.save wrote before its zip: the pickles
// magic number, protocol, system, object, keys of the storages; then, for each
// key, its element count (int64) and its raw elements, little-endian.
// Source: torch/serialization.py, _legacy_save.
func openLegacy(data []byte) (container, error) {
	at := 0
	// Only the references to a storage say how wide its elements are.
	widths := map[string]int{}
	next := func() (any, error) {
		v, n, err := unpickle(data[at:], func(s *storageRef) { widths[s.key] = s.dtype.Size() })
		at += n
		return v, err
	}
	notOne := errors.New("legacy stream: starts with a pickle, but without torch.save's magic number")
	magic, err := next()
	if err != nil {
		return container{}, err
	}
	if m, ok := magic.(*big.Int); !ok || m.String() != legacyMagic {
		return container{}, notOne
	}
	if protocol, err := next(); err != nil {
		return container{}, err
	} else if protocol != legacyProtocol {
		return container{}, errors.New("legacy stream: protocol is not 1001")
	}
	sys, err := next()
	if err != nil {
		return container{}, err
	}
	info, _ := items(sys)
	for _, e := range info {
		if e.name == "little_endian" && e.value != true {
			return container{}, errors.New("legacy stream: byte order is not little-endian")
		}
	}
	root, err := next()
	if err != nil {
		return container{}, err
	}
	keys, err := next()
	if err != nil {
		return container{}, err
	}
	list, ok := keys.(*types.List)
	if !ok {
		return container{}, errors.New("legacy stream: malformed list of storages")
	}
	storages, err := legacyStorages(data[at:], *list, widths)
	if err != nil {
		return container{}, err
	}
	return container{root: root, storage: func(key string) ([]byte, error) {
		if b, ok := storages[key]; ok {
			return b, nil
		}
		return nil, fmt.Errorf("legacy stream: storage %q is missing", key)
	}}, nil
}

// legacyStorages cuts b, what follows the pickles, into storages.
func legacyStorages(b []byte, keys []any, widths map[string]int) (map[string][]byte, error) {
	out := make(map[string][]byte, len(keys))
	for _, k := range keys {
		key, ok := k.(string)
		if !ok {
			return nil, errors.New("legacy stream: malformed list of storages")
		}
		width := widths[key]
		if width == 0 {
			return nil, fmt.Errorf("legacy stream: no tensor uses storage %q, so its size is unknown", key)
		}
		if len(b) < 8 {
			return nil, fmt.Errorf("legacy stream: truncated before storage %q", key)
		}
		n := binary.LittleEndian.Uint64(b)
		b = b[8:]
		if n > uint64(len(b)/width) {
			return nil, fmt.Errorf("legacy stream: truncated within storage %q", key)
		}
		size := int(n) * width
		out[key], b = b[:size:size], b[size:]
	}
	return out, nil
}
