package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// configName is the file beside a tokenizer.json that may name its beginning token.
const configName = "tokenizer_config.json"

// maxConfig bounds it; the largest in use have some 100 kB.
const maxConfig = 16 << 20

// wellKnown are beginning tokens by convention, for definitions that name none.
var wellKnown = []string{"<s>", "<|begin_of_text|>", "<bos>"}

// readConfigBeside gives nil when there is no such file.
func readConfigBeside(path string) ([]byte, error) {
	b, err := readBounded(filepath.Join(filepath.Dir(path), configName), maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// beginning finds the beginning token: the config's, else the one that the
// template puts before a text, else a well-known one.
func (d *definition) beginning(config []byte) (id int32, ok bool, err error) {
	if config != nil {
		name, err := configBOS(config)
		if err != nil {
			return 0, false, fmt.Errorf("%s: %w", configName, err)
		}
		if name != "" {
			if id, ok = d.ids[name]; !ok {
				return 0, false, fmt.Errorf("%s: bos_token %q is not in the vocabulary", configName, clip(name))
			}
			return id, true, nil
		}
	}
	names := append(templateBOS(d.template, 0), wellKnown...)
	for _, name := range names {
		if id, ok = d.ids[name]; ok {
			return id, true, nil
		}
	}
	return 0, false, nil
}

// configBOS reads bos_token: a string, an object with content, or nothing.
func configBOS(b []byte) (string, error) {
	var c struct {
		BOS json.RawMessage `json:"bos_token"`
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return "", err
	}
	if len(c.BOS) == 0 {
		return "", nil
	}
	if c.BOS[0] == '{' {
		var o struct {
			Content string `json:"content"`
		}
		err := json.Unmarshal(c.BOS, &o)
		return o.Content, err
	}
	var s string
	if err := json.Unmarshal(c.BOS, &s); err != nil {
		return "", fmt.Errorf("bos_token: %w", err)
	}
	return s, nil
}

// templateBOS gives the special token that a post-processor puts before a text,
// none if it puts none there or is of another shape.
func templateBOS(raw json.RawMessage, depth int) []string {
	var p struct {
		Type       string            `json:"type"`
		Processors []json.RawMessage `json:"processors"`
		Single     []struct {
			SpecialToken *struct {
				ID string `json:"id"`
			} `json:"SpecialToken"`
		} `json:"single"`
	}
	if len(raw) == 0 || json.Unmarshal(raw, &p) != nil {
		return nil
	}
	switch {
	case p.Type == "Sequence" && depth < maxSteps:
		for _, q := range p.Processors {
			if names := templateBOS(q, depth+1); names != nil {
				return names
			}
		}
	case p.Type == "TemplateProcessing" && len(p.Single) > 0 && p.Single[0].SpecialToken != nil:
		return []string{p.Single[0].SpecialToken.ID}
	}
	return nil
}
