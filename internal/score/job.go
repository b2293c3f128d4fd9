package score

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	"surprisal/internal/place"
)

// MaxRow bounds a row index, so that an output's name keeps its 12 digits.
const MaxRow = 999_999_999_999

// MaxJobBytes bounds a job message.
const MaxJobBytes = 16 << 10

// ErrBadJob is wrapped by every error about a job message itself; such a job is
// never worth a second try.
var ErrBadJob = errors.New("bad job message")

// Job is one queue message: a range of rows of one file and all that is needed
// to score it. It is a pointer, never documents.
type Job struct {
	Version int    `json:"v"`
	ID      string `json:"id"`
	Run     string `json:"run"`
	Input   Input  `json:"input"`
	// First and Last are row indices in the file, both inclusive.
	First int64 `json:"first"`
	Last  int64 `json:"last"`
	// Offset is the byte at which row First begins, of a file of lines; 0 when
	// rows are counted from the file's start. It is no part of the job's id.
	Offset int64 `json:"offset,omitempty"`
	// Out is the run's output folder; Output is the file's name under it.
	Out          string  `json:"out"`
	Output       string  `json:"output"`
	Options      Options `json:"options"`
	Model        Model   `json:"model"`
	ConfigDigest string  `json:"config"`
}

// NewJob makes the job for rows first..last of in. The id and the output's name
// are functions of the run, the file and the rows, so that a redelivered job
// repeats nothing.
func NewJob(m *Manifest, in Input, first, last int64) Job {
	return Job{
		Version: FormatVersion, ID: JobID(m.Run, in, first, last), Run: m.Run, Input: in,
		First: first, Last: last, Out: m.Out, Output: OutputName(in.Rel, first, last),
		Options: m.Options, Model: m.Model, ConfigDigest: m.ConfigDigest,
	}
}

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// JobID names rows first..last of in within a run: 26 lower-case characters, a
// valid subject token.
func JobID(run string, in Input, first, last int64) string {
	h := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s\x00%d\x00%d", run, in.Rel, in.Version, first, last))
	return idEncoding.EncodeToString(h[:16])
}

// OutputName is where the scores of rows first..last of rel go, below OUT.
func OutputName(rel string, first, last int64) string {
	return fmt.Sprintf("%s/rows-%012d-%012d.parquet", strings.TrimSuffix(rel, ".parquet"), first, last)
}

// Rows is the number of rows that the job scores.
func (j Job) Rows() int64 { return j.Last - j.First + 1 }

// Encode gives the message's bytes.
func (j Job) Encode() ([]byte, error) {
	if err := j.Validate(); err != nil {
		return nil, err
	}
	b, err := json.Marshal(j)
	if err != nil {
		return nil, fmt.Errorf("encode job %s: %w", j.ID, err)
	}
	if len(b) > MaxJobBytes {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrBadJob, len(b), MaxJobBytes)
	}
	return b, nil
}

// DecodeJob reads a message, which may be anything.
func DecodeJob(b []byte) (Job, error) {
	var j Job
	if len(b) > MaxJobBytes {
		return j, fmt.Errorf("%w: %d bytes, more than %d", ErrBadJob, len(b), MaxJobBytes)
	}
	var v struct {
		Version int `json:"v"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return j, fmt.Errorf("%w: %w", ErrBadJob, err)
	}
	if v.Version != FormatVersion {
		return j, fmt.Errorf("%w: version %d, but this program supports %d", ErrBadJob, v.Version, FormatVersion)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&j); err != nil {
		return Job{}, fmt.Errorf("%w: %w", ErrBadJob, err)
	}
	if err := j.Validate(); err != nil {
		return Job{}, err
	}
	return j, nil
}

// Validate checks what can be checked without the input.
func (j Job) Validate() error {
	bad := func(format string, a ...any) error {
		return fmt.Errorf("%w: %w", ErrBadJob, fmt.Errorf(format, a...))
	}
	if j.Version != FormatVersion {
		return bad("version %d, but this program supports %d", j.Version, FormatVersion)
	}
	if !ValidRunID(j.Run) {
		return bad("run id %q", j.Run)
	}
	if j.First < 0 || j.Last < j.First || j.Last > MaxRow {
		return bad("rows %d to %d", j.First, j.Last)
	}
	if j.Offset < 0 || j.Offset > 0 && j.Offset >= j.Input.Size {
		return bad("offset %d of %d bytes", j.Offset, j.Input.Size)
	}
	if err := ValidRel(j.Input.Rel); err != nil {
		return bad("%w", err)
	}
	if err := place.ValidInput(j.Input.Path); err != nil {
		return bad("%w", err)
	}
	if err := place.ValidOut(j.Out); err != nil {
		return bad("%w", err)
	}
	for _, name := range []string{j.Model.Dir, j.Model.Tokenizer} {
		if err := place.ValidModelDir(name); place.IsURL(name) && err != nil {
			return bad("%w", err)
		}
	}
	if want := OutputName(j.Input.Rel, j.First, j.Last); j.Output != want {
		return bad("output %q, want %q", j.Output, want)
	}
	if want := JobID(j.Run, j.Input, j.First, j.Last); j.ID != want {
		return bad("id %q, want %q", j.ID, want)
	}
	if err := j.Options.Validate(); err != nil {
		return bad("%w", err)
	}
	if want := ConfigDigest(j.Options, j.Model); j.ConfigDigest != want {
		return bad("config digest %q does not match its options (%q)", j.ConfigDigest, want)
	}
	return nil
}

// ValidRel reports whether rel is a clean relative path that stays below the
// folder it is joined to and can't clash with OUT's own files.
func ValidRel(rel string) error {
	if rel == "" || len(rel) > 4096 || rel != path.Clean(rel) || path.IsAbs(rel) || rel == "." || rel == ".." ||
		strings.HasPrefix(rel, "../") || strings.ContainsAny(rel, "\x00\\") {
		return fmt.Errorf("relative path %q is not clean or leads outside of its folder", rel)
	}
	return nil
}
