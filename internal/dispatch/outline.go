package dispatch

import "context"

// Outline is a plan for people and machines: its files and their sum.
type Outline struct {
	Files        []OutlineFile `json:"files"`
	Total        OutlineFile   `json:"total"`
	Model        string        `json:"model"`
	ModelDigest  string        `json:"model_digest"`
	ConfigDigest string        `json:"config_digest"`
	FailedFiles  int           `json:"failed_files"`
}

// OutlineFile is one file of a plan, or the sum of all.
type OutlineFile struct {
	File      string `json:"file"`
	Bytes     int64  `json:"bytes"`
	Rows      int64  `json:"rows"`
	RowGroups int    `json:"row_groups"`
	Jobs      int    `json:"jobs"`
	Committed int    `json:"committed_jobs"`
	Tokens    int64  `json:"estimated_tokens"`
	Error     string `json:"error,omitempty"`
}

// GetOutline plans req and counts what OUT, if it is given, holds of it.
func GetOutline(ctx context.Context, req Request) (*Outline, error) {
	m, _, err := Plan(ctx, req)
	if err != nil {
		return nil, err
	}
	var done map[string]bool
	if m.Out != "" {
		c, err := Reconcile(ctx, m)
		if err != nil {
			return nil, err
		}
		done = c.Jobs
	}
	out := &Outline{Model: m.Model.Dir, ModelDigest: m.Model.Digest, ConfigDigest: m.ConfigDigest}
	out.Total.File = "total"
	for i := range m.Files {
		f := &m.Files[i]
		p := OutlineFile{
			File: f.Input.Rel, Bytes: f.Input.Size, Rows: f.Rows, RowGroups: f.RowGroups, Jobs: len(f.Cuts),
			Tokens: f.Tokens, Error: f.Error,
		}
		for _, j := range m.FileJobs(i) {
			if done[j.ID] {
				p.Committed++
			}
		}
		t := &out.Total
		t.Bytes, t.Rows, t.RowGroups = t.Bytes+p.Bytes, t.Rows+p.Rows, t.RowGroups+p.RowGroups
		t.Jobs, t.Committed, t.Tokens = t.Jobs+p.Jobs, t.Committed+p.Committed, t.Tokens+p.Tokens
		if p.Error != "" {
			out.FailedFiles++
		}
		out.Files = append(out.Files, p)
	}
	return out, nil
}
