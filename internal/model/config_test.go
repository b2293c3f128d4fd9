package model

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNamedParams(t *testing.T) {
	for name, want := range map[string]int64{"gdn2_kla_1.3B": 1450760256, "gdn2_1.3B": 1450096416} {
		c, ok := Named(name)
		if !ok || c.Validate() != nil {
			t.Fatalf("%s: %v, %v", name, ok, c.Validate())
		}
		if got := c.Params(); got != want {
			t.Errorf("%s has %d parameters, want %d", name, got, want)
		}
	}
}

func TestParseConfig(t *testing.T) {
	kla, _ := Named("gdn2_kla_1.3B")
	plain, _ := Named("gdn2_1.3B")
	tests := []struct {
		name, json string
		want       func() Config
	}{
		{"named", `{"model_config":{"name":"gdn2_kla_1.3B"}}`, func() Config { return kla }},
		{"plain", `{"x":1,"model_config":{"name":"gdn2_1.3B","unknown":[1,{}]}}`, func() Config { return plain }},
		{"nulls", `{"model_config":{"name":"gdn2_1.3B","n_layer":null,"gdn2_num_v_heads":null,` +
			`"norm_eps":null,"bias":null}}`, func() Config { return plain }},
		{"general defaults", `{"model_config":{}}`, func() Config { c := kla; c.Name = ""; return c }},
		{"padded", `{"model_config":{"vocab_size":500,"padding_multiple":64}}`, func() Config {
			c := kla
			c.Name, c.VocabSize, c.PaddedVocabSize = "", 500, 512
			return c
		}},
		{"expand", `{"model_config":{"gdn2_expand_v":0.5,"gdn2_num_heads":2.0,` +
			`"gdn2_num_v_heads":6,"gdn2_head_dim":32}}`, func() Config {
			c := kla
			c.Name, c.Heads, c.VHeads, c.K, c.V = "", 2, 6, 32, 16
			return c
		}},
	}
	for _, tt := range tests {
		got, err := parseConfig([]byte(tt.json))
		if err != nil || got != tt.want() {
			t.Errorf("%s: got %+v, %v", tt.name, got, err)
		}
	}
}

func TestHostileConfigIsRefused(t *testing.T) {
	tests := []struct{ json, want string }{
		{``, "end of JSON"},
		{`[]`, "array"},
		{`{}`, "model_config is missing"},
		{`{"model_config":null}`, "model_config is missing"},
		{`{"model_config":{"n_layer":0}}`, "model_config.n_layer"},
		{`{"model_config":{"n_layer":1e18}}`, "model_config.n_layer"},
		{`{"model_config":{"n_layer":2.5}}`, "model_config.n_layer"},
		{`{"model_config":{"n_layer":"18"}}`, "model_config.n_layer"},
		{`{"model_config":{"n_embd":-1}}`, "model_config.n_embd"},
		{`{"model_config":{"vocab_size":9223372036854775807}}`, "model_config.vocab_size"},
		{`{"model_config":{"vocab_size":600,"padded_vocab_size":500}}`, "model_config.padded_vocab_size"},
		{`{"model_config":{"vocab_size":16777215,"padding_multiple":10000000}}`, "model_config.padded_vocab_size"},
		{`{"model_config":{"padding_multiple":0}}`, "model_config.padding_multiple"},
		{`{"model_config":{"gdn2_num_heads":4,"gdn2_num_v_heads":6}}`, "model_config.gdn2_num_v_heads"},
		{`{"model_config":{"gdn2_num_heads":4,"gdn2_num_v_heads":2}}`, "model_config.gdn2_num_v_heads"},
		{`{"model_config":{"gdn2_head_dim":32,"gdn2_expand_v":1.01}}`, "model_config.gdn2_expand_v"},
		{`{"model_config":{"gdn2_head_dim":4096,"gdn2_expand_v":4096}}`, "gdn2_expand_v"},
		{`{"model_config":{"gdn2_expand_v":0}}`, "model_config.gdn2_expand_v"},
		{`{"model_config":{"gdn2_conv_size":17}}`, "model_config.gdn2_conv_size"},
		{`{"model_config":{"norm_eps":0}}`, "model_config.norm_eps"},
		{`{"model_config":{"gdn2_kaczmarz_eps":-1e-6}}`, "model_config.gdn2_kaczmarz_eps"},
		{`{"model_config":{"bias":"yes"}}`, "model_config.bias"},
		{`{"model_config":{"bias":1}}`, "model_config.bias"},
		{`{"model_config":{"name":3}}`, "model_config.name"},
		{`{"model_config":{"name":"` + strings.Repeat("x", 300) + `"}}`, "model_config.name"},
		{`{"model_config":{"bias":"` + strings.Repeat("\\n", 9999) + `"}}`, "model_config.bias"},
		{strings.Repeat(`{"model_config":`, 20000), ""},
		{strings.Repeat(" ", maxMetadata+1), "larger than"},
	}
	for _, tt := range tests {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, MetadataName), []byte(tt.json), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := LoadConfig(dir)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), MetadataName) ||
			strings.Contains(err.Error(), "\n") || len(err.Error()) > 600 {
			t.Errorf("%.60s: %v", tt.json, err)
		}
	}
}

func TestConfigFileIsNotAPipe(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, MetadataName), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadConfig(dir); err == nil || !strings.Contains(err.Error(), "regular") {
		t.Errorf("got %v", err)
	}
	if _, err := LoadConfig(t.TempDir()); !os.IsNotExist(err) && !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"model_config":{"name":"gdn2_1.3B","n_layer":2,"gdn2_expand_v":2.0,"padding_multiple":64}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseConfig(b)
		if err == nil && (c.Validate() != nil || c.Params() < 1) {
			t.Errorf("accepted %+v", c)
		}
	})
}
