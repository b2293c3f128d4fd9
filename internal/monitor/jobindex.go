package monitor

import (
	"bytes"
	"encoding/base32"
	"fmt"
	"path"
	"slices"
	"sort"
	"strings"

	"surprisal/internal/score"
)

// jobIndex finds a manifest's jobs by id in 24 bytes a job, so that a million of
// them are listed without making a million.
type jobIndex struct {
	m       *score.Manifest
	entries []indexEntry   // by id
	files   map[string]int // by the folder of a file's outputs
	begin   []int          // number of the first job of each file
	seen    []uint64       // bits, by number of the job in the manifest's order
	jobs    int
}

type indexEntry struct {
	id        [16]byte
	file, cut uint32
}

func newJobIndex(m *score.Manifest) *jobIndex {
	x := &jobIndex{m: m, files: make(map[string]int, len(m.Files)), begin: make([]int, len(m.Files))}
	for i := range m.Files {
		x.begin[i] = x.jobs
		x.jobs += len(m.Files[i].Cuts)
		x.files[strings.TrimSuffix(m.Files[i].Input.Rel, ".parquet")] = i
	}
	x.seen = make([]uint64, (x.jobs+63)/64)
	x.entries = make([]indexEntry, 0, x.jobs)
	for i := range m.Files {
		for c := range m.Files[i].Cuts {
			first, last := x.rows(i, c)
			id, _ := jobKey(score.JobID(m.Run, m.Files[i].Input, first, last)) // always valid
			x.entries = append(x.entries, indexEntry{id, uint32(i), uint32(c)})
		}
	}
	slices.SortFunc(x.entries, func(a, b indexEntry) int { return bytes.Compare(a.id[:], b.id[:]) })
	return x
}

// jobIDs are lower-case base32 of 16 bytes.
var jobIDs = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func jobKey(id string) (key [16]byte, ok bool) {
	b, err := jobIDs.DecodeString(id)
	return [16]byte(append(b, make([]byte, 16)...)[:16]), err == nil && len(b) == 16
}

// rows are the first and last row of a file's job.
func (x *jobIndex) rows(file, cut int) (first, last int64) {
	f := &x.m.Files[file]
	first, last = f.Cuts[cut], f.Rows-1
	if cut+1 < len(f.Cuts) {
		last = f.Cuts[cut+1] - 1
	}
	return first, last
}

// find gives a job's place by its id.
func (x *jobIndex) find(id string) (file, cut int, ok bool) {
	key, ok := jobKey(id)
	if !ok {
		return 0, 0, false
	}
	i := sort.Search(len(x.entries), func(i int) bool { return bytes.Compare(x.entries[i].id[:], key[:]) >= 0 })
	if i == len(x.entries) || x.entries[i].id != key {
		return 0, 0, false
	}
	return int(x.entries[i].file), int(x.entries[i].cut), true
}

// findOutput gives a job's place by its output's path below OUT.
func (x *jobIndex) findOutput(rel string) (file, cut int, ok bool) {
	file, ok = x.files[path.Dir(rel)]
	if !ok {
		return 0, 0, false
	}
	var first, last int64
	if n, err := fmt.Sscanf(path.Base(rel), "rows-%d-%d.parquet", &first, &last); n != 2 || err != nil {
		return 0, 0, false
	}
	cut, ok = slices.BinarySearch(x.m.Files[file].Cuts, first)
	if !ok {
		return 0, 0, false
	}
	_, end := x.rows(file, cut)
	return file, cut, end == last
}

// mark notes that a job was seen and says whether it had been.
func (x *jobIndex) mark(file, cut int) (before bool) {
	n := x.begin[file] + cut
	bit := uint64(1) << (n % 64)
	before = x.seen[n/64]&bit != 0
	x.seen[n/64] |= bit
	return before
}

// job makes the job.
func (x *jobIndex) job(file, cut int) score.Job {
	return x.m.Job(file, cut)
}

// byPrefix gives the jobs whose ids begin so, two at most.
func (x *jobIndex) byPrefix(prefix string) []score.Job {
	var found []score.Job
	for _, e := range x.entries {
		if strings.HasPrefix(jobIDs.EncodeToString(e.id[:]), prefix) {
			if found = append(found, x.job(int(e.file), int(e.cut))); len(found) == 2 {
				break
			}
		}
	}
	return found
}
