package gpu

import "testing"

func TestPeakFlops(t *testing.T) {
	for name, want := range map[string]float64{
		"NVIDIA H200":                       989.4e12,
		"NVIDIA H200 NVL":                   835e12,
		"NVIDIA H100 80GB HBM3":             989.4e12,
		"NVIDIA H100 PCIe":                  756e12,
		"NVIDIA A100-SXM4-80GB":             312e12,
		"NVIDIA A10":                        125e12,
		"NVIDIA A10G":                       70e12,
		"NVIDIA L4":                         121e12,
		"NVIDIA L40S":                       362e12,
		"NVIDIA H20":                        148e12,
		"NVIDIA GeForce RTX 3060":           0,
		"NVIDIA H100 80GB HBM3 MIG 1g.10gb": 0,
		"":                                  0,
	} {
		if got, ok := PeakFlops(name); got != want || ok != (want > 0) {
			t.Errorf("%q: %g, want %g", name, got, want)
		}
	}
}
