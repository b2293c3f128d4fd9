package score

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
)

// LongMode says what happens to a document with more than MaxLength targets.
type LongMode string

// The long-document modes (spec: what a score is).
const (
	LongCarry    LongMode = "carry"    // one pass, state carried from batch to batch
	LongWindow   LongMode = "window"   // windows of MaxLength targets, state from zero
	LongTruncate LongMode = "truncate" // the first MaxLength targets only
)

// SpecialMode says what a literal special token in a document's text means.
type SpecialMode string

// The special-token modes.
const (
	SpecialText  SpecialMode = "text"  // encoded as its characters
	SpecialParse SpecialMode = "parse" // becomes the special token, as lm-evaluation-harness has it
)

// EngineKind names an engine.
type EngineKind string

// The engines. Auto takes CUDA where the worker has a GPU, else the CPU.
const (
	EngineAuto EngineKind = "auto"
	EngineCPU  EngineKind = "cpu"
	EngineCUDA EngineKind = "cuda"
)

// Options is everything that decides what a score is, beside the input and the
// model. Two jobs with equal Options and equal digests give equal scores.
type Options struct {
	// TextColumn holds UTF-8 text. Empty when IDsColumn is set.
	TextColumn string `json:"text_column,omitempty"`
	// IDsColumn holds ready-made token ids, list<int32|int64>. The first id is
	// only conditioned on.
	IDsColumn string `json:"ids_column,omitempty"`
	// ContextColumn and TargetColumn hold UTF-8 text: the target is scored given
	// the context. Both or neither; they stand instead of TextColumn.
	ContextColumn string `json:"context_column,omitempty"`
	TargetColumn  string `json:"target_column,omitempty"`
	// Keep names the input columns copied to the output; ["*"] is all of them.
	// nil means "id, if the input has it".
	Keep []string `json:"keep,omitempty"`
	// PerToken writes token_ids and token_nll.
	PerToken bool `json:"per_token,omitempty"`
	// Long is what happens past MaxLength targets.
	Long LongMode `json:"long"`
	// MaxLength is L of the long modes, in targets. Always > 0 once resolved.
	MaxLength int `json:"max_length"`
	// QueryScale multiplies q in the recurrence. 0 means 1/sqrt(K), as trained.
	QueryScale float64 `json:"query_scale,omitempty"`
	// Special says what a literal special token in the text means.
	Special SpecialMode `json:"special_tokens"`
	// Engine is what may score this run.
	Engine EngineKind `json:"engine"`
}

// Conditional tells whether a target is scored given a context.
func (o Options) Conditional() bool { return o.TargetColumn != "" }

// MaxMaxLength bounds MaxLength, so that a hostile job can't ask for a window
// whose memory was never planned.
const MaxMaxLength = 1 << 24

// Validate reports the first thing that is wrong, in words for the person who
// set it.
func (o Options) Validate() error {
	switch {
	case (o.ContextColumn == "") != (o.TargetColumn == ""):
		return fmt.Errorf("--context-column and --target-column must be given together")
	case o.Conditional() && o.ContextColumn == o.TargetColumn:
		return fmt.Errorf("--context-column and --target-column must differ, both are %q", o.TargetColumn)
	case o.Conditional() && (o.TextColumn != "" || o.IDsColumn != ""):
		return fmt.Errorf("--context-column and --target-column cannot be combined with --text-column or --ids-column")
	case o.TextColumn == "" && o.IDsColumn == "" && !o.Conditional():
		return fmt.Errorf("no text column and no ids column: set --text-column or --ids-column")
	case o.TextColumn != "" && o.IDsColumn != "":
		return fmt.Errorf("--text-column and --ids-column cannot be combined")
	case !slices.Contains([]LongMode{LongCarry, LongWindow, LongTruncate}, o.Long):
		return fmt.Errorf("--long %q is not one of carry, window, truncate", o.Long)
	case o.MaxLength < 1 || o.MaxLength > MaxMaxLength:
		return fmt.Errorf("--max-length %d must be between 1 and %d", o.MaxLength, MaxMaxLength)
	case math.IsNaN(o.QueryScale) || math.IsInf(o.QueryScale, 0) || o.QueryScale < 0:
		return fmt.Errorf("--query-scale %v must be a positive number", o.QueryScale)
	case o.Special != SpecialText && o.Special != SpecialParse:
		return fmt.Errorf("--special-tokens %q is not one of text, parse", o.Special)
	case o.Engine != EngineAuto && o.Engine != EngineCPU && o.Engine != EngineCUDA:
		return fmt.Errorf("--engine %q is not one of auto, cpu, cuda", o.Engine)
	}
	for i, k := range o.Keep {
		if k == "" || slices.Contains(o.Keep[:i], k) {
			return fmt.Errorf("--keep: column %q is empty or named twice", k)
		}
		if k != "*" && (slices.Contains(OutputColumns, k) || o.Conditional() && slices.Contains(ConditionalColumns,
			k)) {
			return fmt.Errorf("--keep %s: the score files have a column of that name", k)
		}
	}
	return nil
}

// Model identifies a checkpoint folder and the tokenizer used with it.
type Model struct {
	// Dir is the folder's path as workers see it.
	Dir string `json:"dir"`
	// Name is model_config.name, for people.
	Name string `json:"name,omitempty"`
	// Digest is of model-ckpt.pth and training_metadata.json: "sha256:…".
	Digest string `json:"digest"`
	// Tokenizer is the tokenizer.json's path, empty when only ids are scored.
	Tokenizer string `json:"tokenizer,omitempty"`
	// TokenizerDigest is of the tokenizer's files; empty when there is none.
	TokenizerDigest string `json:"tokenizer_digest,omitempty"`
}

// ConfigDigest is a digest of all that decides a score beside the input: the
// options, the model's bytes and the tokenizer's. Where files lie takes no part.
func ConfigDigest(o Options, m Model) string {
	m.Dir, m.Tokenizer, m.Name = "", "", ""
	return digestJSON(struct {
		Options Options `json:"options"`
		Model   Model   `json:"model"`
	}{o, m})
}

func digestJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain structs of strings and numbers always marshal
	}
	s := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(s[:])
}
