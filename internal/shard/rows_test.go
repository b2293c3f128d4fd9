package shard

import (
	"context"
	"errors"
	"io"
	"testing"

	"surprisal/internal/score"
)

// readAll reads a job's rows.
func readAll(t testing.TB, job score.Job) []Row {
	t.Helper()
	rows, err := tryReadAll(job)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func tryReadAll(job score.Job) ([]Row, error) { return readWith(new(Opener), job) }

func readWith(o *Opener, job score.Job) ([]Row, error) {
	r, err := o.OpenRange(context.Background(), job)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var rows []Row
	for {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return rows, err
		}
		rows = append(rows, row)
	}
}
