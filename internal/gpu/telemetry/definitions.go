package telemetry

import (
	"slices"

	"surprisal/internal/metrics"
)

// The metrics that other packages read.
const (
	Utilization = "surprisal_gpu_utilization_ratio"
	MemoryUsed  = "surprisal_gpu_memory_used_bytes"
	MemoryTotal = "surprisal_gpu_memory_total_bytes"
	Power       = "surprisal_gpu_power_watts"
	PowerLimit  = "surprisal_gpu_power_limit_watts"
	Temperature = "surprisal_gpu_temperature_celsius"

	energyTotal = "surprisal_gpu_energy_joules_total"
	up          = "surprisal_nvml_up"
	info        = "surprisal_gpu_info"
)

// device are the labels of every GPU metric, named as in dcgm-exporter so that the two
// can be joined.
var device = []string{"UUID", "gpu"}

// definitions are all metrics of a sample, each with its labels after device's.
var definitions = func() []metrics.Definition {
	var defs []metrics.Definition
	add := func(kind, name, help string, labels ...string) {
		defs = append(defs, metrics.Definition{Name: name, Kind: kind, Help: help,
			Labels: slices.Concat(device, labels)})
	}
	add("gauge", info, "1; the labels name the GPU. Of a MIG device, mig_of is its board's UUID", "name", "pci_bus_id",
		"mig_of")
	add("gauge", Utilization, "of the last sampling period of the driver, the part in which a kernel ran")
	add("gauge", "surprisal_gpu_memory_utilization_ratio",
		"likewise, the part in which device memory was read or written")
	add("gauge", MemoryUsed, "device memory that processes have taken")
	add("gauge", MemoryTotal, "device memory")
	add("gauge", "surprisal_gpu_memory_reserved_bytes", "device memory that driver and firmware keep")
	add("gauge", Power, "power draw of the board")
	add("gauge", PowerLimit, "power limit that is enforced")
	add("counter", energyTotal,
		"energy since the driver was loaded; of boards without a counter, power integrated since the process began")
	add("gauge", Temperature, "temperature of the core")
	add("gauge", "surprisal_gpu_memory_temperature_celsius", "temperature of the memory")
	add("gauge", "surprisal_gpu_sm_clock_hertz", "clock of the multiprocessors")
	add("gauge", "surprisal_gpu_memory_clock_hertz", "clock of the memory")
	add("counter", "surprisal_gpu_throttle_seconds_total",
		"seconds that clocks were held down, by reason, since the process began", "reason")
	add("gauge", "surprisal_gpu_ecc_errors", "memory errors since the driver was loaded: corrected, uncorrected",
		"type")
	add("gauge", "surprisal_gpu_remapped_rows",
		"memory rows remapped in the board's life, because of errors: corrected, uncorrected", "type")
	add("gauge", "surprisal_gpu_row_remap_pending", "1 while a row waits for a reset to be remapped")
	add("gauge", "surprisal_gpu_row_remap_failed", "1 when a row could not be remapped: replace the board")
	add("counter", "surprisal_gpu_xid_errors_total",
		"critical errors that the driver reported since the process began, by Xid", "xid")
	add("counter", "surprisal_gpu_pcie_sent_bytes_total", "bytes that the GPU sent over PCIe")
	add("counter", "surprisal_gpu_pcie_received_bytes_total", "bytes that the GPU received over PCIe")
	add("counter", "surprisal_gpu_nvlink_sent_bytes_total", "payload that the GPU sent over all its NVLinks")
	add("counter", "surprisal_gpu_nvlink_received_bytes_total", "payload that the GPU received over all its NVLinks")
	add("gauge", "surprisal_gpu_processes", "processes that compute on the GPU: this worker, others", "owner")
	add("gauge", "surprisal_gpu_process_memory_bytes", "device memory of these", "owner")
	return defs
}()

// allDefinitions lists the package's metrics.
func allDefinitions() []metrics.Definition {
	return append([]metrics.Definition{{Name: up, Kind: "gauge", Help: "1 while NVML answers for this worker's GPU"}},
		definitions...)
}
