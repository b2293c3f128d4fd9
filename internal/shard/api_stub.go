package shard

import (
	"context"
	"errors"
	"iter"
	"time"

	"surprisal/internal/score"
)

var errStub = errors.New("not implemented")

// Problem is something met while looking for inputs that is not an input: an
// unreadable folder, a dangling link.
type Problem struct {
	Path string
	Err  error
}

// Discover lists the files that args name; see discover.go. exclude is OUT's
// absolute path, or empty.
func Discover(args []string, exclude string) ([]score.Input, []Problem, error) {
	return nil, nil, errStub
}

// PlanOptions say how files are cut.
type PlanOptions struct {
	// Options name the columns.
	Options score.Options
	// JobTokens is the wanted size of a job in estimated tokens. Default 1<<20.
	JobTokens int64
	// BytesPerToken turns bytes of text into tokens. Default 4.
	BytesPerToken float64
	// MaxRows bounds a job's rows. Default 1<<20.
	MaxRows int64
	// SkipTokenCount keeps Plan to footers alone: a token_count column is not read.
	SkipTokenCount bool
}

// Plan cuts one file into jobs. A file that can't be scored gives a plan with
// Error set; the error is for ctx alone.
func Plan(ctx context.Context, in score.Input, opt PlanOptions) (score.FilePlan, error) {
	return score.FilePlan{}, errStub
}

// Kept are one row's values of the kept columns.
type Kept struct{ _ []byte }

// Columns are the kept columns' types, as the input has them.
type Columns struct{ _ []byte }

// Row is one input row.
type Row struct {
	Index int64
	// Text is the text column's bytes, not checked to be UTF-8. Empty for ids.
	Text string
	// IDs are the ids column's values; nil for text.
	IDs []int32
	// Null: the text or the list of ids is null.
	Null bool
	// Problem is empty, or why the row's ids can't be used (null or past 32 bits).
	Problem string
	// Kept goes to Writer.Write unchanged.
	Kept Kept
}

// Reader reads a job's rows, one after another.
type Reader struct{}

// OpenRange opens the job's rows. The caller must Close the reader.
func OpenRange(ctx context.Context, job score.Job) (*Reader, error) { return nil, errStub }

// Columns are the kept columns, for Create.
func (r *Reader) Columns() *Columns { return nil }

// Next gives the next row, which stays valid, or io.EOF after the job's last.
func (r *Reader) Next() (Row, error) { return Row{}, errStub }

// Close gives the file back.
func (r *Reader) Close() error { return nil }

// Metadata says what made a score file, beside what the job says.
type Metadata struct {
	Precision string // fp32, bf16
	Engine    string // cpu, cuda
	Device    string
	Program   string // version
}

// Totals are sums over rows.
type Totals struct {
	Documents int64   `json:"documents"` // rows, failed ones among them
	Failed    int64   `json:"failed"`    // rows with an error
	Truncated int64   `json:"truncated"`
	Tokens    int64   `json:"tokens"`
	Bytes     int64   `json:"bytes"` // of the rows whose bytes are known and that have a score
	SumNLL    float64 `json:"sum_nll"`
	Top1      int64   `json:"top1"`
}

// Add adds o to t.
func (t *Totals) Add(o Totals) {}

// Committed is what a score file's footer says of it.
type Committed struct {
	Path         string // absolute
	Job          string
	Run          string
	ConfigDigest string
	InputPath    string
	First, Last  int64
	Digest       string // of the scores, in row order
	Totals       Totals
	Metadata     Metadata
	// Existed: Commit found the same scores published already, and dropped its own.
	Existed bool
}

// Writer writes one job's score file.
type Writer struct{}

// Create starts the job's score file as a hidden temporary. The caller must
// Commit or Abort it; Abort after Commit does nothing.
func Create(ctx context.Context, job score.Job, kept *Columns, meta Metadata) (*Writer, error) {
	return nil, errStub
}

// Write adds a row; s.Row must be the next of the job.
func (w *Writer) Write(s score.Score, kept Kept) error { return errStub }

// Commit syncs the file and publishes it under the job's name.
func (w *Writer) Commit(ctx context.Context) (Committed, error) { return Committed{}, errStub }

// Abort removes the temporary.
func (w *Writer) Abort() error { return nil }

// Inspect reads a score file's footer.
func Inspect(path string) (Committed, error) { return Committed{}, errStub }

// ListOutputs walks OUT for score files, giving absolute paths in order.
func ListOutputs(out string) iter.Seq2[string, error] { return nil }

// InspectAll inspects all of OUT's score files, several at a time, and calls do
// for each, one call at a time, in order of path; err is what Inspect gave.
func InspectAll(ctx context.Context, out string, do func(path string, c Committed, err error) error) error {
	return errStub
}

// ReadScores streams a score file's scores, without token_ids and token_nll.
func ReadScores(ctx context.Context, path string, do func(score.Score) error) error { return errStub }

// RemoveTemporaries removes the hidden temporaries of run (of any run when
// empty) in OUT that are older than age, and says how many.
func RemoveTemporaries(out, run string, age time.Duration) (int, error) { return 0, errStub }

// WriteManifest writes OUT/_manifest.json once; an error wraps fs.ErrExist when
// there is one.
func WriteManifest(out string, m *score.Manifest) error { return errStub }

// ReadManifest reads and validates OUT/_manifest.json; an error wraps
// fs.ErrNotExist when there is none.
func ReadManifest(out string) (*score.Manifest, error) { return nil, errStub }

// WriteSuccess writes OUT/_SUCCESS, replacing one that is there.
func WriteSuccess(out string, body []byte) error { return errStub }

// RemoveSuccess removes OUT/_SUCCESS; there being none is no error.
func RemoveSuccess(out string) error { return errStub }
