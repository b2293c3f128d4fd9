package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// manifest is what OUT/_manifest.json says, as docs/design.md has it.
type manifest struct {
	Run          string `json:"run"`
	ConfigDigest string `json:"config_digest"`
	Options      struct {
		PerToken     bool   `json:"per_token"`
		TargetColumn string `json:"target_column"`
	} `json:"options"`
	Files []struct {
		Input struct {
			Path    string `json:"path"`
			Rel     string `json:"rel"`
			Size    int64  `json:"size"`
			Version string `json:"version"`
		} `json:"input"`
		Rows  int64   `json:"rows"`
		Cuts  []int64 `json:"cuts"`
		Error string  `json:"error"`
	} `json:"files"`
}

// job is one planned range of rows.
type job struct {
	file        int // index in manifest.Files
	id          string
	first, last int64
	output      string // below OUT
}

func readManifest(out string) (*manifest, error) {
	b, err := os.ReadFile(filepath.Join(out, "_manifest.json"))
	if err != nil {
		return nil, err
	}
	m := new(manifest)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("read manifest of %s: %w", out, err)
	}
	return m, nil
}

// jobs lists the plan in order of file and row.
func (m *manifest) jobs() []job {
	var list []job
	for i, f := range m.Files {
		for c, first := range f.Cuts {
			last := f.Rows - 1
			if c+1 < len(f.Cuts) {
				last = f.Cuts[c+1] - 1
			}
			h := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s\x00%d\x00%d", m.Run, f.Input.Rel, f.Input.Version,
				first, last))
			list = append(list, job{
				file: i, first: first, last: last,
				id: strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(h[:16])),
				output: fmt.Sprintf("%s/rows-%012d-%012d.parquet", strings.TrimSuffix(f.Input.Rel, ".parquet"), first,
					last),
			})
		}
	}
	return list
}

// readDead gives the ids of the jobs in a file of JSON lines with a "job" each.
func readDead(path string) (map[string]bool, error) {
	dead := map[string]bool{}
	if path == "" {
		return dead, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	for n := 1; ; n++ {
		line, err := r.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			var d struct {
				Job string `json:"job"`
			}
			if err := json.Unmarshal(line, &d); err != nil {
				return nil, fmt.Errorf("%s line %d: %w", path, n, err)
			}
			if d.Job == "" {
				return nil, fmt.Errorf("%s line %d names no job", path, n)
			}
			dead[d.Job] = true
		}
		if errors.Is(err, io.EOF) {
			return dead, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
	}
}
