// Package model reads a checkpoint folder: the model's shape (Config), its
// weights (Checkpoint, Tensor) and its identity (Digest). It is pure Go, maps
// the weights instead of reading them, and treats every byte as hostile.
//
// Words. A checkpoint folder holds CheckpointName and MetadataName. A storage is
// a run of raw elements in the checkpoint; a tensor is a name, a shape and a
// strided look at a storage. A tensor's canonical name has none of the prefixes
// that training wrappers put in front of it.
//
// Letters in shapes: D width, I inner width, H heads, HV value heads, K key
// width, V value width. Linears are stored [out, in].
//
// Formats read: torch.save's zip (data.pkl and stored, uncompressed storages)
// and the older stream of five pickles followed by the storages. A pickle is
// first checked opcode by opcode (scanPickle), then run on a machine that knows
// a closed list of constructors and nothing else.
package model
