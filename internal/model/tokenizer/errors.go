package tokenizer

import "errors"

// What may be wrong with one text. Each concerns that text alone.
var (
	// ErrNotUTF8 is wrapped when a text is not valid UTF-8.
	ErrNotUTF8 = errors.New("not UTF-8")
	// ErrNUL is wrapped when a text has NUL bytes and the vocabulary gives no
	// way to encode them exactly.
	ErrNUL = errors.New("NUL byte, which this tokenizer cannot encode")
	// ErrTooLong is wrapped when a text has a stretch, with no place to cut it,
	// that is too long to be encoded in one piece.
	ErrTooLong = errors.New("too long to be tokenized in one piece")
)

// ErrBadDefinition is wrapped by every error about a tokenizer.json's content.
var ErrBadDefinition = errors.New("bad tokenizer definition")
