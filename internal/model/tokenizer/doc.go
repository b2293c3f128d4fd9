// Package tokenizer turns a document's text into token ids, the same ids that
// the Hugging Face library gives without special tokens added.
//
// Words. A definition is a tokenizer.json. A step is one of its normalizers or
// pre-tokenizers. A special token is one that the definition marks so; in
// SpecialText mode its characters in a text are only characters. The beginning
// token is what a document's first token is conditioned on; Encode never adds
// it. A chunk is a part of a text that is encoded by itself: chunks are cut only
// where no token of the vocabulary can reach over the cut, so that their ids put
// together are the whole text's. An inert byte is a control byte that is always
// a token of its own and nothing else.
//
// The work is done by a Rust library behind a C string, which sets three rules.
// It would end a text at its first NUL, so NULs travel as an inert byte that the
// text does not have. It takes some 200 bytes of memory a byte of text, so long
// texts travel in chunks. And its panics end the process, so that it is given
// only what this package has read, checked and written anew, never a file's own
// bytes.
package tokenizer
