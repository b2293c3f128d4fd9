package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"surprisal/internal/dispatch"
	"surprisal/internal/score"
)

// requestFlags adds the flags that say what to score, and how.
func requestFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	f.String("model", "", "checkpoint folder, or hf://OWNER/NAME/PATH: model-ckpt.pth, training_metadata.json, tokenizer.json")
	f.String("out", "", "folder or bucket URL for the scores; the same command again goes on where it stopped")
	f.String("tokenizer", "", "tokenizer.json that is elsewhere than in the model's folder")
	f.String("text-column", "text", "column with the documents' text; meta.text is a field of a struct or object")
	f.String("ids-column", "", "column of ready-made token ids, list<int32|int64>, instead of text")
	f.String("context-column", "", "with --target-column: score the target's text given the context's, as lm-evaluation-harness's loglikelihood does")
	f.String("target-column", "", "column with the text that follows the context")
	f.StringSlice("keep", nil, "input columns to copy to the output, or all (default id, if there is one)")
	f.Bool("per-token", false, "write token_ids and token_nll too")
	f.String("long", string(score.LongCarry), "documents longer than --max-length: carry, window or truncate")
	f.Int("max-length", 0, "L of window and truncate, in tokens (default the model's block_size)")
	f.Float64("query-scale", 0, "scale of the queries (default 1/sqrt(head width), as trained; 1 matches the card's runtime)")
	f.String("special-tokens", string(score.SpecialText), "a literal <s> in a text: text (its characters) or parse (the token)")
	f.Int64("job-tokens", dispatch.DefaultJobTokens, "target size of a job, in estimated tokens; by itself run takes less where that gives few jobs to several workers")
	f.String("engine", string(score.EngineAuto), "auto, cpu or cuda")
}

// request reads requestFlags.
func request(cmd *cobra.Command, inputs []string) (dispatch.Request, error) {
	f := cmd.Flags()
	str := func(name string) string { s, _ := f.GetString(name); return s } // requestFlags made them all
	perToken, _ := f.GetBool("per-token")
	maxLength, _ := f.GetInt("max-length")
	queryScale, _ := f.GetFloat64("query-scale")
	jobTokens := int64(0)
	if f.Changed("job-tokens") {
		jobTokens, _ = f.GetInt64("job-tokens")
	}
	keep, _ := f.GetStringSlice("keep")
	if len(keep) == 1 && keep[0] == "all" {
		keep = []string{"*"}
	}
	req := dispatch.Request{
		Inputs: inputs, Out: str("out"), ModelDir: str("model"), Tokenizer: str("tokenizer"), JobTokens: jobTokens,
		Program: version,
		Options: score.Options{
			TextColumn: str("text-column"), IDsColumn: str("ids-column"),
			ContextColumn: str("context-column"), TargetColumn: str("target-column"), Keep: keep, PerToken: perToken,
			Long: score.LongMode(str("long")), MaxLength: maxLength, QueryScale: queryScale,
			Special: score.SpecialMode(str("special-tokens")), Engine: score.EngineKind(str("engine")),
		},
	}
	if req.Options.IDsColumn != "" {
		if f.Changed("text-column") && str("text-column") != "" {
			return req, flagError{fmt.Errorf("--text-column and --ids-column exclude each other")}
		}
		req.Options.TextColumn = ""
	}
	if o := &req.Options; o.ContextColumn != "" || o.TargetColumn != "" {
		if f.Changed("text-column") && str("text-column") != "" {
			return req, flagError{fmt.Errorf("--context-column and --target-column exclude --text-column")}
		}
		o.TextColumn = ""
	}
	switch {
	case f.Changed("job-tokens") && jobTokens < 1:
		return req, flagError{fmt.Errorf("--job-tokens %d is not at least 1", jobTokens)}
	case maxLength < 0:
		return req, flagError{fmt.Errorf("--max-length %d is not at least 1", maxLength)}
	case f.Changed("max-length") && maxLength == 0:
		return req, flagError{fmt.Errorf("--max-length 0 is not at least 1")}
	case f.Changed("query-scale") && !(queryScale > 0):
		return req, flagError{fmt.Errorf("--query-scale %v is not a positive number", queryScale)}
	}
	return req, nil
}
