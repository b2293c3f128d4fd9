package score

import (
	"fmt"
	"iter"
	"path"
	"regexp"
	"slices"
	"strings"

	"surprisal/internal/place"
)

// FormatVersion is the version of the manifest and of the job message. A
// program refuses one it does not know.
const FormatVersion = 1

// Names inside OUT.
const (
	ManifestName = "_manifest.json" // what was asked, of which model, the jobs
	SuccessName  = "_SUCCESS"       // all of it is there and checked
)

var runID = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// ValidRunID reports whether id may be a run's id: a subject token and a file
// name at once.
func ValidRunID(id string) bool { return runID.MatchString(id) }

// Manifest is what a person asked for and how it was cut. It is written to
// OUT/_manifest.json before the first job is queued, and again when files are added
// or the jobs' costs are known; with the committed outputs
// it is all that is needed to go on.
type Manifest struct {
	Version      int        `json:"version"`
	Run          string     `json:"run"`
	Created      string     `json:"created"` // RFC 3339, UTC
	Program      string     `json:"program"` // version that planned it
	Out          string     `json:"out"`     // absolute path or URL, as workers see it
	Inputs       []string   `json:"inputs"`  // as the person gave them
	Options      Options    `json:"options"`
	Model        Model      `json:"model"`
	ConfigDigest string     `json:"config_digest"`
	JobTokens    int64      `json:"job_tokens"` // target size of a job, estimated tokens
	Files        []FilePlan `json:"files"`      // in order of Rel
	// Costs are what jobs took on GPUs, a queue each; absent where none tells.
	Costs []Cost `json:"costs,omitempty"`
}

// FilePlan is one input file and how it was cut, or why it could not be.
type FilePlan struct {
	Input Input `json:"input"`
	// Rows in the file; 0 when Error is set or the file has none.
	Rows int64 `json:"rows"`
	// RowGroups in the file.
	RowGroups int `json:"row_groups"`
	// Cuts are the first rows of the file's jobs, ascending from 0; empty for a
	// file without rows. Job i is rows Cuts[i] .. Cuts[i+1]-1 (Rows-1 for the last).
	Cuts []int64 `json:"cuts,omitempty"`
	// Offsets are the bytes at which the rows of Cuts begin, of a file of lines
	// that is not compressed; empty for any other.
	Offsets []int64 `json:"offsets,omitempty"`
	// Tokens is the estimate for the whole file.
	Tokens int64 `json:"estimated_tokens"`
	// Error says why the file can't be scored; such a file has no jobs.
	Error string `json:"error,omitempty"`
}

// Input is one file to score.
type Input struct {
	// Path is absolute, or a URL, as workers see it: a Place.
	Path string `json:"path"`
	// Rel is the path relative to the input argument that named it, with
	// slashes; it is unique in a run and decides where the scores go.
	Rel string `json:"rel"`
	// Size in bytes.
	Size int64 `json:"size"`
	// Version changes when the file does: an etag, or size and modification time.
	Version string `json:"version"`
}

// Jobs lists the jobs of the whole manifest, in order of file and row. A large run
// has millions of them, half a kilobyte each: AllJobs makes one at a time.
func (m *Manifest) Jobs() []Job {
	jobs := make([]Job, 0, m.JobCount())
	for j := range m.AllJobs() {
		jobs = append(jobs, j)
	}
	return jobs
}

// AllJobs makes the jobs of the whole manifest, in order of file and row.
func (m *Manifest) AllJobs() iter.Seq[Job] {
	return func(yield func(Job) bool) {
		for i := range m.Files {
			for c := range m.Files[i].Cuts {
				if !yield(m.Job(i, c)) {
					return
				}
			}
		}
	}
}

// JobCount is how many jobs the manifest has.
func (m *Manifest) JobCount() int {
	n := 0
	for i := range m.Files {
		n += len(m.Files[i].Cuts)
	}
	return n
}

// Job makes the job of cut c of m.Files[i].
func (m *Manifest) Job(i, c int) Job {
	f := &m.Files[i]
	last := f.Rows - 1
	if c+1 < len(f.Cuts) {
		last = f.Cuts[c+1] - 1
	}
	j := NewJob(m, f.Input, f.Cuts[c], last)
	if c < len(f.Offsets) {
		j.Offset = f.Offsets[c]
	}
	return j
}

// FileJobs lists the jobs of m.Files[i].
func (m *Manifest) FileJobs(i int) []Job {
	jobs := make([]Job, len(m.Files[i].Cuts))
	for c := range jobs {
		jobs[c] = m.Job(i, c)
	}
	return jobs
}

// Outputs finds jobs by their output's name, without a table of all of them.
type Outputs struct {
	m     *Manifest
	files map[string]int // by what the names of its outputs begin with
}

// Outputs prepares the search.
func (m *Manifest) Outputs() *Outputs {
	o := &Outputs{m, make(map[string]int, len(m.Files))}
	for i := range m.Files {
		o.files[strings.TrimSuffix(m.Files[i].Input.Rel, ".parquet")] = i
	}
	return o
}

// Job is the job whose output is called name; ok is false when none is.
func (o *Outputs) Job(name string) (j Job, ok bool) {
	dir, base := path.Split(name)
	i, ok := o.files[strings.TrimSuffix(dir, "/")]
	var first, last int64
	if n, err := fmt.Sscanf(base, "rows-%d-%d.parquet", &first, &last); !ok || err != nil || n != 2 {
		return Job{}, false
	}
	c, ok := slices.BinarySearch(o.m.Files[i].Cuts, first)
	if !ok {
		return Job{}, false
	}
	if j = o.m.Job(i, c); j.Output != name {
		return Job{}, false
	}
	return j, true
}

// Validate checks a manifest that was read from a file: it is as hostile as any
// other input.
func (m *Manifest) Validate() error {
	if m.Version != FormatVersion {
		return fmt.Errorf("manifest version %d is not %d: written by another version of this program", m.Version,
			FormatVersion)
	}
	if !ValidRunID(m.Run) {
		return fmt.Errorf("manifest: run id %q is not valid", m.Run)
	}
	if err := m.Options.Validate(); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	if d := ConfigDigest(m.Options, m.Model); d != m.ConfigDigest {
		return fmt.Errorf("manifest: config digest %s does not match its options (%s)", m.ConfigDigest, d)
	}
	if err := place.ValidOut(m.Out); err != nil && m.Out != "" {
		return fmt.Errorf("manifest: %w", err)
	}
	if err := m.checkCosts(); err != nil {
		return err
	}
	seen := make(map[string]bool, len(m.Files))
	for _, f := range m.Files {
		if err := ValidRel(f.Input.Rel); err != nil {
			return fmt.Errorf("manifest: %w", err)
		}
		if seen[f.Input.Rel] {
			return fmt.Errorf("manifest: duplicate file %q", f.Input.Rel)
		}
		seen[f.Input.Rel] = true
		if err := place.ValidInput(f.Input.Path); err != nil && f.Error == "" {
			return fmt.Errorf("manifest: file %q: %w", f.Input.Rel, err)
		}
		if f.Rows < 0 || f.Rows > MaxRow {
			return fmt.Errorf("manifest: file %q has %d rows", f.Input.Rel, f.Rows)
		}
		if (f.Rows > 0 && f.Error == "") != (len(f.Cuts) > 0) {
			return fmt.Errorf("manifest: file %q has %d rows and %d jobs", f.Input.Rel, f.Rows, len(f.Cuts))
		}
		if len(f.Offsets) > 0 && len(f.Offsets) != len(f.Cuts) {
			return fmt.Errorf("manifest: file %q: %d jobs and %d offsets", f.Input.Rel, len(f.Cuts), len(f.Offsets))
		}
		for i, o := range f.Offsets {
			if o < 0 || o >= f.Input.Size || i > 0 && o <= f.Offsets[i-1] {
				return fmt.Errorf("manifest: file %q: offsets are not ascending bytes of the file", f.Input.Rel)
			}
		}
		for i, c := range f.Cuts {
			if (i == 0 && c != 0) || (i > 0 && c <= f.Cuts[i-1]) || c >= f.Rows {
				return fmt.Errorf("manifest: file %q: job boundaries are not ascending rows of the file", f.Input.Rel)
			}
		}
	}
	return nil
}
