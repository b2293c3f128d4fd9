package ckptgen

import "surprisal/internal/model"

// metadata is what LoadConfig reads back as cfg.
func metadata(c model.Config, o Options) map[string]any {
	return map[string]any{
		"model_name": c.Name, "seed": o.Seed, "sequence_length": c.BlockSize, "trained_tokens": 0,
		"model_config": map[string]any{
			"name": c.Name, "vocab_size": c.VocabSize, "padded_vocab_size": c.PaddedVocabSize, "n_layer": c.Layers,
			"n_embd":            c.Width,
			"intermediate_size": c.Inner, "norm_eps": c.NormEps, "bias": c.Bias, "block_size": c.BlockSize,
			"gdn2_num_heads": c.Heads, "gdn2_num_v_heads": c.VHeads, "gdn2_head_dim": c.K,
			"gdn2_expand_v":       float64(c.V) / float64(c.K),
			"gdn2_use_short_conv": c.ShortConv, "gdn2_conv_size": c.ConvSize, "gdn2_conv_bias": c.ConvBias,
			"gdn2_allow_neg_eigval": c.NegEigval, "gdn2_use_qk_l2norm_in_kernel": c.QKL2Norm,
			"gdn2_use_kaczmarz_step": c.Kaczmarz, "gdn2_kaczmarz_eps": c.KaczmarzEps,
		},
	}
}
