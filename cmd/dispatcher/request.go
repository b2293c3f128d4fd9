package main

import (
	"github.com/spf13/cobra"

	"surprisal/internal/cli"
	"surprisal/internal/dispatch"
	"surprisal/internal/score"
	"surprisal/internal/usage"
)

// request is the flags that say what to score, and how.
type request struct {
	req     dispatch.Request
	changed func(flag string) bool
}

func newRequest(cmd *cobra.Command) *request {
	f := cmd.Flags()
	f.SortFlags = false
	r := &request{req: dispatch.Request{Program: version}, changed: f.Changed}
	o := &r.req.Options
	f.StringVar(&r.req.ModelDir, "model", "",
		"checkpoint folder, or hf://OWNER/NAME/PATH: model-ckpt.pth, training_metadata.json, tokenizer.json")
	f.StringVar(&r.req.Out, "out", "",
		"folder or bucket URL for the scores; the same command again continues where it stopped")
	f.StringVar(&r.req.Tokenizer, "tokenizer", "", "a tokenizer.json outside the model's folder")
	f.StringVar(&o.TextColumn, "text-column", "text",
		"column with the documents' text; meta.text is a field of a struct or object")
	f.StringVar(&o.IDsColumn, "ids-column", "", "column of token IDs, list<int32|int64>, instead of text")
	f.StringVar(&o.ContextColumn, "context-column", "",
		"with --target-column: score the target's text given the context's, "+
			"as lm-evaluation-harness's loglikelihood does")
	f.StringVar(&o.TargetColumn, "target-column", "", "column with the text that follows the context")
	f.StringSliceVar(&o.Keep, "keep", nil, "input columns to copy to the output, or all (default id, if there is one)")
	f.BoolVar(&o.PerToken, "per-token", false, "write token_ids and token_nll too")
	f.StringVar((*string)(&o.Long), "long", string(score.LongCarry),
		"documents longer than --max-length: carry, window or truncate")
	f.IntVar(&o.MaxLength, "max-length", 0,
		"length L of window and truncate, in tokens (default the model's block_size)")
	f.Float64Var(&o.QueryScale, "query-scale", 0,
		"scale of the queries (default 1/sqrt(head width), as trained; 1 matches the model card's runtime)")
	f.StringVar((*string)(&o.Special), "special-tokens", string(score.SpecialText),
		"how to read a literal <s> in a text: text (its characters) or parse (the token)")
	f.Int64Var(&r.req.JobTokens, "job-tokens", dispatch.DefaultJobTokens,
		"target size of a job, in estimated tokens; "+
			"run chooses less by itself where that gives few jobs to several workers")
	f.StringVar((*string)(&o.Engine), "engine", string(score.EngineAuto), "auto, cpu or cuda")
	return r
}

// of is the request for inputs, checked.
func (r *request) of(inputs []string) (dispatch.Request, error) {
	req := r.req
	o := &req.Options
	switch text := r.changed("text-column") && o.TextColumn != ""; {
	case o.IDsColumn != "" && text:
		return req, usage.Errorf("--text-column and --ids-column exclude each other")
	case (o.ContextColumn != "" || o.TargetColumn != "") && text:
		return req, usage.Errorf("--context-column and --target-column exclude --text-column")
	case o.IDsColumn != "" || o.ContextColumn != "" || o.TargetColumn != "":
		o.TextColumn = ""
	}
	switch {
	case !r.changed("job-tokens"):
		req.JobTokens = 0
	case req.JobTokens < 1:
		return req, usage.Errorf("--job-tokens %d: must be at least 1", req.JobTokens)
	}
	switch {
	case o.MaxLength < 0, o.MaxLength == 0 && r.changed("max-length"):
		return req, usage.Errorf("--max-length %d: must be at least 1", o.MaxLength)
	case r.changed("query-scale") && !(o.QueryScale > 0):
		return req, usage.Errorf("--query-scale %v: must be positive", o.QueryScale)
	}
	if len(o.Keep) == 1 && o.Keep[0] == "all" {
		o.Keep = []string{"*"}
	}
	if err := cli.Resolve("--out", &req.Out); err != nil {
		return req, err
	}
	for _, in := range inputs {
		if err := cli.Resolve("input", &in); err != nil {
			return req, err
		}
		req.Inputs = append(req.Inputs, in)
	}
	if err := cli.Resolve("--model", &req.ModelDir); err != nil {
		return req, err
	}
	return req, cli.Resolve("--tokenizer", &req.Tokenizer)
}
