package gpu

import "strings"

// peaks are the dense 16-bit tensor operations a second of NVIDIA's data sheets, by
// what a device's name has in it; the first that fits counts.
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

// PeakFlops is what a GPU of that name does at most: floating-point operations a
// second of dense 16-bit matrix products; ok is false where we have no data sheet.
// A MIG device has only a part of it, and no peak of its own.
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
