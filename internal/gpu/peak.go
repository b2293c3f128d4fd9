package gpu

import "strings"

// peaks are the dense 16-bit tensor operations per second of NVIDIA's data sheets, by a
// part of the device's name. The first match counts.
var peaks = []struct {
	name  string
	flops float64
}{
	{"B200", 2250e12},
	{"GH200", 989.4e12},
	{"H200 NVL", 835e12},
	{"H200", 989.4e12},
	{"H100 PCIe", 756e12},
	{"H100 NVL", 835e12},
	{"H100", 989.4e12},
	{"H800", 989.4e12},
	{"H20", 148e12},
	{"A100", 312e12},
	{"A800", 312e12},
	{"A30", 165e12},
	{"A40", 149.7e12},
	{"A10G", 70e12},
	{"A10", 125e12},
	{"L40S", 362e12},
	{"L40", 181e12},
	{"L4", 121e12},
}

// PeakFlops returns the most floating-point operations per second that a GPU of this
// name does in dense 16-bit matrix products. ok is false where no data sheet is known,
// and for a MIG device, which is a part of a GPU.
func PeakFlops(name string) (flops float64, ok bool) {
	if strings.Contains(name, "MIG") {
		return 0, false
	}
	for _, p := range peaks {
		if strings.Contains(" "+name+" ", " "+p.name+" ") || strings.Contains(name, " "+p.name+"-") ||
			strings.HasPrefix(name, p.name+"-") {
			return p.flops, true
		}
	}
	return 0, false
}
