// Command genckpt writes a checkpoint folder with random weights.
//
//	genckpt --config gdn2_kla_1.3B --dtype float32 --seed 1 --out DIR
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"surprisal/internal/model"
	"surprisal/internal/testkit/ckptgen"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "genckpt:", err)
		os.Exit(1)
	}
}

func run() error {
	config := flag.String("config", "gdn2_kla_1.3B", "a model's name, or the path of a "+model.MetadataName)
	dtype := flag.String("dtype", "float32", "type of the stored weights: float32 or bfloat16")
	seed := flag.Uint64("seed", 1, "decides the weights")
	out := flag.String("out", "", "folder to write, made if need be")
	flag.Parse()
	if *out == "" || flag.NArg() > 0 {
		return fmt.Errorf("--out DIR is needed, and nothing beside flags")
	}
	d, ok := map[string]model.DType{"float32": model.Float32, "bfloat16": model.BFloat16}[*dtype]
	if !ok {
		return fmt.Errorf("--dtype %q is not one of float32, bfloat16", *dtype)
	}
	cfg, ok := model.Named(*config)
	if !ok {
		if filepath.Base(*config) != model.MetadataName {
			return fmt.Errorf("--config %q is neither gdn2_kla_1.3B, gdn2_1.3B nor the path of a %s", *config,
				model.MetadataName)
		}
		var err error
		if cfg, err = model.LoadConfig(filepath.Dir(*config)); err != nil {
			return err
		}
	}
	return ckptgen.Write(*out, cfg, ckptgen.Options{DType: d, Seed: *seed})
}
