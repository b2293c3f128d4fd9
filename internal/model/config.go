package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
)

// Files of a checkpoint folder.
const (
	CheckpointName = "model-ckpt.pth"
	MetadataName   = "training_metadata.json"
)

// Config is the model's shape: the keys of model_config that matter.
type Config struct {
	Name            string // model_config.name, for people; may be empty
	VocabSize       int    // entries that take part in the softmax
	PaddedVocabSize int    // rows of the two embeddings, >= VocabSize
	Layers          int
	Width           int     // D
	Inner           int     // I, of the SwiGLU
	NormEps         float64 // of every RMSNorm
	Bias            bool    // the SwiGLU's linears have biases
	BlockSize       int     // training length, tokens
	Heads           int     // H
	VHeads          int     // HV, a multiple of H
	K               int     // key width of a head
	V               int     // value width of a head, K * gdn2_expand_v
	ShortConv       bool    // q, k, v pass a causal depthwise convolution
	ConvSize        int     // its taps
	ConvBias        bool
	NegEigval       bool // b is doubled
	QKL2Norm        bool // q and k are l2-normalised
	Kaczmarz        bool // KLA: b and w are scaled by the Kaczmarz step
	KaczmarzEps     float64
}

// Bounds of what is accepted, far above any model of this kind and low enough
// that no product of shapes overflows an int.
const (
	maxMetadata = 4 << 20 // bytes
	maxVocab    = 1 << 24
	maxLayers   = 1 << 10
	maxWidth    = 1 << 16
	maxInner    = 1 << 20
	maxHeads    = 1 << 10
	maxHeadDim  = 1 << 12
	maxConv     = 16
	maxBlock    = 1 << 24
	maxName     = 256 // bytes
)

// Named gives the shape that a model_config.name stands for; ok is false, and
// the general defaults are given, when the name is not one of gdn2_kla_1.3B and
// gdn2_1.3B.
func Named(name string) (c Config, ok bool) {
	c = Config{
		Name: name, VocabSize: 32000, PaddedVocabSize: 32000, Layers: 18, Width: 2304, Inner: 6208, NormEps: 1e-5,
		BlockSize: 4096,
		Heads:     16, VHeads: 16, K: 128, V: 128, ShortConv: true, ConvSize: 4, Kaczmarz: true, KaczmarzEps: 1e-6,
	}
	switch name {
	case "gdn2_kla_1.3B":
		return c, true
	case "gdn2_1.3B":
		c.QKL2Norm, c.Kaczmarz = true, false
		return c, true
	}
	return c, false
}

// LoadConfig reads dir/training_metadata.json. Keys left out or null get the
// defaults of model_config.name; unknown keys are ignored. The error names the
// file and the key.
func LoadConfig(dir string) (Config, error) {
	path := filepath.Join(dir, MetadataName)
	b, err := readBounded(path, maxMetadata)
	if err != nil {
		return Config{}, fmt.Errorf("read model config: %w", err)
	}
	c, err := parseConfig(b)
	if err != nil {
		return Config{}, fmt.Errorf("read model config %s: %w", path, err)
	}
	return c, nil
}

// readBounded reads a regular file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	// A pipe or a device would block or never end.
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return b, nil
}

func parseConfig(b []byte) (Config, error) {
	var file struct {
		ModelConfig map[string]json.RawMessage `json:"model_config"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		return Config{}, oneLine(err)
	}
	if file.ModelConfig == nil {
		return Config{}, errors.New("model_config is missing")
	}
	k := keys{m: file.ModelConfig}
	var name string
	k.string("name", &name)
	c, _ := Named(name)
	c.PaddedVocabSize, c.VHeads = 0, 0

	multiple, expand := 1, 1.0
	k.int("vocab_size", &c.VocabSize, 1, maxVocab)
	k.int("padded_vocab_size", &c.PaddedVocabSize, 1, maxVocab)
	k.int("padding_multiple", &multiple, 1, maxVocab)
	k.int("n_layer", &c.Layers, 1, maxLayers)
	k.int("n_embd", &c.Width, 1, maxWidth)
	k.int("intermediate_size", &c.Inner, 1, maxInner)
	k.float("norm_eps", &c.NormEps, 1)
	k.bool("bias", &c.Bias)
	k.int("block_size", &c.BlockSize, 1, maxBlock)
	k.int("gdn2_num_heads", &c.Heads, 1, maxHeads)
	k.int("gdn2_num_v_heads", &c.VHeads, 1, maxHeads)
	k.int("gdn2_head_dim", &c.K, 1, maxHeadDim)
	k.float("gdn2_expand_v", &expand, maxHeadDim)
	k.bool("gdn2_use_short_conv", &c.ShortConv)
	k.int("gdn2_conv_size", &c.ConvSize, 1, maxConv)
	k.bool("gdn2_conv_bias", &c.ConvBias)
	k.bool("gdn2_allow_neg_eigval", &c.NegEigval)
	k.bool("gdn2_use_qk_l2norm_in_kernel", &c.QKL2Norm)
	k.bool("gdn2_use_kaczmarz_step", &c.Kaczmarz)
	k.float("gdn2_kaczmarz_eps", &c.KaczmarzEps, 1)
	if k.err != nil {
		return Config{}, k.err
	}

	if c.PaddedVocabSize == 0 {
		c.PaddedVocabSize = (c.VocabSize + multiple - 1) / multiple * multiple
	}
	if c.VHeads == 0 {
		c.VHeads = c.Heads
	}
	v := float64(c.K) * expand
	if math.Abs(v-math.Round(v)) > 1e-6 || v < 0.5 {
		return Config{}, fmt.Errorf("model_config.gdn2_expand_v: %v times gdn2_head_dim %d is not a whole number",
			expand, c.K)
	}
	c.V = int(math.Round(v))
	if err := c.Validate(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// Validate reports the first thing that is wrong, by its key in model_config.
func (c Config) Validate() error {
	ints := []struct {
		key    string
		v      int
		lo, hi int
	}{
		{"vocab_size", c.VocabSize, 1, maxVocab}, {"padded_vocab_size", c.PaddedVocabSize, c.VocabSize, maxVocab},
		{"n_layer", c.Layers, 1, maxLayers}, {"n_embd", c.Width, 1, maxWidth}, {"intermediate_size", c.Inner, 1,
			maxInner},
		{"block_size", c.BlockSize, 1, maxBlock}, {"gdn2_num_heads", c.Heads, 1, maxHeads},
		{"gdn2_num_v_heads", c.VHeads, 1, maxHeads},
		{"gdn2_head_dim", c.K, 1, maxHeadDim}, {"gdn2_head_dim times gdn2_expand_v", c.V, 1, maxHeadDim},
		{"gdn2_conv_size", c.ConvSize, 1, maxConv},
	}
	for _, i := range ints {
		if i.v < i.lo || i.v > i.hi {
			return fmt.Errorf("model_config.%s: %d is not between %d and %d", i.key, i.v, i.lo, i.hi)
		}
	}
	if c.VHeads%c.Heads != 0 {
		return fmt.Errorf("model_config.gdn2_num_v_heads: %d is not a multiple of gdn2_num_heads %d", c.VHeads, c.Heads)
	}
	for key, v := range map[string]float64{"norm_eps": c.NormEps, "gdn2_kaczmarz_eps": c.KaczmarzEps} {
		if !(v > 0 && v <= 1) {
			return fmt.Errorf("model_config.%s: %v is not greater than 0 and at most 1", key, v)
		}
	}
	if len(c.Name) > maxName {
		return fmt.Errorf("model_config.name: longer than %d bytes", maxName)
	}
	return nil
}

// keys reads values out of model_config and holds the first error. An absent or
// null key leaves its destination alone.
type keys struct {
	m   map[string]json.RawMessage
	err error
}

func (k *keys) get(name string) (json.RawMessage, bool) {
	v, ok := k.m[name]
	return v, k.err == nil && ok && string(v) != "null"
}

func (k *keys) fail(name, want string, got json.RawMessage) {
	k.err = fmt.Errorf("model_config.%s: want %s, got %s", name, want, clip(string(got), 40))
}

func (k *keys) int(name string, dst *int, lo, hi int) {
	v, ok := k.get(name)
	if !ok {
		return
	}
	// Some writers give whole numbers as 4.0.
	f, err := strconv.ParseFloat(string(v), 64)
	if err != nil || f != math.Trunc(f) || f < float64(lo) || f > float64(hi) {
		k.fail(name, fmt.Sprintf("a whole number between %d and %d", lo, hi), v)
		return
	}
	*dst = int(f)
}

// float reads a number above 0 and at most hi.
func (k *keys) float(name string, dst *float64, hi float64) {
	v, ok := k.get(name)
	if !ok {
		return
	}
	f, err := strconv.ParseFloat(string(v), 64)
	if err != nil || !(f > 0 && f <= hi) {
		k.fail(name, fmt.Sprintf("a number greater than 0 and at most %v", hi), v)
		return
	}
	*dst = f
}

func (k *keys) bool(name string, dst *bool) {
	if v, ok := k.get(name); ok && json.Unmarshal(v, dst) != nil {
		k.fail(name, "true or false", v)
	}
}

func (k *keys) string(name string, dst *string) {
	if v, ok := k.get(name); ok && json.Unmarshal(v, dst) != nil {
		k.fail(name, "a string", v)
	}
}
