package shard

import (
	"context"
	"fmt"

	"surprisal/internal/score"
	"surprisal/internal/shard/jsonl"
	"surprisal/internal/shard/pq"
	"surprisal/internal/store"
)

// OpenInput opens an input that was planned; the error wraps ErrInputChanged
// when it is another file by now.
func OpenInput(ctx context.Context, in score.Input) (*pq.Table, error) {
	if jsonl.Is(in.Rel) {
		return nil, fmt.Errorf("open %s: JSON lines are not a table", in.Path)
	}
	f, err := openInput(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", in.Path, err)
	}
	return pq.OpenTable(in.Path, f, f.Size)
}

// OpenLines opens an input that was planned; the error wraps ErrInputChanged
// when it is another file by now.
func OpenLines(ctx context.Context, in score.Input) (*jsonl.File, error) {
	f, err := openInput(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", in.Path, err)
	}
	return jsonl.NewFile(ctx, in, f), nil
}

// OpenScores opens a score file.
func OpenScores(ctx context.Context, name string) (*pq.Table, error) {
	f, err := store.OpenFile(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("open scores %s: %w", name, err)
	}
	return pq.OpenTable(name, f, f.Size)
}

// OwnColumns are the names of the score files' own columns, in their order.
func OwnColumns(scores []pq.Range) []string {
	if len(scores) == 0 {
		return nil
	}
	return ownColumns(scores[0].Table.Footer())
}

// AddScores has a copy take the score files' own columns; there may be none.
func AddScores(c *pq.Copy, scores []pq.Range) {
	c.Beside, c.Columns, c.Arrow = scores, OwnColumns(scores), ownArrowSchema
}
